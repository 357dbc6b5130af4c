"""What the HTTP API does not take: wrong keys, unknown jobs, bodies and questions out of bounds."""

import json

import pytest

from tasks.settings import Settings
from tests.conftest import KEY, Eventually, Receiver, Stack
from tests.endpoint import Api, completed


@pytest.fixture
def api(stack: Stack) -> Api:
    return Api(stack.machine.url)


@pytest.mark.parametrize("header", [KEY, f"Bearer {KEY}", f"bearer {KEY}", f"BEARER {KEY}"])
def test_keys_that_are_let_in(api: Api, header: str) -> None:
    assert api("GET", "health", headers={"Authorization": header}).status_code == 200


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {KEY}", f"{KEY}x"])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "run"), ("GET", "status/x"), ("GET", "stream/x"), ("GET", "health")]
)
def test_keys_that_are_not(api: Api, header: str | None, method: str, path: str) -> None:
    answer = api(method, path, headers={} if header is None else {"Authorization": header})
    assert answer.status_code == 401
    assert answer.json()["status"] == 401
    assert answer.json()["detail"] == ("invalid token" if header else "no token provided")


@pytest.mark.parametrize(
    ("method", "operation"),
    [("GET", "status"), ("POST", "status"), ("GET", "status-sync"), ("GET", "stream"), ("POST", "cancel")],
)
@pytest.mark.parametrize("job_id", ["no-such-job-u1", "x" * 5_000])
def test_an_unknown_job_is_not_found_and_fails_fast(
    api: Api, method: str, operation: str, job_id: str
) -> None:
    answer = api(method, f"{operation}/{job_id}")
    assert answer.status_code == 404
    # runpod's asyncio client would poll a body with a `status` for ever.
    assert "status" not in answer.json()
    assert answer.json()["detail"] == "job not found"


@pytest.mark.parametrize(
    "job_id",
    [
        "{job}:results",
        "{job}:workers",
        "..%2F{job}",
        "{job}%00",
        "%00",
        "%ff",
        "{job}%20",
        "*",
        "%D7%A9",
        "{job}%0A",
    ],
)
def test_an_odd_job_id_is_not_found(
    stack: Stack, receiver: Receiver, eventually: Eventually, api: Api, job_id: str
) -> None:
    # Of a job that has ended, every key that belongs to it is there.
    real = completed(stack, receiver, eventually, "odd")
    for operation in ("status", "stream"):
        assert api("GET", f"{operation}/{job_id.format(job=real)}").status_code == 404
    assert api("POST", f"cancel/{job_id.format(job=real)}").status_code == 404


@pytest.mark.parametrize("path", ["run", "status/x", "health"])
def test_an_unknown_endpoint(api: Api, path: str) -> None:
    method = "POST" if path == "run" else "GET"
    answer = api(method, path, endpoint="elsewhere", **({"json": {"input": {}}} if path == "run" else {}))
    assert answer.status_code == 404
    assert answer.json()["detail"] == "endpoint not found"


@pytest.mark.parametrize(
    ("operation", "limit"),
    [
        ("run", Settings.model_fields["max_run_bytes"].default),
        ("runsync", Settings.model_fields["max_runsync_bytes"].default),
    ],
)
@pytest.mark.parametrize("extra", [1, 2 * 1024**2])
def test_a_body_that_is_too_large(api: Api, operation: str, limit: int, extra: int) -> None:
    head = b'{"input": {"blob": "'
    body = head + b"A" * (limit + extra - len(head))
    answer = api("POST", operation, data=body)
    assert answer.status_code == 400
    assert "exceeded max body size" in answer.json()["detail"]


def test_a_body_just_below_the_limit_is_read(api: Api) -> None:
    limit = Settings.model_fields["max_run_bytes"].default
    body = json.dumps({"input": {"unknown": ""}})
    answer = api("POST", "run", data=body[:-3] + "A" * (limit - len(body)) + body[-3:])
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"input"', b'{"inputs": {}}', b'{"input": "\xff"}', b"[" * 100_000],
    ids=["empty", "cut", "list", "null", "string", "no-input", "not-utf-8", "deep"],
)
@pytest.mark.parametrize("operation", ["run", "runsync"])
def test_a_body_without_an_input(api: Api, operation: str, body: bytes) -> None:
    answer = api("POST", operation, data=body)
    assert answer.status_code == 400
    assert answer.json()["status"] == 400
    assert answer.json()["detail"].startswith("bad request: body")


@pytest.mark.parametrize(
    "body",
    [
        '{"input": {}, "policy": {"ttl": NaN}}',
        '{"input": {}, "policy": {"executionTimeout": Infinity}}',
        '{"input": {}, "policy": {"ttl": 1' + "0" * 400 + "}}",
        '{"input": {}, "policy": []}',
        '{"input": {"recording_id": "\\ud800"}}',
        '{"input": {"url": "http://127.0.0.1:9/", "transcribe_args": {"initial_prompt": "\\ud800"}}}',
        '{"input": {"url": "http://127.0.0.1:9/\\ud800"}}',
        '{"input": {"\\ud800": 1}}',
        '{"input": {"url": "http://127.0.0.1:9/", "transcribe_args": {"patience": NaN}}}',
        '{"input": {"url": "http://127.0.0.1:9/", "webhook_url": "http://127.0.0.1:9/\\udfff"}}',
        '{"input": {"url": "http://127.0.0.1:9/", "transcribe_args": {"beam_size": 1e400}}}',
        '{"input": ' + "[" * 900 + "]" * 900 + "}",
    ],
    ids=str.split("nan inf vast list name prompt url key option webhook huge deep"),
)
def test_odd_values_never_break_the_server(stack: Stack, eventually: Eventually, api: Api, body: str) -> None:
    answer = api("POST", "run", data=body)
    assert answer.status_code in (200, 400)
    if answer.status_code == 200:
        job_id = answer.json()["id"]
        shown = eventually(lambda: stack.ended(job_id), 20)
        assert shown["status"] == "FAILED"
        assert api("GET", f"stream/{job_id}").json()["status"] == "COMPLETED"


@pytest.mark.parametrize("query", ["wait=soon", "wait=-1", "cursor=nonsense", f"wait={10**30}"])
def test_odd_questions_never_break_the_server(
    stack: Stack, receiver: Receiver, eventually: Eventually, api: Api, query: str
) -> None:
    job_id = completed(stack, receiver, eventually, "asked")
    assert api("GET", f"stream/{job_id}?{query}").status_code in (200, 400)
