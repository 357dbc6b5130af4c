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
    result_from_bytes,
    result_to_bytes,
    segment_to_wire,
    segments_from_words,
)

patient = settings(deadline=None)

# Surrogates too: storage must not depend on what a tokenizer promises.
texts = st.text(st.characters(), max_size=20)
times = st.integers(-2_000, 20_000)
words = st.builds(Word, texts, times, times, st.floats(0, 1))
segment_values = st.builds(Segment, texts, times, times, st.lists(words, max_size=4).map(tuple))
results = st.builds(
    ChunkResult,
    index=st.integers(0, 5),
    segments=st.lists(segment_values, max_size=4).map(tuple),
    language=st.sampled_from(["", "he", "en", "yi"]),
    speech_ms=st.integers(0, 3),
)


@st.composite
def spoken(draw: st.DrawFn) -> list[Word]:
    """Words as an aligner gives them: in order, not overlapping."""
    said = draw(
        st.lists(st.sampled_from([" a", " word", " שלום", ",", " yes,", " end.", " 吗？", " " + "x" * 30]))
    )
    now_ms, spoken_words = 0, []
    for text in said:
        start_ms = now_ms + draw(st.sampled_from([0, 0, 20, 699, 700, 5_000]))
        now_ms = start_ms + draw(st.sampled_from([0, 80, 400, 3_000, 9_000]))
        spoken_words.append(Word(text, start_ms, now_ms, 0.5))
    return spoken_words


def say(*parts: str, word_ms: int = 300) -> list[Word]:
    return [Word(text, i * word_ms, (i + 1) * word_ms, 0.9) for i, text in enumerate(parts)]


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


@pytest.mark.parametrize("end", [".", "?", "!", "…", "؟", "։", "。", "！", "？", '."', ".”", "?)"])
def test_a_sentence_ends_a_segment(end: str) -> None:
    segments = segments_from_words(say(" One", f" two{end}", " Three"))
    assert [segment.text for segment in segments] == [f"One two{end}", "Three"]


def test_a_number_or_a_gershayim_does_not_end_a_segment() -> None:
    assert [s.text for s in segments_from_words(say(" 3.5", ' ארה"ב', " שלום"))] == ['3.5 ארה"ב שלום']


def test_a_pause_ends_a_segment() -> None:
    early, late = Word(" one", 0, 300, 0.9), Word(" two", 1_000, 1_300, 0.9)
    assert [s.text for s in segments_from_words([early, late])] == ["one", "two"]
    assert [s.text for s in segments_from_words([early, late], pause_ms=701)] == ["one two"]


def test_a_long_segment_is_cut_at_the_last_comma_of_its_second_half() -> None:
    parts = [" aa,", " bb", " cc,", " dd", " ee", " ff"]
    assert [s.text for s in segments_from_words(say(*parts), max_chars=17)] == ["aa, bb cc,", "dd ee ff"]
    early_comma = [" aa", " bb,", " cc", " dd", " ee", " ff"]
    assert [s.text for s in segments_from_words(say(*early_comma), max_chars=15)] == ["aa bb, cc dd ee", "ff"]
    assert [s.text for s in segments_from_words(say(*early_comma), max_chars=14)] == ["aa bb,", "cc dd ee ff"]


def test_the_limits_may_be_reached() -> None:
    assert [s.text for s in segments_from_words(say(" aa", " bb"), max_chars=5, max_ms=600)] == ["aa bb"]
    assert len(segments_from_words(say(" aa", " bb"), max_chars=4)) == 2
    assert len(segments_from_words(say(" aa", " bb"), max_ms=599)) == 2


def test_what_remains_after_a_comma_may_need_a_cut_of_its_own() -> None:
    said = [Word(" one,", 0, 4_000, 0.9), Word(" two", 4_000, 6_900, 0.9), Word(" three", 6_900, 11_500, 0.9)]
    segments = segments_from_words(said)
    assert [(s.text, s.start_ms, s.end_ms) for s in segments] == [
        ("one,", 0, 4_000),
        ("two", 4_000, 6_900),
        ("three", 6_900, 11_500),
    ]


@patient
@given(spoken())
def test_no_word_is_lost_and_only_a_lone_word_exceeds_a_limit(said: list[Word]) -> None:
    segments = segments_from_words(said)
    assert [word for segment in segments for word in segment.words] == said
    for segment in segments:
        assert segment.text == "".join(word.text for word in segment.words).strip()
        assert (segment.start_ms, segment.end_ms) == (segment.words[0].start_ms, segment.words[-1].end_ms)
        assert all(b.start_ms - a.end_ms < 700 for a, b in pairwise(segment.words))
        if len(segment.words) > 1:
            assert segment.end_ms - segment.start_ms <= 7_000
            assert len(segment.text) <= 84


@patient
@given(st.lists(words, max_size=30))
def test_no_word_is_lost_even_where_times_make_no_sense(said: list[Word]) -> None:
    assert [word for segment in segments_from_words(said) for word in segment.words] == said


@patient
@given(results)
def test_bytes_give_back_the_same_result(result: ChunkResult) -> None:
    assert result_from_bytes(result_to_bytes(result)) == result


@pytest.mark.parametrize("text", ["\ud800", "a\udc80", "\ud83d\ude00"])
def test_bytes_keep_what_is_no_valid_unicode(text: str) -> None:
    result = ChunkResult(0, (Segment(text, 0, 1),))
    assert result_from_bytes(result_to_bytes(result)) == result


def test_bytes_are_compact_and_damage_is_noticed() -> None:
    said = [Word(" שלום", i * 300, i * 300 + 280, 0.98) for i in range(900)]
    result = ChunkResult(7, tuple(segments_from_words(said)), "he", 250_000)
    data = result_to_bytes(result)
    assert len(data) < 20 * len(said)
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 0x10
    with pytest.raises(zlib.error):
        result_from_bytes(bytes(damaged))


def test_wire_segment_is_exactly_what_the_client_reads() -> None:
    segment = Segment("שלום", 1_001, 2_340, (Word(" שלום", 1_001, 2_340, 0.75),))
    assert segment_to_wire(segment, language="he", extra_data=True, words=True) == {
        "text": "שלום",
        "start": 1.001,
        "end": 2.34,
        "speakers": [],
        "words": [{"word": " שלום", "start": 1.001, "end": 2.34, "probability": 0.75, "speaker": None}],
        "extra_data": {"language": "he"},
    }
    bare = segment_to_wire(segment, language="he", extra_data=False, words=False)
    assert (bare["words"], bare["extra_data"]) == ([], {})


@given(st.integers(0, 10**10))
def test_wire_seconds_have_three_digits_and_are_exact(ms: int) -> None:
    wire = segment_to_wire(Segment("x", ms, ms), language="", extra_data=False, words=False)
    text = json.dumps(wire["start"])
    assert round(float(text) * 1000) == ms
    assert len(text.partition(".")[2]) <= 3
