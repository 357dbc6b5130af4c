"""Attempts at units of work, by three worker processes that may die, freeze and come back.

Each method does one step of an attempt and holds its answer against what is known of the lease.
"""

from collections import Counter
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, ClassVar

from hypothesis.stateful import RuleBasedStateMachine

from tasks import endings
from tasks.attempt import dead_chunks_error, refused
from tasks.errors import ExecutionTimeout, LeaseLost, SourceChanged
from tasks.job import Status
from tasks.leases import ASSEMBLE, INGEST, TRANSCRIBE, HandedOut, Lease, Leases
from tasks.scripts import connect
from tasks.settings import Settings
from tasks.store import Store
from tests.bench import RECEIVER, chunk, report, result
from tests.machines.forgetful import forgetful
from tests.machines.truth import Known
from tests.machines.warp import pass_time

WORKERS = ("host/1", "host/2", "other/1")
RETENTION_MS = 6 * 3600 * 1000


@dataclass(slots=True)
class Held:
    """A lease that was given, and is never forgotten: whoever has it may come back at any time."""

    lease: Lease
    run: int
    worker: str
    until_ms: int
    over: bool = False

    @property
    def unit(self) -> str:
        return self.lease.unit


class Attempts(RuleBasedStateMachine):
    """What is known of jobs and leases, and what can be done with them."""

    steps: ClassVar[Counter[str]] = Counter()

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        changes = {
            "durable_accept": False,
            "max_starts": 3,
            "max_attempts": 2,
            "retention_ms": RETENTION_MS,
            "progress_interval_ms": 0,
            "progress_step": 0.0,
        }
        self.settings = settings.model_copy(update=changes)
        self.redis: Any = connect(settings.state_url)
        self.redis.flushdb()
        self.flaky = forgetful(self.redis)
        self.store = Store(self.flaky, self.settings)
        self.leases = {name: Leases(self.flaky, self.settings, name) for name in WORKERS}
        self.jobs: dict[str, Known] = {}
        self.held: list[Held] = []
        self.rung: list[tuple[str, str, str]] = []

    def ingests(self) -> None:
        self.ring_ingests(lose=False)

    def chunks(self) -> None:
        self.ring_chunks(lose=False)

    def assemble(self, job_id: str) -> None:
        self.rung.append((job_id, ASSEMBLE, ASSEMBLE))

    def deliver(self, *receivers: str) -> None:
        assert set(receivers) <= {RECEIVER, ""}

    def delete_job(self, job_id: str) -> None:
        """Audio goes only when nobody can want it any more."""
        seen = self.store.job(job_id)
        if seen is None:
            return
        assert seen.terminal, f"the audio of {job_id} went, which is {seen.status}"
        if seen.status is not Status.SUCCEEDED or self.store.dead(job_id):
            left_ms = self.redis.pttl(f"lh:job:{job_id}")
            assert 0 <= left_ms < 1_000, f"the audio of {job_id} went, which may have its next run"

    def due(self) -> list[str]:
        return []

    @property
    def context(self) -> Any:
        """The part of a worker's context that the reaper and a failing attempt use."""
        parts = dict.fromkeys(("bells", "blobs", "uploads"), self)
        return SimpleNamespace(
            store=self.store, leases=self.leases[WORKERS[0]], settings=self.settings, **parts
        )

    def ring_ingests(self, *, lose: bool) -> None:
        self.flaky.lose = lose
        self.rung += [(id_, INGEST, INGEST) for id_ in self.leases[WORKERS[0]].hand_out_ingests()]

    def ring_chunks(self, *, lose: bool) -> None:
        self.flaky.lose = lose
        for handed in self.leases[WORKERS[0]].hand_out_chunks():
            self._handed(handed)

    def _handed(self, handed: HandedOut) -> None:
        seen = self.store.job(handed.job_id)
        assert seen
        assert not seen.terminal
        assert self.store.result(handed.job_id, handed.index) is None
        self.rung.append((handed.job_id, TRANSCRIBE, str(handed.index)))

    def _claim(
        self, job_id: str, stage: str, unit: str, worker: str, *, lose: bool, instead_of: str = ""
    ) -> Held | None:
        self.steps["claim"] += 1
        known, now_ms = self.jobs[job_id], self.store.now_ms()
        job = self.store.job(job_id)
        self.flaky.lose = lose
        lease = self.leases[worker].claim(job_id, stage, unit, instead_of)
        if not isinstance(lease, Lease):
            refused(self.context, job_id, stage, unit, lease)
            return None
        assert job
        assert not job.terminal, f"a lease on {job_id}, which has ended"
        for other in self.held:
            same = (other.lease.job_id, other.unit, other.run) == (job_id, unit, known.run)
            if same and self._newest(other):
                assert other.over or other.until_ms <= now_ms + 1_000, f"two hold {unit} of {job_id}"
        assert int(lease.fence) > known.fences.get(unit, 0), "a fence is given once"
        known.fences[unit] = int(lease.fence)
        held = Held(lease, known.run, worker, now_ms + self.settings.lease_ms)
        self.held.append(held)
        return held

    def _add(self, held: Held, index: int, *, digest: str, lose: bool) -> None:
        before, old = self._all(), self.store.chunk(held.lease.job_id, index)
        to_sweep = set(self.redis.zrange("lh:sweep", 0, -1))
        new = replace(chunk(index, digest=digest), blob=f"{index}/{held.lease.fence}")
        if old is None and digest:
            return
        self.flaky.lose = lose
        try:
            added = self.leases[held.worker].add_chunk(held.lease, new)
        except SourceChanged:
            assert old
            assert old.digest != new.digest
        except LeaseLost:
            assert not self._good(held)
            # What is stored for it already is swept, of this job and of no other.
            after = set(self.redis.zrange("lh:sweep", 0, -1))
            assert after - to_sweep <= {held.lease.job_id.encode()}
            assert to_sweep <= after
            self._same(before | {b"lh:sweep": self._all().get(b"lh:sweep")})
        else:
            assert self._good(held)
            # An answer that was lost is asked for again, with the same blob.
            assert added is (old is None or old.blob == new.blob)

    def _seal(self, held: Held, *, lose: bool) -> None:
        known, before = self.jobs[held.lease.job_id], self._all()
        self.flaky.lose = lose
        try:
            complete = self.leases[held.worker].seal(held.lease, known.plan, 1000 * known.plan, "[]")
        except LeaseLost:
            assert not self._good(held)
            self._same(before)
            return
        assert self._good(held)
        held.over = True
        if complete:
            self.assemble(known.id)

    def _commit(self, held: Held, *, lose: bool) -> None:
        job_id, index, before = held.lease.job_id, int(held.unit), self._all()
        data = result(index, f"by {held.lease.fence}", "he")
        dead, old = index in self.store.dead(job_id), self.store.result(job_id, index)
        self.store.announce(job_id, "{}")
        announced = self._all()
        self.flaky.lose = lose
        try:
            complete, _ = self.leases[held.worker].commit(held.lease, data, "he", 1000, report)
        except LeaseLost:
            assert dead or not self._good(held)
            self._same(announced)
            return
        assert self._good(held)
        assert not dead
        assert old or before != self._all()
        held.over = True
        if complete:
            self.assemble(job_id)

    def _finish(self, held: Held, *, lose: bool) -> None:
        job = self.store.job(held.lease.job_id)
        if job is None or not job.request:
            return
        good, before = self._good(held), self._all()
        if error := dead_chunks_error(self.context, job, job.request):
            ending = endings.failed(job.id, "r", self.store.now_ms(), error)
        else:
            ending = endings.succeeded(job, job.request, self.store.transcript(job), "m", self.store.now_ms())
        self.flaky.lose = lose
        done, _ = self.store.finish(job.id, ending, stage=ASSEMBLE, fence=held.lease.fence)
        assert done is (good and not lose)
        if not good:
            self._same(before)

    def _fail(self, job_id: str) -> None:
        """Without a lease, as the reaper does at the end of the run time."""
        ending = endings.failed(job_id, "r", self.store.now_ms(), ExecutionTimeout())
        self.store.finish(job_id, ending)

    def _pass(self, ms: int) -> None:
        pass_time(self.redis, ms)
        for held in self.held:
            held.until_ms -= ms

    def _work(self, job_id: str, stage: str, unit: str) -> None:
        held = self._claim(job_id, stage, unit, WORKERS[2], lose=False)
        if held is None:
            return
        known = self.jobs[job_id]
        if stage == INGEST:
            for index in range(known.plan):
                self._add(held, index, digest="", lose=False)
            self._seal(held, lose=False)
        elif stage == TRANSCRIBE:
            self._commit(held, lose=False)
        else:
            self._finish(held, lose=False)
        self.chunks()

    def _job(self, number: int, *, parts: bool = True) -> Known:
        found = [known for known in self.jobs.values() if parts or known.part is None]
        return found[number % len(found)]

    def _held(self, number: int, stage: str = "") -> Held:
        """Mostly one of the latest: `number` counts from the end."""
        found = [held for held in self.held if stage in ("", held.lease.stage)]
        return found[-1 - number % len(found)]

    def _newest(self, held: Held) -> bool:
        known = self.jobs[held.lease.job_id]
        return held.run == known.run and int(held.lease.fence) == known.fences[held.unit]

    def _good(self, held: Held) -> bool:
        """Whether a lease still lets its holder write: nobody has a later one, and the job runs."""
        job = self.store.job(held.lease.job_id)
        return self._newest(held) and job is not None and job.status == "running"

    def _same(self, before: dict[bytes, Any]) -> None:
        """Nothing has changed: who has lost a lease, or comes after the end, does nothing."""
        after = self._all()
        changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        assert not changed, f"changed, though nothing may: {changed}"

    def _all(self) -> dict[bytes, Any]:
        """Every key of Redis with its content."""
        keys = sorted(self.redis.scan_iter(count=1000))
        pipe = self.redis.pipeline()
        for key in keys:
            pipe.type(key)
        kinds = pipe.execute()
        for key, kind in zip(keys, kinds, strict=True):
            # DUMP tells a hash in whatever order its table is in.
            pipe.hgetall(key) if kind == b"hash" else pipe.dump(key)
        return dict(zip(keys, pipe.execute(), strict=True))


def _position(event_id: str) -> tuple[int, int]:
    ms, _, number = event_id.partition("-")
    return int(ms), int(number or 0)
