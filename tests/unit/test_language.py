import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.language import Ballot, Elected, elect, is_sure

probabilities = st.dictionaries(st.sampled_from(["en", "he", "yi", "ar"]), st.floats(0, 1), min_size=1)
ballots = st.lists(st.builds(Ballot, probabilities, st.integers(1, 30_000)), min_size=1, max_size=6)


def test_the_most_probable_language_on_the_whole_is_elected() -> None:
    sure = Ballot({"en": 0.95, "no": 0.05}, 30_000)
    unsure = [Ballot({"no": 0.4, "da": 0.38, "en": 0.2}, 20_000)] * 2
    # Two of three would have said Norwegian.
    assert elect([sure, *unsure]) == Elected("en", round((0.95 * 3 + 0.2 * 4) / 7, 4))


def test_a_window_counts_by_its_speech() -> None:
    long, short = Ballot({"he": 0.6, "ar": 0.4}, 30_000), Ballot({"ar": 1.0}, 1_000)
    assert elect([long, short]).language == "he"
    assert elect([long, Ballot(short.probabilities, 30_000)]).language == "ar"


def test_of_equals_the_first_by_name() -> None:
    halves = Ballot({"yi": 0.5, "he": 0.5}, 1_000)
    assert elect([halves]) == Elected("he", 0.5)


@pytest.mark.parametrize("nobody", [[], [Ballot({"he": 1.0}, 0)]])
def test_a_vote_needs_speech(nobody: list[Ballot]) -> None:
    with pytest.raises(ValueError, match="speech"):
        elect(nobody)


@given(ballots)
def test_a_vote_is_decided_by_what_was_voted(given_ballots: list[Ballot]) -> None:
    elected = elect(given_ballots)
    said = [ballot.probabilities.get(elected.language, 0.0) for ballot in given_ballots]
    assert min(said) - 1e-4 <= elected.probability <= max(said) + 1e-4
    assert elect(given_ballots * 2) == elected


@given(ballots, st.randoms(use_true_random=False))
def test_the_order_of_windows_changes_no_winner_that_leads(
    given_ballots: list[Ballot], random: object
) -> None:
    shuffled = list(given_ballots)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = elect(given_ballots), elect(shuffled)
    assert first.probability == pytest.approx(second.probability, abs=2e-4)


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=5))
def test_one_mind_is_elected(shares: list[float]) -> None:
    assert elect([Ballot({"he": share}, 1_000) for share in shares]).language == "he"


def test_sure_is_at_or_above_the_threshold_or_known_before() -> None:
    assert [is_sure(probability, 0.5) for probability in (0.0, 0.49, 0.5, 1.0)] == [True, False, True, True]
