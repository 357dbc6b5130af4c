"""Decoding recordings to 16 kHz mono, and the probability of speech in them."""

import functools
import io
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, groupby
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container.input import InputContainer

from tasks.errors import NoAudioStream, NotMedia, SourceEmpty

SAMPLE_RATE = 16_000
SAMPLES_PER_MS = SAMPLE_RATE // 1000
# Samples of one frame of Silero VAD.
VAD_FRAME = 512

Samples = npt.NDArray[np.float32]

# FFmpeg's demuxers of ordinary recordings. Playlists (hls, dash, concat, sdp, imf) would make it open further
# addresses and files, so they are not here; neither are raw formats, which accept any bytes.
DEMUXERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,dv,eac3,flac,flv,gxf,iff,loas,matroska,mov,mp3,mpc,mpc8,"
    "mpeg,mpegts,mxf,nut,ogg,qcp,rm,tak,truehd,tta,voc,w64,wav,wtv,wv,xwma"
)
# The last two are FFmpeg's defaults for QuickTime files whose sound is in another file; an upgrade must not
# change them.
OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": DEMUXERS,
    "enable_drefs": "0",
    "use_absolute_path": "0",
}
# Writers to a pipe cannot go back and put the size into a RIFF header; they leave it this large.
RIFF_SIZE_UNKNOWN = 0x7FFF_F000
# A frame of sound that says it is of fewer samples a second, or of more seconds, is not decoded to what it
# says: at 16 kHz, a few bytes would be gigabytes.
MIN_RATE = 1_000
MAX_FRAME_S = 600
# The longest page of an Ogg file, bytes, and the flag of the last one.
OGG_PAGE = 65_307
OGG_END = 0x04


class _Extent:
    """From the first to the last moment of the packets seen."""

    def __init__(self) -> None:
        self._start_ms: int | None = None
        self._end_ms = 0

    @property
    def length_ms(self) -> int:
        return self._end_ms - (self._start_ms or 0)

    def add(self, packet: "av.Packet[av.stream.Stream]", tick_ms: float) -> None:
        if packet.pts is None:
            return
        start_ms = int(packet.pts * tick_ms)
        if self._start_ms is None:
            self._start_ms = self._end_ms = start_ms
        self._end_ms = max(self._end_ms, int((packet.pts + (packet.duration or 0)) * tick_ms))


class AudioReader:
    """The default audio stream of a recording, decoded as it is iterated: blocks of 16 kHz mono in [-1, 1).

    `warnings` is complete when the iteration is. Time is the number of samples decoded: a stream that starts
    late, has holes or lost packets comes out that much shorter. Iterating raises SourceEmpty for no bytes,
    NoAudioStream for pictures alone, NotMedia for everything that cannot be opened or decoded.
    """

    def __init__(self, source: Path | BinaryIO) -> None:
        self.warnings: list[str] = []
        self._source = source
        self._damaged = 0
        # Of all streams, and of the one that is decoded.
        self._file = _Extent()
        self._sound = _Extent()

    def __iter__(self) -> Iterator[Samples]:
        self.warnings.clear()
        self._damaged = 0
        self._file, self._sound = _Extent(), _Extent()
        head = _head(self._source)
        count = 0
        with _open(self._source) as container:
            stream = _audio_stream(container)
            promised_ms = _promised_ms(container, stream, head)
            for frame in self._resample(self._frames(container, stream)):
                count += frame.samples
                yield frame.to_ndarray()[0].astype(np.float32) / 32768
        if not count:
            raise NotMedia("no sound could be decoded from the file: is it complete, and not encrypted?")
        if self._damaged:
            self.warnings.append(f"damaged: {self._damaged} packets could not be decoded and are left out")
        held_ms = self._file.length_ms
        if promised_ms - held_ms > _tolerance_ms(promised_ms):
            self.warnings.append(f"truncated: the file promises {promised_ms} ms and holds {held_ms} ms")
        elif head.startswith(b"OggS") and isinstance(self._source, Path) and not _has_end(self._source):
            self.warnings.append("truncated: the file has no end mark; what follows is not there")
        missing_ms = self._sound.length_ms - count // SAMPLES_PER_MS
        if missing_ms > _tolerance_ms(self._sound.length_ms):
            self.warnings.append(
                f"gaps: {missing_ms} ms of sound are missing, and times after them are early"
            )

    def _frames(self, container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
        ticks_ms = {each.index: float((each.time_base or 0) * 1000) for each in container.streams}
        try:
            # All streams, though one is decoded: pictures may rightly go on longer than the sound.
            for packet in container.demux():
                tick_ms = ticks_ms[packet.stream_index]
                self._file.add(packet, tick_ms)
                if packet.stream is not stream:
                    continue
                self._sound.add(packet, tick_ms)
                try:
                    yield from stream.decode(packet)
                except av.FFmpegError:
                    self._damaged += 1
        except av.FFmpegError as error:
            self.warnings.append(f"truncated: the file could not be read to its end ({error.strerror})")
            with suppress(av.FFmpegError):
                yield from stream.decode(None)
        except IndexError:
            # Of PyAV, at the file's end: it flushes the streams that it knew at first, ours with them, and
            # may go on with those that appeared midway, which it does not know.
            return

    def _resample(self, frames: Iterator[AudioFrame]) -> Iterator[AudioFrame]:
        """Seconds of 16 kHz mono s16. A stream may change its rate or layout, as joined mp3 files do."""
        usable = filter(self._usable, frames)
        for _, run in groupby(usable, key=lambda frame: (frame.format.name, frame.layout.name, frame.rate)):
            resampler = av.AudioResampler(
                format="s16", layout="mono", rate=SAMPLE_RATE, frame_size=SAMPLE_RATE
            )
            for frame in chain(run, (None,)):
                try:
                    yield from resampler.resample(frame)
                except av.FFmpegError:
                    # Rates, layouts and formats that make no sense: of damage, or written by hand.
                    self._damaged += 1

    def _usable(self, frame: AudioFrame) -> bool:
        usable = frame.rate >= MIN_RATE and frame.samples <= MAX_FRAME_S * frame.rate
        self._damaged += not usable
        return usable


def _head(source: Path | BinaryIO) -> bytes:
    """The first bytes of the file: RIFF's name and size, where it is one."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            head = file.read(8)
    else:
        head = source.read(8)
        source.seek(0)
    if not head:
        raise SourceEmpty("the file holds no bytes: check that its URL is the recording itself")
    return head


def _has_end(path: Path) -> bool:
    """Whether the last page of an Ogg file is marked as its stream's end (RFC 3533, section 6)."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - OGG_PAGE))
        tail = file.read()
    flags = tail.rfind(b"OggS") + 5
    return flags < len(tail) and bool(tail[flags] & OGG_END)


def _open(source: Path | BinaryIO) -> InputContainer:
    """Open local bytes, and nothing that they refer to."""
    try:
        return av.open(
            # An absolute path cannot be taken for an address such as "concat:a|b".
            source.resolve() if isinstance(source, Path) else source,
            "r",
            container_options=OPTIONS,
            # Tags in a legacy character set must not fail a recording.
            metadata_errors="replace",
        )
    except av.FFmpegError as error:
        raise NotMedia(
            f"the file is not a kind of audio or video that is accepted ({error.strerror}): "
            "check that its URL is the recording itself, not a page, a playlist or an error message"
        ) from error


def _audio_stream(container: InputContainer) -> AudioStream:
    # The first one where none is best: a stream that starts late has no known parameters yet.
    streams = container.streams
    stream = streams.best("audio") or next(iter(streams.audio), None)
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


def _promised_ms(container: InputContainer, stream: AudioStream, head: bytes) -> int:
    """How long the container says it is; 0 where it does not say."""
    promised_ms = (container.duration or 0) * 1000 // av.time_base
    from_size_ms = container.size * 8000 // stream.bit_rate if stream.bit_rate else 0
    if abs(promised_ms - from_size_ms) * 100 > promised_ms:
        return promised_ms
    # This is no promise but FFmpeg's guess from the bytes it has: a truncated file looks whole, and one of
    # variable bit rate looks truncated. RIFF names its size.
    riff_bytes = int.from_bytes(head[4:], "little") + 8 if head[:4] == b"RIFF" else 0
    return from_size_ms * riff_bytes // container.size if riff_bytes < RIFF_SIZE_UNKNOWN else 0


def _tolerance_ms(length_ms: int) -> int:
    """How much may be missing without a warning: headers round, and encoders add their delay."""
    return max(1500, length_ms // 100)


def to_int16(samples: Samples) -> npt.NDArray[np.int16]:
    """Samples in [-1, 1) as s16, exactly those that an AudioReader's came from."""
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)


def write_flac(target: Path | BinaryIO, samples: Samples) -> None:
    """Write 16 kHz mono s16 FLAC: equal samples give equal bytes."""
    with av.open(
        target.resolve() if isinstance(target, Path) else target,
        "w",
        format="flac",
        container_options={"fflags": "+bitexact"},
    ) as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE)
        stream.format, stream.layout = "s16", "mono"
        pcm = to_int16(samples)
        for start in range(0, len(pcm), SAMPLE_RATE):
            frame = AudioFrame.from_ndarray(pcm[None, start : start + SAMPLE_RATE], "s16", "mono")
            frame.rate, frame.pts = SAMPLE_RATE, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def load(data: bytes) -> Samples:
    """Decode a whole blob of any accepted format; raises as AudioReader does."""
    return np.concatenate(list(AudioReader(io.BytesIO(data))))


@functools.cache
def _vad_model() -> Any:
    # Imported late: the package brings ctranslate2, which a worker's parent process must not load.
    from faster_whisper.vad import get_vad_model  # noqa: PLC0415

    return get_vad_model()


def speech_probabilities(samples: Samples) -> Samples:
    """Silero's probability of speech in each frame of 512 samples (32 ms); the last is padded with zeros."""
    if not len(samples):
        return np.zeros(0, np.float32)
    # Padding by nothing copies too, which is needed: the model writes into its input.
    padded = np.pad(samples, (0, -len(samples) % VAD_FRAME))
    probabilities: Samples = np.asarray(_vad_model()(padded), np.float32).reshape(-1)
    return probabilities
