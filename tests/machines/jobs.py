"""A state machine over jobs: attempts, the reaper, clients and time in every order, answers lost on the way.

The model knows what it was told (leases, endings) and what it has told (results); after each step truth.check
compares it with Redis. What every example ends with is that each job comes to its end by itself.
"""

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from tasks import endings, reaper
from tasks.attempt import fail_job
from tasks.errors import EngineFailed, SourceChanged, Unexpected
from tasks.job import NewJob, Options, Request
from tasks.leases import ASSEMBLE, INGEST, TRANSCRIBE, Beat
from tasks.store import QUEUED
from tests.bench import HOOK, RECEIVER
from tests.machines.attempts import RETENTION_MS, WORKERS, Attempts
from tests.machines.truth import Known, check, live

LONG_MS = 7 * 24 * 3600 * 1000
MOMENTS_MS = (1_000, 35_000, 61_000, 121_000, 3_600_000, RETENTION_MS + 1_000)
# Rounds of the reaper after which every job must have ended: more than all its units and their attempts.
ROUNDS = 60
NUMBER = st.integers(0, 30)


class Jobs(Attempts):
    """Up to eight jobs, of which batches have two recordings; three worker processes; one reaper."""

    @initialize(
        plan=st.integers(0, 4),
        parts=st.sampled_from([0, 0, 2]),
        done=st.integers(0, 12),
        planning=st.booleans(),
        failed=st.booleans(),
    )
    def begin(self, plan: int, parts: int, done: int, *, planning: bool, failed: bool) -> None:
        """A job that is somewhere in its life."""
        self.create(plan, "he", parts, webhook=True, soon=False, lose=False)
        if planning:
            self.ring(lose=False)
            held = self._claim(*self.rung.pop(), WORKERS[0], lose=False)
            assert held
            for index in range(plan):
                self._add(held, index, digest="", lose=False)
        self.work(done)
        if failed:
            self._fail("j0")

    @rule(count=st.integers(1, 4))
    def work(self, count: int) -> None:
        """A worker does what it is rung for, and all goes well."""
        while count:
            if not self.rung:
                self.ring(lose=False)
            if not self.rung:
                return
            self._work(*self.rung.pop(0))
            count -= 1

    @precondition(lambda self: len(self.jobs) < 8)
    @rule(
        plan=st.integers(0, 4),
        language=st.sampled_from(["he", "he", ""]),
        parts=st.sampled_from([0, 0, 0, 2]),
        webhook=st.booleans(),
        soon=st.booleans(),
        lose=st.booleans(),
    )
    def create(self, plan: int, language: str, parts: int, *, webhook: bool, soon: bool, lose: bool) -> None:
        self.steps["create"] += 1
        job_id = f"j{len(self.jobs)}"
        request = Request("https://a.test/x", "large", Options(language=language or None))
        ttl_ms, timeout_ms = (240_000, 0) if soon and plan % 2 else (LONG_MS, 90_000 if soon else 0)
        new = NewJob(job_id, "longhand", "us", request, ttl_ms, timeout_ms)
        if webhook:
            new = replace(new, webhook_url=HOOK, receiver=RECEIVER)
        if parts:
            new = replace(new, parts=tuple(replace(request, index=part) for part in range(parts)))
        assert self.store.create(new)
        if lose:
            assert not self.store.create(new), "its answer was lost, and it is asked for again"
        self.jobs[job_id] = Known(job_id, webhook, plan=plan, parts=parts)
        for part in range(parts):
            part_id = f"{job_id}.{part}"
            self.jobs[part_id] = Known(part_id, webhook=False, plan=plan, part=part)

    @rule(number=NUMBER, how=st.sampled_from(["cancel", "purge", "fail", "fail"]), lose=st.booleans())
    def end(self, number: int, how: str, *, lose: bool) -> None:
        """Without a lease: a client, or the reaper at the end of the run time."""
        self.steps[how] += 1
        known, queued = self._job(number, parts=how == "fail"), how == "purge"
        if how == "fail":
            # Nobody ends a recording of a batch that nobody has begun.
            seen = self.store.job(known.id)
            if known.part is not None and seen and seen.status == "queued":
                return
            self._fail(known.id)
            return
        job = self.store.job(known.id)
        if job is None:
            return
        before = self._all()
        self.flaky.lose = lose
        stage = QUEUED if queued else ""
        done, _ = self.store.finish(known.id, endings.canceled(job, self.store.now_ms()), stage=stage)
        may = not job.terminal and (not queued or job.status == "queued")
        assert done is (may and not lose)
        if not may:
            self._same(before)

    @rule(number=NUMBER, lose=st.booleans())
    def retry(self, number: int, *, lose: bool) -> None:
        self.steps["retry"] += 1
        known = self._job(number, parts=False)
        job, before = self.store.job(known.id), self._all()
        self.flaky.lose = lose
        outcome = self.store.retry(known.id)
        if job is None or job.status != "failed":
            assert outcome == "other"
            self._same(before)
            return
        assert outcome in (("other",) if lose else ("queued", "complete"))
        for id_ in (known.id, *job.part_ids):
            seen = self.jobs[id_].seen
            # Of a batch, only what did not succeed.
            self.jobs[id_].run += seen is not None and seen.job.status == "failed"

    @rule(number=NUMBER, lose=st.booleans())
    def look_on(self, number: int, *, lose: bool) -> None:
        """A client reads on in the stream, or a handler says that it waits."""
        known = self._job(number, parts=False)
        events = self.store.events(known.id)
        if lose and live(known):
            self.leases[WORKERS[0]].attend(known.id)
        elif events:
            event, before = events[number % len(events)].id, self.store.cursor(known.id)
            self.store.advance(known.id, event)
            assert self.store.cursor(known.id) == max(before, event, key=_position)

    @rule(lose=st.booleans())
    def ring(self, *, lose: bool) -> None:
        self.ring_ingests(lose=lose)
        self.ring_chunks(lose=lose)

    @rule(number=NUMBER, open_=st.booleans())
    def slot(self, number: int, *, open_: bool) -> None:
        stage, worker = (INGEST, TRANSCRIBE)[number % 2], WORKERS[number % 3]
        leases = self.leases[worker]
        (leases.open_slot if open_ else leases.close_slot)(stage, worker)

    @rule(number=NUMBER, worker=st.sampled_from(WORKERS), lose=st.booleans())
    def claim_prepared(self, number: int, worker: str, *, lose: bool) -> None:
        """A worker takes what it has prepared in place of what it is rung for, and rings for that again."""
        for each in WORKERS:
            self.leases[each].open_slot(TRANSCRIBE, each)
        self.ring_chunks(lose=False)
        prepared = self.leases[worker].next_to_prepare()
        if prepared is None:
            return
        job_id, index = prepared
        others = {unit for unit in self.rung if unit[1] == TRANSCRIBE} - {(job_id, TRANSCRIBE, str(index))}
        if not others:
            return
        self.steps["prepared"] += 1
        rung = sorted(others)[number % len(others)]
        waits = self._waits(*rung)
        instead_of = f"{rung[0]}/{rung[2]}"
        held = self._claim(job_id, TRANSCRIBE, str(index), worker, lose=lose, instead_of=instead_of)
        if held is not None:
            assert held.lease.again is waits
            if not waits:
                self.rung.remove(rung)

    def _waits(self, job_id: str, stage: str, unit: str) -> bool:
        """Whether a chunk is handed out, and in nobody's hands."""
        known = self.redis.zscore(f"lh:leases:{stage}", f"{job_id}/{unit}") is not None
        return known and not self.redis.hexists(f"lh:job:{job_id}:leases", f"{unit}:owner")

    @precondition(lambda self: self.rung)
    @rule(number=NUMBER, worker=st.sampled_from(WORKERS), keep=st.booleans(), lose=st.booleans())
    def claim_rung(self, number: int, worker: str, *, keep: bool, lose: bool) -> None:
        unit = self.rung[-1 - number % len(self.rung)]
        if not keep:
            self.rung.remove(unit)
        self._claim(*unit, worker, lose=lose)

    @rule(number=NUMBER, unit=st.sampled_from([INGEST, "0", "1"]), worker=st.sampled_from(WORKERS))
    def claim_any(self, number: int, unit: str, worker: str) -> None:
        stage = TRANSCRIBE if unit.isdigit() else unit
        known = self._job(number)
        if stage == TRANSCRIBE or not known.parts:
            self._claim(known.id, stage, unit, worker, lose=False)

    @precondition(lambda self: self.held)
    @rule(number=NUMBER, done_ms=st.integers(0, 1000))
    def beat(self, number: int, done_ms: int) -> None:
        self.steps["beat"] += 1
        held = self._held(number)
        before = self._all()
        answer = self.leases[held.worker].beat(held.lease, done_ms)
        if answer is Beat.RENEWED:
            assert self._good(held)
            held.until_ms = self.store.now_ms() + self.settings.lease_ms
        else:
            self._same(before)
        if not held.over and held.until_ms > self.store.now_ms() + 1_000:
            assert (answer is Beat.RENEWED) is self._good(held)

    @precondition(lambda self: self.held)
    @rule(number=NUMBER, count=st.integers(1, 5), changed=st.integers(0, 9), lose=st.booleans())
    def write(self, number: int, count: int, changed: int, *, lose: bool) -> None:
        """Who has, or had, a lease writes what it is for."""
        held = self._held(number)
        self.steps["write " + held.lease.stage] += 1
        if held.lease.stage == TRANSCRIBE:
            self._commit(held, lose=lose)
            return
        if held.lease.stage == ASSEMBLE:
            self._finish(held, lose=lose)
            return
        known = self.jobs[held.lease.job_id]
        start = len(self.store.chunks(known.id)) if number % 2 else 0
        for index in range(start, min(start + count, known.plan)):
            self._add(held, index, digest="other" if not changed and index == 1 else "", lose=lose)
        if count % 2 and len(self.store.chunks(known.id)) == known.plan:
            self._seal(held, lose=lose)

    @precondition(lambda self: self.held)
    @rule(
        number=NUMBER,
        error=st.sampled_from([None, Unexpected("luck"), EngineFailed("no"), SourceChanged()]),
        delay_ms=st.sampled_from([0, 5_000]),
        lose=st.booleans(),
    )
    def release(self, number: int, error: Any, delay_ms: int, *, lose: bool) -> None:
        self.steps["release"] += 1
        held, before = self._held(number), self._all()
        good = self._good(held)
        self.flaky.lose = lose
        outcome = self.leases[held.worker].release(held.lease, error, delay_ms)
        if not good or (held.over and outcome == "lost"):
            assert outcome == "lost"
            self._same(before)
        held.over = held.over or good
        if outcome == "exhausted":
            fail_job(self.context, held.lease, error)
        elif outcome == "complete":
            self.assemble(held.lease.job_id)

    @rule(worker=st.sampled_from(WORKERS), lose=st.booleans())
    def hand_back(self, worker: str, *, lose: bool) -> None:
        self.steps["hand_back"] += 1
        self.flaky.lose = lose
        self.leases[worker].hand_back([worker])
        for held in self.held:
            held.over = held.over or held.worker == worker

    @rule()
    def reap(self) -> None:
        self.steps["reap"] += 1
        now_ms = self.store.now_ms()
        for held in self.held:
            held.over = held.over or held.until_ms <= now_ms
        reaper.tick(self.context)

    @rule(ms=st.sampled_from(MOMENTS_MS))
    def wait(self, ms: int) -> None:
        self.steps["wait"] += 1
        self._pass(ms)

    @invariant()
    def true(self) -> None:
        self.steps["all"] += 1
        check(self.redis, self.store, self.jobs)

    def teardown(self) -> None:
        """Whatever has happened: a worker that does all it is rung for, and the reaper, end every job."""
        check(self.redis, self.store, self.jobs)
        for _ in range(ROUNDS):
            self._pass(self.settings.dispatch_ms + 1_000)
            self.rung.clear()
            self.reap()
            while self.rung:
                self._work(*self.rung.pop(0))
            check(self.redis, self.store, self.jobs)
            if not any(map(live, self.jobs.values())):
                break
        stuck = [known.seen for known in self.jobs.values() if live(known)]
        assert not stuck, f"nobody is rung for, and it has not ended: {stuck}"
        self._pass(RETENTION_MS + 1_000)
        check(self.redis, self.store, self.jobs)
        self.redis.close()


def _position(event_id: str) -> tuple[int, int]:
    ms, _, number = event_id.partition("-")
    return int(ms), int(number or 0)
