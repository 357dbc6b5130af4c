"""What the state machines found wrong, each in as few steps as it takes."""

from dataclasses import replace

from tasks import endings
from tasks.errors import ExecutionTimeout
from tasks.leases import INGEST, TRANSCRIBE, Beat
from tests.bench import HOOK, NEW, RECEIVER, REQUEST, Bench


def failed(bench: Bench, job_id: str = "j") -> None:
    """End a job in failure."""
    ending = endings.failed(job_id, "r", bench.store.now_ms(), ExecutionTimeout())
    assert bench.store.finish(job_id, ending)[0]


def test_a_heartbeat_that_comes_late_adds_nothing_to_what_is_transcribed(bench: Bench) -> None:
    bench.planned()
    lease = bench.claim(TRANSCRIBE, "0")
    bench.commit(lease)
    assert bench.leases.beat(lease, 900) is Beat.LOST
    assert bench.store.transcribed_ms(bench.job()) == 1000


def test_a_plan_of_a_batch_is_counted_once_though_its_seal_is_repeated(bench: Bench) -> None:
    bench.store.create(replace(NEW, parts=(REQUEST, REQUEST)))
    ingest = bench.claim(INGEST, INGEST, "j.0")
    for _ in range(2):
        bench.leases.seal(ingest, 0, 0, "[]")
    assert bench.job().total is None, "the other recording has no plan yet"


def test_the_end_of_a_run_is_told_though_the_next_has_ended_too(bench: Bench) -> None:
    bench.planned(webhook_url=HOOK)
    failed(bench)
    assert [bench.refuse() for _ in range(3)] == ["waiting"] * 3
    bench.store.retry("j")
    failed(bench)
    assert bench.refuse() == "waiting"
    assert bench.drain() == ["error", "error"]
    assert bench.outbox.claim(RECEIVER, "drain") is None
