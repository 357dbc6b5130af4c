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
from tests.clients.door import Door, opened, tls_door
from tests.clients.environments import Environment
from tests.clients.table import ROW, Table, row_of
from tests.conftest import KEY, Stack
from tests.endpoint import Api


@dataclass(frozen=True, slots=True)
class Client:
    """Runs scripts as a user of a client would, against the stack, which it reaches through its door."""

    environment: Environment
    variables: dict[str, str]
    door: Door

    @property
    def name(self) -> str:
        return self.environment.name

    def run(self, script: str, within_s: float = 100, **given: Any) -> Any:
        """What a script told, as JSON on its last line; `given` is its `given`."""
        # Not among the arguments, whose size is limited.
        told = json.dumps(given)
        if "node" in self.environment.command[0]:
            source = f"const given = JSON.parse(process.env.GIVEN);\n{script}"
            command = [*self.environment.command, "--eval", source]
        else:
            source = f"import json, os\ngiven = json.loads(os.environ['GIVEN'])\n{script}"
            command = [*self.environment.command, "-c", source]
        own = {"PATH": os.environ["PATH"], "HOME": str(self.environment.folder), "GIVEN": told, "KEY": KEY}
        ran = subprocess.run(
            command,
            # Node looks for packages from where it is.
            cwd=self.environment.folder,
            env={**own, **self.variables},
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return json.loads(ran.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def door(stack: Stack) -> Iterator[Door]:
    """The way in for clients that can be told an address."""
    with opened(Door(stack.machine.port)) as door:
        yield door


@pytest.fixture(scope="session")
def fixed_door(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """The way in for clients that cannot."""
    with tls_door(tmp_path_factory.mktemp("fixed"), stack.machine.port) as door:
        yield door


@pytest.fixture(scope="session", params=environments.IVRIT)
def ivrit(request: pytest.FixtureRequest, fixed_door: Door) -> Client:
    """Each version of ivrit in turn."""
    return ivrit_of(request.param, fixed_door)


@pytest.fixture(scope="session")
def newest(fixed_door: Door) -> Client:
    """The newest version of ivrit."""
    return ivrit_of(environments.IVRIT[-1], fixed_door)


def ivrit_of(version: str, door: Door) -> Client:
    variables = {
        "PYTHONPATH": str(Path(__file__).parent / "resolver"),
        "PLATFORM_PORT": str(door.port),
        "REQUESTS_CA_BUNDLE": str(door.certificate),
        "SSL_CERT_FILE": str(door.certificate),
    }
    return Client(environments.ivrit(version), variables, door)


@pytest.fixture(scope="session")
def described(door: Door) -> Client:
    """A tool that reads the API's description."""
    return Client(environments.schemathesis(), {}, door)


@pytest.fixture(scope="session")
def js(door: Door) -> Client:
    return Client(environments.runpod_js(), {"BASE": f"http://127.0.0.1:{door.port}/v2"}, door)


@pytest.fixture(scope="session")
def python(door: Door) -> Client:
    variables = {"RUNPOD_ENDPOINT_BASE_URL": f"http://127.0.0.1:{door.port}/v2"}
    return Client(environments.runpod_python(), variables, door)


@pytest.fixture(scope="session")
def http(stack: Stack) -> Api:
    """What no client is needed for."""
    return Api(stack.machine.url)


# The table


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-table", action="store_true", help="write docs/compatibility.md; for a whole run"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes minutes, waiting")
    # One process writes, and hears the reports of all.
    if config.getoption("write_table", False) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Table())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, and all others run beside it."""
    items.sort(key=lambda item: "slow" not in item.keywords)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "call" and isinstance(item, pytest.Function):
        clients = [value for value in item.funcargs.values() if isinstance(value, Client)]
        name = clients[0].name if clients else "HTTP"
        report.user_properties.append((ROW, row_of(name, item.function.__doc__, passed=report.passed)))
    return report
