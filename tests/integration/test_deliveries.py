"""Webhooks through the real deliver worker: receivers of every kind, dead letters, once more by hand."""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
from click.testing import CliRunner, Result

from dispatcher.cli import main
from dispatcher.client import Client
from tasks import events
from tasks.guard import origin
from tasks.job import NewJob
from tasks.roles import ROLES
from tests.conftest import KEY, OTHERS_KEY, Eventually, Receiver, Stack

Longhand = Callable[..., Result]
THREADS = ROLES["deliver"].least


@pytest.fixture
def longhand(stack: Stack) -> Longhand:
    """Runs the command in this process, as a user whose environment names the stack's API."""
    environment = {"LONGHAND_API_URL": f"{stack.machine.url}/v2/longhand", "LONGHAND_API_KEY": KEY}

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, arguments, env=environment, catch_exceptions=False)

    return run


def announce(stack: Stack, url: str, account: str = "tests") -> str:
    """A job that has only begun, with its first webhook written; gives the webhook's id.

    Nobody works on it, since its input counts as refused; nobody rings either, so the reaper does.
    """
    job_id = f"d{os.urandom(4).hex()}-u1"
    new = NewJob(job_id, "longhand", account, None, 600_000, 0, webhook_url=url, receiver=origin(url))
    assert stack.store.create(new)
    stack.redis.hset(f"lh:job:{job_id}", "status", "running")
    stack.store.announce(job_id, events.transcribing(job_id, job_id, stack.store.now_ms()))
    return f"evt_{job_id}_1_1"


def state(stack: Stack, delivery_id: str) -> str:
    value: Any = stack.redis.hget(f"lh:delivery:{delivery_id}", "state")
    return value.decode() if value else ""


@dataclass(slots=True)
class Odd:
    """A receiver with manners of its own; counts what arrives."""

    answer: Callable[[BaseHTTPRequestHandler], None]
    url: str = ""
    connections: set[Any] = field(default_factory=set)
    arrived_s: list[float] = field(default_factory=list)


@contextlib.contextmanager
def odd(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[Odd]:
    receiver = Odd(answer)

    class Page(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            receiver.connections.add(self.client_address)
            receiver.arrived_s.append(time.monotonic())
            with contextlib.suppress(OSError):
                receiver.answer(self)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}/hook"
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answering(status: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(page: BaseHTTPRequestHandler) -> None:
        page.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            page.send_header(name.replace("_", "-"), value)
        page.end_headers()

    return answer


def first(
    answers: list[Callable[[BaseHTTPRequestHandler], None]],
) -> Callable[[BaseHTTPRequestHandler], None]:
    """These answers, then 200."""

    def answer(page: BaseHTTPRequestHandler) -> None:
        (answers.pop(0) if answers else answering(200))(page)

    return answer


# Receivers


def test_several_webhooks_go_over_one_connection(stack: Stack, eventually: Eventually) -> None:
    with odd(answering(200)) as receiver:
        with stack.stopped("deliver"):
            ids = [announce(stack, receiver.url) for _ in range(5)]
        eventually(lambda: all(state(stack, id_) == "delivered" for id_ in ids), what="all of them")
        assert len(receiver.arrived_s) == 5
        assert len(receiver.connections) < 5


def test_receivers_that_never_answer_do_not_keep_others_waiting(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    with contextlib.ExitStack() as dead:
        # They accept and say nothing: each attempt takes the whole time-out. More of them than threads.
        silent = [dead.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(THREADS + 20)]
        lost = [announce(stack, f"http://127.0.0.1:{each.getsockname()[1]}/hook") for each in silent]

        def sending() -> int:
            return sum(state(stack, id_) == "sending" for id_ in lost)

        eventually(lambda: sending() == THREADS // 2, what="the threads of new receivers being full")
        # A receiver that is known gets others; this one is known from a success that is written down here.
        stack.redis.hset(f"lh:circuit:{receiver.url}", "health", "fast")
        known = [announce(stack, f"{receiver.url}/hook") for _ in range(20)]
        eventually(lambda: all(state(stack, id_) == "delivered" for id_ in known), what="the known one")
        assert sending() > THREADS // 4, "they were at it all the time"
        # Once each was tried, a new one has its turn too, although those that fail are tried on and on.
        eventually(
            lambda: all(stack.client.webhook(id_)["attempts"] for id_ in lost), 90, "an attempt at each"
        )
        with odd(answering(200)) as new:
            id_ = announce(stack, new.url)
            eventually(lambda: state(stack, id_) == "delivered", what="the new one")
        assert sending() > 0
        for id_ in lost:
            stack.redis.zrem(f"lh:receiver:{origin_of(stack, id_)}", id_)


def origin_of(stack: Stack, delivery_id: str) -> str:
    value: Any = stack.redis.hget(f"lh:delivery:{delivery_id}", "receiver")
    return str(value.decode())


def test_retry_after_lengthens_the_wait(stack: Stack, eventually: Eventually) -> None:
    with odd(first([answering(503, Retry_After="1")])) as receiver:
        id_ = announce(stack, receiver.url)
        eventually(lambda: state(stack, id_) == "delivered")
        first_s, second_s = receiver.arrived_s
        # The schedule says 200 ms, and its next step, 200 ms, bounds what a receiver may ask for.
        assert second_s - first_s >= 0.2


def test_a_redirect_is_a_failure_and_is_not_followed(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    with odd(answering(307, Location=f"{receiver.url}/elsewhere")) as redirecting:
        id_ = announce(stack, redirecting.url)
        eventually(lambda: state(stack, id_) == "dead", what="the end of the schedule")
        assert len(redirecting.arrived_s) == 4
        assert receiver.posts == []


def test_a_body_without_end_in_the_answer_is_not_read(stack: Stack, eventually: Eventually) -> None:
    def endless(page: BaseHTTPRequestHandler) -> None:
        page.send_response(200)
        page.send_header("Transfer-Encoding", "chunked")
        page.end_headers()
        while True:
            page.wfile.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")

    with odd(endless) as receiver:
        id_ = announce(stack, receiver.url)
        eventually(lambda: state(stack, id_) == "delivered")


def test_who_fails_for_one_account_is_there_for_another(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    receiver.answers += [500] * 6
    failing = [stack.client.test_webhook(f"{receiver.url}/mine")["id"] for _ in range(6)]
    eventually(lambda: all(state(stack, id_) == "dead" for id_ in failing))
    base = f"{stack.machine.url}/v2/longhand"
    circuits = list(stack.redis.scan_iter(f"lh:circuit:*{receiver.url}"))
    assert circuits == [f"lh:circuit:tests|{receiver.url}".encode()]
    assert stack.redis.hget(circuits[0], "opened") is not None
    told = Client(base, OTHERS_KEY).test_webhook(f"{receiver.url}/theirs")
    eventually(lambda: state(stack, told["id"]) == "delivered")
    assert stack.client.webhook(failing[0])["receiver"] == receiver.url


def test_a_circuit_opens_in_the_worker_too(stack: Stack, eventually: Eventually) -> None:
    with odd(first([answering(500)] * 6)) as receiver:
        ids = [announce(stack, receiver.url) for _ in range(4)]
        eventually(lambda: stack.redis.hget(f"lh:circuit:{origin(receiver.url)}", "opened") is not None)
        eventually(lambda: all(state(stack, id_) == "delivered" for id_ in ids), what="all of them")
        assert stack.redis.hget(f"lh:circuit:{origin(receiver.url)}", "failures") is None
        assert len(receiver.arrived_s) == 6 + 4


# Dead letters, read and sent again


def test_a_dead_letter_is_listed_shown_and_sent_again(
    stack: Stack, receiver: Receiver, longhand: Longhand, eventually: Eventually
) -> None:
    receiver.answers = [500] * 4
    id_ = announce(stack, f"{receiver.url}/hook?token=s3cret")
    eventually(lambda: state(stack, id_) == "dead", what="the end of the schedule")
    (entry,) = stack.client.webhooks(state="dead", job_id=id_.split("_")[1])
    assert (entry["id"], entry["kind"], entry["state"]) == (id_, "transcribing", "dead")
    assert (entry["receiver"], entry["attempts"]) == (receiver.url, 4)
    listed = longhand("webhooks", "list", "--state", "dead", "--job", entry["job_id"])
    assert id_ in listed.output
    assert "4 attempts" in listed.output
    shown = longhand("webhooks", "show", id_)
    assert shown.output.count("status 500") == 4
    assert "s3cret" not in listed.output + shown.output + json.dumps(stack.client.webhook(id_))

    assert longhand("webhooks", "redeliver", id_).output.strip() in ("waiting", "sending", "delivered")
    eventually(lambda: state(stack, id_) == "delivered")
    assert len({headers["webhook-id"] for headers, _ in receiver.posts}) == 1
    assert len({body for _, body in receiver.posts}) == 1
    assert stack.client.webhooks(state="dead", job_id=entry["job_id"]) == []
    assert len(stack.client.webhook(id_)["attempts_made"]) == 5


def test_webhooks_of_another_account_are_not_found(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    id_ = announce(stack, f"{receiver.url}/hook", "others")
    eventually(lambda: state(stack, id_) == "delivered")
    base = f"{stack.machine.url}/v2/longhand/webhooks"
    for key, status in ((KEY, 404), (OTHERS_KEY, 200)):
        headers = {"Authorization": key}
        assert requests.get(f"{base}/{id_}", headers=headers, timeout=10).status_code == status
        again = requests.post(f"{base}/{id_}/redeliver", headers=headers, timeout=10)
        assert again.status_code == status
    assert id_ not in {entry["id"] for entry in stack.client.webhooks(limit=1000)}
    for path in (base, f"{base}/{id_}"):
        assert requests.get(path, timeout=10).status_code == 401


@pytest.mark.parametrize(
    ("query", "words"),
    [("state=lost", "state"), ("limit=0", "limit"), ("limit=x", "limit"), ("job=../../x", "job")],
)
def test_a_question_that_makes_no_sense_is_refused(stack: Stack, query: str, words: str) -> None:
    url = f"{stack.machine.url}/v2/longhand/webhooks?{query}"
    answer = requests.get(url, headers={"Authorization": KEY}, timeout=10)
    assert answer.status_code == 400
    assert words in answer.json()["detail"]


# A test of a receiver


def test_a_receiver_can_be_tried(stack: Stack, receiver: Receiver, longhand: Longhand) -> None:
    tried = longhand("webhooks", "test", f"{receiver.url}/hook")
    assert (tried.exit_code, "status 200" in tried.output) == (0, True)
    ((headers, body),) = receiver.posts
    assert json.loads(body)["status"] == "test"
    assert "x-webhook-signature" in headers

    receiver.answers = [404]
    tried = longhand("webhooks", "test", f"{receiver.url}/hook")
    assert (tried.exit_code, "status 404" in tried.output) == (1, True)
    assert len(receiver.posts) == 2, "once"
    dead = stack.client.webhooks(state="dead", limit=1000)
    assert not any(entry["kind"] == "test" for entry in dead), "nobody misses it"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("ftp://a.test/", "unsupported_scheme"),
        ("http://user:secret@a.test/", "invalid_input"),
        ("https://", "invalid_input"),
    ],
)
def test_an_address_that_cannot_be_a_receiver_is_refused(stack: Stack, url: str, code: str) -> None:
    base = f"{stack.machine.url}/v2/longhand/webhook-test"
    answer = requests.post(base, json={"url": url}, headers={"Authorization": KEY}, timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
