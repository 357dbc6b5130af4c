"""Recordings that come along in a request: limits told early, memory that is bounded, nothing in Redis."""

import base64
import binascii
import functools
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from hypothesis import example, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from redis import Redis

from dispatcher.client import Client
from dispatcher.local import Machine, Plan
from dispatcher.schemas import parse_callback
from dispatcher.submit import BASE64_PIECE, _decoded
from tasks.errors import InvalidInput
from tasks.settings import Settings
from tests.conftest import KEY, Eventually, Receiver, Stack, emptied, write_recording
from tests.endpoint import Api

MIB = 1024**2


def said(stack: Stack, operation: str, header: str, body: bytes) -> str:
    """What the API answers to a request that goes no further than `body`."""
    with socket.create_connection(("127.0.0.1", urlsplit(stack.machine.url).port or 0), 20) as wire:
        wire.settimeout(20)
        head = (
            f"POST /v2/longhand/{operation} HTTP/1.1\r\nHost: x\r\nAuthorization: {KEY}\r\n{header}\r\n\r\n"
        )
        wire.sendall(head.encode() + body)
        found = b""
        while b"\r\n\r\n" not in found or not found.endswith(b"}"):
            block = wire.recv(65536)
            if not block:
                break
            found += block
    return found.decode()


@pytest.mark.parametrize(("operation", "mib"), [("run", 16), ("runsync", 20)])
def test_a_length_above_the_limit_is_told_before_anything_is_sent(
    stack: Stack, operation: str, mib: int
) -> None:
    answer = said(stack, operation, f"Content-Length: {mib * MIB + 1}", b"")
    assert answer.startswith("HTTP/1.1 400 ")
    assert f"exceeded max body size of {mib}MiB" in answer


def test_a_body_without_a_length_is_told_when_it_passes_the_limit(stack: Stack) -> None:
    block = b"100000\r\n" + b"A" * MIB + b"\r\n"
    answer = said(stack, "run", "Transfer-Encoding: chunked", 17 * block)
    assert answer.startswith("HTTP/1.1 400 ")
    assert "exceeded max body size of 16MiB" in answer


def at_once(text: str) -> bytes | None:
    """The bytes of base64; None if it is none, or has too much padding, which Python passes over."""
    try:
        return None if len(text) % 4 or text.endswith("===") else binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        return None


# A megabyte of text takes its time on a busy machine.
@effort(deadline=None)
@example(bytes(5), 1, "A", 1)
@example(bytes(6), 1, "====", 0)
@given(
    st.binary(max_size=40), st.integers(0, 3), st.text("A=+ -\u05d0\ud800", max_size=4), st.integers(0, 50)
)
def test_base64_is_read_in_pieces_as_it_is_at_once(data: bytes, pieces: int, odd: str, at: int) -> None:
    text = "A" * (pieces * BASE64_PIECE - 8 if pieces else 0) + base64.b64encode(data).decode()
    text = text[: len(text) - at] + odd + text[len(text) - at :] if at <= len(text) else text
    if (expected := at_once(text)) is None:
        with pytest.raises(InvalidInput):
            b"".join(_decoded(text))
    else:
        assert b"".join(_decoded(text)) == expected


@pytest.mark.parametrize("inside", [False, True], ids=["input", "transcribe_args"])
def test_a_recording_that_came_along_is_never_in_redis(
    stack: Stack, receiver: Receiver, eventually: Eventually, inside: bool
) -> None:
    write_recording(receiver.folder / "along.wav", 31)
    blob = base64.b64encode((receiver.folder / "along.wav").read_bytes()).decode()
    source = {"transcribe_args": {"blob": blob}} if inside else {"blob": blob}
    job_id = Api(stack.machine.url).run({"type": "blob", **source}, webhook=f"{receiver.url}/callback")
    shown = eventually(lambda: stack.ended(job_id))
    assert shown["status"] == "COMPLETED"
    assert stack.store.callback(job_id), "the case that would keep it"
    mine: Redis = stack.redis
    sizes = {key: int(mine.memory_usage(key) or 0) for key in mine.scan_iter(f"*{job_id}*")}
    assert sizes
    assert max(sizes.values()) < 50_000, "the recording has a megabyte"


def test_what_the_callback_repeats_is_without_recordings() -> None:
    raw = {"blob": "QQ==", "type": "blob", "transcribe_args": {"blob": ["QQ=="], "language": "he"}}
    callback = parse_callback("https://hooks.test/a", raw, Settings(), "us")
    assert callback
    assert json.loads(callback.input) == {"type": "blob", "transcribe_args": {"language": "he"}}
    assert raw["transcribe_args"] == {"blob": ["QQ=="], "language": "he"}, "what came stays as it is"


@pytest.fixture
def alone(redis_url: str, tmp_path: Path) -> Iterator[Machine]:
    """An API without workers."""
    settings = Settings(data_dir=tmp_path)
    machine = Machine(settings, Plan(port=0, redis_url=emptied(redis_url, 12), roles=("api",)))
    try:
        machine.start(within_s=60)
        yield machine
    finally:
        machine.stop()


def peak_mib(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) // 1024


def runsync(alone: Machine, answers: list[requests.Response]) -> threading.Thread:
    """A request with as much of a recording as it may have, under way."""
    head, tail = b'{"input": {"transcribe_args": {"blob": "', b'"}}}'
    body = head + b"A" * ((20 * MIB - len(head) - len(tail)) // 4 * 4) + tail

    def send() -> None:
        url = f"{alone.url}/v2/longhand/runsync?wait=90000"
        answers.append(requests.post(url, data=body, timeout=100))

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def jobs_of(client: Client, count: int) -> list[dict[str, Any]] | None:
    """The jobs, once there are so many."""
    found = client.jobs()
    return found if len(found) == count else None


def end(alone: Machine, threads: list[threading.Thread], eventually: Eventually) -> None:
    """Cancel the jobs that the requests wait for."""
    client = Client(f"{alone.url}/v2/longhand")
    jobs = eventually(lambda: jobs_of(client, len(threads)), 60, "the jobs")
    for job in jobs:
        client.cancel(job["id"])
    for thread in threads:
        thread.join()


def test_ten_recordings_at_once_are_little_more_than_their_bodies(
    alone: Machine, eventually: Eventually
) -> None:
    answers: list[requests.Response] = []
    idle = peak_mib(alone.pids()["api"])
    end(alone, [runsync(alone, answers) for _ in range(10)], eventually)
    assert [answer.json()["status"] for answer in answers] == ["CANCELLED"] * 10
    assert peak_mib(alone.pids()["api"]) - idle < 400, "200 of them are the bodies; it was 630"


def test_requests_that_wait_hold_no_recording(alone: Machine, eventually: Eventually) -> None:
    client = Client(f"{alone.url}/v2/longhand")
    answers: list[requests.Response] = []
    threads: list[threading.Thread] = []
    idle = peak_mib(alone.pids()["api"])
    for count in range(1, 17):
        threads.append(runsync(alone, answers))
        eventually(functools.partial(jobs_of, client, count), what="the job")
    assert peak_mib(alone.pids()["api"]) - idle < 150, "they came one after the other, each of 20"
    end(alone, threads, eventually)
