"""The files that RunPod's hub reads, against its publishing guide.

docs.runpod.io/hub/publishing-guide and, for the pools, docs.runpod.io/references/gpu-types: in
github.com/runpod/docs these are hub/publishing-guide.mdx at 05e6fc1 and references/gpu-types.mdx at ba1309b.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from dispatcher.schemas import parse_input
from tasks.settings import Settings, variable

ROOT = Path(__file__).parents[2]
HUB = ROOT / ".runpod"
CATEGORIES = {"audio", "embedding", "language", "video", "image"}
INPUT_TYPES = {"string", "huggingface", "number", "boolean"}
POOLS = {
    *("AMPERE_16", "AMPERE_24", "AMPERE_48", "AMPERE_80"),
    *("ADA_24", "ADA_48_PRO", "ADA_80_PRO", "HOPPER_141"),
}
# Every field that the guide has; another one is a mistake of ours.
HUB_FIELDS = {"title", "description", "type", "category", "iconUrl", "config"}
CONFIG_FIELDS = {
    *("runsOn", "containerDiskInGb", "cpuFlavor", "gpuCount", "gpuIds"),
    *("allowedCudaVersions", "env", "presets"),
}
INPUT_FIELDS = {
    *("name", "type", "description", "default", "advanced", "options"),
    *("min", "max", "trueValue", "falseValue"),
}
TEST_FIELDS = {"name", "input", "timeout"}
TEST_CONFIG_FIELDS = {"gpuTypeId", "gpuCount", "cpuFlavor", "env", "allowedCudaVersions"}
HEAD = "# Made of worker.Dockerfile by tests/unit/test_hub.py, for RunPod's hub, which builds this one.\n"


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((HUB / name).read_text(encoding="utf-8"))
    return found


def dockerfile() -> str:
    """worker.Dockerfile with the all-in-one as its command; the platform asks for no health check."""
    text = (ROOT / "worker.Dockerfile").read_text(encoding="utf-8")
    text = text[text.index("ARG PYTHON") : text.index("# A model may have to be downloaded first.")]
    command = 'CMD ["python", "-m", "tasks.worker", "transcribe"]'
    assert text.count(command) == 1
    return HEAD + text.replace(command, 'CMD ["longhand", "runpod"]')


def test_what_the_hub_requires_is_there() -> None:
    hub = read("hub.json")
    assert {"title", "description", "type", "category", "config"} <= hub.keys()
    assert hub["type"] == "serverless"
    assert hub["category"] in CATEGORIES
    config = hub["config"]
    assert config["runsOn"] == "GPU"
    assert isinstance(config["containerDiskInGb"], int)
    assert isinstance(config["gpuCount"], int)
    assert set(config["gpuIds"].split(",")) <= POOLS
    for name in ("handler.py", "Dockerfile"):
        assert (HUB / name).is_file()
    assert (ROOT / "README.md").is_file()


def test_no_field_is_one_that_the_hub_does_not_know() -> None:
    hub, tests = read("hub.json"), read("tests.json")
    assert hub.keys() <= HUB_FIELDS
    assert hub["config"].keys() <= CONFIG_FIELDS
    for entry in hub["config"]["env"]:
        assert entry.keys() in ({"key", "input"}, {"key", "value"})
        assert entry.get("input", {}).keys() <= INPUT_FIELDS
    assert all(preset.keys() == {"name", "defaults"} for preset in hub["config"]["presets"])
    assert tests.keys() == {"tests", "config"}
    assert tests["config"].keys() <= TEST_CONFIG_FIELDS
    for case in tests["tests"]:
        assert case.keys() <= TEST_FIELDS
        assert isinstance(case["timeout"], int)


def test_every_variable_is_a_setting_and_its_default_is_accepted() -> None:
    config = read("hub.json")["config"]
    given = {entry["key"]: entry["input"] for entry in config["env"]}
    known = {variable(field) for field in Settings.model_fields}
    assert given.keys() <= known
    for entry in given.values():
        assert entry["type"] in INPUT_TYPES
        assert {"name", "description", "default"} <= entry.keys()
    Settings.from_env({key: str(entry["default"]) for key, entry in given.items()})
    for preset in config["presets"]:
        assert preset["defaults"].keys() <= given.keys()
        Settings.from_env({key: str(value) for key, value in preset["defaults"].items()})


@pytest.mark.parametrize("number", range(2))
def test_the_hubs_tests_are_inputs_that_we_accept(number: int) -> None:
    tests = read("tests.json")
    case = tests["tests"][number]
    assert {"name", "input", "timeout"} <= case.keys()
    environment = {entry["key"]: entry["value"] for entry in tests["config"]["env"]}
    parsed = parse_input(case["input"], Settings.from_env(environment))
    assert len(parsed.blobs) == 1
    assert tests["config"]["gpuTypeId"]


def test_the_hubs_dockerfile_is_that_of_the_worker() -> None:
    """With WRITE_HUB_DOCKERFILE in the environment it is written anew."""
    if "WRITE_HUB_DOCKERFILE" in os.environ:
        (HUB / "Dockerfile").write_text(dockerfile(), encoding="utf-8")
    assert (HUB / "Dockerfile").read_text(encoding="utf-8") == dockerfile()
