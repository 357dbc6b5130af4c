"""The API's description: complete, and true of real answers."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from dispatcher.answers import ANSWERS
from dispatcher.app import create_app
from tasks.settings import Settings
from tests.conftest import KEY, Eventually, Receiver, Stack
from tests.endpoint import Api, completed


def operations(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path.removeprefix('/v2/{endpoint_id}/')}", operation


def test_every_operation_has_an_id_of_its_own_and_all_its_answers() -> None:
    described = dict(operations(create_app(Settings()).openapi()))
    assert described.keys() == ANSWERS.keys()
    assert len({operation["operationId"] for operation in described.values()}) == len(described)
    for name, operation in described.items():
        answers = operation["responses"]
        assert {*ANSWERS[name], "400", "401", "404", "429", "503"} <= answers.keys()
        assert "422" not in answers
        assert ("content" in answers["404"]) is not name.startswith("HEAD")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v2/longhand/status/x", "GET, POST"),
        ("/v2/longhand/upload", "OPTIONS, POST"),
        ("/v2/longhand/upload/x", "GET, HEAD, PATCH, POST"),
    ],
)
def test_a_wrong_method_is_told_all_that_are_right(settings: Settings, path: str, allowed: str) -> None:
    with TestClient(create_app(settings)) as client:
        answer = client.put(path)
    assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)


def hold(operation: str, answer: object) -> None:
    """Fail unless an answer is what the description says, and says nothing that it does not know."""
    schema = ANSWERS[operation]["200"]
    assert schema
    Draft202012Validator(schema).validate(answer)
    assert isinstance(answer, dict)
    assert answer.keys() <= schema["properties"].keys()
    for name, value in answer.items():
        inner = schema["properties"][name].get("items", {}).get("properties")
        for row in value if inner else ():
            assert row.keys() <= inner.keys()


def stopped(stack: Stack, receiver: Receiver, eventually: Eventually) -> str:
    """A job that has failed and can be retried."""
    job_id = stack.client.submit({"url": f"{receiver.url}/404"})
    assert eventually(lambda: stack.ended(job_id), 20)["status"] == "FAILED"
    return job_id


def test_the_description_is_true(stack: Stack, receiver: Receiver, eventually: Eventually) -> None:
    api = Api(stack.machine.url)
    job_id = completed(stack, receiver, eventually, "described")
    failed = api.run({"url": "ftp://a.test/x", "webhook_url": f"{receiver.url}/hook"})
    running = api.run(stack.input(receiver, "at work", 31, "slow:400"))
    eventually(lambda: "output" in api("GET", f"status/{running}").json())
    for each in (job_id, failed, running):
        hold("GET status/{job_id}", api("GET", f"status/{each}").json())
        hold("GET stream/{job_id}", api("GET", f"stream/{each}?cursor=0").json())
    hold("POST cancel/{job_id}", api("POST", f"cancel/{running}").json())
    hold("POST run", api("POST", "run", json={"input": {}}).json())
    hold("POST retry/{job_id}", api("POST", f"retry/{stopped(stack, receiver, eventually)}").json())
    hold("POST purge-queue", api("POST", "purge-queue").json())
    for name in ("health", "jobs", "webhooks"):
        hold(f"GET {name}", api("GET", name).json())
    delivery_id = f"evt_{failed}_1_1"
    eventually(lambda: api("GET", f"webhooks/{delivery_id}").json()["attempts_made"])
    hold("GET webhooks/{delivery_id}", api("GET", f"webhooks/{delivery_id}").json())
    hold("POST webhook-test", api("POST", "webhook-test", json={"url": f"{receiver.url}/hook"}).json())
    sent = api("POST", "upload", files={"file": b"x"}, headers={"Authorization": KEY})
    hold("POST upload", sent.json())
