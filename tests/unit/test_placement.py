"""Decoded words put back where they were spoken, and what has to be decoded again."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tasks.chunks import Span
from tasks.transcript import Word
from tasks.windows import accept, place


@st.composite
def windows_and_words(draw: st.DrawFn) -> tuple[tuple[Span, ...], list[Word]]:
    """A window of up to 30 s, and words that follow each other in its speech."""
    edges = sorted(draw(st.sets(st.integers(0, 30_000), min_size=2, max_size=8)))
    spans = tuple(Span(start, end) for start, end in zip(edges[::2], edges[1::2], strict=False))
    length = sum(span.end_ms - span.start_ms for span in spans)
    times = sorted(draw(st.lists(st.integers(0, length + 500), max_size=12)))
    return spans, [Word(" so", start, end, 0.5) for start, end in pairwise(times)]


@given(windows_and_words())
def test_words_are_placed_in_spans_in_order(case: tuple[tuple[Span, ...], list[Word]]) -> None:
    window, said = case
    placed = [place(word, window) for word in said]
    for word in placed:
        assert any(span.start_ms <= word.start_ms <= word.end_ms <= span.end_ms for span in window)
    for before, after in pairwise(placed):
        assert before.end_ms <= after.start_ms


@given(windows_and_words())
def test_what_is_decoded_again_is_all_the_rest_in_shorter_windows(
    case: tuple[tuple[Span, ...], list[Word]],
) -> None:
    window, said = case
    placed = [place(word, window) for word in said]
    kept, again = accept(window, said, placed)
    if not again:
        assert kept == placed
        return
    assert kept == placed[: len(kept)]
    start_ms = kept[-1].end_ms if kept else 0
    left = [ms for span in window for ms in range(max(span.start_ms, start_ms), span.end_ms)]
    assert [ms for rest in again for span in rest for ms in range(span.start_ms, span.end_ms)] == left
    length_ms = sum(span.end_ms - span.start_ms for span in window)
    for rest in again:
        assert 0 < sum(span.end_ms - span.start_ms for span in rest) < length_ms


def test_the_end_that_was_left_out_is_decoded_again() -> None:
    window = (Span(1_000, 11_000), Span(15_000, 20_000))
    said = [Word(" one", 0, 800, 1.0), Word(" two", 800, 2_000, 1.0)]
    placed = [place(word, window) for word in said]
    assert accept(window, said, placed) == (placed, [(Span(3_000, 11_000), Span(15_000, 20_000))])


def test_speech_under_a_stretched_word_is_decoded_again() -> None:
    window = (Span(1_000, 11_000), Span(15_000, 20_000))
    said = [Word(" one", 0, 800, 1.0), Word(" two", 800, 14_000, 1.0), Word(" three", 14_000, 15_000, 1.0)]
    placed = [place(word, window) for word in said]
    assert accept(window, said, placed) == (placed[:1], [(Span(1_800, 11_000), Span(15_000, 20_000))])


def test_a_window_whose_beginning_was_left_out_is_decoded_in_halves() -> None:
    window = (Span(1_000, 5_000), Span(6_000, 9_000), Span(9_000, 10_000))
    said = [Word(" one", 0, 5_000, 1.0), Word(" two", 5_000, 8_000, 1.0)]
    placed = [place(word, window) for word in said]
    assert accept(window, said, placed) == ([], [window[:1], window[1:]])
    single = (Span(1_000, 9_000),)
    assert accept(single, said, placed) == ([], [(Span(1_000, 5_000),), (Span(5_000, 9_000),)])
