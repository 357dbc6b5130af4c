"""When a window is decoded again, how, and which decoding is kept."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.job import Options
from tasks.ladder import Decoding, faults, is_loop, rank, rungs, size_of

GOOD = Decoding((1, 2), " It was a good day for all of us.", -0.2, 1.1, 0.01, ran_out=False)
UNCOMPRESSED = Options(compression_ratio_threshold=None)
decodings = st.builds(
    Decoding,
    st.just(()),
    st.text(max_size=30),
    st.floats(-3, 0),
    st.floats(0.5, 10),
    st.floats(0, 1),
    st.booleans(),
)


def test_a_good_decoding_has_no_fault() -> None:
    assert faults(GOOD, 4_000, Options()) == 0


@pytest.mark.parametrize(
    ("decoding", "options"),
    [
        (replace(GOOD, avg_logprob=-1.01), Options()),
        (replace(GOOD, compression_ratio=2.41), Options()),
        (replace(GOOD, avg_logprob=-0.3), Options(log_prob_threshold=-0.25)),
        (replace(GOOD, compression_ratio=1.3), Options(compression_ratio_threshold=1.2)),
        (replace(GOOD, text=" Yes, so"), Options()),
        (replace(GOOD, text=""), Options()),
        (
            replace(GOOD, text=" It was a good day for all of us. It was a good day, for all of us!"),
            Options(),
        ),
        (replace(GOOD, text=" Then. זה היה יום טוב לכולם, זה היה יום טוב לכולם. And so on."), Options()),
    ],
)
def test_each_sign_is_a_fault(decoding: Decoding, options: Options) -> None:
    assert faults(decoding, 4_000, options) == 1


@pytest.mark.parametrize(
    ("decoding", "spoken_ms", "options"),
    [
        (replace(GOOD, avg_logprob=-3.0), 4_000, Options(log_prob_threshold=None)),
        (replace(GOOD, compression_ratio=9.0), 4_000, UNCOMPRESSED),
        (
            replace(GOOD, text=" It was a good day for all of us. It was a good day, for all of us!"),
            4_000,
            UNCOMPRESSED,
        ),
        (replace(GOOD, text=" Thank you very much. Thank you very much."), 4_000, Options()),
        (replace(GOOD, text=" Yes."), 1_900, Options()),
        (replace(GOOD, text=" Yes."), 4_000, Options(max_new_tokens=2)),
    ],
)
def test_what_the_client_switched_off_is_none(decoding: Decoding, spoken_ms: int, options: Options) -> None:
    assert faults(decoding, spoken_ms, options) == 0


def test_the_ladder_has_its_rungs_in_order() -> None:
    options = Options(beam_size=1, initial_prompt="Names: Cohen", hotwords="Cohen")
    wider = replace(options, beam_size=5)
    careful = replace(wider, no_repeat_ngram_size=3)
    assert list(rungs(options)) == [
        wider,
        careful,
        replace(careful, initial_prompt=None, hotwords=None),
    ]


def test_a_rung_that_changes_nothing_is_left_out() -> None:
    assert list(rungs(Options())) == [Options(no_repeat_ngram_size=3)]
    assert list(rungs(Options(beam_size=8, no_repeat_ngram_size=2))) == []
    assert list(rungs(Options(no_repeat_ngram_size=5))) == [Options(no_repeat_ngram_size=3)]


def test_temperatures_are_the_rungs_of_those_who_give_them() -> None:
    options = Options(temperature=[0.0, 0.2, 0.4])
    assert [rung.temperature for rung in rungs(options)] == [0.2, 0.4]
    assert list(rungs(Options(temperature=0.7))) == []
    # One that samples nothing is no choice.
    assert len(list(rungs(Options(temperature=[0.0])))) == 1


@given(st.lists(decodings, min_size=1, max_size=5), st.integers(0, 30_000))
def test_the_best_is_the_same_whatever_the_order(tried: list[Decoding], spoken_ms: int) -> None:
    ranks = [rank(decoding, spoken_ms, Options()) for decoding in tried]
    assert max(ranks) == max(reversed(ranks))
    best = tried[ranks.index(max(ranks))]
    assert best.ran_out <= min(decoding.ran_out for decoding in tried)


def test_a_loop_is_worse_than_anything_that_ends_however_sure_the_model_is() -> None:
    loop = replace(GOOD, avg_logprob=-0.01, compression_ratio=20.0, ran_out=True)
    assert rank(loop, 4_000, Options()) < rank(replace(GOOD, avg_logprob=-1.5), 4_000, Options())


def test_a_refrain_is_better_than_what_may_not_repeat_itself() -> None:
    refrain = replace(GOOD, text=" Row your boat." * 6, compression_ratio=4.0)
    careful = replace(GOOD, text=" Row your boat, row a boat, rowing boats.", avg_logprob=-0.5)
    assert faults(refrain, 6_000, Options()) == 1
    assert rank(refrain, 6_000, Options()) > rank(careful, 6_000, Options())
    # So much in a second nobody sings.
    assert rank(refrain, 2_000, Options()) > rank(careful, 2_000, Options())
    endless = replace(refrain, text=refrain.text * 5)
    assert rank(endless, 6_000, Options()) < rank(careful, 6_000, Options())
    assert is_loop(endless, 6_000, Options())
    assert not is_loop(refrain, 6_000, Options())


def test_letters_of_every_script_weigh_by_what_is_said_in_a_second() -> None:
    assert (size_of("Ab, c!"), size_of("שלום."), size_of("他说。")) == (3, 8, 6)
