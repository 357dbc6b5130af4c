"""Cutting a recording into chunks where nobody speaks, from its packets as they come."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from tasks.audio import Samples, speech_probabilities
from tasks.chunks import Aim, aim, choose_cut_ms
from tasks.copied import Copied
from tasks.decoded import Cut, Decoded
from tasks.demuxing import Packet, Recording
from tasks.errors import ConfigurationError
from tasks.packets import NotCopyable, copyable
from tasks.speech import FRAME_MS

# Shorter chunks leave no room to search for a silence.
MIN_CHUNK_MS = 1000
# Silero starts cold, and calls its first frames silent even in the middle of a word.
WARM_UP_MS = 16 * FRAME_MS

T = TypeVar("T")


class _Held:
    """What is in no chunk yet: packets as long as they can be copied, from then on samples."""

    def __init__(self, recording: Recording) -> None:
        self._holder: Copied | Decoded = Copied(recording)
        self._ended = False
        if not copyable(recording):
            self._decode()

    @property
    def start_ms(self) -> int:
        return self._holder.start_ms

    @property
    def end_ms(self) -> int:
        return self._holder.end_ms

    @property
    def warnings(self) -> list[str]:
        return self._holder.warnings()

    def add(self, packet: Packet) -> None:
        self._attempt(lambda holder: holder.add(packet))

    def finish(self) -> None:
        self._attempt(lambda holder: holder.finish())
        self._ended = True

    def between(self, start_ms: int, end_ms: int) -> Samples:
        return self._attempt(lambda holder: holder.between(start_ms, end_ms))

    def take(self, end_ms: int) -> Cut:
        return self._attempt(lambda holder: holder.take(end_ms))

    def _attempt(self, act: Callable[[Copied | Decoded], T]) -> T:
        try:
            return act(self._holder)
        except NotCopyable:
            self._decode()
            return act(self._holder)

    def _decode(self) -> None:
        if isinstance(self._holder, Copied):
            self._holder = self._holder.decoded()
            if self._ended:
                self._holder.finish()


class Cutting:
    """Iterates over the chunks of a recording in order; their spans tile [0, duration] exactly.

    A chunk comes as soon as the bytes around its end are read, and memory is bounded by a chunk.
    `duration_ms` and `warnings` are complete when the iteration is. Raises as Recording does, NotMedia where
    nothing can be decoded, and what reading the source raises.
    """

    def __init__(
        self,
        source: Path | BinaryIO,
        *,
        target_ms: int,
        first_ms: Sequence[int],
        search_ms: int,
        audio_stream: int | None = None,
    ) -> None:
        if min((target_ms, *first_ms)) < MIN_CHUNK_MS:
            raise ConfigurationError(f"every chunk length must be at least {MIN_CHUNK_MS} ms")
        self.duration_ms = 0
        self.warnings: list[str] = []
        self._source = source
        self._audio_stream = audio_stream
        self._aim = partial(aim, target_ms=target_ms, first_ms=first_ms, search_ms=search_ms)

    def __iter__(self) -> Iterator[Cut]:
        with Recording(self._source, self._audio_stream) as recording:
            held = _Held(recording)
            index, promised_ms = 0, recording.promised_ms or None
            next_ = self._aim(index, 0, end_ms=promised_ms)
            for packet in recording:
                held.add(packet)
                while held.end_ms >= next_.due_ms:
                    if next_.last:
                        promised_ms = None
                    else:
                        yield held.take(_cut_ms(held, next_))
                        index += 1
                    next_ = self._aim(index, held.start_ms, end_ms=promised_ms)
            held.finish()
            self.duration_ms = held.end_ms
            while not (next_ := self._aim(index, held.start_ms, end_ms=held.end_ms, ended=True)).last:
                yield held.take(_cut_ms(held, next_))
                index += 1
            self.warnings = held.warnings
            yield held.take(self.duration_ms)


def cut(
    source: Path | BinaryIO,
    *,
    target_ms: int,
    first_ms: Sequence[int],
    search_ms: int,
    audio_stream: int | None = None,
) -> Cutting:
    """Cut a recording into chunks of about `target_ms`, the first ones of about `first_ms`.

    A cut moves up to `search_ms` (at most a third of its chunk) to fall into silence. The last chunks are
    balanced, as nominal_end_ms() says. The same bytes and options give the same chunks.
    `audio_stream` counts the audio streams from 0; None is the default one. The source may still be growing:
    its reads then wait. Raises ConfigurationError for chunks shorter than MIN_CHUNK_MS.
    """
    return Cutting(
        source,
        target_ms=target_ms,
        first_ms=first_ms,
        search_ms=search_ms,
        audio_stream=audio_stream,
    )


def _cut_ms(held: _Held, aimed: Aim) -> int:
    """The best cut in the range."""
    frames = (aimed.back_ms + aimed.ahead_ms) // FRAME_MS
    if not frames:
        return aimed.nominal_ms
    origin_ms = aimed.nominal_ms - aimed.back_ms
    warm_ms = min(WARM_UP_MS, origin_ms - held.start_ms) // FRAME_MS * FRAME_MS
    samples = held.between(origin_ms - warm_ms, origin_ms + frames * FRAME_MS)
    probabilities = speech_probabilities(samples)[warm_ms // FRAME_MS :]
    return choose_cut_ms(probabilities.tolist(), origin_ms=origin_ms, frame_ms=FRAME_MS)
