from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.chunks import Chunk, Span, choose_cut_ms, nominal_end_ms, pack_windows

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


def test_windows_are_filled_in_order() -> None:
    first, second, third = Span(0, 10_000), Span(12_000, 30_000), Span(30_500, 31_000)
    assert pack_windows([first, second, third]) == [(first, second), (third,)]


def test_a_span_over_the_limit_is_split_evenly_and_its_rest_shares_a_window() -> None:
    assert pack_windows([Span(0, 40_000), Span(41_000, 42_000)]) == [
        (Span(0, 20_000),),
        (Span(20_000, 40_000), Span(41_000, 42_000)),
    ]


@given(ordered_spans(), st.integers(1_000, 30_000))
def test_windows_cover_every_span_once_and_keep_to_the_limit(spans: list[Span], limit_ms: int) -> None:
    windows = pack_windows(spans, limit_ms=limit_ms)
    assert all(window[-1].end_ms - window[0].start_ms <= limit_ms for window in windows)
    parts = [part for window in windows for part in window]
    assert all(part.start_ms < part.end_ms for part in parts)
    assert all(before.end_ms <= after.start_ms for before, after in pairwise(parts))
    merged: list[Span] = []
    starts = {span.start_ms for span in spans}
    for part in parts:
        if part.start_ms in starts:
            merged.append(part)
        else:
            assert part.start_ms == merged[-1].end_ms
            merged[-1] = Span(merged[-1].start_ms, part.end_ms)
    assert merged == spans


@given(ordered_spans(), st.integers(1_000, 30_000))
def test_no_window_could_have_taken_the_next_part(spans: list[Span], limit_ms: int) -> None:
    windows = pack_windows(spans, limit_ms=limit_ms)
    assert all(after[0].end_ms - before[0].start_ms > limit_ms for before, after in pairwise(windows))
