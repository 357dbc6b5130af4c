"""Deliveries in a real Redis: written with the change they report, in order, tried until settled."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from redis import Redis

from tasks import endings, events
from tasks.chunks import Chunk
from tasks.errors import LeaseLost
from tasks.events import Progress
from tasks.job import NewJob, Options, Request
from tasks.leases import INGEST, TRANSCRIBE, Lease, Leases
from tasks.outbox import Attempt, Delivery, Outbox, Outcome
from tasks.scripts import unpack
from tasks.settings import Settings
from tasks.store import Store
from tasks.transcript import ChunkResult, result_to_bytes

RECEIVER = "https://hooks.test"
REQUEST = Request("https://a.test/x", "large", Options(language="he"))
NEW = NewJob("j", "longhand", "us", REQUEST, 60_000, 0, webhook_url=f"{RECEIVER}/a", recording_id="r")
PAST_MS = 1
REFUSED = Attempt(1_000, 503, 12, "busy")


def result(index: int) -> bytes:
    return result_to_bytes(ChunkResult(index, (), "he", 0))


@dataclass(slots=True)
class Bench:
    """A running job of four chunks of a second. `redis` is untyped: its answers are sync-or-async unions."""

    redis: Any
    settings: Settings
    ingest: Lease | None = None
    store: Store = field(init=False)
    leases: Leases = field(init=False)
    outbox: Outbox = field(init=False)

    def __post_init__(self) -> None:
        self.store = Store(self.redis, self.settings)
        self.leases = Leases(self.redis, self.settings, "worker-1")
        self.outbox = Outbox(self.redis, self.settings)

    def start(self, new: NewJob = NEW) -> None:
        self.store.create(new)
        self.ingest = self.lease(INGEST, INGEST, new.id)
        for index in range(4):
            self.leases.add_chunk(self.ingest, Chunk(index, 1000 * index, 1000 * (index + 1), "d", "b"))

    def lease(self, stage: str, unit: str, job_id: str = "j") -> Lease:
        lease = self.leases.claim(job_id, stage, unit)
        assert isinstance(lease, Lease), lease
        return lease

    def seal(self) -> None:
        assert self.ingest is not None
        self.leases.seal(self.ingest, 4, 4000, "[]")

    def announce(self, job_id: str = "j") -> str:
        return self.store.announce(job_id, events.transcribing(job_id, "r", self.store.now_ms()))

    def commit(self, index: int) -> str:
        """The receiver to ring for once this chunk is in."""
        lease = self.lease(TRANSCRIBE, str(index))
        return self.leases.commit(lease, result(index), "he", 1000, report)[1]

    def finish(self) -> tuple[bool, str]:
        job = self.store.job("j")
        assert job is not None
        return self.store.finish("j", endings.canceled(job, self.store.now_ms()))

    def take(self) -> Delivery:
        delivery = self.outbox.claim(RECEIVER)
        assert delivery is not None, "nothing is due"
        return delivery

    def settle(self, delivery: Delivery, outcome: Outcome, delay_ms: int = 0) -> str:
        return self.outbox.settle(delivery, outcome, REFUSED, delay_ms)

    def refuse(self) -> str:
        """One attempt at what is due fails, and its delay passes. Returns the delivery's state."""
        delivery = self.take()
        state = self.settle(delivery, "retry", 5_000)
        if state == "waiting":
            self.age(delivery.id)
        return state

    def drain(self) -> list[str]:
        """Deliver everything that is due; what each delivery said."""
        said = []
        while delivery := self.outbox.claim(RECEIVER):
            said.append(kind(delivery.body))
            assert self.settle(delivery, "delivered") == "delivered"
        return said

    def age(self, delivery_id: str) -> None:
        """Make a delivery due, as if its delay had passed."""
        assert self.redis.zscore(f"lh:receiver:{RECEIVER}", delivery_id) is not None
        self.redis.zadd(f"lh:receiver:{RECEIVER}", {delivery_id: PAST_MS})

    def due_in_ms(self, delivery_id: str) -> int:
        return int(self.redis.zscore(f"lh:receiver:{RECEIVER}", delivery_id)) - self.store.now_ms()

    def written(self) -> list[tuple[str, str]]:
        """Every delivery ever written about job j, in order: what it says, and its state."""
        count = int(self.redis.hget("lh:job:j", "seq") or 0)
        ids = [f"evt_j_1_{number}" for number in range(1, count + 1)]
        bodies = [unpack(self.redis.hget(f"lh:delivery:{id_}", "body")) for id_ in ids]
        return [(kind(body), self.outbox.state(id_)) for id_, body in zip(ids, bodies, strict=True)]


def report(progress: Progress, now_ms: int) -> str:
    return events.progressed("j", "r", now_ms, progress)


def kind(body: bytes) -> str:
    """`transcribing`, `progress SECONDS of TOTAL`, or the terminal status."""
    fields = json.loads(body)
    if "progress" not in fields:
        return str(fields["status"])
    progress = fields["progress"]
    return f"progress {progress['audio_seconds_done']:g} of {progress['audio_seconds_total']}"


@pytest.fixture
def bench(redis: Redis, settings: Settings) -> Bench:
    """Every commit of an announced job is worth a progress event here, unless a test says otherwise."""
    changes = {"durable_accept": False, "progress_interval_ms": 0, "progress_step": 0.0}
    made = Bench(redis, settings.model_copy(update=changes))
    made.start()
    return made


# What is written


def test_events_are_written_in_their_order(bench: Bench) -> None:
    assert bench.announce() == RECEIVER
    assert bench.drain() == ["transcribing"]
    assert bench.commit(0) == RECEIVER
    assert bench.drain() == ["progress 1 of None"]
    bench.seal()
    bench.commit(1)
    assert bench.drain() == ["progress 2 of 4.0"]
    assert bench.finish() == (True, RECEIVER)
    assert bench.drain() == ["transcription_failed"]
    assert bench.outbox.pending("j") == 0


def test_a_delivery_carries_the_body_and_an_id_of_its_own(bench: Bench) -> None:
    body = events.transcribing("j", "הקלטה", 1_700_000_000_000)
    bench.store.announce("j", body)
    first = bench.take()
    assert first == Delivery("evt_j_1_1", "1", f"{RECEIVER}/a", body.encode(), 0)
    bench.settle(first, "delivered")
    bench.finish()
    assert bench.take().id == "evt_j_1_2"


def test_transcription_is_announced_once(bench: Bench) -> None:
    assert [bench.announce(), bench.announce()] == [RECEIVER, ""]
    job = bench.store.job("j")
    assert job is not None
    assert job.announced_ms is not None
    assert bench.outbox.pending("j") == 1


def test_no_progress_is_told_before_the_announcement(bench: Bench) -> None:
    assert bench.commit(0) == ""
    bench.announce()
    bench.commit(1)
    assert [said for said, _ in bench.written()] == ["transcribing", "progress 2 of None"]


def test_nothing_is_written_after_the_end(bench: Bench) -> None:
    lease = bench.lease(TRANSCRIBE, "0")
    bench.announce()
    bench.finish()
    assert bench.announce() == ""
    assert bench.finish() == (False, "")
    with pytest.raises(LeaseLost):
        bench.leases.commit(lease, result(0), "he", 1000, report)
    assert [said for said, _ in bench.written()] == ["transcribing", "transcription_failed"]


def test_a_job_that_has_ended_is_not_announced(bench: Bench) -> None:
    bench.finish()
    assert bench.announce() == ""
    assert [said for said, _ in bench.written()] == ["transcription_failed"]


def test_a_job_without_a_webhook_writes_nothing(bench: Bench) -> None:
    bench.redis.flushdb()
    bench.start(replace(NEW, webhook_url=""))
    assert [bench.announce(), bench.commit(0), bench.finish()] == ["", "", (True, "")]
    assert bench.redis.keys("lh:delivery:*") + bench.redis.keys("lh:receiver*") == []


def test_progress_is_not_told_more_often_than_the_interval(bench: Bench) -> None:
    bench.leases = Leases(bench.redis, bench.settings.model_copy(update={"progress_interval_ms": 60_000}))
    bench.announce()
    assert [bench.commit(0), bench.commit(1)] == [RECEIVER, ""]
    bench.redis.hset("lh:job:j", "progress_ms", bench.store.now_ms() - 60_000)
    assert [bench.commit(2), bench.commit(3)] == [RECEIVER, ""]
    assert [said for said, _ in bench.written()[1:]] == ["progress 1 of None", "progress 3 of None"]


def test_progress_is_not_told_for_less_than_the_step(bench: Bench) -> None:
    bench.leases = Leases(bench.redis, bench.settings.model_copy(update={"progress_step": 0.5}))
    bench.announce()
    bench.seal()
    assert [bench.commit(index) for index in range(4)] == ["", RECEIVER, "", RECEIVER]
    assert [said for said, _ in bench.written()[1:]] == ["progress 2 of 4.0", "progress 4 of 4.0"]


def test_progress_counts_chunks_and_foresees_the_end(bench: Bench) -> None:
    bench.announce()
    bench.seal()
    bench.redis.hset("lh:job:j", "announced_ms", bench.store.now_ms() - 30_000)
    bench.commit(0)
    bench.drain()
    body = unpack(bench.redis.hget("lh:delivery:evt_j_1_2", "body"))
    progress = json.loads(body)["progress"]
    eta_seconds = progress.pop("eta_seconds")
    assert 90 <= eta_seconds < 120, "a quarter took half a minute"
    assert progress == {
        "fraction": 0.25,
        "audio_seconds_done": 1.0,
        "audio_seconds_total": 4.0,
        "chunks_done": 1,
        "chunks_total": 4,
    }


def test_progress_is_written_for_the_state_it_is_written_with(bench: Bench) -> None:
    """Another chunk, or the end of the plan, comes in between a look at the job and the commit."""
    bench.announce()
    meanwhile: list[Callable[[], object]] = [lambda: bench.commit(1), bench.seal]
    seen: list[Progress] = []

    def interrupted(progress: Progress, now_ms: int) -> str:
        seen.append(progress)
        if meanwhile:
            meanwhile.pop(0)()
        return report(progress, now_ms)

    bench.leases.commit(bench.lease(TRANSCRIBE, "0"), result(0), "he", 1000, interrupted)
    assert [progress.done_ms for progress in seen] == [1000, 2000, 2000]
    assert [said for said, _ in bench.written()[1:]] == ["progress 1 of None", "progress 2 of 4.0"]


def test_two_committers_at_once_tell_two_states(bench: Bench) -> None:
    bench.announce()
    both_have_looked = threading.Barrier(2, timeout=10)
    looks: dict[str, int] = {"0": 0, "1": 0}
    failures: list[BaseException] = []

    def commit(lease: Lease) -> None:
        def meeting(progress: Progress, now_ms: int) -> str:
            looks[lease.unit] += 1
            if looks[lease.unit] == 1:
                both_have_looked.wait()
            return report(progress, now_ms)

        try:
            bench.leases.commit(lease, result(int(lease.unit)), "he", 1000, meeting)
        except BaseException as failure:
            failures.append(failure)
            raise

    threads = [threading.Thread(target=commit, args=[bench.lease(TRANSCRIBE, unit)]) for unit in looks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not failures
    assert sorted(looks.values()) == [1, 2], "one of them looked again"
    assert [said for said, _ in bench.written()[1:]] == ["progress 1 of None", "progress 2 of None"]


# What is due


def test_only_the_first_of_a_jobs_deliveries_is_due(bench: Bench) -> None:
    bench.announce()
    bench.finish()
    first = bench.take()
    assert bench.outbox.claim(RECEIVER) is None
    bench.settle(first, "retry", 5_000)
    assert bench.outbox.claim(RECEIVER) is None, "it waits, and so does all behind it"
    bench.age(first.id)
    assert bench.drain() == ["transcribing", "transcription_failed"]
    assert bench.redis.zscore("lh:receivers", RECEIVER) is None


def test_jobs_do_not_wait_for_each_other(bench: Bench) -> None:
    bench.announce()
    bench.settle(bench.take(), "retry", 60_000)
    bench.start(replace(NEW, id="k"))
    bench.start(replace(NEW, id="m", webhook_url="https://other.test/a"))
    bench.announce("k")
    bench.announce("m")
    assert bench.take().id == "evt_k_1_1"
    assert bench.outbox.claim(RECEIVER) is None
    other = bench.outbox.claim("https://other.test")
    assert other is not None
    assert other.id == "evt_m_1_1"


def test_a_retry_waits_for_its_delay_and_keeps_its_id(bench: Bench) -> None:
    bench.announce()
    first = bench.take()
    assert bench.settle(first, "retry", 5_000) == "waiting"
    assert 0 < bench.due_in_ms(first.id) <= 5_000
    assert bench.outbox.claim(RECEIVER) is None
    assert bench.redis.zscore("lh:receivers", RECEIVER) == bench.redis.zscore(
        f"lh:receiver:{RECEIVER}", first.id
    )
    bench.age(first.id)
    second = bench.take()
    assert (second.id, second.body, second.attempts) == (first.id, first.body, 1)
    assert int(second.fence) > int(first.fence)


def test_what_was_taken_and_never_settled_becomes_due_again(bench: Bench) -> None:
    bench.announce()
    lost = bench.take()
    wait_ms = bench.due_in_ms(lost.id)
    assert 2 * bench.settings.webhook_timeout_ms < wait_ms <= 3 * bench.settings.webhook_timeout_ms
    bench.outbox.claim(RECEIVER)
    assert bench.redis.zscore("lh:receivers", RECEIVER) is not None, "the reaper will ring again"
    bench.age(lost.id)
    again = bench.take()
    assert (again.id, again.attempts) == (lost.id, 0)
    assert bench.settle(lost, "delivered") == "lost", "the slow one comes too late"
    assert bench.outbox.attempts(lost.id) == []
    assert bench.settle(again, "delivered") == "delivered"
    assert bench.settle(again, "delivered") == "lost", "an attempt is settled once"


def test_every_attempt_is_kept(bench: Bench) -> None:
    bench.announce()
    tries = [Attempt(1_000, 503, 12), Attempt(7_000, 0, 10_000, "timed out"), Attempt(40_000, 200, 3)]
    outcomes: list[Outcome] = ["retry", "retry", "delivered"]
    for attempt, outcome in zip(tries, outcomes, strict=True):
        delivery = bench.take()
        bench.outbox.settle(delivery, outcome, attempt)
    assert bench.outbox.attempts("evt_j_1_1") == tries
    assert bench.outbox.state("evt_j_1_1") == "delivered"
    for key in ("lh:delivery:evt_j_1_1", "lh:delivery:evt_j_1_1:attempts"):
        assert 0 < bench.redis.pttl(key) <= bench.settings.retention_ms
    assert (bench.outbox.attempts("no"), bench.outbox.pending("no")) == ([], 0)


def test_a_dead_letter_lets_the_next_one_go(bench: Bench) -> None:
    bench.announce()
    bench.finish()
    assert bench.settle(bench.take(), "dead") == "dead"
    assert bench.drain() == ["transcription_failed"]
    assert bench.written()[0] == ("transcribing", "dead")


# What is overtaken


def test_newer_progress_replaces_what_was_not_delivered(bench: Bench) -> None:
    bench.announce()
    bench.commit(0)
    bench.commit(1)
    assert bench.drain() == ["transcribing", "progress 2 of None"]
    bench.commit(2)
    assert bench.refuse() == "waiting"
    bench.commit(3)
    assert bench.drain() == ["progress 4 of None"]
    assert [state for _, state in bench.written()] == [
        "delivered",
        "superseded",
        "delivered",
        "superseded",
        "delivered",
    ]


def test_the_end_drops_the_progress_that_waits(bench: Bench) -> None:
    bench.announce()
    bench.commit(0)
    bench.finish()
    assert bench.drain() == ["transcribing", "transcription_failed"]
    assert bench.written()[1] == ("progress 1 of None", "superseded")


@pytest.mark.parametrize(("outcome", "state"), [("retry", "superseded"), ("delivered", "delivered")])
@pytest.mark.parametrize("end", [False, True])
def test_what_is_being_sent_is_overtaken_only_when_that_has_failed(
    bench: Bench, outcome: Outcome, state: str, end: bool
) -> None:
    bench.announce()
    bench.drain()
    bench.commit(0)
    sending = bench.take()
    if end:
        bench.finish()
    else:
        bench.commit(1)
    assert bench.outbox.state(sending.id) == "sending"
    assert bench.outbox.claim(RECEIVER) is None, "what is newer waits for it"
    assert bench.settle(sending, outcome, 5_000) == state
    assert bench.drain() == ["transcription_failed" if end else "progress 2 of None"]


def test_the_first_event_keeps_two_retries_once_the_end_waits(bench: Bench) -> None:
    bench.announce()
    bench.finish()
    assert [bench.refuse() for _ in range(3)] == ["waiting", "waiting", "superseded"]
    assert bench.drain() == ["transcription_failed"]
    assert len(bench.outbox.attempts("evt_j_1_1")) == 3


def test_the_first_event_is_tried_for_as_long_as_the_job_runs(bench: Bench) -> None:
    bench.announce()
    bench.commit(0)
    assert [bench.refuse() for _ in range(5)] == ["waiting"] * 5
    bench.finish()
    assert bench.drain() == ["transcription_failed"]
    assert [state for _, state in bench.written()] == ["superseded", "superseded", "delivered"]


def test_the_last_event_is_overtaken_by_nothing(bench: Bench) -> None:
    bench.finish()
    assert [bench.refuse() for _ in range(6)] == ["waiting"] * 6
    assert bench.drain() == ["transcription_failed"]


def test_a_receiver_that_is_gone_hears_nothing_more_of_the_job(bench: Bench) -> None:
    bench.announce()
    first = bench.take()
    bench.commit(0)
    bench.start(replace(NEW, id="k"))
    bench.announce("k")
    assert bench.settle(first, "gone") == "gone"
    assert [state for _, state in bench.written()] == ["gone", "gone"]
    assert bench.outbox.pending("j") == 0
    assert bench.commit(1) == ""
    assert bench.finish() == (True, "")
    assert len(bench.written()) == 2
    assert bench.take().id == "evt_k_1_1", "another job is another matter"
