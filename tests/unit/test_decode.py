"""How a chunk is decoded, over a model that says what the test tells it to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

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


@pytest.mark.parametrize("options", [WORDS, BARE])
def test_a_good_window_is_decoded_once(options: Options) -> None:
    model = Scripted(lambda *_: GOOD)
    decoder = decoder_of(model, 2, options)
    assert decoder.listen(windows_of(2)) == []
    assert text(decoder) == f"{SENTENCE.strip()} {SENTENCE.strip()}"
    assert decoder.counts == {"windows": 2, "fallback_windows": 0, "dropped_hallucinations": 0}
    assert model.generated == []


@pytest.mark.parametrize("multilingual", [True, False])
def test_a_caption_is_in_the_language_of_its_window_where_each_has_its_own(multilingual: bool) -> None:
    # No pause and no sentence's end between them.
    said = replace(GOOD, text=" two of four words")
    model = Scripted(lambda number, _: replace(said, language=["fr", "he", "he"][number]))
    decoder = decoder_of(model, 3, Options(multilingual=multilingual))
    decoder.listen(windows_of(2))
    decoder.listen(windows_of(3)[2:])
    found = segments(decoder)
    expected = {(0, "fr"), (1, "he"), (2, "he")} if multilingual else {(number, "") for number in range(3)}
    assert {(segment.start_ms // WINDOW_MS, segment.language) for segment in found} == expected
    if multilingual:
        assert all(segment.end_ms <= WINDOW_MS for segment in found if segment.language == "fr")


def test_only_those_who_ask_for_words_pay_for_them() -> None:
    model = Scripted(lambda *_: GOOD)
    bare = decoder_of(model, 8, BARE)
    bare.listen(windows_of(8))
    # To know what is usual for the chunk's speakers.
    assert model.aligned == 1
    assert [segment.words for segment in segments(bare)] == [()] * len(segments(bare))
    model.aligned = 0
    decoder_of(model, 8).listen(windows_of(8))
    assert model.aligned == 1


def test_a_caption_user_gets_no_lumps_without_words() -> None:
    decoder = decoder_of(Scripted(lambda *_: replace(GOOD, text=SENTENCE + NEXT)), 4, BARE)
    decoder._audio += 1
    decoder.listen(windows_of(4))
    made = segments(decoder)
    assert [segment.text for segment in made] == [SENTENCE.strip(), NEXT.strip()] * 4
    # Of the first window the words were aligned, of the last one they are guessed.
    start_ms = 3 * WINDOW_MS
    assert [(segment.start_ms - start_ms, segment.end_ms - start_ms) for segment in made[6:]] == [
        (0, 4_000),
        (4_000, WINDOW_MS),
    ]


def test_a_poor_window_goes_down_the_ladder_until_it_is_good() -> None:
    def say(_number: int, options: Options) -> Decoding:
        return replace(GOOD, text=NEXT) if options.no_repeat_ngram_size else poor

    poor = replace(GOOD, avg_logprob=-1.4)
    model = Scripted(say)
    decoder = decoder_of(model, 1, Options(beam_size=2, hotwords="Cohen"))
    decoder.listen(windows_of(1))
    assert [(o.beam_size, o.no_repeat_ngram_size, o.hotwords) for o in model.generated] == [
        (5, 0, "Cohen"),
        (5, 3, "Cohen"),
    ]
    assert text(decoder) == NEXT.strip()
    assert decoder.counts["fallback_windows"] == 1


def test_a_poor_window_is_first_heard_again_in_all_of_whispers_context() -> None:
    def say(*_: object) -> Decoding:
        full = model.contexts_ms[-1] == CONTEXT_MS
        return replace(GOOD, text=NEXT) if full else replace(GOOD, avg_logprob=-2.0)

    model = Scripted(say)
    decoder = decoder_of(model, 1, context_ms=20_000)
    decoder.listen(windows_of(1))
    assert text(decoder) == NEXT.strip()
    assert model.contexts_ms == [20_000, CONTEXT_MS]
    assert model.generated == []
    assert decoder.counts["fallback_windows"] == 1


def test_the_best_stays_where_nothing_helps() -> None:
    model = Scripted(
        lambda _, options: replace(GOOD, avg_logprob=-2.0 if options.no_repeat_ngram_size else -1.5)
    )
    decoder = decoder_of(model, 1)
    decoder.listen(windows_of(1))
    assert text(decoder) == SENTENCE.strip()
    assert len(model.generated) == 1


def test_a_chunk_in_which_nothing_is_understood_costs_a_bounded_time() -> None:
    model = Scripted(lambda *_: replace(GOOD, avg_logprob=-2.0))
    decoder = decoder_of(model, 10, Options(beam_size=1, hotwords="Cohen"))
    decoder.listen(windows_of(10))
    assert len(model.generated) == 14


def test_the_ends_of_several_windows_are_one_window() -> None:
    short = replace(GOOD, text=" It was a day like any")
    decoder = decoder_of(Scripted(lambda *_: short, share=0.3), 3)
    (together,) = decoder.listen(windows_of(3))
    assert together == tuple(Span(window[0].start_ms + 2_400, window[0].end_ms) for window in windows_of(3))
    each = decoder_of(Scripted(lambda *_: short, share=0.3), 3, Options(multilingual=True))
    assert each.listen(windows_of(3)) == [(span,) for span in together]


@pytest.mark.parametrize("options", [WORDS, BARE])
def test_a_batch_that_does_not_fit_leaves_nothing_behind(options: Options) -> None:
    class Full(Scripted):
        """A model that has no memory left when it aligns."""

        full = True

        def align(
            self, heard: list[int], decodings: Sequence[Decoding], options: Options
        ) -> list[list[Word]]:
            if self.full and (self.aligned == 2 or len(decodings) > 1):
                raise MemoryError
            return super().align(heard, decodings, options)

    def say(number: int, _options: Options) -> Decoding:
        # Less and less, so that the last ones are aligned whether words are asked for or not.
        text = f" {number} said:{SENTENCE}{SENTENCE}"[: 150 - 35 * number]
        return replace(GOOD, text=text, avg_logprob=-1.5)

    model = Full(say)
    decoder = decoder_of(model, 4, options)
    with pytest.raises(MemoryError):
        decoder.listen(windows_of(4))
    assert (text(decoder), decoder.counts["windows"], decoder.counts["fallback_windows"]) == ("", 0, 0)
    model.full, model.aligned = False, 0
    decoder.listen(windows_of(4))
    # As if it had not been tried before.
    assert model.aligned == (1 if options is WORDS else 4)
    assert [text(decoder).count(f"{number} said") for number in range(4)] == [1, 1, 1, 1]
    assert (decoder.counts["windows"], decoder.counts["fallback_windows"]) == (4, 4)


@pytest.mark.parametrize("options", [WORDS, BARE])
def test_a_chunk_of_which_every_window_loses_its_end_costs_a_bounded_time(options: Options) -> None:
    decoder = decoder_of(Scripted(lambda *_: replace(GOOD, text=" Oh, so it was."), share=0.1), 3, options)
    pending = windows_of(3)
    while pending:
        pending = pending[1:] + decoder.listen(pending[:1])
    assert decoder.counts["windows"] == 3 + 7


@pytest.mark.parametrize("options", [WORDS, BARE])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_batches_change_nothing(options: Options, size: int) -> None:
    def say(number: int, given: Options) -> Decoding:
        if number % 3 == 1:
            return replace(GOOD, avg_logprob=-2.0 + given.no_repeat_ngram_size / 2)
        return replace(GOOD, text=f"{SENTENCE[: 70 - 5 * number]} {number}.")

    def made(size: int) -> tuple[list[Segment], dict[str, int]]:
        decoder = decoder_of(Scripted(say), 8, options)
        windows = windows_of(8)
        for first in range(0, 8, size):
            assert decoder.listen(windows[first : first + size]) == []
        return segments(decoder), dict(decoder.counts)

    assert made(size) == made(4)


@pytest.mark.parametrize("options", [WORDS, BARE])
def test_speech_with_too_little_text_is_decoded_again(options: Options) -> None:
    model = Scripted(lambda *_: replace(GOOD, text=" It was a day like any"), share=0.3)
    decoder = decoder_of(model, 1, options)
    (rest,) = decoder.listen(windows_of(1))
    assert rest == (Span(2_400, WINDOW_MS),)
    assert text(decoder) == "It was a day like any"


def test_a_window_with_less_text_than_the_others_is_looked_at_closely() -> None:
    """Its words are aligned: to see that nothing is missing costs a twentieth of what decoding did."""
    slow = Scripted(lambda *_: GOOD)
    decoder_of(slow, 4, BARE).listen(windows_of(4))
    assert slow.aligned == 1
    longer = replace(GOOD, text=SENTENCE + NEXT)
    mixed = Scripted(lambda number, _: GOOD if number == 3 else longer)
    decoder = decoder_of(mixed, 4, BARE)
    decoder.listen(windows_of(3))
    mixed.share = 0.5
    (rest,) = decoder.listen(windows_of(4)[3:])
    assert rest == (Span(rest[0].start_ms, 4 * WINDOW_MS),)
    assert 0.5 * WINDOW_MS > rest[0].start_ms - 3 * WINDOW_MS > 0.4 * WINDOW_MS
    assert mixed.aligned == 2


def test_a_client_that_limits_the_text_gets_no_more() -> None:
    model = Scripted(lambda *_: replace(GOOD, text=" It was a day"), share=0.2)
    decoder = decoder_of(model, 1, Options(max_new_tokens=4))
    assert decoder.listen(windows_of(1)) == []
    assert model.generated == []


@pytest.mark.parametrize("options", [WORDS, BARE])
def test_a_loop_that_nothing_ends_is_said_once(options: Options) -> None:
    loop = replace(GOOD, text=" Yes, and so we go on." * 30, compression_ratio=12.0, ran_out=True)
    decoder = decoder_of(Scripted(lambda *_: loop), 1, options)
    decoder.listen(windows_of(1))
    assert text(decoder).count("we go on") == 1
    assert decoder.counts["dropped_hallucinations"] == 1


@pytest.mark.parametrize("context_ms", [20_000, CONTEXT_MS])
def test_a_refrain_stays(context_ms: int) -> None:
    refrain = replace(GOOD, text=" Row your boat." * 6, compression_ratio=4.0)
    decoder = decoder_of(Scripted(lambda *_: refrain), 1, context_ms=context_ms)
    decoder.listen(windows_of(1))
    assert text(decoder).count("Row") == 6


@pytest.mark.parametrize("options", [WORDS, BARE])
def test_a_sentence_that_is_heard_twice_but_once_in_more_context_was_said_once(options: Options) -> None:
    def say(*_: object) -> Decoding:
        return GOOD if model.contexts_ms[-1] == CONTEXT_MS else replace(GOOD, text=SENTENCE * 2)

    model = Scripted(say)
    decoder = decoder_of(model, 1, options, context_ms=20_000)
    decoder.listen(windows_of(1))
    assert text(decoder).count("nobody") == 1
    assert decoder.counts["fallback_windows"] == 1


@pytest.mark.parametrize("options", [WORDS, BARE])
@pytest.mark.parametrize("context_ms", [20_000, CONTEXT_MS])
def test_a_sentence_that_is_said_twice_stays(options: Options, context_ms: int) -> None:
    model = Scripted(lambda *_: replace(GOOD, text=SENTENCE * 2))
    decoder = decoder_of(model, 1, options, context_ms=context_ms)
    decoder.listen(windows_of(1))
    assert text(decoder).count("nobody") == 2
    # More context has confirmed it; where there is none, other searches may tell.
    assert len(model.generated) == (context_ms == CONTEXT_MS)
    assert decoder.counts["dropped_hallucinations"] == 0


@pytest.mark.parametrize("options", [WORDS, BARE])
def test_a_sentence_that_has_no_time_to_be_said_again_is_said_once(options: Options) -> None:
    """In all of the context, too; without words they are aligned for it."""
    model = Hasty(lambda *_: replace(GOOD, text=SENTENCE * 2))
    decoder = decoder_of(model, 3, options)
    for window in windows_of(3):
        decoder.listen([window])
    assert text(decoder).count("nobody") == 3
    assert decoder.counts["dropped_hallucinations"] == 3


def test_a_loop_that_is_not_heard_again_in_more_context_is_dropped() -> None:
    """The model is surer of it than of what was said, it comes to an end, and is not too fast to be said."""

    def say(*_: object) -> Decoding:
        if model.contexts_ms[-1] == CONTEXT_MS:
            return replace(GOOD, avg_logprob=-0.3)
        return replace(GOOD, text=f"{SENTENCE} In the morning." * 2, compression_ratio=4.0)

    model = Scripted(say)
    decoder = decoder_of(model, 1, context_ms=20_000)
    decoder.listen(windows_of(1))
    assert text(decoder) == SENTENCE.strip()


@pytest.mark.parametrize(("level", "kept"), [(0.05, True), (0.02, False)])
def test_thanks_that_are_far_fainter_than_the_speech_are_dropped(level: float, kept: bool) -> None:
    def say(number: int, _options: Options) -> Decoding:
        return GOOD if number else replace(GOOD, text=" Thank you. We shall see each other again, I am told.")

    decoder = decoder_of(Scripted(say), 3)
    # The model hears its first sample, which is 0 in the first window.
    decoder._audio[1 : WINDOW_MS * 16] = level
    decoder._audio[WINDOW_MS * 16 :] = 1.0
    decoder.listen(windows_of(2))
    assert ("Thank you." in text(decoder)) == kept
    assert "We shall see" in text(decoder)


@pytest.mark.parametrize("options", [WORDS, BARE])
@pytest.mark.parametrize(
    ("probability", "no_speech", "logprob", "said", "kept"),
    [
        (0.95, 0.01, -0.2, " Thank you.", True),
        (0.95, 0.9, -0.2, " Thank you.", True),
        (0.95, 0.9, -1.2, " Thank you.", False),
        (0.4, 0.01, -0.2, " Thank you.", False),
        (0.4, 0.9, -0.2, SENTENCE, False),
        (0.4, 0.01, -0.2, SENTENCE, True),
    ],
)
def test_thanks_are_kept_where_somebody_is_heard(
    options: Options, probability: float, no_speech: float, logprob: float, said: str, kept: bool
) -> None:
    heard = Decoding((1,), said, logprob, 1.0, no_speech, ran_out=False)
    decoder = decoder_of(Scripted(lambda *_: heard), 1, options, probability)
    decoder.listen([(Span(0, 2_016),)])
    assert text(decoder) == (said.strip() if kept else "")
    assert decoder.counts["dropped_hallucinations"] == (not kept)
