"""A state machine over deliveries: drains that die, receivers that fail, jobs that run again, and time."""

from collections import Counter, defaultdict
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tasks import endings, events
from tasks.errors import Unexpected
from tasks.job import NewJob
from tasks.leases import INGEST, TRANSCRIBE, Lease, Leases
from tasks.outbox import Attempt, Delivery, Outbox, Outcome
from tasks.scripts import connect
from tasks.settings import Settings
from tasks.store import Store
from tests.bench import HOOK, NEW, RECEIVER, chunk, report, result
from tests.machines.forgetful import forgetful
from tests.machines.warp import pass_time

DRAINS = ("drain-1", "drain-2", "drain-3")
JOBS = ("a", "b", "c")
CHUNKS = 3
OVER = ("delivered", "superseded", "gone", "dead")
ROUNDS = 60
NUMBER = st.integers(0, 20)


class Deliveries(RuleBasedStateMachine):
    """Three jobs with one receiver, told of by whoever works on them; three drains."""

    steps: ClassVar[Counter[str]] = Counter()

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        changes = {
            "durable_accept": False,
            "progress_interval_ms": 0,
            "progress_step": 0.0,
            "webhook_circuit_failures": 6,
            "retention_ms": 30 * 24 * 3600 * 1000,
        }
        self.settings = settings.model_copy(update=changes)
        self.redis: Any = connect(settings.state_url)
        self.redis.flushdb()
        self.flaky = forgetful(self.redis)
        self.store = Store(self.flaky, self.settings)
        self.leases = Leases(self.flaky, self.settings, "host/1")
        self.outbox = Outbox(self.flaky, self.settings)
        self.taken: list[Delivery] = []
        self.sent: dict[str, list[str]] = defaultdict(list)
        self.ended: dict[str, set[int]] = defaultdict(set)
        self.silenced: set[str] = set()
        self.states: dict[str, str] = {}

    @initialize()
    def begin(self) -> None:
        for job_id in JOBS:
            self.store.create(
                NewJob(
                    job_id,
                    "longhand",
                    "us",
                    NEW.request,
                    6 * 24 * 3600 * 1000,
                    0,
                    webhook_url=HOOK,
                    receiver=RECEIVER,
                )
            )
            self._plan(job_id)

    def _plan(self, job_id: str) -> None:
        ingest = self.leases.claim(job_id, INGEST, INGEST)
        if isinstance(ingest, Lease):
            for index in range(CHUNKS):
                self.leases.add_chunk(ingest, chunk(index))
            self.leases.seal(ingest, CHUNKS, 1000 * CHUNKS, "[]")

    # What is told

    @rule(job_id=st.sampled_from(JOBS), index=st.integers(0, CHUNKS - 1), lose=st.booleans())
    def progress(self, job_id: str, index: int, *, lose: bool) -> None:
        self.steps["progress"] += 1
        self.store.announce(job_id, events.transcribing(job_id, "r", 0))
        lease = self.leases.claim(job_id, TRANSCRIBE, str(index))
        if isinstance(lease, Lease):
            self.flaky.lose = lose
            self.leases.commit(lease, result(index), "he", 1000, report)

    @rule(job_id=st.sampled_from(JOBS), lose=st.booleans())
    def end(self, job_id: str, *, lose: bool) -> None:
        self.steps["end"] += 1
        job = self.store.job(job_id)
        assert job
        self.flaky.lose = lose
        self.store.finish(job_id, endings.failed(job_id, "r", 0, Unexpected("x")))
        self.ended[job_id].add(job.run)

    @rule(job_id=st.sampled_from(JOBS))
    def retry(self, job_id: str) -> None:
        if self.store.retry(job_id) != "other":
            self.steps["retry"] += 1
            self._plan(job_id)

    # Who tells it

    @rule(drain=st.sampled_from(DRAINS), lose=st.booleans())
    def claim(self, drain: str, *, lose: bool) -> None:
        self.steps["claim"] += 1
        self.flaky.lose = lose
        self._claim(drain)

    def _claim(self, drain: str) -> Delivery | None:
        delivery = self.outbox.claim(RECEIVER, drain)
        if delivery is None:
            return None
        head = self.redis.lindex(f"lh:job:{delivery.job_id}:outbox", 0)
        assert head == delivery.id.encode(), "an event that is not the first of its job is in hand"
        assert self.redis.zscore(f"lh:receiver:{RECEIVER}", delivery.id) > delivery.taken_ms, (
            "it is due at once again"
        )
        told = self.sent[delivery.job_id]
        if delivery.id not in told:
            assert not told or _order(told[-1]) < _order(delivery.id), "events are told in their order"
            told.append(delivery.id)
        else:
            assert told[-1] == delivery.id, "an older event is told again after a newer one"
        self.taken.append(delivery)
        return delivery

    @precondition(lambda self: self.taken)
    @rule(
        number=NUMBER,
        outcome=st.sampled_from(["delivered", "delivered", "retry", "retry", "dead", "gone"]),
        delay_ms=st.sampled_from([0, 5_000, 3_600_000]),
        lose=st.booleans(),
    )
    def settle(self, number: int, outcome: Outcome, delay_ms: int, *, lose: bool) -> None:
        self.steps["settle"] += 1
        delivery = self.taken[-1 - number % len(self.taken)]
        before = (self.outbox.state(delivery.id), self.outbox.attempts(delivery.id))
        newest = self.redis.hget(f"lh:delivery:{delivery.id}", "fence") == delivery.fence.encode()
        health = "fast" if outcome == "delivered" else "down"
        self.flaky.lose = lose
        state = self.outbox.settle(delivery, outcome, Attempt(1, 0, 1), health, delay_ms)  # type: ignore[arg-type]
        if before[0] != "sending" or not newest:
            assert state == "lost"
            assert (self.outbox.state(delivery.id), self.outbox.attempts(delivery.id)) == before
            return
        assert len(self.outbox.attempts(delivery.id)) == len(before[1]) + 1
        if self.outbox.state(delivery.id) == "gone":
            self.silenced.add(delivery.job_id)

    @rule(times=st.integers(1, 4))
    def refuse(self, times: int) -> None:
        """A receiver that answers 503 for a while."""
        for _ in range(times):
            if delivery := self._claim(DRAINS[0]):
                self.outbox.settle(delivery, "retry", Attempt(1, 503, 1), "unknown", 1_000)
                pass_time(self.redis, 2_000)

    @rule(drain=st.sampled_from(DRAINS))
    def leave(self, drain: str) -> None:
        self.outbox.leave(RECEIVER, drain)

    @rule(ms=st.sampled_from([1_000, 6_000, 31_000, 3_600_000]))
    def wait(self, ms: int) -> None:
        self.steps["wait"] += 1
        pass_time(self.redis, ms)

    @invariant()
    def true(self) -> None:
        self.steps["all"] += 1
        for job_id in JOBS:
            self._true_of(job_id)

    def _true_of(self, job_id: str) -> None:
        found = sorted(
            (
                key.decode().split(":")[2]
                for key in self.redis.keys(f"lh:delivery:evt_{job_id}_?_*")
                if key.count(b":") == 2
            ),
            key=_order,
        )
        states = {id_: self.outbox.state(id_) for id_ in found}
        waiting = [id_.decode() for id_ in self.redis.lrange(f"lh:job:{job_id}:outbox", 0, -1)]
        assert waiting == [id_ for id_ in found if states[id_] not in OVER], (
            "what is not settled waits, in order"
        )
        assert all(self.redis.zscore(f"lh:receiver:{RECEIVER}", id_) is None for id_ in waiting[1:])
        if waiting:
            assert self.redis.zscore(f"lh:receiver:{RECEIVER}", waiting[0]) is not None, "it is nobody's turn"
        kinds = {id_: self._kind(id_) for id_ in found}
        if job_id not in self.silenced:
            ends = [id_ for id_ in found if kinds[id_] == "terminal"]
            assert [_order(id_)[0] for id_ in ends] == sorted(self.ended[job_id])
        for id_ in found:
            before = self.states.get(id_)
            assert before not in OVER or states[id_] == before, "what is settled stays so"
            if states[id_] == "superseded":
                assert kinds[id_] != "terminal", "an end is overtaken by nothing"
                assert kinds[id_] == "progress" or len(self.outbox.attempts(id_)) >= 3
            assert (states[id_] in OVER) == (self.redis.pttl(f"lh:delivery:{id_}") >= 0)
        self.states |= states

    def _kind(self, id_: str) -> str:
        return str(self.redis.hget(f"lh:delivery:{id_}", "kind").decode())

    def teardown(self) -> None:
        """A receiver that works again hears of everything, in a few rounds of the reaper."""
        for _ in range(ROUNDS):
            pass_time(self.redis, 31_000)
            if RECEIVER in self.leases.reap().receivers:
                while delivery := self._claim(DRAINS[0]):
                    self.outbox.settle(delivery, "delivered", Attempt(1, 200, 1), "fast")
            self.true()
            if not any(self.outbox.pending(job_id) for job_id in JOBS):
                break
            pass_time(self.redis, 3_600_000)
        assert not any(self.outbox.pending(job_id) for job_id in JOBS), "something was never told"
        self.redis.close()


def _order(delivery_id: str) -> tuple[int, int]:
    run, number = delivery_id.split("_")[-2:]
    return int(run), int(number)
