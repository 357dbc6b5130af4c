"""Spans of speech from probabilities: the parameters of faster-whisper's VAD, each with its effect."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.chunks import Span
from tasks.errors import UnknownOption
from tasks.speech import FRAME_MS, Speech, VadParameters, listen

BARE = VadParameters(speech_pad_ms=0)
parameters = st.builds(
    VadParameters,
    threshold=st.floats(0, 1),
    neg_threshold=st.none() | st.floats(0, 1),
    min_speech_duration_ms=st.integers(0, 2_000),
    max_speech_duration_s=st.floats(0.1, 60),
    min_silence_duration_ms=st.integers(0, 3_000),
    speech_pad_ms=st.integers(0, 1_000),
)


def frames(*runs: tuple[float, int]) -> list[float]:
    """Runs of so many frames of the same probability."""
    return [probability for probability, count in runs for _ in range(count)]


def heard(probabilities: list[float], given: VadParameters = BARE) -> list[Span]:
    """Spans in frames."""
    spans = listen(probabilities, len(probabilities) * FRAME_MS, given).spans
    return [Span(span.start_ms // FRAME_MS, span.end_ms // FRAME_MS) for span in spans]


PAUSE = frames((0, 50), (0.9, 100), (0, 20), (0.9, 100), (0, 50))


def test_speech_is_what_reaches_the_threshold() -> None:
    assert heard(frames((0.1, 40), (0.5, 50), (0.49, 10), (0.1, 100))) == [Span(40, 100)]
    assert heard(frames((0.49, 100))) == []


@pytest.mark.parametrize(
    ("change", "spans"),
    [
        ({}, [Span(50, 270)]),
        ({"min_silence_duration_ms": 20 * FRAME_MS}, [Span(50, 270)]),
        ({"min_silence_duration_ms": 19 * FRAME_MS}, [Span(50, 150), Span(170, 270)]),
        ({"threshold": 0.95}, []),
        ({"min_speech_duration_ms": 219 * FRAME_MS}, [Span(50, 270)]),
        ({"min_speech_duration_ms": 220 * FRAME_MS}, []),
        # Cut in the middle of the pause.
        ({"max_speech_duration_s": 6.0}, [Span(50, 160), Span(160, 270)]),
        ({"speech_pad_ms": 10 * FRAME_MS}, [Span(40, 280)]),
        ({"speech_pad_ms": 10_000}, [Span(0, 320)]),
    ],
)
def test_every_parameter_has_its_effect(change: dict[str, Any], spans: list[Span]) -> None:
    given = {"min_silence_duration_ms": 1_000, "speech_pad_ms": 0, **change}
    assert heard(PAUSE, VadParameters(**given)) == spans


def test_what_is_below_the_lower_threshold_ends_speech() -> None:
    dip = frames((0.9, 40), (0.3, 40), (0.9, 40))
    assert heard(dip) == [Span(0, 40), Span(80, 120)]
    assert heard(dip, VadParameters(speech_pad_ms=0, neg_threshold=0.2)) == [Span(0, 120)]


def test_neighbours_share_the_silence_between_them() -> None:
    given = VadParameters(min_silence_duration_ms=300, speech_pad_ms=20 * FRAME_MS)
    assert heard(PAUSE, given) == [Span(30, 160), Span(160, 290)]


def test_an_unknown_parameter_is_named_with_those_there_are() -> None:
    with pytest.raises(UnknownOption, match=r"'padding'.*speech_pad_ms"):
        VadParameters.of({"padding": 3})


@given(st.lists(st.floats(0, 1), max_size=400), parameters, st.integers(0, FRAME_MS - 1))
def test_spans_are_in_order_inside_the_chunk_and_short_enough(
    probabilities: list[float], given: VadParameters, missing_ms: int
) -> None:
    length_ms = max(0, len(probabilities) * FRAME_MS - missing_ms)
    speech = listen(probabilities, length_ms, given)
    for spans in (speech.spans, speech.utterances):
        assert all(0 <= span.start_ms < span.end_ms <= length_ms for span in spans)
        assert all(before.end_ms <= after.start_ms for before, after in pairwise(spans))
    assert all(span.end_ms - span.start_ms <= 30_000 for span in speech.spans)


@given(st.lists(st.floats(0, 1), max_size=400))
def test_no_frame_of_speech_is_left_out(probabilities: list[float]) -> None:
    speech = listen(probabilities, len(probabilities) * FRAME_MS, VadParameters())
    for frame, probability in enumerate(probabilities):
        inside = [
            span.start_ms <= frame * FRAME_MS and (frame + 1) * FRAME_MS <= span.end_ms
            for span in speech.spans
        ]
        assert probability < 0.5 or any(inside)


def test_what_is_spoken_in_a_window_is_without_its_pauses() -> None:
    speech = listen(PAUSE, len(PAUSE) * FRAME_MS, VadParameters(min_silence_duration_ms=1_000))
    (window,) = [(span,) for span in speech.spans]
    assert speech.spoken(window) == [
        Span(50 * FRAME_MS, 150 * FRAME_MS),
        Span(170 * FRAME_MS, 270 * FRAME_MS),
    ]
    assert speech.spoken([Span(0, 100)]) == [Span(0, 100)]


def test_the_probability_of_a_stretch_is_the_mean_of_its_frames() -> None:
    speech = Speech([0.2, 0.4, 0.9], (), ())
    assert speech.probability([Span(0, 33)]) == pytest.approx(0.3)
    assert speech.probability([Span(0, 32), Span(64, 96)]) == pytest.approx(0.55)
    assert speech.probability([Span(400, 500)]) == 0
