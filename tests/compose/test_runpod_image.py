"""The images as RunPod runs them: all in one container, or a gateway to a stack elsewhere."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.client import segments_of
from tests.compose.engine import ROOT, Project, docker
from tests.conftest import Eventually

pytestmark = pytest.mark.timeout(180)

# It shares the worker's network, as its loopback is all that a test may use.
PLATFORM = """
import json, sys, time
sys.path.insert(0, "/platform")
from fake_platform import serving
with serving() as platform:
    platform.give("job-1", json.load(open("/input.json")))
    print(json.dumps(platform.environment()), flush=True)
    while not platform.results("job-1"):
        time.sleep(0.2)
    print(json.dumps([platform.items("job-1"), platform.results("job-1")]), flush=True)
    time.sleep(600)
"""


@pytest.fixture
def names(project: Project) -> Iterator[tuple[str, str]]:
    """Of the platform's and the worker's container, removed afterwards."""
    names = (f"{project.name}-platform", f"{project.name}-runpod")
    yield names
    docker("rm", "--force", "--volumes", *names)


def give_a_job(platform: str, network: str, folder: Path, eventually: Eventually) -> dict[str, str]:
    """Start the platform, with one job to give; what it sets in a worker's environment."""
    speech = (ROOT / "tests" / "data" / "speech.opus").read_bytes()
    job_input = folder / "input.json"
    job_input.write_text(json.dumps({"blob": base64.b64encode(speech).decode()}))
    folder.chmod(0o755)
    ours = f"{ROOT}/tests/fake_platform.py:/platform/fake_platform.py:ro"
    mounts = ("-v", ours, "-v", f"{job_input}:/input.json:ro")
    ran = docker(
        *("run", "--detach", "--name", platform, "--network", network, *mounts),
        *("longhand-api", "python", "-c", PLATFORM),
    )
    assert ran.returncode == 0, ran.stderr
    environment: dict[str, str] = json.loads(
        eventually(lambda: docker("logs", platform).stdout, what="the platform")
    )
    return environment


def start_worker(names: tuple[str, str], environment: dict[str, str], *command: str) -> None:
    """Start the other container, beside the platform."""
    platform, worker = names
    variables = [part for name, value in environment.items() for part in ("-e", f"{name}={value}")]
    ran = docker(
        *("run", "--detach", "--name", worker, "--network", f"container:{platform}", *variables),
        *("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", *command),
    )
    assert ran.returncode == 0, ran.stderr


def heard(platform: str, eventually: Eventually) -> str:
    """What was said, once the job has ended; what was streamed is what is in its output."""

    def told() -> list[str]:
        return docker("logs", platform).stdout.splitlines()[1:]

    items, (result,) = json.loads(eventually(told, 120, "the end of the job")[0])
    assert result["output"] == items
    return " ".join(segment["text"] for segment in segments_of(items)).lower()


def exit_code(worker: str) -> int:
    """Of a container that is told to stop."""
    docker("stop", "--time", "60", worker)
    return int(docker("inspect", "--format", "{{.State.ExitCode}}", worker).stdout)


def test_all_in_one_takes_jobs_from_the_platform(
    names: tuple[str, str], tmp_path: Path, eventually: Eventually
) -> None:
    platform, worker = names
    environment = give_a_job(platform, "none", tmp_path, eventually)
    start_worker(names, environment, "-v", "/data", "longhand-worker:cpu", "longhand", "runpod")
    assert "country" in heard(platform, eventually)
    assert docker("exec", worker, "python", "-m", "tasks.health").returncode == 0
    assert exit_code(worker) == 0


def test_a_gateway_hands_jobs_to_the_stack(
    project: Project, names: tuple[str, str], tmp_path: Path, eventually: Eventually
) -> None:
    platform, worker = names
    environment = give_a_job(platform, f"{project.name}_inside", tmp_path, eventually)
    password = project.settings["REDIS_PASSWORD"]
    environment |= {"REDIS_URL": f"redis://:{password}@redis:6379/0"}
    # The recording comes along in the request, so the audio volume is shared.
    volume = ("-v", f"{project.name}_audio:/data")
    start_worker(names, environment, *volume, "longhand-api", "python", "-m", "dispatcher.handler")
    assert "country" in heard(platform, eventually)
    assert exit_code(worker) == 0
