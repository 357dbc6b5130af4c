"""A project of Docker Compose under a name of its own, on a real engine."""

import json
import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from dispatcher.client import Client

ROOT = Path(__file__).parents[2]


def require_engine() -> None:
    """Skip, and say why, where no engine answers."""
    for question in (("version",), ("compose", "version")):
        try:
            asked = docker(*question)
        except FileNotFoundError:
            pytest.skip("no Docker engine: there is no docker command")
        if asked.returncode:
            pytest.skip(f"no Docker engine: docker {' '.join(question)}: {asked.stderr.strip()}")


@dataclass(frozen=True, slots=True)
class Project:
    """The stack of compose.yaml; `settings` is what its .env holds."""

    name: str
    env_file: Path
    settings: dict[str, str]
    port: int
    flower_port: int
    files: tuple[Path, ...] = (ROOT / "compose.yaml", Path(__file__).with_name("override.yaml"))
    client: Client = field(init=False)

    def __post_init__(self) -> None:
        client = Client(f"http://127.0.0.1:{self.port}/v2/longhand", self.key)
        object.__setattr__(self, "client", client)

    @property
    def key(self) -> str:
        return self.settings["LONGHAND_API_KEYS"].partition(":")[2]

    @property
    def login(self) -> tuple[str, str]:
        user, _, password = self.settings["LONGHAND_FLOWER_LOGIN"].partition(":")
        return user, password

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run Docker Compose."""
        files = [part for file in self.files for part in ("-f", str(file))]
        project = ("-p", self.name, "--env-file", str(self.env_file), "--profile", "cpu")
        return docker("compose", *files, *project, *arguments)

    def compose(self, *arguments: str, fails: bool = False) -> str:
        """Run Docker Compose, which has to succeed, or with `fails` to fail; what it printed."""
        ran = self.run(*arguments)
        output = ran.stdout + ran.stderr
        assert bool(ran.returncode) == fails, output
        return output

    def up(self, workers: int = 1) -> None:
        scale = f"--scale=transcribe-cpu={workers}"
        self.compose("up", "--build", "--detach", "--no-recreate", "--wait", "--wait-timeout=300", scale)

    def refusal(self, service: str, *options: str) -> str:
        """The one line that a container of a service says when it ends at once."""
        self_made = ("run", "--rm", "--no-deps", "-T", "--quiet-pull", *options, service)
        lines = [line for line in self.compose(*self_made, fails=True).splitlines() if line.strip()]
        # Before it Compose tells of the container, and after it nothing may come.
        said = [line for line in lines if not line.lstrip().startswith(("Container", "Network", "Volume"))]
        assert len(said) == 1, lines
        return said[0]

    def containers(self, service: str = "") -> list[dict[str, Any]]:
        """What `docker inspect` says of the containers, or of a service's."""
        ids = self.compose("ps", "--all", "--quiet", *([service] if service else [])).split()
        return list(json.loads(docker("inspect", *ids).stdout))

    def crash(self, service: str) -> None:
        """Kill a container's first process from outside, as a crash does; its restart policy stands."""
        (container,) = self.containers(service)
        os.kill(container["State"]["Pid"], signal.SIGKILL)

    def logs(self, *services: str) -> str:
        """What the containers of services have said, as they said it."""
        found = [docker("logs", each["Id"]) for service in services for each in self.containers(service)]
        return "".join(ran.stdout + ran.stderr for ran in found)

    def flower(self, path: str, login: tuple[str, str] | None) -> requests.Response:
        return requests.get(f"http://127.0.0.1:{self.flower_port}{path}", auth=login, timeout=20)


def docker(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the engine's client."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=900, check=False)
