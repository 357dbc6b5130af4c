"""`longhand runpod` as RunPod starts it in a container: everything in one place, jobs from the platform."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dispatcher.client import segments_of
from tests.conftest import Eventually, Receiver, write_recording
from tests.e2e.test_up import ROOT, children
from tests.fake_platform import FakePlatform, serving


def start(platform: FakePlatform, folder: Path, **environment: str) -> "subprocess.Popen[str]":
    """A container's main process, with the environment that RunPod gives it."""
    return subprocess.Popen(
        [sys.executable, "-m", "dispatcher.cli", "runpod"],
        cwd=ROOT,
        env={
            **os.environ,
            **platform.environment(),
            "LONGHAND_DATA_DIR": str(folder),
            "LONGHAND_ENGINE": "tests.fake_engine:FakeEngine",
            "LONGHAND_ALLOW_PRIVATE_ADDRESSES": "true",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_one_container_does_it_all_and_finishes_what_it_has(
    tmp_path: Path, receiver: Receiver, eventually: Eventually
) -> None:
    folder = tmp_path / "data"
    write_recording(receiver.folder / "talk.wav", 31)
    job_input = {
        "url": f"{receiver.url}/talk.wav",
        "chunk_seconds": 10,
        "transcribe_args": {"initial_prompt": "slow:200"},
        "webhook_url": f"{receiver.url}/hook",
        "recording_id": "talk",
    }
    with serving() as platform:
        process = start(platform, folder)
        try:
            platform.give("job-1", job_input)
            eventually(lambda: platform.items("job-1"), 60, "the first item")
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
        (result,) = platform.results("job-1")
    assert process.returncode == 0, output
    assert len(segments_of(result["output"])) == 3 * 4
    assert receiver.statuses("talk")[-1] == "completed"
    # What the processes log is the container's log.
    assert '"event": "job_succeeded"' in output
    assert children(folder) == {}


def test_a_job_that_would_end_with_its_worker_cannot_be_left_alone(
    tmp_path: Path, eventually: Eventually
) -> None:
    with serving() as platform:
        process = start(platform, tmp_path / "data")
        try:
            platform.give("job-1", {"url": "https://a.test/x", "detach": True})
            (result,) = eventually(lambda: platform.results("job-1"), 60, "job-done")
        finally:
            process.terminate()
            process.communicate(timeout=120)
    assert result["error"].startswith("detach_refused: ")


def test_always_to_detach_needs_a_redis(tmp_path: Path) -> None:
    with serving() as platform:
        process = start(platform, tmp_path / "data", LONGHAND_DETACH="always")
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "LONGHAND_DETACH=always needs REDIS_URL" in output


def test_what_dies_while_the_last_job_is_finished_is_started_again(
    tmp_path: Path, receiver: Receiver, eventually: Eventually
) -> None:
    folder = tmp_path / "data"
    write_recording(receiver.folder / "talk.wav", 31)
    timings = {"LONGHAND_LEASE_MS": "2000", "LONGHAND_HEARTBEAT_MS": "300", "LONGHAND_DISPATCH_MS": "2000"}
    arguments = {"initial_prompt": "slow:200"}
    with serving() as platform:
        process = start(platform, folder, **timings)
        try:
            job_input = {"url": f"{receiver.url}/talk.wav", "chunk_seconds": 10, "transcribe_args": arguments}
            platform.give("job-1", job_input)
            eventually(lambda: platform.items("job-1"), 60, "the first item")
            process.send_signal(signal.SIGTERM)
            os.kill(children(folder)["transcribe"], signal.SIGKILL)
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
        (result,) = platform.results("job-1")
    assert process.returncode == 0, output
    assert len(segments_of(result["output"])) == 3 * 4


def test_without_its_redis_it_ends_at_once_though_a_job_waits(
    tmp_path: Path, receiver: Receiver, eventually: Eventually
) -> None:
    folder = tmp_path / "data"
    write_recording(receiver.folder / "talk.wav", 31)
    arguments = {"initial_prompt": "slow:5000"}
    with serving() as platform:
        process = start(platform, folder)
        try:
            job_input = {"url": f"{receiver.url}/talk.wav", "transcribe_args": arguments}
            platform.give("job-1", job_input)
            eventually(lambda: platform.items("job-1"), 60, "the first item")
            os.kill(children(folder)["tasks.embedded"], signal.SIGTERM)
            output, _ = process.communicate(timeout=40)
        finally:
            process.kill()
    assert process.returncode == 1
    assert "redis_lost: lost the embedded Redis" in output
    eventually(lambda: children(folder) == {}, what="the end of all")


def test_a_model_that_is_none_is_told_before_any_job_is_taken(tmp_path: Path) -> None:
    with serving() as platform:
        platform.give("job-1", {"url": "https://example.com/a.mp3"})
        engine = "tasks.engine:FasterWhisperEngine"
        process = start(platform, tmp_path, LONGHAND_MODEL="no-such-model", LONGHAND_ENGINE=engine)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "unknown_model: Model 'no-such-model' was not found" in output
        assert platform.batches == []


@pytest.mark.parametrize("value", ["http://127.0.0.1", "redis://redis.invalid:6379/0"])
def test_a_redis_that_is_none_is_told(tmp_path: Path, value: str) -> None:
    with serving() as platform:
        process = start(platform, tmp_path, REDIS_URL=value)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "REDIS_URL" in output or "redis was not ready in time" in output
