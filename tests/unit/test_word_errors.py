"""Word errors and their places, as the benchmarks count them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.seams import Spoken, by_cut
from benchmarks.words import error_rate, errors, words_of

WORDS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=12)


def test_case_punctuation_and_titles_are_no_errors() -> None:
    assert error_rate("Mr. Dashwood, it's COLOUR.", "mister dashwood it is color") == 0


def test_each_kind_of_error_has_its_place() -> None:
    found = errors(words_of("a red fish swims here"), words_of("a bed fish and so swims"))
    assert found.all == {1: 1, 2: 2, 4: 1}
    assert found.lost == {4}


def test_a_word_that_is_heard_twice_is_told() -> None:
    assert errors(["we", "go", "home"], ["we", "go", "go", "home"]).twice
    assert not errors(["we", "go", "home"], ["we", "go", "back", "home"]).twice


@given(spoken=WORDS, heard=WORDS)
def test_errors_are_as_many_as_levenshtein_says(spoken: list[str], heard: list[str]) -> None:
    row = list(range(len(heard) + 1))
    for number, expected in enumerate(spoken, 1):
        before, row[0] = row[0], number
        for place, word in enumerate(heard, 1):
            before, row[place] = (
                row[place],
                min(row[place - 1] + 1, row[place] + 1, before + (word != expected)),
            )
    assert errors(spoken, heard).all.total() == row[-1]


@given(
    st.lists(st.integers(0, 100_000), min_size=1, unique=True), st.lists(st.integers(0, 100_000), min_size=1)
)
def test_each_word_is_counted_once_at_its_nearest_cut(cuts_ms: list[int], at_ms: list[int]) -> None:
    spoken = Spoken(("a",) * len(at_ms), tuple(at_ms))
    nothing = errors(spoken.words, [])
    near, table = by_cut(spoken, cuts_ms, nothing, errors(spoken.words, spoken.words))
    assert near == {n for n, at in enumerate(at_ms) if min(abs(at - cut) for cut in cuts_ms) <= 5_000}
    sums = table.sum(axis=0)
    assert (sums[0], sums[1]) == (len(near), len(at_ms) - len(near))
    assert np.array_equal(sums[2:4], sums[0:2])
    assert not sums[4:].any()
