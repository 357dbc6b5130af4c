"""Leases in a real Redis: one holder at a time, chunks in exactly one set, fair and gated hand-outs."""

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from redis import Redis

from tasks import endings
from tasks.chunks import Chunk
from tasks.errors import ConfigurationError, EngineFailed, LeaseLost, LonghandError, SourceChanged
from tasks.job import NewJob, Options, Request, Status
from tasks.leases import ASSEMBLE, INGEST, TRANSCRIBE, Beat, Lease, Leases, Refused
from tasks.scripts import Scripts
from tasks.settings import Settings
from tasks.store import Store
from tasks.transcript import ChunkResult, Segment, result_to_bytes

HEBREW = Options(language="he")
UNKNOWN = Options()
NEW = NewJob("j", "longhand", "us", Request("https://a.test/x", "large", HEBREW), 60_000, 0)
PAST_MS = 1
EXHAUSTING = ConfigurationError()


def chunk(index: int, length_ms: int = 1000, digest: str = "") -> Chunk:
    return Chunk(
        index, length_ms * index, length_ms * (index + 1), digest or f"digest-{index}", f"blob-{index}"
    )


def result(index: int, text: str = "a", language: str = "he") -> bytes:
    return result_to_bytes(ChunkResult(index, (Segment(text, 0, 9),), language, 9))


@dataclass(slots=True)
class Bench:
    """The state of one test. `redis` is untyped: redis-py's answers are sync-or-async unions."""

    redis: Any
    store: Store
    leases: Leases
    other: Leases

    def claim(self, stage: str, unit: str, job_id: str = "j") -> Lease:
        lease = self.leases.claim(job_id, stage, unit)
        assert isinstance(lease, Lease), lease
        return lease

    def planned(self, job_id: str = "j", chunks: int = 2, options: Options = HEBREW, **changes: Any) -> Lease:
        """A running job with chunks of a second each, not sealed."""
        assert NEW.request is not None
        self.store.create(replace(NEW, id=job_id, request=replace(NEW.request, options=options), **changes))
        ingest = self.claim(INGEST, INGEST, job_id)
        for index in range(chunks):
            self.leases.add_chunk(ingest, chunk(index))
        return ingest

    def commit(self, lease: Lease, language: str = "he", text: str = "a") -> bool:
        data = result(int(lease.unit), text, language)
        return self.leases.commit(lease, data, language, 1000, lambda *_: "{}")[0]

    def expire(self, stage: str, unit: str) -> None:
        """Let the lease of a unit, or the message about it, be long past."""
        key = f"lh:leases:{stage}"
        assert self.redis.zscore(key, f"j/{unit}") is not None
        self.redis.zadd(key, {f"j/{unit}": PAST_MS})

    def open_slots(self, stage: str, count: int) -> None:
        for number in range(count):
            self.leases.open_slot(stage, f"child-{number}")

    def members(self, part: str) -> set[int]:
        """The chunks of job j in its pending or inflight set."""
        key = f"lh:job:j:{part}"
        found = self.redis.smembers(key) if part == "inflight" else self.redis.zrange(key, 0, -1)
        return {int(index) for index in found}

    def done(self) -> set[int]:
        return {int(index) for index in self.redis.hkeys("lh:job:j:results")}

    def sets(self) -> dict[str, set[int]]:
        return {
            "pending": self.members("pending"),
            "inflight": self.members("inflight"),
            "done": self.done(),
            "dead": set(self.store.dead("j")),
        }


@pytest.fixture
def bench(redis: Redis, settings: Settings) -> Bench:
    settings = settings.model_copy(update={"durable_accept": False, "max_starts": 3, "max_attempts": 2})
    return Bench(
        redis, Store(redis, settings), Leases(redis, settings, "one"), Leases(redis, settings, "two")
    )


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
    assert answers == [[b"ok", b"1"], [b"ok", b"1"], [b"held"]]


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
        assert bench.leases.hand_out_chunks() == [("j", 0), ("j", 1)]
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
    job = bench.store.job("j")
    assert job is not None
    assert job.done_ms == 1000
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
    job = bench.store.job("j")
    assert job is not None
    bench.store.finish("j", endings.canceled(job, 0))
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
    assert bench.leases.hand_out_chunks() == []
    assert bench.done() == set()


def test_only_ingest_may_begin_a_job(bench: Bench) -> None:
    bench.store.create(NEW)
    assert bench.leases.claim("j", TRANSCRIBE, "0") == Refused("gone")
    assert bench.leases.claim("j", ASSEMBLE, ASSEMBLE) == Refused("gone")
    bench.claim(INGEST, INGEST)
    job = bench.store.job("j")
    assert job is not None
    assert job.status is Status.RUNNING
    assert bench.store.counts("longhand") == {Status.QUEUED: 0, Status.RUNNING: 1}


def test_a_chunk_started_too_often_is_given_up(bench: Bench) -> None:
    bench.leases.seal(bench.planned(), 2, 2000, "[]")
    for unit, last in (("0", "dead"), ("1", "complete")):
        for _ in range(3):
            bench.claim(TRANSCRIBE, unit)
            bench.expire(TRANSCRIBE, unit)
        assert bench.leases.claim("j", TRANSCRIBE, unit) == Refused(last)
    assert bench.store.dead("j") == dict.fromkeys((0, 1), "started 3 times and never finished")


def test_a_stage_started_too_often_is_worn(bench: Bench) -> None:
    bench.store.create(NEW)
    for _ in range(3):
        bench.claim(INGEST, INGEST)
        bench.expire(INGEST, INGEST)
    assert bench.leases.claim("j", INGEST, INGEST) == Refused("worn")


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
    assert bench.leases.hand_out_chunks()[0] == ("j", 0)
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
    assert [bench.leases.add_chunk(first, chunk(index)) for index in (0, 0, 1)] == [True, False, True]
    bench.commit(bench.claim(TRANSCRIBE, "0"))
    bench.expire(INGEST, INGEST)
    second = bench.claim(INGEST, INGEST)
    with pytest.raises(LeaseLost):
        bench.leases.add_chunk(first, chunk(2))
    moved = replace(chunk(1), blob="another blob")
    assert bench.leases.add_chunk(second, chunk(0)) is False
    assert bench.leases.add_chunk(second, moved) is False
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


def test_a_plan_with_fewer_chunks_than_an_earlier_one_is_refused(bench: Bench) -> None:
    ingest = bench.planned(chunks=2)
    with pytest.raises(SourceChanged):
        bench.leases.seal(ingest, 1, 1000, "[]")
    assert bench.leases.seal(ingest, 2, 2000, "[]") is False


def test_a_sealed_job_takes_no_ingest_slot(bench: Bench) -> None:
    ingest = bench.planned()
    bench.expire(INGEST, INGEST)
    bench.leases.reap()
    bench.leases.seal(ingest, 2, 2000, "[]")
    assert bench.leases.hand_out_ingests() == []


# Handing out


def test_until_its_language_is_known_a_job_gets_one_chunk_at_a_time(bench: Bench) -> None:
    bench.planned(chunks=5, options=UNKNOWN)
    bench.open_slots(TRANSCRIBE, 8)
    assert bench.leases.hand_out_chunks() == [("j", 0)]
    assert bench.leases.hand_out_chunks() == []
    bench.commit(bench.claim(TRANSCRIBE, "0"), language="")
    assert bench.leases.hand_out_chunks() == [("j", 1)], "nobody spoke: the next may tell"
    bench.leases.release(bench.claim(TRANSCRIBE, "1"), EXHAUSTING)
    assert bench.leases.hand_out_chunks() == [("j", 2)], "a dead one passes the gate on"
    bench.claim(TRANSCRIBE, "2")
    bench.expire(TRANSCRIBE, "2")
    bench.leases.reap()
    assert bench.leases.hand_out_chunks() == [("j", 2)], "the lowest that is not finished"
    bench.commit(bench.claim(TRANSCRIBE, "2"), language="yi")
    job = bench.store.job("j")
    assert job is not None
    assert job.language == "yi"
    assert bench.leases.hand_out_chunks() == [("j", 3), ("j", 4)]
    bench.commit(bench.claim(TRANSCRIBE, "3"), language="en")
    again = bench.store.job("j")
    assert again is not None
    assert again.language == "yi"


@pytest.mark.parametrize("options", [HEBREW, Options(multilingual=True)])
def test_a_job_whose_language_is_given_or_free_is_not_held_back(bench: Bench, options: Options) -> None:
    bench.planned(chunks=5, options=options)
    bench.open_slots(TRANSCRIBE, 8)
    assert bench.leases.hand_out_chunks() == [("j", index) for index in range(5)]
    bench.commit(bench.claim(TRANSCRIBE, "0"), language="en")
    job = bench.store.job("j")
    assert job is not None
    assert job.language == (options.language or "")


def test_two_chunks_a_slot_are_out_at_a_time_over_all_jobs(bench: Bench) -> None:
    bench.planned("a", chunks=20)
    bench.planned("b", chunks=20)
    assert len(bench.leases.hand_out_chunks()) == 2, "two wait for the first worker that comes up"
    bench.open_slots(TRANSCRIBE, 3)
    bench.leases.hand_out_chunks()
    assert bench.store.slots(TRANSCRIBE) == (3, 6)
    assert bench.leases.hand_out_chunks() == []
    bench.redis.zadd("lh:slots:transcribe", {"child-0": PAST_MS, "child-1": PAST_MS})
    bench.leases.reap()
    assert bench.leases.hand_out_chunks() == [], "slots that died leave no room"


def served(bench: Bench) -> Iterator[str]:
    """The job of each chunk handed out, when every chunk is transcribed as soon as it is."""
    while rung := bench.leases.hand_out_chunks():
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


# All of it, in any order


@dataclass(frozen=True, slots=True)
class Sight:
    """Everything about job j's chunks, read in one step."""

    pending: set[int]
    inflight: set[int]
    done: set[int]
    dead: set[int]
    leased: set[int]
    live: set[int]
    in_line: bool
    pinned: bool
    done_ms: int
    events: list[int]
    rung_for_assemble: bool


def look(bench: Bench) -> Sight:
    with bench.redis.pipeline() as pipe:
        pipe.zrange("lh:job:j:pending", 0, -1).smembers("lh:job:j:inflight")
        pipe.hkeys("lh:job:j:results").hkeys("lh:job:j:dead")
        pipe.hkeys("lh:job:j:leases").zrange("lh:leases:transcribe", 0, -1, withscores=True)
        pipe.zscore("lh:ready:transcribe", "j").hmget("lh:job:j", "pinned", "done_ms")
        pipe.xrange("lh:job:j:events").zscore("lh:leases:assemble", "j/assemble")
        *chunks, held, leased, in_line, (pinned, done_ms), entries, rung = pipe.execute()
    expiries = {int(member.split(b"/")[1]): expiry for member, expiry in leased}
    pending, inflight, done, dead = ({int(index) for index in found} for found in chunks)
    return Sight(
        *(pending, inflight, done, dead),
        leased=set(expiries),
        live={
            index for index, expiry in expiries.items() if expiry > PAST_MS and b"%d:owner" % index in held
        },
        in_line=in_line is not None,
        pinned=pinned == b"1",
        done_ms=int(done_ms or 0),
        events=[int(fields[b"chunk"]) for _, fields in entries],
        rung_for_assemble=rung is not None,
    )


class Walk:
    """One job, its workers and the reaper, taking steps in a random order; the checks hold after each."""

    def __init__(self, bench: Bench, seed: str) -> None:
        self.bench = bench
        self.random = random.Random(seed)
        self.steps = [seed]
        bench.redis.flushdb()
        self.ingest = bench.planned(chunks=0, options=UNKNOWN)
        self.planned = 0
        self.sealed = False
        self.messages: list[int] = []
        self.leases: list[Lease] = []
        self.written: dict[int, str] = {}
        self.told_complete = False

    def check(self, fact: object, what: str) -> None:
        assert fact, f"{what}, after {', '.join(self.steps)}"

    def tell(self, complete: bool) -> None:
        """Completion was told: is it true?"""
        if complete:
            sight = look(self.bench)
            self.check(
                self.sealed and len(sight.done | sight.dead) == self.planned, "complete before the end"
            )
            self.told_complete = True

    def any_lease(self) -> tuple[Lease, bool]:
        """A lease, perhaps long lost, and whether nobody was given a newer one."""
        lease = self.random.choice(self.leases)
        fences = [int(other.fence) for other in self.leases if other.unit == lease.unit]
        return lease, int(lease.fence) == max(fences)

    def step(self) -> None:
        moves: list[tuple[Callable[[], str], int]] = [
            (self.add_chunk, 3 if not self.sealed and self.planned < 5 else 0),
            (self.seal, 1 if self.planned > 1 else 0),
            (self.hand_out, 3),
            (self.claim, 6 if self.messages else 0),
            (self.commit, 3 if self.leases else 0),
            (self.release, 2 if self.leases else 0),
            (self.beat, 1 if self.leases else 0),
            (self.expire, 3),
            (self.reap, 2),
        ]
        (move,) = self.random.choices([move for move, _ in moves], [weight for _, weight in moves])
        self.steps.append(move.__name__)
        self.steps[-1] += f" {move()}"
        self.look_around()

    def add_chunk(self) -> str:
        self.check(self.bench.leases.add_chunk(self.ingest, chunk(self.planned)), "not added")
        self.check(not self.bench.leases.add_chunk(self.ingest, chunk(self.planned)), "added twice")
        self.planned += 1
        return str(self.planned - 1)

    def seal(self) -> str:
        self.sealed = True
        self.tell(self.bench.leases.seal(self.ingest, self.planned, 1000 * self.planned, "[]"))
        return ""

    def hand_out(self) -> str:
        self.bench.open_slots(TRANSCRIBE, self.random.randrange(3))
        before = look(self.bench)
        rung = [index for _, index in self.bench.leases.hand_out_chunks()]
        if rung and not before.pinned:
            self.check(not before.inflight and rung == [min(before.pending)], f"{rung} handed out unpinned")
        self.messages += rung
        return str(rung)

    def claim(self) -> str:
        """A message arrives, perhaps late, perhaps not for the first time."""
        index = self.random.choice(self.messages)
        before = look(self.bench)
        answer = self.bench.leases.claim("j", TRANSCRIBE, str(index))
        if isinstance(answer, Refused):
            self.tell(answer.reason == "complete")
            return f"{index}: {answer.reason}"
        self.check(index not in before.done | before.dead | before.live, f"{index} claimed twice")
        self.leases.append(answer)
        return f"{index}: fence {answer.fence}"

    def commit(self) -> str:
        lease, newest = self.any_lease()
        index, mark = int(lease.unit), f"{lease.unit} of fence {lease.fence}"
        given_up = index in look(self.bench).dead
        try:
            self.tell(self.bench.commit(lease, self.random.choice(["", "he"]), mark))
        except LeaseLost:
            self.check(given_up or not newest, f"{mark} lost")
        else:
            self.check(newest and not given_up, f"{mark} written by a lost lease")
            self.written.setdefault(index, mark)
        return mark

    def release(self) -> str:
        lease, newest = self.any_lease()
        error = self.random.choice([None, EngineFailed(), EXHAUSTING])
        outcome = self.bench.leases.release(lease, error, self.random.choice([0, 60_000]))
        self.check(newest or outcome == "lost", "released by a lost lease")
        self.tell(outcome == "complete")
        return f"{lease.unit} of fence {lease.fence}: {outcome}"

    def beat(self) -> str:
        lease, newest = self.any_lease()
        outcome = self.bench.leases.beat(lease)
        self.check(newest or outcome is Beat.LOST, "renewed by a lost lease")
        return f"{lease.unit} of fence {lease.fence}: {outcome.name}"

    def expire(self) -> str:
        leased = sorted(look(self.bench).leased)
        if not leased:
            return "nothing"
        index = self.random.choice(leased)
        self.bench.expire(TRANSCRIBE, str(index))
        return str(index)

    def reap(self) -> str:
        self.bench.leases.reap()
        return ""

    def look_around(self) -> None:
        sight = look(self.bench)
        together = [*sight.pending, *sight.inflight, *sight.done, *sight.dead]
        self.check(sorted(together) == list(range(self.planned)), "a chunk is not in exactly one set")
        self.check(sight.done == self.written.keys(), "done is not what was committed")
        self.check(sight.done_ms == 1000 * len(sight.done), "done_ms is not that of the chunks done")
        self.check(sight.leased == sight.inflight, "in flight and never to expire, or the reverse")
        may_go_on = sight.pending and (sight.pinned or not sight.inflight)
        self.check(sight.in_line or not may_go_on, "it can go on and is not in line")
        first = itertools.takewhile(lambda index: index in sight.done, range(self.planned))
        self.check(sight.events == list(first), "readers do not see the first chunks, in order, each once")
        ended = self.sealed and len(sight.done | sight.dead) == self.planned
        self.check(ended == self.told_complete == sight.rung_for_assemble, "its end and the telling differ")

    def carry_to_the_end(self) -> None:
        """Whatever happened, workers that work bring the job to its end."""
        if not self.planned:
            self.add_chunk()
        self.seal()
        for _ in range(3 * self.planned):
            for index in look(self.bench).leased:
                self.bench.expire(TRANSCRIBE, str(index))
            self.bench.leases.reap()
            for _, index in self.bench.leases.hand_out_chunks():
                answer = self.bench.leases.claim("j", TRANSCRIBE, str(index))
                if isinstance(answer, Lease):
                    self.tell(self.bench.commit(answer, text="at last"))
                else:
                    self.tell(answer.reason == "complete")
        self.check(self.told_complete, "never complete")
        for found in self.bench.store.results("j"):
            text = found.segments[0].text
            self.check(text == self.written.get(found.index, "at last"), f"{found.index} was written over")

    def cancel(self) -> None:
        """After that no step changes anything."""
        job = self.bench.store.job("j")
        assert job is not None
        self.bench.store.finish("j", endings.canceled(job, 0))
        before = {key: self.bench.redis.dump(key) for key in self.bench.redis.keys("*")}
        for lease in self.leases:
            self.check(self.bench.leases.beat(lease) is Beat.ENDED, "renewed after the end")
            self.check(self.bench.leases.release(lease, None) == "lost", "released after the end")
            with pytest.raises(LeaseLost):
                self.bench.commit(lease)
        for index in self.messages:
            self.check(self.bench.leases.claim("j", TRANSCRIBE, str(index)) == Refused("gone"), "claimed")
        self.bench.leases.reap()
        self.check(self.bench.leases.hand_out_chunks() == [], "handed out after the end")
        after = {key: self.bench.redis.dump(key) for key in self.bench.redis.keys("*")}
        self.check(after == before, "changed after the end")


@pytest.mark.parametrize("seed", range(8))
def test_no_order_of_steps_loses_or_doubles_a_chunk(bench: Bench, seed: int) -> None:
    for number in range(7):
        walk = Walk(bench, f"walk {seed}.{number}")
        for _ in range(50):
            walk.step()
        if number:
            walk.carry_to_the_end()
        else:
            walk.cancel()
