"""Captions made of words, and of text that nobody aligned: nothing lost, nothing moved, nothing too long."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.captions import segments_from_words, words_from_text
from tasks.chunks import Span
from tasks.formats import FORMATS, srt, txt, vtt
from tasks.transcript import Transcript, Word

patient = settings(deadline=None)
times = st.integers(-2_000, 20_000)
words = st.builds(Word, st.text(st.characters(), max_size=20), times, times, st.floats(0, 1))


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


SCRIPTS = [
    " He said so. And then, of course, he went home!",
    ' הוא אמר "שלום" בשעה 10:30. אחר כך, כמובן, הלך הביתה! צה"ל',
    " قال ذلك. ثم، بالطبع، ذهب إلى البيت؟",
    "他这么说。然后，当然，他回家了！「好」",
    "そう言いました。それから、家に帰りました。",
    "เขาพูดอย่างนั้น แล้วเขาก็กลับบ้าน",
    "שלום עולם. Hello world, 42 مرحبا",
]


@st.composite
def pauses(draw: st.DrawFn) -> list[Span]:
    """Stretches of speech in order."""
    edges = sorted(draw(st.sets(st.integers(0, 30_000), min_size=2, max_size=12)))
    return [Span(start, end) for start, end in zip(edges[::2], edges[1::2], strict=False)]


@patient
@given(st.one_of(st.sampled_from(SCRIPTS), st.text(max_size=200)), pauses())
def test_every_character_of_a_text_is_in_a_word_where_somebody_speaks(text: str, spoken: list[Span]) -> None:
    said = words_from_text(text, spoken)
    joined = "".join(word.text for word in said)
    assert joined == text if text.strip() else not said
    for word in said:
        assert any(span.start_ms <= word.start_ms <= word.end_ms <= span.end_ms for span in spoken)
    assert all(before.end_ms <= after.start_ms for before, after in pairwise(said))


@patient
@given(st.lists(st.sampled_from(SCRIPTS), min_size=1, max_size=6), pauses())
def test_a_text_without_times_makes_captions_that_keep_to_the_limits(
    texts: list[str], spoken: list[Span]
) -> None:
    segments = segments_from_words(words_from_text("".join(texts), spoken))
    assert "".join("".join(texts).split()) == "".join("".join(segment.text.split()) for segment in segments)
    for segment in segments:
        assert len(segment.words) == 1 or segment.end_ms - segment.start_ms <= 7_000
        assert len(segment.words) == 1 or len(segment.text) <= 84


def test_a_sentence_is_said_before_its_pause() -> None:
    spoken = [Span(0, 3_000), Span(4_000, 7_000)]
    text = " It is late, my friend, and I go. Let us meet here again next week, then."
    # In proportion the pause would be after "Let".
    assert [
        (segment.text, segment.start_ms) for segment in segments_from_words(words_from_text(text, spoken))
    ] == [
        ("It is late, my friend, and I go.", 0),
        ("Let us meet here again next week, then.", 4_000),
    ]


def test_a_pause_without_a_sentence_end_parts_the_text_in_proportion() -> None:
    said = words_from_text(" aa bb cc dd ee ff", [Span(0, 1_000), Span(5_000, 7_000)])
    assert [(word.text, word.start_ms, word.end_ms) for word in said] == [
        (" aa", 0, 500),
        (" bb", 500, 1_000),
        (" cc", 5_000, 5_500),
        (" dd", 5_500, 6_000),
        (" ee", 6_000, 6_500),
        (" ff", 6_500, 7_000),
    ]


def test_text_without_speech_makes_no_words() -> None:
    assert words_from_text(" text", []) == []
    assert words_from_text("  ", [Span(0, 1_000)]) == []


def test_right_to_left_text_is_in_every_format_as_it_was_said() -> None:
    """In logical order, without marks of direction: players and editors order it themselves."""
    text = ' "שלום", אמר רס"ן כהן ב-7:30 ל-John. נִקּוּד, ז\'בוטינסקי וצה״ל. شكراً لكم.'
    segments = segments_from_words(words_from_text(text, [Span(0, 6_000)]))
    transcript = Transcript(tuple(segments), 10_000, "he")
    lines = ['"שלום", אמר רס"ן כהן ב-7:30 ל-John.', "נִקּוּד, ז'בוטינסקי וצה״ל.", "شكراً لكم."]
    assert txt(transcript).splitlines() == lines
    for captions in (srt, vtt):
        assert [line for line in captions(transcript).splitlines() if line in lines] == lines
    for name, write in FORMATS.items():
        document = write(transcript)
        assert not set("\u200e\u200f\u202a\u202b\u202c\u2067\ufeff") & set(document), name
        assert "נִקּוּד" in document, name
