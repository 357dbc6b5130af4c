"""Opening a recording, and the packets of its sound in order, from bytes that may still be arriving."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self, TypeAlias

import av
from av.audio.stream import AudioStream
from av.container.input import InputContainer

from tasks.errors import NoAudioStream, NotMedia, SourceEmpty
from tasks.feed import Feed

# FFmpeg's demuxers of ordinary recordings. Playlists (hls, dash, concat, sdp, imf) would make it open further
# addresses and files, so they are not here; neither are raw formats, which accept any bytes.
DEMUXERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,dv,eac3,flac,flv,gxf,iff,loas,matroska,mov,mp3,mpc,mpc8,"
    "mpeg,mpegts,mxf,nut,ogg,qcp,rm,tak,truehd,tta,voc,w64,wav,wtv,wv,xwma"
)
# enable_drefs and use_absolute_path are FFmpeg's defaults for QuickTime files whose sound is in another file;
# an upgrade must not change them. With ignidx an MP4 whose index comes first is not searched to its end.
OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": DEMUXERS,
    "enable_drefs": "0",
    "use_absolute_path": "0",
    "fflags": "+ignidx",
}
# Writers to a pipe cannot go back and put the size into a RIFF header; they leave it this large.
RIFF_SIZE_UNKNOWN = 0x7FFF_F000
# FFmpeg's reads, bytes: every one of them is a call into Python.
READ_BYTES = 256 * 1024


if TYPE_CHECKING:
    Packet: TypeAlias = av.Packet[av.stream.Stream]
else:
    Packet = av.Packet


class Recording:
    """One audio stream of a recording; iterating gives its packets, in the order of the file.

    `audio_stream` counts the audio streams from 0; None is the default one. It reads from front to back where
    the format allows it. `stream` is there once it is entered, which raises SourceEmpty for no bytes,
    NoAudioStream for pictures alone and for a stream that is not there, NotMedia for what cannot be opened.
    `warnings` and `length_ms`, of the stream by its stamps, are complete when the iteration is. What the
    source raises in a read comes out as it is.
    """

    stream: AudioStream

    def __init__(self, source: Path | BinaryIO, audio_stream: int | None = None) -> None:
        self.warnings: list[str] = []
        self.length_ms = 0
        self._source = source
        self._audio_stream = audio_stream
        self._opened = ExitStack()
        # Of each stream, in its own ticks: the first stamp, and the last moment of its packets.
        self._extents: dict[int, list[int]] = {}

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            source = self._source
            file = opened.enter_context(source.open("rb")) if isinstance(source, Path) else source
            self._feed = Feed(file)
            if not self._feed.head:
                raise SourceEmpty("the file holds no bytes: check that its URL is the recording itself")
            try:
                container = _open(self._feed)
            except NotMedia:
                if self._feed.sized:
                    raise
                # With its size known, an index that is cut short can still be read.
                self._feed = Feed(file, sized=True)
                container = _open(self._feed)
            self._container = opened.enter_context(container)
            self.stream = _audio_stream(self._container, self._audio_stream)
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._opened.close()

    @property
    def format(self) -> str:
        """FFmpeg's name of the container."""
        return self._container.format.name

    @property
    def promised_ms(self) -> int:
        """How long the file's head says that it is; 0 where it does not say. It may be wrong."""
        if duration := self._container.duration:
            return duration * 1000 // av.time_base
        riff_bytes, bit_rate = self._feed.riff_bytes, self.stream.bit_rate
        return riff_bytes * 8000 // bit_rate if bit_rate and riff_bytes < RIFF_SIZE_UNKNOWN else 0

    def __iter__(self) -> Iterator[Packet]:
        sound, extents = self.stream.index, self._extents
        try:
            # All streams, though one is wanted: pictures may rightly go on longer than the sound.
            for packet in self._container.demux():
                stamp, number = packet.pts, packet.stream_index
                if stamp is not None:
                    end = stamp + (packet.duration or 0)
                    extent = extents.setdefault(number, [stamp, end])
                    extent[1] = max(extent[1], end)
                # PyAV's last ones are empty.
                if number == sound and packet.size:
                    yield packet
        except av.FFmpegError as error:
            self._feed.check()
            self.warnings.append(f"truncated: the file could not be read to its end ({error.strerror})")
        except IndexError:
            # Of PyAV, at the file's end: it flushes the streams that it knew at first, ours with them, and
            # may go on with those that appeared midway, which it does not know.
            pass
        self._feed.check()
        self._conclude()

    def _conclude(self) -> None:
        """Compare what was there with what the file says of itself."""
        ticks_ms = {each.index: (each.time_base or 0) * 1000 for each in self._container.streams}
        spans = {
            number: (int(start * ticks_ms[number]), int(end * ticks_ms[number]))
            for number, (start, end) in self._extents.items()
            if number in ticks_ms
        }
        start_ms, end_ms = spans.get(self.stream.index, (0, 0))
        self.length_ms = end_ms - start_ms
        first_ms = next(iter(spans.values()), (0, 0))[0]
        held_ms = max((end_ms for _, end_ms in spans.values()), default=0) - first_ms
        promised_ms = _promised_ms(self._container, self.stream, self._feed, held_ms)
        if promised_ms - held_ms > tolerance_ms(promised_ms):
            self.warnings.append(f"truncated: the file promises {promised_ms} ms and holds {held_ms} ms")
        elif self._feed.misses_end:
            self.warnings.append("truncated: the file has no end mark; what follows is not there")


def _open(feed: Feed) -> InputContainer:
    """Open the bytes, and nothing that they refer to."""
    try:
        return av.open(
            feed,
            "r",
            container_options=OPTIONS,
            # Tags in a legacy character set must not fail a recording.
            metadata_errors="replace",
            buffer_size=READ_BYTES,
        )
    except av.FFmpegError as error:
        feed.check()
        raise NotMedia(
            f"the file is not a kind of audio or video that is accepted ({error.strerror}): "
            "check that its URL is the recording itself, not a page, a playlist or an error message"
        ) from error


def _audio_stream(container: InputContainer, number: int | None) -> AudioStream:
    """The stream, ready to be decoded."""
    streams = container.streams
    if number is not None and number >= len(streams.audio):
        raise NoAudioStream(f"there is no audio stream {number}: the file has {len(streams.audio)}, from 0")
    # The first one where none is best: a stream that starts late has no known parameters yet.
    best = streams.best("audio") or next(iter(streams.audio), None)
    stream = best if number is None else streams.audio[number]
    if not isinstance(stream, AudioStream):
        if streams.video:
            raise NoAudioStream("the file holds pictures but no sound")
        raise NotMedia(f"the file was taken for {container.format.long_name}, but holds no sound")
    if stream.codec_context is None:
        raise NotMedia("the file's sound is in a format that is not known here")
    try:
        stream.codec_context.open(strict=False)
    except av.FFmpegError as error:
        raise NotMedia(f"the file's sound cannot be decoded ({error.strerror})") from error
    return stream


def _promised_ms(container: InputContainer, stream: AudioStream, feed: Feed, held_ms: int) -> int:
    """How long the container says it is; 0 where it does not say."""
    promised_ms = (container.duration or 0) * 1000 // av.time_base
    size = feed.count if feed.sequential else container.size
    from_size_ms = size * 8000 // stream.bit_rate if stream.bit_rate and size > 0 else 0
    guessed = promised_ms and abs(promised_ms - from_size_ms) * 100 <= promised_ms
    if promised_ms and not guessed:
        return promised_ms
    # There is no promise but FFmpeg's guess from the bytes it has: a truncated file looks whole, and one of
    # variable bit rate looks truncated. RIFF names its size.
    riff_bytes = feed.riff_bytes
    return held_ms * riff_bytes // size if size > 0 and riff_bytes < RIFF_SIZE_UNKNOWN else 0


def tolerance_ms(length_ms: int) -> int:
    """How much may be missing without a warning: headers round, and encoders add their delay."""
    return max(1500, length_ms // 100)
