"""The RunPod handler under the SDK's own worker loop, against a platform that is ours."""

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from dispatcher.client import segments_of
from tasks.job import Status
from tests.conftest import Eventually, Receiver, Stack
from tests.fake_platform import FakePlatform, serving
from tests.handling import CONCURRENCY, ended, handling, new_id, of_type, status


@pytest.fixture(scope="module")
def platform(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakePlatform]:
    """A platform with one worker."""
    with (
        serving() as platform,
        handling(stack.machine.settings, platform, tmp_path_factory.mktemp("handler")),
    ):
        yield platform


def test_a_job_is_streamed_and_its_output_is_the_whole_stream(
    stack: Stack, receiver: Receiver, eventually: Eventually, platform: FakePlatform
) -> None:
    """Case 25: every item is streamed, typed and small, and the output is all of them."""
    job_id = new_id("streamed")
    platform.give(job_id, stack.input(receiver, "streamed", 31), webhook="https://example.com/")
    result = ended(platform, eventually, job_id)
    items = platform.items(job_id)
    assert set(result) == {"output"}
    assert result["output"] == items
    assert len([item for item in items if of_type([item], "segments")]) == 3
    assert {entry["type"] for item in items for entry in item} <= {"segments", "progress"}
    assert all(len(body) <= 1_000_000 for body in platform.streamed[job_id])
    # The same as any other way in gives.
    by_http = stack.client.submit(stack.input(receiver, "streamed", 31))
    shown = eventually(lambda: stack.ended(by_http))
    assert segments_of(result["output"]) == segments_of(shown["output"])
    # The handler stays until the last webhook has been delivered.
    assert "completed" in receiver.statuses("streamed")


def test_the_platform_is_asked_for_as_many_as_can_run_and_is_told_of_life(
    platform: FakePlatform, eventually: Eventually
) -> None:
    eventually(lambda: CONCURRENCY in platform.batches)
    eventually(lambda: platform.pings)


def test_a_job_that_waits_in_line_says_so_at_once(
    stack: Stack, receiver: Receiver, eventually: Eventually, platform: FakePlatform
) -> None:
    job_id = new_id("waits")
    io = stack.machine.pids()["io"]
    os.kill(io, signal.SIGSTOP)  # it is the only one that would take the job
    try:
        platform.give(job_id, stack.input(receiver, "waits", 11))
        eventually(lambda: platform.items(job_id))
    finally:
        os.kill(io, signal.SIGCONT)
    first = platform.items(job_id)[0]
    ended(platform, eventually, job_id)
    (entry,) = of_type([first], "progress")
    assert (entry["data"]["phase"], entry["data"]["step"]) == ("transcription", "queue")


def test_without_streaming_the_output_is_one_item(
    stack: Stack, receiver: Receiver, eventually: Eventually, platform: FakePlatform
) -> None:
    job_id = new_id("whole")
    platform.give(job_id, stack.input(receiver, "whole", 21, streaming=False))
    output = ended(platform, eventually, job_id)["output"]
    (item,) = [item for item in output if isinstance(item, dict)]
    assert len(item["result"][0]) == 8


@pytest.mark.parametrize(
    ("job_input", "code"),
    [
        ({"recording_id": "no-url"}, "no_source"),
        ({"url": "ftp://example.com/"}, "unsupported_scheme"),
        ({"url": "http://127.0.0.1:9/?secret=hidden"}, "source_unreachable"),
        ([], "invalid_input"),
        ({}, "invalid_input"),
        ({"url": "http://127.0.0.1:9/", "recording_id": "\ud800"}, ""),
    ],
    ids=["no-source", "scheme", "unreachable", "list", "empty", "surrogate"],
)
def test_bad_input_ends_with_a_plain_sentence(
    eventually: Eventually, platform: FakePlatform, job_input: object, code: str
) -> None:
    """Case 26: neither a traceback nor a secret."""
    job_id = new_id("bad")
    platform.give(job_id, job_input)
    result = ended(platform, eventually, job_id)
    assert set(result) == {"error"}
    assert result["error"].startswith(f"{code}: " if code else "")
    # No inside of ours, and nothing that the client keeps secret.
    for told in ("Traceback", "traceback", "File ", "hidden", "platform-key"):
        assert told not in result["error"]


def test_an_id_that_cannot_be_one(eventually: Eventually, platform: FakePlatform) -> None:
    job_id = f"dots.are.not.ours-{uuid.uuid4().hex}"
    platform.give(job_id, {"url": "https://example.com/a.mp3"})
    assert ended(platform, eventually, job_id)["error"].startswith("invalid_input: ")


def test_a_job_that_fails_on_its_way_keeps_what_was_streamed(
    stack: Stack, receiver: Receiver, eventually: Eventually, platform: FakePlatform
) -> None:
    job_id = new_id("fails")
    platform.give(job_id, stack.input(receiver, "fails", 31, "fail:2"))
    assert ended(platform, eventually, job_id)["error"].startswith("chunk_failed: chunk 2")
    assert len(of_type(platform.items(job_id), "segments")) == 2


@pytest.mark.parametrize("stream_s", [0.0, 1.5], ids=["while-waiting", "while-yielding"])
def test_stopping_one_job_leaves_the_others(
    stack: Stack, receiver: Receiver, eventually: Eventually, platform: FakePlatform, stream_s: float
) -> None:
    """Case 27: while it waits, and in the middle of a yield."""
    stopped, *others = job_ids = [new_id(f"stop{n}") for n in range(CONCURRENCY)]
    platform.stream_s = stream_s
    try:
        for job_id in job_ids:
            seconds, prompt = (61, "slow:500") if job_id == stopped else (11, "slow:100")
            platform.give(job_id, stack.input(receiver, job_id, seconds, prompt))
        eventually(lambda: platform.items(stopped), what="something to be streamed")
        eventually(lambda: status(stack, stopped) is Status.RUNNING)
        platform.stops.append(stopped)
        eventually(lambda: status(stack, stopped) is Status.CANCELED, 5, "the cancellation")
    finally:
        platform.stream_s = 0.0
    for job_id in others:
        assert set(ended(platform, eventually, job_id)) == {"output"}
        assert status(stack, job_id) is Status.SUCCEEDED
    assert platform.results(stopped) == []


def test_an_ended_job_that_is_delivered_again_is_replayed(
    stack: Stack, receiver: Receiver, eventually: Eventually, platform: FakePlatform
) -> None:
    """Case 28: one job, told twice."""
    job_id, job_input = new_id("replayed"), stack.input(receiver, "replayed", 31)
    platform.give(job_id, job_input)
    first = ended(platform, eventually, job_id)
    before = stack.store.job(job_id)
    platform.give(job_id, job_input)
    eventually(lambda: len(platform.results(job_id)) == 2)
    second = platform.results(job_id)[1]
    assert second["output"][0] == [{"type": "meta", "data": {"restarted": True}}]
    assert segments_of(second["output"]) == segments_of(first["output"])
    assert stack.store.job(job_id) == before
    assert receiver.statuses("replayed").count("completed") == 1


def test_the_id_of_a_job_with_another_input_is_refused(
    stack: Stack, receiver: Receiver, eventually: Eventually, platform: FakePlatform
) -> None:
    """The platform's id is an idempotency key. The job that has it goes on, though nobody waits for it."""
    job_id = new_id("taken")
    platform.give(job_id, stack.input(receiver, "taken", 31, "slow:150", detach=True))
    assert ended(platform, eventually, job_id)["output"] == [{"job_id": job_id, "detached": True}]
    platform.give(job_id, stack.input(receiver, "other", 31))
    eventually(lambda: len(platform.results(job_id)) == 2)
    assert platform.results(job_id)[1]["error"].startswith("idempotency_conflict: ")
    assert stack.redis.zscore("lh:attended", job_id) is None, "the other's end would be this one's"
    eventually(lambda: status(stack, job_id) is Status.SUCCEEDED, 30)
    assert receiver.statuses("other") == []


def test_a_job_that_failed_and_is_delivered_again_has_another_run(
    stack: Stack, receiver: Receiver, eventually: Eventually, platform: FakePlatform, tmp_path: Path
) -> None:
    good = tmp_path / "good"
    job_id, job_input = new_id("again"), stack.input(receiver, "again", 31, f"fail-until:1:{good}")
    platform.give(job_id, job_input)
    assert ended(platform, eventually, job_id)["error"].startswith("chunk_failed: ")
    good.touch()
    platform.give(job_id, job_input)
    eventually(lambda: len(platform.results(job_id)) == 2, 30)
    assert len(segments_of(platform.results(job_id)[1]["output"])) == 12
    assert status(stack, job_id) is Status.SUCCEEDED


def test_a_detached_job_goes_on_without_the_handler(
    stack: Stack, receiver: Receiver, eventually: Eventually, platform: FakePlatform
) -> None:
    job_id = new_id("detached")
    platform.give(job_id, stack.input(receiver, "detached", 21, "slow:150", detach=True))
    assert ended(platform, eventually, job_id) == {"output": [{"job_id": job_id, "detached": True}]}
    assert status(stack, job_id) is not Status.SUCCEEDED
    eventually(lambda: receiver.statuses("detached")[-1:] == ["completed"], 30, "the last webhook")
    assert status(stack, job_id) is Status.SUCCEEDED


@pytest.mark.parametrize("public", [True, False])
def test_what_is_larger_than_the_platform_takes_is_never_silently_short(
    stack: Stack, receiver: Receiver, eventually: Eventually, tmp_path: Path, public: bool
) -> None:
    """Case 31: with a `result_url` where there is an address of the API, and else as an error."""
    job_id = new_id("large")
    changes = {"max_output_bytes": 3_000} | ({} if public else {"public_url": ""})
    with serving() as platform, handling(stack.machine.settings, platform, tmp_path, **changes):
        platform.give(job_id, stack.input(receiver, "large", 61))
        result, items = ended(platform, eventually, job_id), platform.items(job_id)
    assert status(stack, job_id) is Status.SUCCEEDED
    eventually(lambda: receiver.statuses("large")[-1:] == ["completed"])
    # No list, on which every version of ivrit's client fails: what came before must not count as the whole.
    assert "not all" in items[-1]["output_too_large"]
    if public:
        assert result["output"] == items
        found = requests.get(items[-1]["result_url"], timeout=10).json()
        assert len(found["transcription"]) == 24
    else:
        assert result["error"].startswith("output_too_large: ")
        assert "webhook" in result["error"]


def test_a_second_worker_takes_over_and_ends_politely(
    stack: Stack, receiver: Receiver, eventually: Eventually, platform: FakePlatform, tmp_path: Path
) -> None:
    """Case 28: the first worker was lost in the middle of the job."""
    job_id, job_input = new_id("lost"), stack.input(receiver, "lost", 41, "slow:150")
    with serving() as lost, handling(stack.machine.settings, lost, tmp_path) as process:
        lost.give(job_id, job_input)
        eventually(lambda: of_type(lost.items(job_id), "segments"), 30)
        process.kill()
        process.wait()
    assert lost.results(job_id) == []
    assert status(stack, job_id) is Status.RUNNING
    platform.give(job_id, job_input)
    result = ended(platform, eventually, job_id)
    assert result["output"][0] == [{"type": "meta", "data": {"restarted": True}}]
    assert len(segments_of(result["output"])) == 16
    assert status(stack, job_id) is Status.SUCCEEDED
    # One job, so one announcement and one transcript, whoever asked for it.
    bodies = receiver.bodies("lost")
    assert len([body for body in bodies if "progress" not in body]) == 2
    assert bodies[-1]["status"] == "completed"


def test_a_worker_told_to_end_finishes_its_job_first(
    stack: Stack, receiver: Receiver, eventually: Eventually, tmp_path: Path
) -> None:
    """Case 30: SIGTERM; test_handler_lost.py has SIGKILL."""
    job_id = new_id("last")
    with serving() as platform, handling(stack.machine.settings, platform, tmp_path) as process:
        platform.give(job_id, stack.input(receiver, "last", 21, "slow:150"))
        eventually(lambda: status(stack, job_id) is Status.RUNNING, 30)
        process.terminate()
        assert process.wait(60) == 0
        (result,) = platform.results(job_id)
    assert len(segments_of(result["output"])) == 8
