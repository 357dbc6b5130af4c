"""What is dropped as made up, and what is kept because people say it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.hallucinations import is_filler, sifted, unechoed, unlooped
from tasks.transcript import Segment, Word


def said(text: str) -> list[Word]:
    return [Word(f" {word}", i * 300, i * 300 + 250, 0.9) for i, word in enumerate(text.split())]


def kept(text: str) -> str:
    return " ".join(word.text.strip() for word in unlooped(said(text)))


@pytest.mark.parametrize(
    "text",
    [
        "Thank you.",
        "Thanks for watching!",
        " Thank you, for watching... ",
        "[Music]",
        "♪♪",
        "...",
        "Subtitles by the Amara.org community",
        "Transcribed by https://otter.ai",
        "תודה רבה.",
        "תודה שצפיתם!",
        "תּוֹדָה רַבָּה",
        "כתוביות על ידי יוסי",
        "Untertitel im Auftrag des ZDF für funk, 2017",
        "Sous-titrage Société Radio-Canada",
        "Sous-titres réalisés par la communauté d'Amara.org",
        "Merci d'avoir regardé cette vidéo !",
        "¡Gracias por ver el video!",
        "Subtítulos realizados por la comunidad de Amara.org",
        "Субтитры сделал DimaTorzok",
        "Продолжение следует...",
        "شكراً للمشاهدة",
        "ترجمة نانسي قنقر",
        "ご視聴ありがとうございました。",
        "字幕由 Amara.org 社区提供",
        "시청해 주셔서 감사합니다.",
        "Altyazı M.K.",
    ],
)
def test_what_whisper_says_over_silence_is_known(text: str) -> None:
    assert is_filler(text)


@pytest.mark.parametrize(
    "text",
    [
        "Thank you for the book that you sent me.",
        "And so, my fellow Americans",
        "תודה רבה על הספר ששלחת לי",
        "The subtitles were written by a friend.",
        "Die Untertitel fehlen.",
        "Merci pour tout ce que vous avez fait",
        "字幕很小",
    ],
)
def test_what_people_say_is_not(text: str) -> None:
    assert not is_filler(text)


def segment(text: str, number: int = 0) -> Segment:
    return Segment(text, number * 1_000, number * 1_000 + 900)


def test_fillers_go_only_where_nobody_is_clearly_heard() -> None:
    segments = [segment("Good evening."), segment("Thank you.", 1), segment("We begin.", 2)]
    assert sifted(segments, lambda _: False) == segments
    assert sifted(segments, lambda given: given.start_ms == 1_000) == [segments[0], segments[2]]
    assert sifted(segments, lambda _: True) == [segments[0], segments[2]]


def test_the_rest_of_a_sentence_is_no_filler() -> None:
    segments = [segment("Ask what your country can do for"), segment("you.", 1), segment("Thank you.", 2)]
    assert sifted(segments, lambda _: True) == segments[:2]
    late = segment("you.", 3)
    assert sifted([segments[0], late], lambda _: True) == segments[:1]


def test_repetitions_go_only_where_nobody_is_clearly_heard() -> None:
    segments = [
        segment(text, number) for number, text in enumerate(["Oh no!", "oh no", "Oh, no.", "Oh yes."])
    ]
    assert sifted(segments, lambda _: False) == segments
    assert sifted(segments, lambda _: True) == [segments[0], segments[3]]


@pytest.mark.parametrize(
    ("text", "once"),
    [
        ("so we go on and on", "so we go on and on"),
        ("it is what it is what it is what it is what it", "it is what"),
        ("first. it is. It is, it is it is then", "first. it is. then"),
        ("no no no", "no no no"),
        ("yes no no no no no no", "yes no"),
        ("he says no no no no and goes", "he says no and goes"),
        ("", ""),
    ],
)
def test_a_loop_is_said_once(text: str, once: str) -> None:
    assert kept(text) == once


@given(st.lists(st.sampled_from("abc"), max_size=40))
def test_the_rest_stays_in_order_and_each_word_is_said_at_least_once(letters: list[str]) -> None:
    words = said(" ".join(letters))
    rest = unlooped(words)
    assert [word for word in words if word in rest] == rest
    assert {word.text for word in words} == {word.text for word in rest}


DAY = "It was a good day for all of us."


def spoken(*phrases: tuple[str, int]) -> list[Word]:
    """Words of phrases one after the other, each phrase as long as it is said to be, in ms."""
    words: list[Word] = []
    for text, spoken_ms in phrases:
        start_ms = words[-1].end_ms if words else 0
        each = text.split()
        edges = [start_ms + spoken_ms * number // len(each) for number in range(len(each) + 1)]
        words += [Word(f" {word}", *times, 0.9) for word, times in zip(each, pairwise(edges), strict=True)]
    return words


@pytest.mark.parametrize(
    ("phrases", "dropped"),
    [
        # As two windows of a talk were aligned.
        ([(DAY, 3_000), (DAY, 0)], {1}),
        ([("So:", 300), (DAY, 3_000), (DAY.lower(), 40), ("Then", 300), ("then", 0)], {2}),
        # Somebody says it again, in a hurry, or a little later.
        ([(DAY, 3_000), (DAY, 900)], set()),
        ([(DAY, 900), ("Yes.", 200), (DAY, 0)], set()),
        # Too short to tell.
        ([("All of us,", 600), ("all of us", 0)], set()),
        ([], set()),
    ],
)
def test_a_sentence_is_not_said_again_in_no_time(phrases: list[tuple[str, int]], dropped: set[int]) -> None:
    rest = "".join(f" {text}" for number, (text, _) in enumerate(phrases) if number not in dropped)
    assert "".join(word.text for word in unechoed(spoken(*phrases))) == rest
