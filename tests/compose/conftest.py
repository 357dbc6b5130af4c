"""One running stack for all tests of this folder, as `make compose` starts it, removed at the end."""

import base64
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from demo.compose import complete
from dispatcher.client import ApiError, segments_of
from dispatcher.local import port_of
from tests.compose.engine import ROOT, Project, require_engine
from tests.conftest import Eventually

SAMPLE = base64.b64encode((ROOT / "demo" / "sample.opus").read_bytes()).decode()


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    require_engine()
    env_file = tmp_path_factory.mktemp("compose") / ".env"
    port, flower_port = port_of("127.0.0.1", 0), port_of("127.0.0.1", 0)
    env_file.write_text(
        f"API_ADDRESS=127.0.0.1:{port}\nFLOWER_ADDRESS=127.0.0.1:{flower_port}\n"
        "LONGHAND_ALLOW_PRIVATE_ADDRESSES=true\n"  # the receiver is a container beside the others
    )
    env_file.chmod(0o600)
    name = f"longhand-test-{secrets.token_hex(3)}"
    project = Project(name, env_file, complete(env_file), port, flower_port)
    try:
        project.up()
        yield project
    finally:
        project.compose("down", "--volumes", "--timeout=5")


def submit(project: Project, recording_id: str) -> str:
    """Send the sample, to be cut into about twenty chunks."""
    return project.client.submit(
        {
            "blob": SAMPLE,
            "chunk_seconds": 20,
            "webhook_url": "http://receiver:8080/hook",
            "recording_id": recording_id,
        }
    )


def ended(project: Project, job_id: str, eventually: Eventually) -> dict[str, Any]:
    """The status of a job once it has ended; the API may be away meanwhile."""

    def look() -> dict[str, Any] | None:
        try:
            shown = project.client.status(job_id)
        except ApiError:
            return None
        return None if shown["status"] in ("IN_QUEUE", "IN_PROGRESS") else shown

    shown: dict[str, Any] = eventually(look, 240, f"the end of {job_id}")
    return shown


@pytest.fixture(scope="session")
def undisturbed(project: Project, eventually: Eventually) -> list[dict[str, Any]]:
    """The segments of the sample where nothing was broken."""
    shown = ended(project, submit(project, "undisturbed"), eventually)
    assert shown["status"] == "COMPLETED", shown
    return segments_of(shown["output"])
