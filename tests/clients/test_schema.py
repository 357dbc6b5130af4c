"""The API against its own description, as a tool reads it."""

import subprocess

import requests

from tests.clients.conftest import Client
from tests.conftest import OTHERS_KEY, Stack

# It waits for jobs that nobody can fetch. So would /status-sync and /stream for those that other tests left,
# whose ids the tool learns from /jobs: it has the key of an account without any.
SLOW = "runsync"
# An address that is well-formed and yet refused: no schema can say which.
SEMANTIC = "positive_data_acceptance"


def test_description(stack: Stack, described: Client) -> None:
    """OpenAPI: schemathesis finds nothing in what the description promises."""
    ran = subprocess.run(
        [
            *described.environment.command,
            *("run", f"{stack.machine.url}/openapi.json", "--header", f"Authorization: {OTHERS_KEY}"),
            *("--seed", "1", "--max-examples", "15", "--phases", "examples,coverage,fuzzing"),
            *("--exclude-path-regex", SLOW, "--exclude-checks", SEMANTIC, "--request-timeout", "30"),
        ],
        cwd=described.environment.folder,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-5000:]


def test_page(stack: Stack, described: Client) -> None:
    """OpenAPI: the page for people has the key, the endpoints and an example of every submission."""
    assert described
    assert "swagger-ui" in requests.get(f"{stack.machine.url}/docs", timeout=10).text
    schema = requests.get(f"{stack.machine.url}/openapi.json", timeout=10).json()
    run = schema["paths"]["/v2/{endpoint_id}/run"]["post"]
    assert run["security"] == [{"key": []}]
    assert run["requestBody"]["content"]["application/json"]["schema"]["example"]["input"]["url"]
    (endpoint,) = [each for each in run["parameters"] if each["name"] == "endpoint_id"]
    assert endpoint["schema"]["enum"] == ["longhand", "loud", "old"]
    assert set(run["responses"]) == {"200", "400", "401", "403", "404", "409", "429", "503"}


def test_methods_that_are_none_say_which_are(stack: Stack, described: Client) -> None:
    """OpenAPI: a wrong method is answered with those that are right."""
    assert described
    answer = requests.put(f"{stack.machine.url}/v2/longhand/health", timeout=10)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET")
