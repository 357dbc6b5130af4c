"""Cutting a recording into chunks where nobody speaks: one streaming decode, kept to a chunk in memory."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.audio import SAMPLES_PER_MS, VAD_FRAME, AudioReader, Samples, speech_probabilities, to_int16
from tasks.chunks import Span, choose_cut_ms, nominal_end_ms
from tasks.errors import ConfigurationError

# Shorter chunks leave no room to search for a silence.
MIN_CHUNK_MS = 1000
FRAME_MS = VAD_FRAME // SAMPLES_PER_MS
# Silero starts cold, and calls its first frames silent even in the middle of a word.
WARM_UP_MS = 16 * FRAME_MS


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where the next cut should fall, how far it may move, and how much audio must follow to decide."""

    nominal_ms: int
    search_ms: int
    follow_ms: int


class _Buffer:
    """The decoded audio that is in no chunk yet; it starts on a whole millisecond."""

    def __init__(self) -> None:
        self.start_ms = 0
        self.count = 0
        self._blocks: list[Samples] = []

    @property
    def end_ms(self) -> int:
        """The end of the last whole millisecond."""
        return self.start_ms + self.count // SAMPLES_PER_MS

    def append(self, samples: Samples) -> None:
        self._blocks.append(samples)
        self.count += len(samples)

    def between(self, start_ms: int, end_ms: int) -> Samples:
        """The samples of [start_ms, end_ms)."""
        first = (start_ms - self.start_ms) * SAMPLES_PER_MS
        last = (end_ms - self.start_ms) * SAMPLES_PER_MS
        return self._joined()[first:last]

    def take(self, end_ms: int) -> Samples:
        """Remove and return the samples up to `end_ms`."""
        joined = self._joined()
        count = min((end_ms - self.start_ms) * SAMPLES_PER_MS, self.count)
        self._blocks = [joined[count:]]
        self.count -= count
        self.start_ms = end_ms
        return joined[:count]

    def _joined(self) -> Samples:
        if len(self._blocks) != 1:
            self._blocks = [np.concatenate(self._blocks)] if self._blocks else [np.zeros(0, np.float32)]
        return self._blocks[0]


class Cutting:
    """Iterates over (span, samples) of the chunks in order; they tile [0, duration] exactly.

    The samples are 16 kHz mono; a chunk comes as soon as enough audio is decoded. `duration_ms` and
    `warnings` (see AudioReader) are complete when the iteration is. Raises as AudioReader does.
    """

    def __init__(self, path: Path, *, target_ms: int, first_ms: Sequence[int], search_ms: int) -> None:
        if min((target_ms, *first_ms)) < MIN_CHUNK_MS:
            raise ConfigurationError(f"every chunk length must be at least {MIN_CHUNK_MS} ms")
        self.duration_ms = 0
        self.warnings: list[str] = []
        self._path = path
        self._target_ms = target_ms
        self._first_ms = first_ms
        self._search_ms = search_ms

    def __iter__(self) -> Iterator[tuple[Span, Samples]]:
        reader = AudioReader(self._path)
        buffer = _Buffer()
        index = 0
        plan = self._plan(index, 0)
        for samples in reader:
            buffer.append(samples)
            while buffer.end_ms >= plan.nominal_ms + plan.follow_ms:
                yield _take(buffer, _cut_ms(buffer, plan))
                index += 1
                plan = self._plan(index, buffer.start_ms)
        while buffer.end_ms >= plan.nominal_ms + self._tail_ms:
            yield _take(buffer, _cut_ms(buffer, plan))
            index += 1
            plan = self._plan(index, buffer.start_ms)
        self.duration_ms = buffer.start_ms + math.ceil(buffer.count / SAMPLES_PER_MS)
        self.warnings = reader.warnings
        yield _take(buffer, self.duration_ms)

    @property
    def _tail_ms(self) -> int:
        """A rest shorter than this is no chunk of its own."""
        return self._target_ms // 4

    def _plan(self, index: int, start_ms: int) -> _Plan:
        nominal_ms = nominal_end_ms(index, start_ms, target_ms=self._target_ms, first_ms=self._first_ms)
        search_ms = min(self._search_ms, (nominal_ms - start_ms) // 3)
        return _Plan(nominal_ms, search_ms, max(self._tail_ms, 2 * search_ms))


def cut(path: Path, *, target_ms: int, first_ms: Sequence[int], search_ms: int) -> Cutting:
    """Cut a recording into chunks of about `target_ms`, the first ones of about `first_ms`.

    A cut moves up to `search_ms` (at most a third of its chunk) to fall into silence; a rest of less than a
    quarter of `target_ms` joins the last chunk. The same bytes and options give the same chunks.
    Raises ConfigurationError for chunks shorter than MIN_CHUNK_MS.
    """
    return Cutting(path, target_ms=target_ms, first_ms=first_ms, search_ms=search_ms)


def _take(buffer: _Buffer, end_ms: int) -> tuple[Span, Samples]:
    span = Span(buffer.start_ms, end_ms)
    return span, buffer.take(end_ms)


def _cut_ms(buffer: _Buffer, plan: _Plan) -> int:
    """The best cut around the plan's; it leaves at least half of what follows that to the next chunk."""
    ahead_ms = min(plan.search_ms, (buffer.end_ms - plan.nominal_ms) // 2)
    frames = (plan.search_ms + ahead_ms) // FRAME_MS
    if not frames:
        return plan.nominal_ms
    origin_ms = plan.nominal_ms - plan.search_ms
    warm_ms = min(WARM_UP_MS, origin_ms - buffer.start_ms) // FRAME_MS * FRAME_MS
    samples = buffer.between(origin_ms - warm_ms, origin_ms + frames * FRAME_MS)
    probabilities = speech_probabilities(samples)[warm_ms // FRAME_MS :]
    return choose_cut_ms(probabilities.tolist(), origin_ms=origin_ms, frame_ms=FRAME_MS)


def digest(samples: Samples) -> str:
    """16 hex digits that tell a chunk's audio: SHA-256 of its samples as little-endian s16."""
    return hashlib.sha256(to_int16(samples).astype("<i2").tobytes()).hexdigest()[:16]
