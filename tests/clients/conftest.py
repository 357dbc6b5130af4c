"""Real clients in environments of their own, and the table of what they could do, docs/compatibility.md."""

import json
import os
import subprocess
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients import environments
from tests.clients.environments import Environment
from tests.clients.fixed_address import FixedAddress, fixed_address
from tests.conftest import KEY, Stack

TABLE = Path(__file__).parents[2] / "docs" / "compatibility.md"
HEAD = """# Compatibility

What the clients of RunPod, unmodified, from their registries, each in an environment of its own, did against
Longhand. Written by `make test-clients`; the numbers are those of the conformance cases. ivrit's address is
fixed: a resolver and a certificate of the test lead it here. Cases of RunPod's handler, and more of the
`runpod` SDK, are in `tests/integration` and part of `make test`.

| client | case | what | result |
| --- | --- | --- | --- |
"""
TAIL = """
Not run: the Go and flash clients; ivrit before 0.1.6, whose dialects are not spoken; a queue of 310 s (case
20), of which `tests/unit/test_views.py` holds what such a client would see.
"""


@dataclass(frozen=True, slots=True)
class Client:
    """Runs scripts as a user of a client would, against the stack."""

    environment: Environment
    variables: dict[str, str]

    @property
    def name(self) -> str:
        return self.environment.name

    def run(self, script: str, **given: Any) -> Any:
        """What a script told, as JSON on its last line; `given` is its `given`."""
        if "node" in self.environment.command[0]:
            source = f"const given = {json.dumps(given)};\n{script}"
            command = [*self.environment.command, "--eval", source]
        else:
            source = f"import json\ngiven = json.loads({json.dumps(json.dumps(given))})\n{script}"
            command = [*self.environment.command, "-c", source]
        ran = subprocess.run(
            command,
            # Node looks for packages from where it is.
            cwd=self.environment.folder,
            env={"PATH": os.environ["PATH"], "HOME": str(self.environment.folder), **self.variables},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return json.loads(ran.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def there(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FixedAddress]:
    with fixed_address(tmp_path_factory.mktemp("fixed"), stack.machine.port) as listening:
        yield listening


@pytest.fixture(scope="session", params=environments.IVRIT)
def ivrit(request: pytest.FixtureRequest, there: FixedAddress) -> Client:
    """Each version of ivrit in turn."""
    return ivrit_of(request.param, there)


@pytest.fixture(scope="session")
def newest(there: FixedAddress) -> Client:
    """The newest version of ivrit."""
    return ivrit_of(environments.IVRIT[-1], there)


def ivrit_of(version: str, there: FixedAddress) -> Client:
    variables = {
        "PYTHONPATH": str(Path(__file__).parent / "resolver"),
        "PLATFORM_PORT": str(there.port),
        "REQUESTS_CA_BUNDLE": str(there.certificate),
        "SSL_CERT_FILE": str(there.certificate),
        "KEY": KEY,
    }
    return Client(environments.ivrit(version), variables)


@pytest.fixture(scope="session")
def described() -> Client:
    """A tool that reads the API's description."""
    return Client(environments.schemathesis(), {})


@pytest.fixture(scope="session")
def js(stack: Stack) -> Client:
    variables = {"KEY": KEY, "BASE": f"{stack.machine.url}/v2"}
    return Client(environments.runpod_js(), variables)


@pytest.fixture(scope="session")
def python(stack: Stack) -> Client:
    variables = {"KEY": KEY, "RUNPOD_ENDPOINT_BASE_URL": f"{stack.machine.url}/v2"}
    return Client(environments.runpod_python(), variables)


# The table


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "call" and isinstance(item, pytest.Function):
        (client,) = [value for value in item.funcargs.values() if isinstance(value, Client)]
        case, _, what = (item.function.__doc__ or "").strip().splitlines()[0].partition(": ")
        row = (client.name, case, what.rstrip("."), "passed" if report.passed else "failed")
        item.session.stash.setdefault(ROWS, []).append(row)
    return report


ROWS = pytest.StashKey[list[tuple[str, str, str, str]]]()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table, if the whole folder was run: a part of it would leave the rest out."""
    rows = session.stash.get(ROWS, [])
    whole = session.config.args == ["tests/clients"] and not session.config.option.keyword
    if rows and whole and len(rows) == session.testscollected:
        lines = [f"| {' | '.join(row)} |" for row in sorted(set(rows))]
        TABLE.write_text(HEAD + "\n".join(lines) + "\n" + TAIL, encoding="utf-8")
