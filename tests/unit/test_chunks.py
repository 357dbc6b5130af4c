from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.chunks import (
    LEAST_ENDING_MS,
    Chunk,
    Span,
    aim,
    choose_cut_ms,
    crumb_ms,
    even_windows,
    nominal_end_ms,
    pack_windows,
)

SPEECH, SILENCE = 0.9, 0.1


@st.composite
def ordered_spans(draw: st.DrawFn) -> list[Span]:
    steps = draw(st.lists(st.tuples(st.integers(0, 5_000), st.integers(1, 80_000)), max_size=30))
    spans = []
    now_ms = draw(st.integers(0, 10_000))
    for gap_ms, length_ms in steps:
        spans.append(Span(now_ms + gap_ms, now_ms + gap_ms + length_ms))
        now_ms = spans[-1].end_ms
    return spans


def test_a_chunk_survives_json_under_its_field_names() -> None:
    chunk = Chunk(index=3, start_ms=180_000, end_ms=480_123, digest="00ff", blob="job/3-ü.mka", origin_ms=-25)
    assert Chunk.from_json(chunk.to_json()) == chunk
    assert Chunk.from_json('{"index":0,"start_ms":1,"end_ms":2,"digest":"d","blob":"b"}') == Chunk(
        0, 1, 2, "d", "b"
    )


@pytest.mark.parametrize(
    ("index", "target_ms", "expected_ms"),
    [(0, 300_000, 61_000), (1, 300_000, 121_000), (2, 300_000, 301_000), (0, 20_000, 21_000)],
)
def test_first_chunks_are_shorter_and_never_longer_than_the_target(
    index: int, target_ms: int, expected_ms: int
) -> None:
    assert nominal_end_ms(index, 1_000, target_ms=target_ms, first_ms=(60_000, 120_000)) == expected_ms


FIRST_MS = (60_000, 120_000)


def planned(
    length_ms: int,
    target_ms: int = 300_000,
    first_ms: Sequence[int] = FIRST_MS,
    *,
    promised_ms: int | None = None,
    search_ms: int = 0,
    moves: Sequence[float] = (0.0,),
) -> list[Span]:
    """The chunks of a recording that comes in, whose cuts are moved by these parts of their ranges."""
    aim_at = partial(aim, target_ms=target_ms, first_ms=first_ms, search_ms=search_ms)
    spans: list[Span] = []
    start_ms = 0
    while True:
        index = len(spans)
        aimed = aim_at(index, start_ms, end_ms=promised_ms)
        if aimed.due_ms > length_ms:
            aimed = aim_at(index, start_ms, end_ms=length_ms, ended=True)
            if aimed.last:
                return [*spans, Span(start_ms, length_ms)]
        elif aimed.last:
            promised_ms = None
            continue
        move = moves[index % len(moves)]
        cut_ms = aimed.nominal_ms + int(move * (aimed.back_ms if move < 0 else aimed.ahead_ms))
        spans.append(Span(start_ms, cut_ms))
        start_ms = cut_ms


def seconds(spans: Sequence[Span]) -> list[int]:
    return [(span.end_ms - span.start_ms) // 1000 for span in spans]


@pytest.mark.parametrize(
    ("length_s", "promised", "expected"),
    [
        (20, True, [20]),
        (75, True, [75]),
        (75, False, [60, 15]),
        (100, True, [60, 40]),
        (200, True, [60, 70, 70]),
        (200, False, [60, 70, 70]),
        (427, True, [60, 91, 69, 69, 69, 69]),
        (427, False, [60, 91, 69, 69, 69, 69]),
        (1000, True, [60, 120, 205, 153, 115, 86, 65, 65, 65, 65]),
    ],
)
def test_the_last_chunks_are_balanced(length_s: int, *, promised: bool, expected: list[int]) -> None:
    found = seconds(planned(1000 * length_s, promised_ms=1000 * length_s if promised else None))
    assert len(found) == len(expected)
    assert all(abs(is_ - about) <= 1 for is_, about in zip(found, expected, strict=True)), found


@pytest.mark.parametrize(
    ("length_s", "expected"),
    [(41, [10, 10, 10, 11]), (12, [12]), (13, [6, 6]), (19, [9, 9]), (25, [10, 7, 7])],
)
@pytest.mark.parametrize("promised", [True, False])
def test_short_chunks_leave_no_crumb(length_s: int, expected: list[int], *, promised: bool) -> None:
    length_ms = 1000 * length_s
    assert seconds(planned(length_ms, 10_000, (), promised_ms=length_ms if promised else None)) == expected


@pytest.mark.parametrize(
    ("promised_s", "expected"),
    [
        # What is there is told by its end, and not by what was promised.
        (2_000, [60, 120, 61, 61, 61, 61]),
        # A promise that was a little too short leaves no crumb...
        (426.9, [60, 91, 69, 69, 69, 69]),
        # ...and one that was far too short is soon forgotten.
        (4, [60, 91, 69, 69, 69, 69]),
    ],
)
def test_a_promise_may_be_wrong(promised_s: float, expected: list[int]) -> None:
    found = seconds(planned(427_000, promised_ms=int(1000 * promised_s)))
    assert all(abs(is_ - about) <= 1 for is_, about in zip(found, expected, strict=True)), found


LENGTHS = st.integers(1, 40_000_000)
TARGETS = st.integers(10_000, 1_800_000)
FIRSTS = st.lists(st.integers(1_000, 400_000), max_size=4)


@given(
    LENGTHS,
    TARGETS,
    FIRSTS,
    st.none() | LENGTHS,
    st.integers(0, 60_000),
    st.lists(st.floats(-1, 1), min_size=1, max_size=20),
)
def test_every_plan_tiles_its_recording_within_the_limits(
    length_ms: int,
    target_ms: int,
    first_ms: list[int],
    promised_ms: int | None,
    search_ms: int,
    moves: list[float],
) -> None:
    plan = partial(planned, length_ms, target_ms, first_ms, search_ms=search_ms, moves=moves)
    spans = plan(promised_ms=promised_ms)
    assert (spans[0].start_ms, spans[-1].end_ms) == (0, length_ms)
    assert all(before.end_ms == after.start_ms for before, after in pairwise(spans))
    for span in spans:
        # A cut may be moved by a third of its chunk.
        assert 0 < span.end_ms - span.start_ms <= (target_ms + crumb_ms(target_ms)) * 4 / 3
    assert plan(promised_ms=promised_ms) == spans


@given(LENGTHS, TARGETS, FIRSTS, st.integers(2, 4))
def test_no_worker_idles_for_long_at_the_end(
    length_ms: int, target_ms: int, first_ms: list[int], workers: int
) -> None:
    spans = planned(length_ms, target_ms, first_ms, promised_ms=length_ms)
    free_ms = [0] * workers
    for span in spans:
        free_ms.sort()
        free_ms[0] += span.end_ms - span.start_ms
    assert max(free_ms) - length_ms / workers <= 2 * min(target_ms, LEAST_ENDING_MS)


def test_the_cut_is_in_the_middle_of_the_longest_silence() -> None:
    frames = [SILENCE] * 6 + [SPEECH] * 10 + [SILENCE] * 8 + [SPEECH] * 6
    assert choose_cut_ms(frames, origin_ms=5_000) == 5_000 + 20 * 32


def test_of_equal_silences_the_one_nearest_the_middle_is_cut() -> None:
    silence, speech = [SILENCE] * 5, [SPEECH] * 7
    frames = silence + speech + silence + speech + speech + silence
    assert choose_cut_ms(frames, origin_ms=0) == (12 * 32 + 17 * 32) // 2


def test_a_pause_that_is_too_short_counts_as_speech() -> None:
    frames = [SPEECH] * 10 + [SILENCE] * 4 + [SPEECH] * 10 + [0.05] + [SPEECH]
    assert choose_cut_ms(frames, origin_ms=0) == 24 * 32 + 16
    assert choose_cut_ms(frames, origin_ms=0, min_silence_ms=128) == 12 * 32


def test_a_probability_at_the_threshold_is_speech() -> None:
    assert choose_cut_ms([0.35] * 10 + [0.34] * 5, origin_ms=0) == 10 * 32 + 80


def test_no_frames_give_no_cut() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        choose_cut_ms([], origin_ms=0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(0, 10**7))
def test_a_cut_lies_inside_its_range_and_moves_with_it(frames: list[float], origin_ms: int) -> None:
    cut_ms = choose_cut_ms(frames, origin_ms=origin_ms)
    assert origin_ms < cut_ms < origin_ms + len(frames) * 32
    assert cut_ms == origin_ms + choose_cut_ms(frames, origin_ms=0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_a_cut_never_falls_into_speech_while_there_is_a_silence(frames: list[float]) -> None:
    frame = choose_cut_ms(frames, origin_ms=0) // 32
    silences = "".join("." if probability < 0.35 else "S" for probability in frames)
    if "....." in silences:
        assert silences[frame] == "."
    else:
        assert frames[frame] == min(frames)


def speech_ms(spans: Sequence[Span]) -> int:
    return sum(span.end_ms - span.start_ms for span in spans)


def test_windows_are_filled_in_order() -> None:
    # The silence between them does not count.
    first, second, third = Span(0, 10_000), Span(42_000, 62_000), Span(62_500, 63_000)
    assert pack_windows([first, second, third]) == [(first, second), (third,)]


def test_a_span_over_the_limit_is_split_evenly_and_its_rest_shares_a_window() -> None:
    assert pack_windows([Span(0, 40_000), Span(41_000, 42_000)]) == [
        (Span(0, 20_000),),
        (Span(20_000, 40_000), Span(41_000, 42_000)),
    ]


def test_a_span_is_cut_in_a_pause_to_fill_a_window() -> None:
    spans = [Span(0, 20_000), Span(25_000, 45_000)]
    assert pack_windows(spans, pauses_ms=[6_000, 22_000, 30_000, 34_000, 38_000]) == [
        (Span(0, 20_000), Span(25_000, 34_000)),
        (Span(34_000, 45_000),),
    ]


@given(ordered_spans(), st.sets(st.integers(0, 300_000)), st.integers(1_000, 30_000))
def test_windows_cover_every_span_once_and_keep_to_the_limit(
    spans: list[Span], pauses: set[int], limit_ms: int
) -> None:
    windows = pack_windows(spans, pauses_ms=sorted(pauses), limit_ms=limit_ms)
    assert all(speech_ms(window) <= limit_ms for window in windows)
    parts = [part for window in windows for part in window]
    assert all(part.start_ms < part.end_ms for part in parts)
    assert all(before.end_ms <= after.start_ms for before, after in pairwise(parts))
    assert joined(parts) == joined(spans)


def test_windows_are_made_about_as_long_as_each_other() -> None:
    spans = [Span(number * 10_000, number * 10_000 + 6_000) for number in range(7)]
    assert [speech_ms(window) for window in pack_windows(spans)] == [30_000, 12_000]
    assert [speech_ms(window) for window in even_windows(spans)] == [24_000, 18_000]


def test_no_part_is_split_to_make_windows_even() -> None:
    # In two halves, the first would leave 26 s as the longest window.
    spans = [Span(0, 28_000), Span(30_000, 42_000)]
    assert even_windows(spans) == [(spans[0],), (spans[1],)]


@given(ordered_spans(), st.sets(st.integers(0, 300_000)), st.integers(1_000, 30_000))
def test_even_windows_are_as_few_and_no_longer(spans: list[Span], pauses: set[int], limit_ms: int) -> None:
    packed = pack_windows(spans, pauses_ms=sorted(pauses), limit_ms=limit_ms)
    even = even_windows(spans, pauses_ms=sorted(pauses), limit_ms=limit_ms)
    assert len(even) <= len(packed)
    assert max(map(speech_ms, even), default=0) <= max(map(speech_ms, packed), default=0)
    assert joined([part for window in even for part in window]) == joined(spans)


def joined(spans: Sequence[Span]) -> list[Span]:
    """Spans that touch as one."""
    found: list[Span] = []
    for span in spans:
        touches = found and found[-1].end_ms == span.start_ms
        found.append(Span(found.pop().start_ms, span.end_ms) if touches else span)
    return found


@given(ordered_spans(), st.integers(1_000, 30_000))
def test_no_window_could_have_taken_the_next_part(spans: list[Span], limit_ms: int) -> None:
    windows = pack_windows(spans, limit_ms=limit_ms)
    assert all(speech_ms([*before, after[0]]) > limit_ms for before, after in pairwise(windows))
