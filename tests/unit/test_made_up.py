"""What a model makes up of a chunk, and what it only seems to."""

from dataclasses import replace

import pytest

from tasks.chunks import WINDOW_MS as CONTEXT_MS
from tasks.chunks import Span
from tasks.job import Options
from tasks.ladder import Decoding
from tests.decoding import (
    BARE,
    GOOD,
    SENTENCE,
    WINDOW_MS,
    WORDS,
    Hasty,
    Scripted,
    decoder_of,
    text,
    windows_of,
)


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
