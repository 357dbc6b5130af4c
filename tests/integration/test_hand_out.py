"""What is handed out next, in a real Redis: fair between jobs, one chunk until the language is known."""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tasks import endings
from tasks.errors import ConfigurationError
from tasks.job import Options
from tasks.leases import INGEST, TRANSCRIBE
from tests.bench import HEBREW, NEW, PAST_MS, Bench, chunk

UNKNOWN = Options()


# Ingests


def test_ingests_are_handed_out_one_a_slot_and_one_to_wait_for(bench: Bench) -> None:
    for job_id in "abc":
        bench.store.create(replace(NEW, id=job_id))
    assert len(bench.leases.hand_out_ingests()) == 1
    assert bench.leases.hand_out_ingests() == []
    bench.open_slots(INGEST, 2)
    assert len(bench.leases.hand_out_ingests()) == 1
    assert bench.store.slots(INGEST) == (2, 2)


def test_ingests_are_handed_out_first_come_first_served(bench: Bench) -> None:
    for job_id in "cab":
        bench.store.create(replace(NEW, id=job_id))
        created_ms = bench.store.now_ms()
        while bench.store.now_ms() == created_ms:
            """Two jobs of the same millisecond have no order."""
    order = []
    for _ in range(3):
        order += bench.leases.hand_out_ingests()
        bench.redis.delete("lh:leases:ingest")
    assert order == ["c", "a", "b"]


def test_a_sealed_job_takes_no_ingest_slot(bench: Bench) -> None:
    ingest = bench.planned()
    bench.expire(INGEST, INGEST)
    bench.leases.reap()
    bench.leases.seal(ingest, 2, 2000, "[]")
    assert bench.leases.hand_out_ingests() == []


# Chunks


def test_until_its_language_is_known_a_job_gets_one_chunk_at_a_time(bench: Bench) -> None:
    bench.planned(chunks=5, options=UNKNOWN)
    bench.open_slots(TRANSCRIBE, 8)
    assert bench.hand_out() == [("j", 0)]
    assert bench.hand_out() == []
    bench.commit(bench.claim(TRANSCRIBE, "0"), language="")
    assert bench.hand_out() == [("j", 1)], "nobody spoke: the next may tell"
    bench.leases.release(bench.claim(TRANSCRIBE, "1"), ConfigurationError())
    assert bench.hand_out() == [("j", 2)], "a dead one passes the gate on"
    bench.claim(TRANSCRIBE, "2")
    bench.expire(TRANSCRIBE, "2")
    bench.leases.reap()
    assert bench.hand_out() == [("j", 2)], "the lowest that is not finished"
    bench.commit(bench.claim(TRANSCRIBE, "2"), language="yi")
    assert bench.job().language == "yi"
    assert bench.hand_out() == [("j", 3), ("j", 4)]
    bench.commit(bench.claim(TRANSCRIBE, "3"), language="en")
    assert bench.job().language == "yi"


def test_a_chunk_that_is_not_sure_of_its_language_pins_none(bench: Bench) -> None:
    bench.planned(chunks=5, options=UNKNOWN)
    bench.open_slots(TRANSCRIBE, 8)
    bench.hand_out()
    bench.commit(bench.claim(TRANSCRIBE, "0"), language="nn", unsure=0.3)
    assert (bench.job().language, bench.hand_out()) == ("", [("j", 1)])
    bench.commit(bench.claim(TRANSCRIBE, "1"), language="")
    assert bench.hand_out() == [("j", 2)], "who is silent has no vote"
    bench.commit(bench.claim(TRANSCRIBE, "2"), language="he")
    assert (bench.job().language, bench.hand_out()) == ("he", [("j", 3), ("j", 4)])


@pytest.mark.parametrize(
    ("heard", "pinned"),
    [
        ([("yi", 0.4), ("he", 0.45), ("yi", 0.1)], "yi"),
        ([("yi", 0.2), ("he", 0.45), ("yi", 0.2)], "he"),
        ([("yi", 0.25), ("he", 0.25), ("ar", 0.25)], "yi"),
    ],
)
def test_three_that_are_not_sure_decide_together(
    bench: Bench, heard: list[tuple[str, float]], pinned: str
) -> None:
    bench.planned(chunks=6, options=UNKNOWN)
    bench.open_slots(TRANSCRIBE, 8)
    for index, (language, probability) in enumerate(heard):
        assert (bench.hand_out(), bench.job().language) == ([("j", index)], "")
        bench.commit(bench.claim(TRANSCRIBE, str(index)), language=language, unsure=probability)
    assert (bench.job().language, len(bench.hand_out())) == (pinned, 3)


def test_a_dead_chunk_passes_the_gate_on_in_a_job_that_allows_gaps(bench: Bench) -> None:
    request = replace(NEW.request, options=UNKNOWN, allow_gaps=True) if NEW.request else None
    assert bench.store.create(replace(NEW, request=request))
    ingest = bench.claim(INGEST, INGEST)
    for index in range(4):
        bench.leases.add_chunk(ingest, chunk(index))
    bench.open_slots(TRANSCRIBE, 8)
    assert bench.hand_out() == [("j", 0)]
    bench.leases.release(bench.claim(TRANSCRIBE, "0"), ConfigurationError())
    assert bench.hand_out() == [("j", 1)]
    bench.commit(bench.claim(TRANSCRIBE, "1"), language="he")
    assert bench.hand_out() == [("j", 2), ("j", 3)]


def test_the_next_run_of_a_job_knows_what_was_heard(bench: Bench) -> None:
    bench.planned(chunks=4, options=UNKNOWN)
    bench.seal()
    for index in range(2):
        bench.commit(bench.claim(TRANSCRIBE, str(index)), language="he", unsure=0.3)
    failed = endings.failed("j", "j", bench.store.now_ms(), ConfigurationError())
    assert bench.store.finish("j", failed)[0]
    bench.store.retry("j")
    bench.commit(bench.claim(TRANSCRIBE, "2"), language="yi", unsure=0.4)
    assert bench.job().language == "he"


@pytest.mark.parametrize("options", [HEBREW, Options(multilingual=True)])
def test_a_job_whose_language_is_given_or_free_is_not_held_back(bench: Bench, options: Options) -> None:
    bench.planned(chunks=5, options=options)
    bench.open_slots(TRANSCRIBE, 8)
    assert bench.hand_out() == [("j", index) for index in range(5)]
    bench.commit(bench.claim(TRANSCRIBE, "0"), language="en")
    assert bench.job().language == (options.language or "")


def test_two_chunks_a_slot_are_out_at_a_time_over_all_jobs(bench: Bench) -> None:
    bench.planned("a", chunks=20)
    bench.planned("b", chunks=20)
    assert len(bench.hand_out()) == 2, "two wait for the first worker that comes up"
    bench.open_slots(TRANSCRIBE, 3)
    bench.hand_out()
    assert bench.store.slots(TRANSCRIBE) == (3, 6)
    assert bench.hand_out() == []
    bench.redis.zadd("lh:slots:transcribe", {"child-0": PAST_MS, "child-1": PAST_MS})
    bench.leases.reap()
    assert bench.hand_out() == [], "slots that died leave no room"


def served(bench: Bench) -> Iterator[str]:
    """The job of each chunk handed out, when every chunk is transcribed as soon as it is."""
    while rung := bench.hand_out():
        for job_id, index in rung:
            yield job_id
            bench.commit(bench.claim(TRANSCRIBE, str(index), job_id))


def test_a_short_job_is_not_held_up_by_a_long_one(bench: Bench) -> None:
    bench.planned("long", chunks=400)
    bench.open_slots(TRANSCRIBE, 2)
    serving = served(bench)
    assert set(itertools.islice(serving, 40)) == {"long"}
    bench.planned("short", chunks=3)
    # Four are out already; from then on the two jobs take turns.
    assert Counter(itertools.islice(serving, 4 + 6))["short"] == 3
    assert set(itertools.islice(serving, 20)) == {"long"}, "who is alone gets everything"


def test_a_newcomer_does_not_make_up_for_what_it_missed(bench: Bench) -> None:
    bench.planned("old", chunks=80)
    bench.open_slots(TRANSCRIBE, 1)
    serving = served(bench)
    list(itertools.islice(serving, 40))
    bench.planned("new", chunks=40)
    shares = Counter(itertools.islice(serving, 24))
    assert abs(shares["old"] - shares["new"]) <= 3


def test_a_job_held_back_for_its_language_is_served_in_turn(bench: Bench) -> None:
    bench.planned("a", chunks=60)
    bench.planned("b", chunks=60, options=UNKNOWN)
    bench.open_slots(TRANSCRIBE, 1)
    shares = Counter(itertools.islice(served(bench), 40))
    assert abs(shares["a"] - shares["b"]) <= 4


def test_a_chunk_of_low_priority_counts_four_times(bench: Bench) -> None:
    bench.planned("low", chunks=60, low_priority=True)
    bench.planned("normal", chunks=60)
    bench.open_slots(TRANSCRIBE, 1)
    shares = Counter(itertools.islice(served(bench), 50))
    assert 9 <= shares["low"] <= 12
    assert shares["normal"] + shares["low"] == 50


def test_shares_are_of_audio_and_not_of_chunks(bench: Bench) -> None:
    for job_id, length_ms in (("coarse", 5_000), ("fine", 1_000)):
        ingest = bench.planned(job_id, chunks=0)
        for index in range(60):
            bench.leases.add_chunk(ingest, chunk(index, length_ms))
    bench.open_slots(TRANSCRIBE, 1)
    shares = Counter(itertools.islice(served(bench), 60))
    assert 9 <= shares["coarse"] <= 12
