"""Decoding recordings to 16 kHz mono, and the probability of speech in them."""

import functools
import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from numpy.lib.stride_tricks import sliding_window_view

from tasks.chunks import Chunk, Span
from tasks.demuxing import Recording, tolerance_ms
from tasks.errors import NotMedia
from tasks.speech import FRAME_MS
from tasks.timeline import FrameClock
from tasks.transcript import damage_warning
from tasks.windows import SAMPLES_PER_MS

SAMPLE_RATE = 1000 * SAMPLES_PER_MS
# Of Silero VAD: samples of one frame, of those before it that come along, and the numbers it remembers.
VAD_FRAME, VAD_CONTEXT, VAD_STATES = FRAME_MS * SAMPLES_PER_MS, 64, 128
# Frames that are given to it at once.
VAD_BLOCK = 1_000

Samples = npt.NDArray[np.float32]

# A frame of sound that says it is of fewer samples a second, or of more seconds, is not decoded to what it
# says: at 16 kHz, a few bytes would be gigabytes.
MIN_RATE = 1_000
MAX_FRAME_S = 600
# What is missing for longer is silence in its place: stamps of whole files are coarse in some formats, those
# of a blob are rounded to a millisecond.
HOLE_US = 500_000
BLOB_HOLE_US = 40_000
# Of a blob, samples that are decoded beyond its span: the longest packet that is copied, and more.
SPARE = 6 * SAMPLE_RATE


def usable(frame: AudioFrame) -> bool:
    """Whether a frame is of a length that can be."""
    return frame.rate >= MIN_RATE and frame.samples <= MAX_FRAME_S * frame.rate


class Decoder:
    """Makes 16 kHz mono of packets as they come, with silence where some are missing.

    `damaged` counts what could not be decoded.
    """

    def __init__(self, stream: AudioStream, clock: FrameClock) -> None:
        self.damaged = 0
        self.clock = clock
        self._stream = stream
        self._tick_us = (stream.time_base or 0) * 1_000_000
        self._kind: tuple[str, str, int] | None = None
        self._resampler: av.AudioResampler | None = None

    def feed(self, packet: "av.Packet[av.stream.Stream] | None") -> Iterator[Samples]:
        """Blocks of a second or less; None: the packets have ended, and this is the rest."""
        try:
            frames = self._stream.codec_context.decode(packet)
        except av.FFmpegError:
            self.damaged += packet is not None
            frames = []
        for frame in frames:
            if usable(frame):
                yield from self._follow(frame)
            else:
                self.damaged += 1
        if packet is None:
            yield from self._flush()

    def _follow(self, frame: AudioFrame) -> Iterator[Samples]:
        stamp_us = None if frame.pts is None else int(frame.pts * self._tick_us)
        hole_us = self.clock.place(stamp_us, frame.samples, frame.rate)
        # A stream may change its rate or layout, as joined mp3 files do.
        kind = frame.format.name, frame.layout.name, frame.rate
        if hole_us or kind != self._kind:
            yield from self._flush()
            yield from silence(hole_us)
            self._kind = kind
            self._resampler = av.AudioResampler(
                format="s16", layout="mono", rate=SAMPLE_RATE, frame_size=SAMPLE_RATE
            )
        yield from self._resample(frame)

    def _flush(self) -> Iterator[Samples]:
        yield from self._resample(None)
        self._resampler = None

    def _resample(self, frame: AudioFrame | None) -> Iterator[Samples]:
        if not self._resampler:
            return
        try:
            for made in self._resampler.resample(frame):
                yield made.to_ndarray()[0].astype(np.float32) / 32768
        except av.FFmpegError:
            # Rates, layouts and formats that make no sense: of damage, or written by hand.
            self.damaged += 1


def silence(length_us: int) -> Iterator[Samples]:
    """So much of nothing, in blocks of a second or less."""
    count = length_us * SAMPLE_RATE // 1_000_000
    for start in range(0, count, SAMPLE_RATE):
        yield np.zeros(min(SAMPLE_RATE, count - start), np.float32)


def gap_warnings(recording: Recording, length_ms: int, silent_us: int) -> list[str]:
    """What a client is told of sound that is missing inside a recording of this length."""
    silent_ms, least_ms = silent_us // 1000, tolerance_ms(recording.length_ms)
    missing_ms = recording.length_ms - length_ms
    warnings = []
    if silent_ms > least_ms:
        warnings.append(f"gaps: {silent_ms} ms of sound are missing, and are silent here")
    if missing_ms > least_ms:
        warnings.append(f"gaps: {missing_ms} ms of sound are missing, and times after them are early")
    return warnings


class AudioReader:
    """The default audio stream of a recording, decoded as it is iterated: blocks of 16 kHz mono in [-1, 1).

    `warnings` is complete when the iteration is. Time is the number of samples: a stream that starts late is
    moved to the beginning, holes are silent. Iterating raises as Recording does, and NotMedia where nothing
    can be decoded.
    """

    def __init__(self, source: Path | BinaryIO) -> None:
        self.warnings: list[str] = []
        self._source = source

    def __iter__(self) -> Iterator[Samples]:
        with Recording(self._source) as recording:
            decoder = Decoder(recording.stream, FrameClock(HOLE_US))
            count = 0
            for packet in recording:
                for samples in decoder.feed(packet):
                    count += len(samples)
                    yield samples
            for samples in decoder.feed(None):
                count += len(samples)
                yield samples
            if not count:
                raise NotMedia(NOTHING_DECODED)
            self.warnings = [damage_warning(decoder.damaged)] if decoder.damaged else []
            self.warnings += recording.warnings
            self.warnings += gap_warnings(recording, count // SAMPLES_PER_MS, decoder.clock.silent_us)


NOTHING_DECODED = "no sound could be decoded from the file: is it complete, and not encrypted?"


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


@dataclass(frozen=True, slots=True)
class Sound:
    """A stretch of a recording, 16 kHz mono in [-1, 1); `damaged` packets of it could not be decoded.

    `heard_us` is the length of what was decoded, before and after the stretch too.
    """

    samples: Samples
    damaged: int = 0
    heard_us: int = 0


def load(data: bytes, chunk: Chunk) -> Sound:
    """Decode a chunk's blob to exactly the chunk's span; raises NotMedia for what is no blob."""
    if chunk.origin_ms is None:
        return Sound(np.concatenate(list(AudioReader(io.BytesIO(data)))))
    return trimmed(data, chunk.origin_ms, Span(chunk.start_ms, chunk.end_ms))


def trimmed(data: bytes, origin_ms: int, span: Span) -> Sound:
    """Decode packets whose stamp 0 is at `origin_ms`, and keep the span; what is missing of it is silent."""
    clock = FrameClock(BLOB_HOLE_US, shift_us=origin_ms * 1000)
    samples = np.zeros((span.end_ms - span.start_ms) * SAMPLES_PER_MS, np.float32)
    # Where in the span the next block belongs; what was decoded begins before it as a rule.
    place: int | None = None
    damaged = 0
    with Recording(io.BytesIO(data)) as recording:
        decoder = Decoder(recording.stream, clock)
        for packet in chain(recording, (None,)):
            before = decoder.damaged
            for block in decoder.feed(packet):
                if place is None:
                    place = round(((clock.start_us or 0) - span.start_ms * 1000) * SAMPLES_PER_MS / 1000)
                kept = block[max(0, -place) : max(0, len(samples) - place)]
                start = max(0, place)
                samples[start : start + len(kept)] = kept
                place += len(block)
            # Those before may lack what they refer to; they are another chunk's, as those after.
            if packet and span.start_ms <= (packet.pts or 0) + origin_ms < span.end_ms:
                damaged += decoder.damaged - before
            # Packets may decode to far more than their stamps say.
            if place is not None and place > len(samples) + SPARE:
                break
    return Sound(samples, damaged, clock.heard_us)


@functools.cache
def _vad_model() -> Any:
    # Imported late: the package brings ctranslate2, which a worker's parent process must not load.
    from faster_whisper.vad import get_vad_model  # noqa: PLC0415

    return get_vad_model()


def speech_probabilities(samples: Samples) -> Samples:
    """Silero's probability of speech in each frame of 512 samples (32 ms); the last is padded with zeros.

    The same as faster-whisper's, which gives the model five minutes at a time and takes 130 MB more for it.
    """
    if not len(samples):
        return np.zeros(0, np.float32)
    state = cell = np.zeros((1, 1, VAD_STATES), np.float32)
    before = np.zeros(VAD_CONTEXT, np.float32)
    found = []
    for first in range(0, len(samples), VAD_BLOCK * VAD_FRAME):
        block = samples[first : first + VAD_BLOCK * VAD_FRAME]
        padded = np.concatenate([before, block, np.zeros(-len(block) % VAD_FRAME, np.float32)])
        before = padded[-VAD_CONTEXT:]
        # Each frame comes with the end of the one before.
        frames = sliding_window_view(padded, VAD_CONTEXT + VAD_FRAME)[::VAD_FRAME]
        given = {"input": np.ascontiguousarray(frames), "h": state, "c": cell}
        probabilities, state, cell = _vad_model().session.run(None, given)
        found.append(np.reshape(probabilities, -1))
    return np.concatenate(found)
