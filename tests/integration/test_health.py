"""A worker is healthy when each of its children can work, not when its parent answers."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis

from tasks.health import Running, absent, look, running
from tasks.presence import Presence
from tasks.roles import worker_name
from tasks.settings import Settings, child_environment
from tests.conftest import Eventually, Stack

PROC = Path("/proc")
ROOT = Path(__file__).parents[2]


def workers_of(stack: Stack) -> dict[str, Running]:
    """The stack's workers by role; other tests' are none of its business."""
    parents = stack.machine.pids().values()
    return {found.role: found for found in running(PROC) if found.pids[0] in parents}


def presence_of(stack: Stack) -> Presence:
    return Presence(stack.redis, stack.machine.settings)


def faults(stack: Stack) -> list[str]:
    workers = workers_of(stack).values()
    return [fault for worker in workers for fault in look(presence_of(stack), worker)]


def test_every_role_is_healthy(stack: Stack, eventually: Eventually) -> None:
    eventually(lambda: faults(stack) == [], what="the health of all")
    assert {role: found.expected for role, found in workers_of(stack).items()} == {
        "transcribe": 2,
        "io": 3,
        "deliver": 1,
    }


@pytest.mark.parametrize(
    ("role", "stage", "fault"),
    [
        ("transcribe", "transcribe", "transcribe: 1 of 2 can work"),
        ("io", "ingest", "io: 2 of 3 can work"),
        ("io", "assemble", "io: 2 of 3 can work"),
    ],
)
def test_a_child_that_hangs_is_seen_though_its_parent_answers(
    stack: Stack, eventually: Eventually, role: str, stage: str, fault: str
) -> None:
    eventually(lambda: faults(stack) == [])
    able = presence_of(stack).able(stage)
    pids = workers_of(stack)[role].pids
    child = next(pid for pid in pids if worker_name(pid) in able)
    os.kill(child, signal.SIGSTOP)
    try:
        eventually(lambda: faults(stack) == [fault], what="the fault")
    finally:
        os.kill(child, signal.SIGCONT)
    eventually(lambda: faults(stack) == [], what="recovery")


def test_threads_that_hang_are_seen(stack: Stack, eventually: Eventually) -> None:
    eventually(lambda: faults(stack) == [])
    os.kill(stack.machine.pids()["deliver"], signal.SIGSTOP)
    try:
        eventually(lambda: faults(stack) == ["deliver: 0 of 1 can work"], what="the fault")
    finally:
        os.kill(stack.machine.pids()["deliver"], signal.SIGCONT)
    eventually(lambda: faults(stack) == [], what="recovery")


def test_a_child_whose_model_cannot_be_loaded_is_seen(
    settings: Settings, redis: Redis, tmp_path: Path, eventually: Eventually
) -> None:
    settings = settings.model_copy(update={"engine": "tests.fake_engine:FakeEngine", "model": "broken"})
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tasks.worker", "transcribe"],
            env=child_environment(settings) | {"TMPDIR": str(tmp_path)},
            cwd=ROOT,
            stdout=output,
            stderr=output,
        )
    try:
        eventually(lambda: "its model is broken" in log.read_text(), 30, "the child's failure")
        (found,) = [worker for worker in running(PROC) if worker.pids[0] == process.pid]
        assert list(look(Presence(redis, settings), found)) == ["transcribe: 0 of 1 can work"]
    finally:
        process.kill()
        process.wait()


def process(folder: Path, pid: int, parent: int, *line: str) -> None:
    """Write what /proc has of a process."""
    (folder / str(pid)).mkdir()
    (folder / str(pid) / "status").write_text(f"Name:\tx\nPPid:\t{parent}\n")
    (folder / str(pid) / "cmdline").write_text("".join(f"{word}\0" for word in line))
    (folder / str(pid) / "environ").write_text(f"PID={pid}\0EMPTY=\0")


def test_all_in_one_needs_all_of_its_parts(tmp_path: Path) -> None:
    process(tmp_path, 1, 0, "tini", "--", "longhand", "runpod")
    process(tmp_path, 8, 1, "python", "-m", "tasks.worker", "io")
    process(tmp_path, 9, 1, "python", "-m", "tasks.worker", "deliver")
    assert list(absent(tmp_path)) == [
        "tasks.worker transcribe does not run",
        "dispatcher.handler does not run",
    ]
    process(tmp_path, 10, 1, "python", "-m", "tasks.worker", "transcribe", "--concurrency", "2")
    process(tmp_path, 11, 1, "python", "-m", "dispatcher.handler")
    assert list(absent(tmp_path)) == []


def test_a_single_worker_needs_no_others(tmp_path: Path) -> None:
    process(tmp_path, 8, 1, "python", "-m", "tasks.worker", "io")
    assert list(absent(tmp_path)) == []


def test_workers_are_found_by_what_they_were_started_with(tmp_path: Path) -> None:
    worker = ("-m", "tasks.worker")
    process(tmp_path, 1, 0, "tini", "--", "python", *worker, "io", "--concurrency", "5")
    process(tmp_path, 7, 1, "/opt/longhand/bin/python", *worker, "io", "--concurrency", "5")
    process(tmp_path, 8, 7, "python", "-c", "from billiard.spawn import spawn_main")
    process(tmp_path, 9, 1, "python3.11", "-X", "dev", *worker, "transcribe")
    process(tmp_path, 10, 9, "python", "-m")
    process(tmp_path, 11, 1)
    process(tmp_path, 12, 1, "python", "-m", "tasks.health")
    (tmp_path / "13").mkdir()  # it has ended meanwhile
    assert sorted(running(tmp_path), key=lambda found: found.pids) == [
        Running("io", 5, (7, 8), {"PID": "7", "EMPTY": ""}),
        Running("transcribe", 1, (9, 10), {"PID": "9", "EMPTY": ""}),
    ]
