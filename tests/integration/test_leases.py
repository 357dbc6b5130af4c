"""Leases in a real Redis: one holder at a time, every chunk in exactly one set, a plan that only grows."""

from dataclasses import replace

import pytest

from tasks.errors import ConfigurationError, EngineFailed, LeaseLost, LonghandError, SourceChanged
from tasks.job import Status
from tasks.leases import ASSEMBLE, INGEST, TRANSCRIBE, Beat, Lease, Refused
from tasks.scripts import Scripts
from tests.bench import NEW, Bench, chunk

EXHAUSTING = ConfigurationError()


# Claiming


def test_one_attempt_holds_a_unit_at_a_time(bench: Bench) -> None:
    bench.planned()
    lease = bench.claim(TRANSCRIBE, "0")
    assert bench.other.claim("j", TRANSCRIBE, "0") == Refused("held")
    assert bench.leases.claim("j", TRANSCRIBE, "0") == Refused("held"), (
        "another attempt of the same process too"
    )
    assert bench.leases.beat(lease) is Beat.RENEWED
    assert isinstance(bench.other.claim("j", TRANSCRIBE, "1"), Lease)


def test_a_repeated_question_gets_the_same_lease(bench: Bench) -> None:
    bench.planned()
    ask = Scripts(bench.redis)
    answers = [ask("claim", "j", TRANSCRIBE, "0", owner, 60_000, 3, 60_000) for owner in ("me", "me", "you")]
    granted = [b"ok", b"1", b"0", 0]
    assert answers == [granted, granted, [b"held"]]


def test_an_expired_lease_is_taken_over_with_a_higher_fence(bench: Bench) -> None:
    bench.planned()
    old = bench.claim(TRANSCRIBE, "0")
    bench.expire(TRANSCRIBE, "0")
    new = bench.other.claim("j", TRANSCRIBE, "0")
    assert isinstance(new, Lease)
    assert int(new.fence) > int(old.fence)
    assert bench.leases.beat(old) is Beat.LOST
    assert bench.leases.release(old, None) == "lost"
    with pytest.raises(LeaseLost):
        bench.commit(old)
    assert bench.done() == set()
    assert bench.other.beat(new) is Beat.RENEWED
    bench.commit(new)
    assert bench.done() == {0}


@pytest.mark.parametrize("since", ["expired", "put back", "rung for again"])
def test_an_expired_lease_that_nobody_took_is_still_good_for_its_result(bench: Bench, since: str) -> None:
    bench.planned()
    lease = bench.claim(TRANSCRIBE, "0")
    bench.expire(TRANSCRIBE, "0")
    if since != "expired":
        bench.leases.reap()
    if since == "rung for again":
        assert bench.hand_out() == [("j", 0), ("j", 1)]
    bench.commit(lease)
    sets = bench.sets()
    assert (sets["done"], sets["dead"], sets["pending"] | sets["inflight"]) == ({0}, set(), {1})
    assert bench.other.claim("j", TRANSCRIBE, "0") == Refused("done")
    assert bench.redis.zscore("lh:leases:transcribe", "j/0") is None


def test_a_heartbeat_moves_the_expiry(bench: Bench) -> None:
    bench.planned()
    lease = bench.claim(TRANSCRIBE, "0")
    bench.expire(TRANSCRIBE, "0")
    assert bench.leases.beat(lease) is Beat.RENEWED
    assert bench.redis.zscore("lh:leases:transcribe", "j/0") > bench.store.now_ms()
    bench.expire(TRANSCRIBE, "0")
    bench.leases.reap()
    assert bench.leases.beat(lease) is Beat.LOST, "a chunk back in line is nobody's to renew"
    assert bench.redis.zscore("lh:leases:transcribe", "j/0") is None


def test_a_result_is_written_once(bench: Bench) -> None:
    bench.planned()
    lease = bench.claim(TRANSCRIBE, "0")
    assert bench.commit(lease, text="first") is False
    assert bench.commit(lease, text="second") is False, "the answer to the first commit was lost"
    kept = bench.store.result("j", 0)
    assert kept is not None
    assert kept.segments[0].text == "first"
    assert bench.job().done_ms == 1000
    assert len(bench.store.events("j")) == 1


def test_the_last_commit_says_so_even_when_it_is_repeated(bench: Bench) -> None:
    bench.leases.seal(bench.planned(), 2, 2000, "[]")
    assert bench.commit(bench.claim(TRANSCRIBE, "1")) is False
    last = bench.claim(TRANSCRIBE, "0")
    assert bench.commit(last) is True
    assert bench.commit(last) is True
    assert bench.redis.zscore("lh:leases:assemble", "j/assemble") > bench.store.now_ms()


def test_late_messages_are_harmless(bench: Bench) -> None:
    ingest = bench.planned()
    assert bench.leases.claim("j", TRANSCRIBE, "7") == Refused("unknown")
    bench.commit(bench.claim(TRANSCRIBE, "0"))
    assert bench.leases.claim("j", TRANSCRIBE, "0") == Refused("done")
    bench.leases.release(bench.claim(TRANSCRIBE, "1"), EXHAUSTING)
    assert bench.leases.claim("j", TRANSCRIBE, "1") == Refused("dead")
    bench.leases.seal(ingest, 2, 2000, "[]")
    assert bench.leases.claim("j", INGEST, INGEST) == Refused("done")
    assert bench.sets() == {"pending": set(), "inflight": set(), "done": {0}, "dead": {1}}


def test_nothing_goes_on_in_a_job_that_has_ended(bench: Bench) -> None:
    ingest = bench.planned(chunks=3)
    lease = bench.claim(TRANSCRIBE, "0")
    bench.finish()
    for stage, unit in ((INGEST, INGEST), (TRANSCRIBE, "0"), (TRANSCRIBE, "1"), (ASSEMBLE, ASSEMBLE)):
        assert bench.leases.claim("j", stage, unit) == Refused("gone")
    assert bench.leases.claim("never", INGEST, INGEST) == Refused("gone")
    assert bench.leases.beat(lease) is Beat.ENDED
    assert bench.leases.beat(ingest) is Beat.ENDED
    assert bench.leases.release(lease, EngineFailed()) == "lost"
    with pytest.raises(LeaseLost):
        bench.commit(lease)
    with pytest.raises(LeaseLost):
        bench.leases.add_chunk(ingest, chunk(3))
    with pytest.raises(LeaseLost):
        bench.leases.seal(ingest, 3, 3000, "[]")
    assert bench.hand_out() == []
    assert bench.done() == set()


def test_only_ingest_may_begin_a_job(bench: Bench) -> None:
    bench.store.create(NEW)
    assert bench.leases.claim("j", TRANSCRIBE, "0") == Refused("gone")
    assert bench.leases.claim("j", ASSEMBLE, ASSEMBLE) == Refused("gone")
    bench.claim(INGEST, INGEST)
    assert bench.job().status is Status.RUNNING
    assert bench.store.counts("longhand") == {Status.QUEUED: 0, Status.RUNNING: 1}


def test_a_chunk_started_too_often_is_given_up(bench: Bench) -> None:
    bench.leases.seal(bench.planned(), 2, 2000, "[]")
    for unit, last in (("0", "dead"), ("1", "complete")):
        for _ in range(3):
            bench.claim(TRANSCRIBE, unit)
            bench.expire(TRANSCRIBE, unit)
        assert bench.leases.claim("j", TRANSCRIBE, unit) == Refused(last)
    assert bench.store.dead("j") == dict.fromkeys((0, 1), "worn_out: started 3 times and never finished")


def test_a_stage_started_too_often_is_worn(bench: Bench) -> None:
    bench.store.create(NEW)
    for _ in range(3):
        bench.claim(INGEST, INGEST)
        bench.expire(INGEST, INGEST)
    assert bench.leases.claim("j", INGEST, INGEST) == Refused("worn", "3")


# Giving back


def test_bad_luck_is_not_charged(bench: Bench) -> None:
    bench.planned()
    assert bench.leases.release(bench.claim(TRANSCRIBE, "0"), None) == "again"
    assert bench.leases.release(bench.claim(TRANSCRIBE, "0"), None) == "again"
    assert bench.members("pending") == {0, 1}
    assert bench.redis.zcard("lh:leases:transcribe") == 0


def test_a_failed_attempt_waits_before_the_next_and_the_last_one_buries(bench: Bench) -> None:
    bench.planned()
    assert bench.leases.release(bench.claim(TRANSCRIBE, "0"), EngineFailed("cuda"), 2_000) == "again"
    assert bench.members("inflight") == {0}
    bench.leases.reap()
    assert bench.members("inflight") == {0}, "not before its delay is over"
    wait_ms = bench.redis.zscore("lh:leases:transcribe", "j/0") - bench.store.now_ms()
    assert 1_000 < wait_ms <= 2_000
    bench.expire(TRANSCRIBE, "0")
    bench.leases.reap()
    assert bench.hand_out()[0] == ("j", 0)
    assert bench.leases.release(bench.claim(TRANSCRIBE, "0"), EngineFailed("cuda"), 2_000) == "dead"
    assert bench.store.dead("j") == {0: "engine_failed: cuda"}


def test_an_error_that_no_attempt_can_mend_is_final(bench: Bench) -> None:
    bench.leases.seal(bench.planned(), 2, 2000, "[]")
    assert bench.leases.release(bench.claim(TRANSCRIBE, "0"), EXHAUSTING) == "dead"
    assert bench.leases.release(bench.claim(TRANSCRIBE, "1"), EXHAUSTING) == "complete"


def test_a_stage_without_attempts_left_is_exhausted(bench: Bench) -> None:
    bench.store.create(NEW)
    assert bench.leases.release(bench.claim(INGEST, INGEST), EngineFailed(), 2_000) == "again"
    assert bench.leases.hand_out_ingests() == []
    bench.expire(INGEST, INGEST)
    bench.leases.reap()
    assert bench.leases.hand_out_ingests() == ["j"]
    assert bench.leases.release(bench.claim(INGEST, INGEST), EngineFailed()) == "exhausted"


@pytest.mark.parametrize("error", [None, EXHAUSTING])
def test_a_chunk_that_is_done_is_not_given_back(bench: Bench, error: LonghandError | None) -> None:
    bench.planned()
    lease = bench.claim(TRANSCRIBE, "0")
    bench.commit(lease)
    assert bench.leases.release(lease, error) == "lost"
    assert bench.sets() == {"pending": {1}, "inflight": set(), "done": {0}, "dead": set()}


def test_a_chunk_that_was_given_up_gets_no_result(bench: Bench) -> None:
    bench.leases.seal(bench.planned(), 2, 2000, "[]")
    for _ in range(3):
        last = bench.claim(TRANSCRIBE, "0")
        bench.expire(TRANSCRIBE, "0")
    assert bench.other.claim("j", TRANSCRIBE, "0") == Refused("dead")
    with pytest.raises(LeaseLost):
        bench.commit(last)


def test_a_repeated_release_is_charged_once(bench: Bench) -> None:
    bench.planned()
    lease = bench.claim(TRANSCRIBE, "0")
    assert bench.leases.release(lease, EngineFailed(), 2_000) == "again"
    bench.leases.release(lease, EngineFailed(), 2_000)
    assert bench.store.dead("j") == {}


def test_a_repeated_last_release_gives_the_same_answer(bench: Bench) -> None:
    bench.leases.seal(bench.planned(chunks=1), 1, 1000, "[]")
    lease = bench.claim(TRANSCRIBE, "0")
    assert bench.leases.release(lease, EXHAUSTING) == "complete"
    assert bench.leases.release(lease, EXHAUSTING) == "complete"


def test_a_chunk_that_was_put_back_is_not_given_back_again(bench: Bench) -> None:
    bench.planned()
    lease = bench.claim(TRANSCRIBE, "0")
    bench.expire(TRANSCRIBE, "0")
    bench.leases.reap()
    bench.leases.release(lease, EngineFailed(), 2_000)
    assert bench.redis.zcard("lh:leases:transcribe") == 0


# Ingest


def test_a_second_ingest_writes_the_same_plan(bench: Bench) -> None:
    first = bench.planned(chunks=0)
    assert [bench.leases.add_chunk(first, chunk(index)) for index in (0, 0, 1)] == [True, True, True]
    bench.commit(bench.claim(TRANSCRIBE, "0"))
    bench.expire(INGEST, INGEST)
    second = bench.claim(INGEST, INGEST)
    with pytest.raises(LeaseLost):
        bench.leases.add_chunk(first, chunk(2))
    for index in range(2):
        assert bench.leases.add_chunk(second, replace(chunk(index), blob="another blob")) is False
    assert bench.leases.add_chunk(second, chunk(2)) is True
    assert bench.store.chunks("j") == [chunk(0), chunk(1), chunk(2)]
    assert bench.sets() == {"pending": {1, 2}, "inflight": set(), "done": {0}, "dead": set()}
    assert bench.leases.seal(second, 3, 3000, "[]") is False


def test_other_audio_at_the_same_index_is_a_changed_source(bench: Bench) -> None:
    ingest = bench.planned()
    with pytest.raises(SourceChanged):
        bench.leases.add_chunk(ingest, chunk(1, digest="other"))
    assert bench.store.chunk("j", 1) == chunk(1)


def test_sealing_completes_what_is_already_transcribed(bench: Bench) -> None:
    ingest = bench.planned()
    assert bench.commit(bench.claim(TRANSCRIBE, "0")) is False
    assert bench.commit(bench.claim(TRANSCRIBE, "1")) is False, "nobody knows yet that there is no more"
    assert bench.leases.seal(ingest, 2, 2000, "[]") is True
    assert bench.leases.seal(ingest, 2, 2000, "[]") is True
    empty = bench.planned("empty", chunks=0)
    assert bench.leases.seal(empty, 0, 0, "[]") is True


def test_a_plan_with_fewer_chunks_than_an_earlier_one_is_refused(bench: Bench) -> None:
    ingest = bench.planned(chunks=2)
    with pytest.raises(SourceChanged):
        bench.leases.seal(ingest, 1, 1000, "[]")
    assert bench.leases.seal(ingest, 2, 2000, "[]") is False
