"""The sound of a recording that is in no chunk yet, as samples, decoded as they come."""

import hashlib
from dataclasses import dataclass
from io import BytesIO

import numpy as np

from tasks.audio import (
    NOTHING_DECODED,
    Decoder,
    Samples,
    gap_warnings,
    to_int16,
    write_flac,
)
from tasks.chunks import Span
from tasks.demuxing import Packet, Recording
from tasks.errors import NotMedia
from tasks.timeline import FrameClock
from tasks.transcript import damage_warning
from tasks.windows import SAMPLES_PER_MS


@dataclass(frozen=True, slots=True)
class Cut:
    """A chunk's span and its blob; see Chunk for `digest` and `origin_ms`. `suffix` is of its name."""

    span: Span
    data: bytes
    digest: str
    suffix: str
    origin_ms: int | None = None


def decoded_cut(span: Span, samples: Samples) -> Cut:
    """A chunk as 16 kHz FLAC; its digest is of the samples as little-endian s16."""
    blob = BytesIO()
    write_flac(blob, samples)
    told = hashlib.sha256(to_int16(samples).astype("<i2").tobytes()).hexdigest()[:16]
    return Cut(span, blob.getvalue(), told, "flac")


class Decoded:
    """Samples from `start_ms` on, decoded as their packets come."""

    def __init__(self, recording: Recording, clock: FrameClock, start_ms: int = 0) -> None:
        self.start_ms = start_ms
        self._recording = recording
        self._decoder = Decoder(recording.stream, clock)
        self._blocks: list[Samples] = []
        self._count = 0
        # Samples still to leave out, of what was decoded before the start.
        self._ahead: int | None = None

    @property
    def end_ms(self) -> int:
        """The end of the last whole millisecond."""
        return self.start_ms + self._count // SAMPLES_PER_MS

    def add(self, packet: Packet) -> None:
        for samples in self._decoder.feed(packet):
            self._append(samples)

    def finish(self) -> None:
        """No packet follows; a part of a millisecond at the end is filled. Raises NotMedia for no sound."""
        for samples in self._decoder.feed(None):
            self._append(samples)
        if not self.end_ms and not self._count:
            raise NotMedia(NOTHING_DECODED)
        self._append(np.zeros(-self._count % SAMPLES_PER_MS, np.float32))

    def between(self, start_ms: int, end_ms: int) -> Samples:
        """The samples of [start_ms, end_ms)."""
        first = (start_ms - self.start_ms) * SAMPLES_PER_MS
        last = (end_ms - self.start_ms) * SAMPLES_PER_MS
        return self._joined()[first:last]

    def take(self, end_ms: int) -> Cut:
        """Remove and return what is before `end_ms`."""
        span, joined = Span(self.start_ms, end_ms), self._joined()
        count = (end_ms - self.start_ms) * SAMPLES_PER_MS
        self._blocks = [joined[count:]]
        self._count -= count
        self.start_ms = end_ms
        return decoded_cut(span, joined[:count])

    def warnings(self) -> list[str]:
        damaged = self._decoder.damaged
        gaps = gap_warnings(self._recording, self.end_ms, self._decoder.clock.silent_us)
        return [*([damage_warning(damaged)] if damaged else []), *self._recording.warnings, *gaps]

    def _append(self, samples: Samples) -> None:
        if self._ahead is None:
            lead_us = self.start_ms * 1000 - (self._decoder.clock.start_us or 0)
            self._ahead = round(lead_us * SAMPLES_PER_MS / 1000)
            if self._ahead < 0:
                self._blocks, self._count, self._ahead = [np.zeros(-self._ahead, np.float32)], -self._ahead, 0
        kept = samples[self._ahead :]
        self._ahead -= len(samples) - len(kept)
        self._blocks.append(kept)
        self._count += len(kept)

    def _joined(self) -> Samples:
        if len(self._blocks) != 1:
            self._blocks = [np.concatenate(self._blocks)] if self._blocks else [np.zeros(0, np.float32)]
        return self._blocks[0]
