"""`/health` and the health check of a container tell the truth about real workers."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from redis import Redis

from tasks.health import main, running
from tasks.presence import Census, Presence, Report
from tasks.roles import worker_name
from tasks.settings import Settings
from tests.bench import Bench
from tests.conftest import Eventually, Stack
from tests.fleet import worker_process

PROC = Path("/proc")
ROOT = Path(__file__).parents[2]
HEALTHY = {"idle": 2, "initializing": 0, "ready": 2, "running": 0, "throttled": 0, "unhealthy": 0}


def told(stack: Stack) -> dict[str, int]:
    """What `/health` says of workers."""
    return dict(stack.client.health()["workers"])


def healthy(stack: Stack) -> bool:
    return told(stack) == HEALTHY


def able_children(stack: Stack) -> list[int]:
    """The transcribing processes that can work, by id."""
    parent = stack.machine.pids()["transcribe"]
    (found,) = [worker for worker in running(PROC) if worker.pids[0] == parent]
    able = Presence(stack.redis, stack.machine.settings).able("transcribe")
    return [pid for pid in found.pids if worker_name(pid) in able]


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def fault(processes: Path) -> str:
    """What the health check says before it exits with status 1; empty where it is content."""
    try:
        main(processes, [])
    except SystemExit as end:
        # Python prints a sentence, and exits with status 1.
        return str(end.code)
    return ""


@pytest.fixture
def check(stack: Stack, tmp_path: Path) -> Callable[[], str]:
    """The health check in a container of the stack's transcribing worker alone."""

    def said() -> str:
        parent = stack.machine.pids()["transcribe"]
        for entry in tmp_path.glob("[0-9]*"):
            entry.unlink()
        (found,) = [worker for worker in running(PROC) if worker.pids[0] == parent]
        for pid in found.pids:
            (tmp_path / str(pid)).symlink_to(PROC / str(pid))
        return fault(tmp_path)

    return said


def test_a_frozen_child_is_unhealthy_until_it_goes_on(
    stack: Stack, eventually: Eventually, check: Callable[[], str]
) -> None:
    eventually(lambda: healthy(stack) and not check(), what="the health of all")
    # Of a test before this one: a child that has work in hand and is frozen is ended by its parent.
    eventually(lambda: not stack.redis.zcard("lh:leases:transcribe"), 60, "the end of all work")
    with frozen(able_children(stack)[0]):
        eventually(lambda: told(stack)["unhealthy"] == 1, what="the fault in /health")
        assert told(stack)["ready"] == 1
        eventually(lambda: check() == "transcribe: 1 of 2 can work", what="the fault in the check")
    eventually(lambda: healthy(stack) and not check(), what="recovery")


def test_children_of_a_frozen_parent_are_unhealthy_until_it_goes_on(
    stack: Stack, eventually: Eventually, check: Callable[[], str]
) -> None:
    eventually(lambda: healthy(stack) and not check(), what="the health of all")
    with frozen(stack.machine.pids()["transcribe"]):
        eventually(lambda: told(stack)["unhealthy"] == 2, what="the fault in /health")
        assert told(stack)["ready"] == 0
        assert check() == "transcribe: the parent of its processes does not report"
    eventually(lambda: healthy(stack) and not check(), what="recovery")


def test_a_child_that_dies_again_and_again_is_unhealthy(stack: Stack, eventually: Eventually) -> None:
    eventually(lambda: healthy(stack), what="the health of all")
    keep = able_children(stack)[0]
    parent = stack.machine.pids()["transcribe"]

    def unhealthy_after_another_death() -> bool:
        (found,) = [worker for worker in running(PROC) if worker.pids[0] == parent]
        for pid in found.pids[1:]:
            # One more is billiard's own, which keeps track of semaphores.
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                if pid != keep and b"spawn_main" in (PROC / str(pid) / "cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
        return told(stack)["unhealthy"] == 1

    eventually(unhealthy_after_another_death, what="the fault")
    eventually(lambda: healthy(stack), what="recovery")


def transcribing(settings: Settings, *python: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """A transcribing worker of two processes, started by these arguments of Python."""
    settings = settings.model_copy(update={"engine": "tests.fake_engine:FakeEngine"})
    return worker_process(settings, settings.data_path / "log", *python, concurrency=2)


def test_a_model_that_does_not_load_makes_its_processes_unhealthy(
    redis: Redis, settings: Settings, eventually: Eventually
) -> None:
    presence = Presence(redis, settings)
    assert presence.census("transcribe", "transcribe") == Census(0, 0, 0), "no worker has reported yet"
    with transcribing(settings.model_copy(update={"model": "broken"}), "-m", "tasks.worker") as worker:
        eventually(lambda: presence.reports("transcribe"), what="a report")
        # The lease is a minute: nothing has lapsed.
        eventually(lambda: presence.census("transcribe", "transcribe") == Census(0, 0, 2), 30, "the fault")
        worker.terminate()
        eventually(lambda: presence.census("transcribe", "transcribe") == Census(0, 0, 0), what="the end")
        assert worker.wait(20) == 0


# A signal's handler runs in the thread of Celery's loop, and others go on meanwhile.
HANGING = """
import pathlib, signal, sys, time
from tasks import worker
if __name__ == "__main__":
    def hang(*_):
        while not pathlib.Path(sys.argv[1]).exists():
            time.sleep(0.05)
    signal.signal(signal.SIGRTMIN, hang)
    worker.main(sys.argv[2:])
"""


def test_a_parent_whose_loop_hangs_is_seen_though_its_threads_go_on(
    redis: Redis, settings: Settings, tmp_path: Path, eventually: Eventually
) -> None:
    settings = settings.model_copy(update={"lease_ms": 3_000, "heartbeat_ms": 300, "model": "multi"})
    presence = Presence(redis, settings)
    # Its children import it, too.
    (tmp_path / "hanging.py").write_text(HANGING)
    with transcribing(settings, str(tmp_path / "hanging.py"), str(tmp_path / "go")) as worker:
        able = Census(2, 0, 0)
        eventually(lambda: presence.census("transcribe", "transcribe") == able, 30, "the health of all")
        worker.send_signal(signal.SIGRTMIN)
        eventually(lambda: presence.census("transcribe", "transcribe") == Census(0, 0, 2), what="the fault")
        (tmp_path / "go").touch()
        eventually(lambda: presence.census("transcribe", "transcribe") == able, what="recovery")
        # Celery's connection to the broker breaks, and its loop begins anew.
        assert redis.client_kill_filter(_type="normal", skipme=True)
        eventually(lambda: "Connection to broker lost" in (tmp_path / "log").read_text(), what="the loss")
        for _ in range(3):
            redis.delete(f"lh:worker:{worker_name(worker.pid)}")
            eventually(lambda: presence.census("transcribe", "transcribe") == able, what="another report")


def test_what_a_parent_says_lapses(bench: Bench, eventually: Eventually) -> None:
    presence = Presence(bench.redis, bench.settings.model_copy(update={"lease_ms": 500}))
    presence.report("transcribe", "a", Report(2, started=False))
    presence.report("transcribe", "b", Report(1, started=True))
    for key in ("lh:workers:transcribe", "lh:worker:a", "lh:worker:b"):
        assert 0 < bench.redis.pttl(key) <= 500, key
    Presence(bench.redis, bench.settings).report("transcribe", "b", Report(1, started=True))
    eventually(lambda: presence.reports("transcribe") == {"b": Report(1, started=True)})
    presence.report("transcribe", "b", Report(1, started=True))
    assert bench.redis.zrange("lh:workers:transcribe", 0, -1) == [b"b"], "those of the past are forgotten"
