import json
import zlib
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.transcript import (
    ChunkResult,
    Segment,
    Word,
    merge,
    most_spoken,
    result_from_bytes,
    result_to_bytes,
    segment_to_wire,
)

patient = settings(deadline=None)

# Surrogates too: storage must not depend on what a tokenizer promises.
texts = st.text(st.characters(), max_size=20)
times = st.integers(-2_000, 20_000)
words = st.builds(Word, texts, times, times, st.floats(0, 1))
languages = st.sampled_from(["", "he", "en", "yi"])
segment_values = st.builds(Segment, texts, times, times, st.lists(words, max_size=4).map(tuple), languages)
results = st.builds(
    ChunkResult,
    index=st.integers(0, 5),
    segments=st.lists(segment_values, max_size=4).map(tuple),
    language=languages,
    speech_ms=st.integers(0, 3),
    counts=st.dictionaries(st.sampled_from(["windows", "fallback_windows"]), st.integers(0, 9)),
    language_probability=st.floats(0, 1),
)


def chunk(index: int, text: str, start_ms: int, language: str = "he", speech_ms: int = 1000) -> ChunkResult:
    return ChunkResult(index, (Segment(text, start_ms, start_ms + 1000),), language, speech_ms)


def test_merge_orders_chunks_and_counts_each_once() -> None:
    first, second, third = chunk(0, "א", 0), chunk(1, "ב", 5_000), chunk(2, "ג", 9_000)
    transcript = merge([third, first, second, first], duration_ms=10_000, warnings=("gap",))
    assert [segment.text for segment in transcript.segments] == ["א", "ב", "ג"]
    assert (transcript.duration_ms, transcript.language, transcript.warnings) == (10_000, "he", ("gap",))


def test_merge_of_nothing_is_an_empty_transcript() -> None:
    transcript = merge([ChunkResult(0, ())], duration_ms=4_000)
    assert (transcript.segments, transcript.language, transcript.duration_ms) == ((), "", 4_000)


def test_language_is_that_of_most_speech_not_of_most_chunks() -> None:
    votes = [chunk(0, "a", 0, "en", 400), chunk(1, "b", 1000, "en", 400), chunk(2, "c", 2000, "he", 900)]
    assert merge(votes, duration_ms=9_000).language == "he"
    assert merge([*votes[:2], replace(votes[2], speech_ms=700)], duration_ms=9_000).language == "en"
    silent = ChunkResult(3, (), "", 5_000)
    assert merge([*votes, silent], duration_ms=9_000).language == "he"


def test_a_segment_has_its_own_language_or_that_of_its_chunk() -> None:
    mixed = ChunkResult(0, (Segment("a", 0, 1, (), "fr"), Segment("b", 1, 2)), "he", 2)
    assert [segment.language for segment in merge([mixed], duration_ms=9).segments] == ["fr", "he"]


def test_the_language_of_most_of_the_time() -> None:
    said = [Segment("a", 0, 10, (), "fr"), Segment("b", 10, 25, (), "he"), Segment("c", 25, 30, (), "fr")]
    assert most_spoken(said) == "fr"
    assert most_spoken(said[:2]) == "he"
    assert most_spoken([]) == ""


def test_the_probability_is_that_of_the_chunks_that_detected_the_language() -> None:
    detected = replace(chunk(0, "a", 0, "he", 1_000), language_probability=0.9)
    unsure = replace(chunk(1, "b", 1000, "he", 3_000), language_probability=0.3)
    other = replace(chunk(2, "c", 2000, "en", 100), language_probability=0.8)
    pinned = chunk(3, "d", 3000, "he", 9_000)
    assert merge([detected, unsure, other, pinned], duration_ms=9_000).language_probability == 0.45
    assert merge([pinned], duration_ms=9_000).language_probability == 0.0


def test_time_beyond_the_recording_is_pulled_in_and_the_text_kept() -> None:
    late = Segment("end", 9_500, 10_700, (Word(" end", 9_500, 10_700, 0.9), Word(" x", 10_700, 10_800, 0.9)))
    (segment,) = merge([ChunkResult(0, (late,))], duration_ms=10_000).segments
    assert (segment.text, segment.start_ms, segment.end_ms) == ("end", 9_500, 10_000)
    assert [(word.start_ms, word.end_ms) for word in segment.words] == [(9_500, 10_000), (10_000, 10_000)]


@patient
@given(st.lists(results, max_size=8), st.randoms(use_true_random=False), st.integers(0, 15_000))
def test_merge_does_not_depend_on_order_or_repetition(
    arrived: list[ChunkResult], random: Random, duration_ms: int
) -> None:
    expected = merge(arrived, duration_ms=duration_ms)
    again = arrived + arrived[:3]
    random.shuffle(again)
    assert merge(again, duration_ms=duration_ms) == expected
    assert all(a.start_ms <= b.start_ms for a, b in pairwise(expected.segments))
    for segment in expected.segments:
        assert 0 <= segment.start_ms <= segment.end_ms <= duration_ms
        assert all(0 <= word.start_ms <= word.end_ms <= duration_ms for word in segment.words)


@patient
@given(results, st.integers(0, 10**6))
def test_bytes_give_back_the_same_result(result: ChunkResult, damaged: int) -> None:
    result = replace(result, damaged=damaged)
    assert result_from_bytes(result_to_bytes(result)) == result


def test_a_result_without_counts_is_read() -> None:
    assert result_from_bytes(zlib.compress(b'[3,"he",70,[]]')) == ChunkResult(3, (), "he", 70)


def test_counts_are_added_up_in_order_of_name() -> None:
    results = [
        ChunkResult(0, (), counts={"windows": 2}),
        ChunkResult(1, (), counts={"windows": 3, "again": 1}),
    ]
    assert list(merge(results, duration_ms=1).counts.items()) == [("again", 1), ("windows", 5)]


def test_damage_of_all_chunks_is_told_once_after_what_ingest_says() -> None:
    heard = [ChunkResult(index, (), damaged=damaged) for index, damaged in enumerate((2, 0, 40))]
    transcript = merge([*heard, heard[2]], duration_ms=4_000, warnings=("truncated: half",))
    assert transcript.warnings == (
        "truncated: half",
        "damaged: 42 packets could not be decoded and are left out",
    )
    assert merge(heard[1:2], duration_ms=4_000).warnings == ()


@pytest.mark.parametrize("text", ["\ud800", "a\udc80", "\ud83d\ude00"])
def test_bytes_keep_what_is_no_valid_unicode(text: str) -> None:
    result = ChunkResult(0, (Segment(text, 0, 1),))
    assert result_from_bytes(result_to_bytes(result)) == result


def test_bytes_are_compact_and_damage_is_noticed() -> None:
    said = [Word(" שלום", i * 300, i * 300 + 280, 0.98) for i in range(900)]
    result = ChunkResult(7, (Segment("", 0, 1, tuple(said)),), "he", 250_000)
    data = result_to_bytes(result)
    assert len(data) < 20 * len(said)
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 0x10
    with pytest.raises(zlib.error):
        result_from_bytes(bytes(damaged))


def test_wire_segment_is_exactly_what_the_client_reads() -> None:
    segment = Segment("שלום", 1_001, 2_340, (Word(" שלום", 1_001, 2_340, 0.75),), "he")
    assert segment_to_wire(segment, extra_data=True, words=True) == {
        "text": "שלום",
        "start": 1.001,
        "end": 2.34,
        "speakers": [],
        "words": [{"word": " שלום", "start": 1.001, "end": 2.34, "probability": 0.75, "speaker": None}],
        "extra_data": {"language": "he"},
    }
    bare = segment_to_wire(segment, extra_data=False, words=False)
    assert (bare["words"], bare["extra_data"]) == ([], {})


@given(st.integers(0, 10**10))
def test_wire_seconds_have_three_digits_and_are_exact(ms: int) -> None:
    wire = segment_to_wire(Segment("x", ms, ms), extra_data=False, words=False)
    text = json.dumps(wire["start"])
    assert round(float(text) * 1000) == ms
    assert len(text.partition(".")[2]) <= 3
