"""A process that cannot work takes no chunk; one that has lost its GPU, or always fails, ends itself."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from dispatcher.client import segments_of
from dispatcher.local import Plan
from tasks.errors import OutOfMemory
from tasks.fitness import MAX_FAILURES, UNFIT
from tasks.scripts import connect
from tasks.settings import Settings
from tests.conftest import Eventually, Receiver, Stack, emptied, fake_settings, stack_of
from tests.fleet import worker_process

ROOT = Path(__file__).parents[2]
# A busy machine is slow.
LONG_S = 120
# Chunks are given out side by side.
HEBREW = {"language": "he"}


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    """A message that waits for nobody is not rung for again while a test runs."""
    return fake_settings(
        data_dir=tmp_path / "data",
        redis_url=emptied(redis_url, 12),
        attempt_delay_ms=200,
        max_attempts=2 * MAX_FAILURES,
        dispatch_ms=600_000,
    )


@contextlib.contextmanager
def stack(settings: Settings, *roles: str, workers: int = 1) -> Iterator[Stack]:
    plan = Plan(port=0, workers=workers, redis_url=settings.redis_url, roles=("api", "io", "deliver", *roles))
    with stack_of(settings, plan) as running:
        yield running


def said(log: Path, event: str) -> list[dict[str, Any]]:
    """The lines of one event in a worker's log."""
    found = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [line for line in found if line.get("event") == event]


def test_a_process_whose_gpu_is_lost_ends_and_a_clean_one_goes_on(
    settings: Settings, receiver: Receiver, eventually: Eventually
) -> None:
    with stack(settings, "transcribe") as running:
        marker = receiver.folder / "lost"
        job_id = running.client.submit(running.input(receiver, "lost", 31, f"lost:1:{marker}"))
        shown = eventually(lambda: running.ended(job_id), LONG_S, "the end of the job")
        assert shown["status"] == "COMPLETED"
        log = running.folder / "logs" / "transcribe.log"
        assert [line["why"] for line in said(log, "process_unfit")] == ["device lost"]
        (died,) = said(log, "child_died")
        assert (died["pid"], died["exit_code"], died["charged"]) == (int(marker.read_text()), UNFIT, False)
        # Neither an attempt nor a death is charged.
        leases = running.redis.hgetall(f"lh:job:{job_id}:leases")
        assert int(leases[b"1"]) == 2
        assert leases[b"1:failures"] == b"0"
        assert b"1:deaths" not in leases
        done = said(log, "chunk_done")
        assert sorted(line["chunk"] for line in done) == [0, 1, 2]
        assert died["pid"] not in {
            int(line["worker"].rpartition("-")[2]) for line in done if line["chunk"] >= 1
        }


def test_a_process_that_fails_on_everything_ends_and_a_clean_one_goes_on(
    settings: Settings, receiver: Receiver, eventually: Eventually
) -> None:
    with stack(settings, "transcribe") as running:
        marker = receiver.folder / "sick"
        job_id = running.client.submit(running.input(receiver, "sick", 41, f"sick:{marker}"))
        shown = eventually(lambda: running.ended(job_id), LONG_S, "the end of the job")
        assert shown["status"] == "COMPLETED"
        log = running.folder / "logs" / "transcribe.log"
        assert [line["why"] for line in said(log, "process_unfit")] == ["5 failures in a row"]
        assert len(said(log, "attempt_failed")) == MAX_FAILURES
        assert running.store.dead(job_id) == {}
        assert [line["charged"] for line in said(log, "child_died")] == [False]


def test_the_chunks_of_a_sick_process_are_done_by_another(
    settings: Settings, receiver: Receiver, eventually: Eventually
) -> None:
    # As it is by default: a sick process alone would use all attempts of a chunk up.
    settings = settings.model_copy(update={"max_attempts": 3})
    with stack(settings, "transcribe", workers=2) as running:
        marker = receiver.folder / "sick"
        job_id = running.client.submit(running.input(receiver, "sick", 61, f"sick:{marker}"))
        shown = eventually(lambda: running.ended(job_id), LONG_S, "the end of the job")
        assert shown["status"] == "COMPLETED"


def test_a_chunk_that_has_no_room_in_one_process_is_done_by_another(
    settings: Settings, receiver: Receiver, eventually: Eventually
) -> None:
    with stack(settings, "transcribe", workers=2) as running:
        marker = receiver.folder / "small"
        job_id = running.client.submit(running.input(receiver, "small", 41, f"small:1:{marker}"))
        shown = eventually(lambda: running.ended(job_id), LONG_S, "the end of the job")
        assert shown["status"] == "COMPLETED"
        log = running.folder / "logs" / "transcribe.log"
        failed = said(log, "attempt_failed")
        assert {(line["unit"], line["error"]) for line in failed} == {("1", OutOfMemory.__doc__)}
        (by,) = [line["worker"] for line in said(log, "chunk_done") if line["chunk"] == 1]
        assert by.rpartition("-")[2] != marker.read_text()
        # Nothing is missing: what the fake engine says depends on the samples alone.
        undisturbed = running.client.submit(running.input(receiver, "large", 41))
        whole = eventually(lambda: running.ended(undisturbed), LONG_S, "the end of the other")
        assert segments_of(shown["output"]) == segments_of(whole["output"])


def rung(settings: Settings) -> int:
    """Messages for transcribing workers that nobody has taken."""
    with contextlib.closing(connect(settings.redis_url)) as broker:
        count: Any = Redis.llen(broker, "transcribe")
        return int(count)


def test_a_process_that_cannot_load_its_model_takes_no_chunk(
    settings: Settings, receiver: Receiver, eventually: Eventually, tmp_path: Path
) -> None:
    mended, log = tmp_path / "mended", tmp_path / "log"
    broken = settings.model_copy(update={"preload_models": (f"broken-until:{mended}",)})
    with stack(settings) as running, worker_process(broken, log):
        eventually(lambda: said(log, "models_not_loaded"), 60, "the fault")
        job_id = running.client.submit(running.input(receiver, "waits", 31, transcribe_args=HEBREW))
        eventually(lambda: rung(settings) == 2, LONG_S, "chunks to be done")
        # Another try, in another process.
        eventually(lambda: len({line["pid"] for line in said(log, "child_died")}) >= 1, 60, "the next try")
        eventually(lambda: len(said(log, "models_not_loaded")) >= 2, 60, "its failure")
        assert rung(settings) == 2, "no message is taken that nobody can do"
        assert running.client.status(job_id)["status"] == "IN_PROGRESS"
        mended.touch()
        shown = eventually(lambda: running.ended(job_id), 60, "the end of the job")
        assert shown["status"] == "COMPLETED"
        leases = running.redis.hgetall(f"lh:job:{job_id}:leases")
        assert [int(leases[str(index).encode()]) for index in range(3)] == [1, 1, 1], "each was begun once"


def test_a_worker_of_which_one_process_works_takes_one_chunk(
    settings: Settings, receiver: Receiver, eventually: Eventually, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    half = settings.model_copy(update={"preload_models": ("broken-on:1",)})
    with stack(settings) as running, worker_process(half, log, concurrency=2):
        eventually(lambda: running.store.slots("transcribe")[0] == 1, 60, "one that works")
        gate = receiver.folder / "gate"
        arguments = HEBREW | {"initial_prompt": f"gate:0:{gate}"}
        job_id = running.client.submit(running.input(receiver, "half", 31, transcribe_args=arguments))
        eventually(lambda: gate.exists() and gate.read_text(), what="a chunk in hand")
        eventually(lambda: rung(settings) == 1, what="a chunk to wait for")
        Path(f"{gate}.open").touch()
        shown = eventually(lambda: running.ended(job_id), LONG_S, "the end of the job")
        assert shown["status"] == "COMPLETED"
        workers = {int(line["worker"].rpartition("-")[2]) for line in said(log, "chunk_done")}
        assert workers == {int(gate.read_text())}
        assert os.getpid() not in workers
