"""Keys made by the operator, and what an account may do: how often, how many jobs, how much audio."""

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from click.testing import CliRunner, Result
from fastapi.testclient import TestClient
from redis import Redis

from dispatcher.app import create_app
from dispatcher.cli import main
from tasks.keys import KEYS, USED, USED_EVERY_MS, Keys
from tasks.settings import Settings
from tests.bench import Bench
from tests.conftest import KEY, Eventually, Stack

Call = Callable[..., Any]
JOB = {"input": {"url": "https://example.com/a.mp3"}}


@pytest.fixture
def longhand(stack: Stack) -> Callable[..., Result]:
    """Runs the command as the operator does, who knows Redis."""

    def run(*arguments: str) -> Result:
        environment = {"REDIS_URL": stack.machine.redis_url}
        return CliRunner().invoke(main, ["keys", *arguments], env=environment, catch_exceptions=False)

    return run


def get(stack: Stack, path: str, key: str) -> requests.Response:
    url = f"{stack.machine.url}/v2/longhand/{path}"
    return requests.get(url, headers={"Authorization": f"Bearer {key}"}, timeout=10)


def test_a_key_works_from_its_making_to_its_revocation(
    stack: Stack, longhand: Callable[..., Result], eventually: Eventually
) -> None:
    key = longhand("create", "acme").output.strip()
    assert len(key) == len("lh_") + 43, "256 bits in base64"
    assert get(stack, "health", key).status_code == 200
    job_id = requests.post(
        f"{stack.machine.url}/v2/longhand/run", json=JOB, headers={"Authorization": key}, timeout=10
    ).json()["id"]
    assert stack.redis.hget(f"lh:job:{job_id}", "account") == b"acme"

    (row,) = [line for line in longhand("list").output.splitlines() if "acme" in line]
    key_id = row.split()[1]
    assert key_id == hashlib.sha256(key.encode()).hexdigest()[:12]
    assert "valid" in row
    assert re.search(r"  used \d{4}-\d\d-\d\dT\d\d:\d\d  ", row)
    stored = stack.redis.hgetall(KEYS)
    assert key not in str(stored)

    assert longhand("revoke", key_id).output.strip() == "revoked"
    eventually(lambda: get(stack, "health", key).status_code == 401, what="the end of the key")
    (row,) = [line for line in longhand("list").output.splitlines() if "acme" in line]
    assert "revoked" in row
    assert longhand("revoke", key_id).exit_code == 1
    assert get(stack, "health", KEY).status_code == 200, "those of the settings stay"


@pytest.mark.parametrize(
    "arguments", [("create", "a b"), ("create", ""), ("revoke", "*"), ("revoke", "0" * 12)]
)
def test_a_mistake_is_told(longhand: Callable[..., Result], arguments: tuple[str, str]) -> None:
    done = longhand(*arguments)
    assert done.exit_code == 1
    assert done.output
    assert "Traceback" not in done.output


def test_a_use_is_written_down_about_once_a_minute(redis: Redis) -> None:
    keys = Keys(redis)
    key = keys.create("acme")
    assert [each.used_ms for each in keys.all()] == [None]
    assert keys.name_of(key) == "acme"
    (first,) = [each.used_ms for each in keys.all()]
    assert first
    keys.name_of(key)
    assert [each.used_ms for each in keys.all()] == [first]
    (digest,) = redis.hkeys(USED)
    redis.hset(USED, digest, str(first - USED_EVERY_MS))
    keys.name_of(key)
    assert [each.used_ms >= first for each in keys.all() if each.used_ms] == [True]
    assert keys.revoke(keys.all()[0].id)
    redis.delete(USED)
    assert keys.name_of(key) is None
    assert [each.used_ms for each in keys.all()] == [None], "a key that is none was not used"


# In one process, with limits


@pytest.fixture
def call(redis: Redis, settings: Settings) -> Iterator[Call]:
    """Makes an API with these settings and gives a function that calls it with a key of `us`."""
    assert redis.dbsize() == 0
    opened: list[TestClient] = []

    def at(**changes: Any) -> Callable[[str, str], Any]:
        changed = settings.model_copy(update={"api_keys": {"k": "us", "l": "them"}, **changes})
        client = TestClient(create_app(changed)).__enter__()
        opened.append(client)

        def do(method: str, path: str, key: str = "k", **fields: Any) -> Any:
            return client.request(method, f"/v2/longhand/{path}", headers={"Authorization": key}, **fields)

        return do

    yield at
    for client in opened:
        client.__exit__(None, None, None)


# Operations that name no job, and what they do for one account alone: each is tried below. /health counts the
# jobs of all accounts; a link to a transcript needs no key, but a signature.
OF_NO_JOB = {
    *("GET jobs", "GET webhooks", "POST purge-queue", "POST run", "POST runsync", "POST webhook-test"),
    *("GET health", "GET transcription/{job_id}"),
    # tests/integration/test_uploads.py has these.
    *("OPTIONS upload", "POST upload"),
    *(f"{method} upload/{{upload_id}}" for method in ("GET", "HEAD", "PATCH", "POST")),
}


def test_one_keys_jobs_are_invisible_to_anothers_in_every_operation(call: Call) -> None:
    do = call()
    refused_input = {"url": "ftp://a.test/x", "webhook_url": "http://127.0.0.1:9/"}
    waiting, failed = (do("POST", "run", json=body).json()["id"] for body in (JOB, {"input": refused_input}))
    operations = {
        f"{method.upper()} {path.removeprefix('/v2/{endpoint_id}/')}"
        for path, methods in create_app(Settings()).openapi()["paths"].items()
        for method in methods
        if path != "/ping"
    }
    assert operations >= OF_NO_JOB
    of_a_job = sorted(operations - OF_NO_JOB)
    assert all("{" in operation for operation in of_a_job), "a new operation: what does it show to others?"
    assert len(of_a_job) >= 10
    for operation in of_a_job:
        method, path = operation.replace("{delivery_id}", f"evt_{failed}_1_1").split()
        for job_id in (waiting, failed):
            other = do(method, path.replace("{job_id}", job_id), "l")
            assert (other.status_code, other.json()["detail"].split()[-1]) == (404, "found"), operation
    for listing, rows, ids in (("jobs", "jobs", {waiting, failed}), ("webhooks", "webhooks", {failed})):
        assert do("GET", listing, "l").json() == {rows: []}
        assert {row.get("job_id", row["id"]) for row in do("GET", listing).json()[rows]} == ids
    assert do("POST", "purge-queue", "l").json()["removed"] == 0
    assert do("GET", f"status/{waiting}").json()["status"] == "IN_QUEUE", "nothing of all this ended it"
    for operation in of_a_job:
        method, path = operation.replace("{delivery_id}", f"evt_{failed}_1_1").split()
        assert do(method, path.replace("{job_id}", failed)).status_code != 404, operation
    assert do("POST", "purge-queue").json()["removed"] == 1


def test_calls_above_the_rate_are_told_to_wait_and_the_stream_never(call: Call) -> None:
    do = call(rate_limits=("run=3", "status=5"))
    answers = [do("POST", "run", json=JOB) for _ in range(4)]
    # A window may end in between, and then all pass.
    codes = [answer.status_code for answer in answers]
    assert codes[:3] == [200, 200, 200]
    while (last := do("POST", "run", json=JOB)).status_code == 200:
        pass
    assert last.status_code == 429
    assert 1 <= int(last.headers["Retry-After"]) <= 10
    assert {
        "status": 429,
        "title": "Too Many Requests",
        "code": "rate_limited",
    }.items() <= last.json().items()
    job_id = answers[0].json()["id"]
    assert do("POST", "run", "l", json=JOB).status_code == 200, "another account has its own"
    while do("GET", f"status/{job_id}").status_code == 200:
        pass
    assert do("POST", f"cancel/{job_id}").status_code == 200, "each operation has its own"
    assert [do("GET", f"stream/{job_id}").status_code for _ in range(20)] == [200] * 20


def test_what_is_sent_for_a_client_is_limited(call: Call) -> None:
    do = call(rate_limits=("cancel=2",))
    # Nine calls pass within few windows of two each.
    statuses = {do("POST", "webhook-test", json={"url": "http://127.0.0.1:9/"}).status_code for _ in range(9)}
    assert statuses == {200, 429}
    assert 429 in {do("POST", "webhooks/evt_none_1_1/redeliver").status_code for _ in range(9)}


def test_no_more_jobs_wait_than_may(call: Call) -> None:
    do = call(max_queued_jobs=2)
    ids = [do("POST", "run", json=JOB).json()["id"] for _ in range(2)]
    refused = do("POST", "run", json=JOB)
    assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
    assert refused.headers["Retry-After"]
    assert len(do("GET", "jobs").json()["jobs"]) == 2, "nothing was half accepted"
    assert do("POST", "run", "l", json=JOB).status_code == 200
    assert do("POST", f"cancel/{ids[0]}").status_code == 200
    assert do("POST", "run", json=JOB).status_code == 200


def test_no_more_audio_than_may_be(call: Call, bench: Bench) -> None:
    do = call(max_audio_minutes=1)
    bench.planned(chunks=61)
    for index in range(59):
        bench.transcribe(index)
    assert do("POST", "run", json=JOB).status_code == 200
    bench.transcribe(59)
    refused = do("POST", "run", json=JOB)
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    assert do("POST", "run", "l", json=JOB).status_code == 200
    (key,) = bench.redis.keys("lh:audio:us:*")
    assert 0 < bench.redis.pttl(key) <= 2 * 86_400_000


def test_without_any_key_everybody_may_until_one_was_made(call: Call, redis: Redis) -> None:
    assert call(api_keys={})("GET", "health", "anything").status_code == 200
    made = Keys(redis).create("acme")
    do = call(api_keys={})
    assert do("GET", "health", "anything").status_code == 401
    assert do("GET", "health", made).status_code == 200
    assert Keys(redis).revoke(Keys(redis).all()[0].id)
    assert call(api_keys={})("GET", "health", "anything").status_code == 401, "the last key does not open it"


def test_no_more_jobs_of_all_wait_than_may(call: Call) -> None:
    do = call(max_waiting_jobs=2)
    ids = [do("POST", "run", key, json=JOB).json()["id"] for key in "kl"]
    refused = do("POST", "run", json=JOB)
    assert (refused.status_code, refused.json()["code"]) == (503, "service_full")
    assert refused.headers["Retry-After"]
    assert len(do("GET", "jobs").json()["jobs"]) == 1, "nothing was half accepted"
    assert do("GET", f"status/{ids[0]}").status_code == 200
    assert do("POST", f"cancel/{ids[0]}").status_code == 200
    assert do("POST", "run", json=JOB).status_code == 200
