"""A process that was frozen in one run of a job and wakes up in the next: it ends nothing there."""

from dataclasses import replace
from typing import Any

import pytest

from tasks import endings, pipeline, reaper
from tasks.app import create_app
from tasks.attempt import AttemptFailed, attempt, fail_job
from tasks.context import Context, build
from tasks.errors import ConfigurationError, InvalidInput, LeaseLost, LonghandError
from tasks.heartbeat import Heartbeat
from tasks.job import Status
from tasks.leases import ASSEMBLE, INGEST, TRANSCRIBE, Lease, Refused
from tasks.store import Store
from tests.bench import NEW, PAST_MS, REQUEST, Bench, chunk

REFUSED = ConfigurationError()


@pytest.fixture
def context(bench: Bench) -> Context:
    """What a worker process works with."""
    return build(bench.settings, create_app(bench.settings))


def next_run(bench: Bench) -> None:
    """The job fails, and its client has it done again."""
    ending = endings.failed("j", "j", bench.store.now_ms(), REFUSED)
    assert bench.store.finish("j", ending)[0]
    assert bench.store.retry("j") in ("queued", "complete")


def run_2_goes_on(bench: Bench) -> bool:
    job = bench.job()
    return job.run == 2 and not job.terminal


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("error", [InvalidInput("of run 1"), REFUSED])
def test_an_ingest_does_not_fail_it(
    bench: Bench, context: Context, error: LonghandError, *, begun: bool
) -> None:
    bench.store.create(NEW)

    def work(_lease: Lease, _heartbeat: Heartbeat) -> None:
        next_run(bench)
        if begun:
            bench.claim(INGEST, INGEST)
        raise error

    with pytest.raises(AttemptFailed):
        attempt(context, "j", INGEST, INGEST, work)
    assert run_2_goes_on(bench)


@pytest.mark.parametrize(("stage", "unit"), [(INGEST, INGEST), (TRANSCRIBE, "0")])
def test_an_attempt_that_was_the_last_does_not_fail_it(
    bench: Bench, context: Context, stage: str, unit: str
) -> None:
    lease = bench.planned()
    if stage == TRANSCRIBE:
        lease = bench.claim(stage, unit)
    next_run(bench)
    # Redis had told it that it has no attempt left.
    fail_job(context, lease, REFUSED)
    assert run_2_goes_on(bench)
    bench.claim(INGEST, INGEST)
    fail_job(context, bench.claim(stage, unit) if stage == TRANSCRIBE else lease, REFUSED)
    assert bench.job().terminal is (stage == TRANSCRIBE), "who has the lease may"


class Worn:
    """Leases whose process freezes after it was refused one, until the next run has begun."""

    def __init__(self, bench: Bench, *, begun: bool) -> None:
        self._bench = bench
        self._begun = begun

    def claim(self, job_id: str, stage: str, unit: str) -> Lease | Refused:
        why = self._bench.leases.claim(job_id, stage, unit)
        assert why == Refused("worn", "3")
        next_run(self._bench)
        if self._begun:
            self._bench.claim(stage, unit)
        return why


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("stage", [INGEST, ASSEMBLE])
def test_who_found_it_worn_out_does_not_fail_it(
    bench: Bench, context: Context, stage: str, *, begun: bool
) -> None:
    if stage == ASSEMBLE:
        lease = bench.ready_to_assemble()
    else:
        assert bench.store.create(NEW)
        lease = bench.claim(stage, stage)
    for _ in range(2):
        bench.expire(stage, stage)
        lease = bench.claim(stage, stage)
    bench.expire(stage, stage)
    assert lease.fence == str(bench.settings.max_starts)
    frozen: Any = Worn(bench, begun=begun)
    assert attempt(replace(context, leases=frozen), "j", stage, stage, no_work) == "nothing to do: worn"
    assert run_2_goes_on(bench)
    if begun:
        bench.expire(stage, stage)
    for _ in range(3 - begun):
        bench.claim(stage, stage)
        bench.expire(stage, stage)
    attempt(replace(context, leases=bench.leases), "j", stage, stage, no_work)
    assert bench.job().status is Status.FAILED, "in the run in which it is worn"


def no_work(_lease: Lease, _heartbeat: Heartbeat) -> None:
    raise AssertionError


def batch_to_assemble(bench: Bench) -> Lease:
    """A batch of which one recording has failed, and the other has nothing in it."""
    assert bench.store.create(replace(NEW, parts=(REQUEST, REQUEST)))
    for part in ("j.0", "j.1"):
        bench.claim(INGEST, INGEST, part)
        assert bench.store.finish(part, endings.failed(part, part, bench.store.now_ms(), REFUSED))[0]
    return bench.claim(ASSEMBLE, ASSEMBLE)


def test_who_assembled_a_batch_does_not_end_its_next_run(bench: Bench) -> None:
    old = batch_to_assemble(bench)
    next_run(bench)
    assert bench.store.finish("j", bench.canceled(), stage=ASSEMBLE, fence=old.fence) == (False, ())
    assert run_2_goes_on(bench)


def test_starts_of_a_batch_are_counted_by_run(bench: Bench) -> None:
    batch_to_assemble(bench)
    for _ in range(2):
        bench.expire(ASSEMBLE, ASSEMBLE)
        bench.claim(ASSEMBLE, ASSEMBLE)
    next_run(bench)
    for part in ("j.0", "j.1"):
        assert bench.store.finish(part, endings.failed(part, part, bench.store.now_ms(), REFUSED))[0]
    assert bench.claim(ASSEMBLE, ASSEMBLE)


class Freezing(Store):
    """One whose process freezes after it has seen which chunks are dead, until the next run has begun."""

    bench: Bench

    def dead(self, job_id: str) -> dict[int, str]:
        found = super().dead(job_id)
        if self.bench.job().run == 1:
            next_run(self.bench)
        return found


@pytest.mark.parametrize("dead", [False, True])
def test_an_assembly_does_not_end_it(bench: Bench, context: Context, *, dead: bool) -> None:
    bench.planned()
    bench.seal()
    bench.commit(bench.claim(TRANSCRIBE, "0"))
    last = bench.claim(TRANSCRIBE, "1")
    if dead:
        bench.leases.release(last, REFUSED)
    else:
        bench.commit(last)
    store = Freezing(bench.redis, bench.settings)
    store.bench = bench
    frozen = replace(context, store=store)
    done = attempt(
        frozen, "j", ASSEMBLE, ASSEMBLE, lambda lease, _heartbeat: pipeline._assemble(frozen, lease)
    )
    assert run_2_goes_on(bench)
    assert dead or done.startswith("stopped"), "and does not say that it did"


def test_a_message_of_the_run_before_assembles_nothing(bench: Bench) -> None:
    bench.planned()
    assert bench.leases.claim("j", ASSEMBLE, ASSEMBLE) == Refused("early")
    bench.seal()
    bench.commit(bench.claim(TRANSCRIBE, "0"))
    bench.leases.release(bench.claim(TRANSCRIBE, "1"), REFUSED)
    next_run(bench)
    assert bench.leases.claim("j", ASSEMBLE, ASSEMBLE) == Refused("early")
    bench.transcribe(1)
    bench.claim(ASSEMBLE, ASSEMBLE)


class Late:
    """Leases whose process freezes after it has seen which jobs are late."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bench.leases, name)

    def reap(self) -> Any:
        found = self._bench.leases.reap()
        assert found.late == ["j"]
        next_run(self._bench)
        return found


def test_a_reaper_does_not_end_it_for_the_time_of_the_run_before(bench: Bench, context: Context) -> None:
    bench.store.create(NEW)
    bench.age("lh:deadlines", "j")
    frozen: Any = Late(bench)
    reaper.tick(replace(context, leases=frozen))
    assert run_2_goes_on(bench)
    assert bench.redis.zscore("lh:deadlines", "j") == bench.job().deadline_ms
    bench.age("lh:deadlines", "j")
    reaper.tick(context)
    assert bench.job().status is Status.FAILED


def test_a_job_that_has_ended_or_is_gone_has_no_deadline(bench: Bench) -> None:
    bench.store.create(NEW)
    bench.finish()
    bench.redis.zadd("lh:deadlines", {"gone": PAST_MS, "j": PAST_MS})
    assert bench.leases.reap().late == []
    assert bench.redis.zcard("lh:deadlines") == 0


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED])
def test_what_is_stored_after_the_sweep_is_swept_as_well(bench: Bench, status: Status) -> None:
    bench.store.create(NEW)
    lease = bench.claim(INGEST, INGEST)
    bench.store.finish("j", replace(bench.canceled(), status=status))
    kept_until_ms = bench.redis.zscore("lh:sweep", "j")
    swept = status is Status.SUCCEEDED
    if swept:
        assert bench.leases.reap().sweep == ["j"]
        bench.leases.swept("j")
    # Its blob is there already, and no chunk names it.
    with pytest.raises(LeaseLost):
        bench.leases.add_chunk(lease, chunk(0))
    assert bench.leases.reap().sweep == (["j"] if swept else [])
    assert swept or bench.redis.zscore("lh:sweep", "j") == kept_until_ms, "it may be done again"
