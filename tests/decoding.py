"""A decoder of a chunk over a model that says what the test tells it to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tasks.chunks import WINDOW_MS as CONTEXT_MS
from tasks.chunks import Span
from tasks.decode import ChunkDecoder
from tasks.job import Options
from tasks.ladder import Decoding
from tasks.speech import FRAME_MS, Speech
from tasks.transcript import Segment, Word
from tasks.windows import Audio, Window

WINDOW_MS = 8_000
SENTENCE = " It was a day like any other, and nobody thought of it again until the next one came."
NEXT = " Then it came, as all such days do: with rain at dawn and visitors all the afternoon."
GOOD = Decoding((1,), SENTENCE, -0.2, 1.2, 0.01, ran_out=False)
WORDS = Options()
BARE = Options(word_timestamps=False)


@dataclass
class Scripted:
    """A model that hears a window's number in its first sample, and answers by `say(number, options)`."""

    say: Callable[[int, Options], Decoding]
    generated: list[Options] = field(default_factory=list)
    contexts_ms: list[int] = field(default_factory=list)
    aligned: int = 0
    # Of each window's words, those that its alignment leaves in place.
    share: float = 1.0

    def decode(
        self, windows: Sequence[Audio], options: Options, context_ms: int
    ) -> tuple[list[int], list[Decoding]]:
        self.contexts_ms.append(context_ms)
        heard = [int(window[0]) for window in windows]
        return heard, [self.say(number, options) for number in heard]

    def only(self, heard: list[int], index: int) -> list[int]:
        return [heard[index]]

    def generate(self, heard: list[int], options: Options) -> list[Decoding]:
        self.generated.append(options)
        return [self.say(number, options) for number in heard]

    def align(
        self,
        heard: list[int],  # noqa: ARG002
        decodings: Sequence[Decoding],
        options: Options,  # noqa: ARG002
    ) -> list[list[Word]]:
        self.aligned += 1
        return [self._words(decoding.text.split()) for decoding in decodings]

    def _words(self, said: list[str]) -> list[Word]:
        step_ms = int(WINDOW_MS * self.share) // max(1, len(said))
        return [Word(f" {word}", i * step_ms, (i + 1) * step_ms, 0.9) for i, word in enumerate(said)]


class Hasty(Scripted):
    """Its alignment finds no time for the second half of a text."""

    def _words(self, said: list[str]) -> list[Word]:
        half = len(said) // 2
        first = super()._words(said[:half])
        return first + [replace(word, start_ms=WINDOW_MS, end_ms=WINDOW_MS) for word in first]


def windows_of(count: int) -> list[Window]:
    return [(Span(number * WINDOW_MS, (number + 1) * WINDOW_MS),) for number in range(count)]


class Decoder(ChunkDecoder):
    """A decoder with its model."""

    model: Scripted

    def listen(self, windows: Sequence[Window]) -> list[Window]:
        self.decode(self.model, windows)
        return self.left_out()


def decoder_of(
    model: Scripted,
    count: int,
    options: Options = WORDS,
    probability: float = 0.95,
    context_ms: int = CONTEXT_MS,
) -> Decoder:
    """A decoder of `count` windows; each sample of the audio is its window's number."""
    audio = np.repeat(np.arange(count, dtype=np.float32), WINDOW_MS * 16)
    frames = [probability] * (count * WINDOW_MS // FRAME_MS)
    spans = tuple(span for window in windows_of(count) for span in window)
    decoder = Decoder(audio, Speech(frames, spans, spans), options, count, context_ms=context_ms)
    decoder.model = model
    return decoder


def segments(decoder: ChunkDecoder) -> list[Segment]:
    return decoder.segments(max_ms=7_000, max_chars=84)


def text(decoder: ChunkDecoder) -> str:
    return " ".join(segment.text for segment in segments(decoder))
