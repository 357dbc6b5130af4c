"""How a chunk is decoded, over a model that says what the test tells it to."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tasks.chunks import WINDOW_MS as CONTEXT_MS
from tasks.chunks import Span
from tasks.job import Options
from tasks.ladder import Decoding
from tasks.transcript import Segment, Word
from tests.decoding import (
    BARE,
    GOOD,
    NEXT,
    SENTENCE,
    WINDOW_MS,
    WORDS,
    Scripted,
    decoder_of,
    segments,
    text,
    windows_of,
)


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
