"""What may be imported where, and that what belongs together is together."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.app import STAGES, create_app, queue_of
from tasks.roles import ROLES
from tasks.settings import Settings, variable

ROOT = Path(__file__).parents[1]
HEAVY = {"av", "ctranslate2", "faster_whisper", "huggingface_hub", "numpy", "onnxruntime", "torch"}
DISPATCHER = sorted(
    f"dispatcher.{path.stem}" for path in (ROOT / "dispatcher").glob("*.py") if path.stem != "__init__"
)


def loaded_by(*modules: str) -> set[str]:
    """Top-level packages that a fresh interpreter has after importing the modules."""
    source = f"import sys, json; import {', '.join(modules)}; print(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, capture_output=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr.decode()
    return {name.partition(".")[0] for name in json.loads(ran.stdout.splitlines()[-1])}


def test_the_check_sees_what_is_loaded() -> None:
    assert "numpy" in loaded_by("tasks.pipeline")


def test_nothing_of_the_dispatcher_loads_anything_heavy() -> None:
    assert len(DISPATCHER) > 10
    assert not loaded_by(*DISPATCHER) & HEAVY


def test_a_client_needs_no_server() -> None:
    assert not loaded_by("dispatcher.client") & {*HEAVY, "celery", "fastapi", "redis", "runpod", "uvicorn"}


def test_the_parent_of_a_worker_loads_no_model() -> None:
    found = loaded_by("tasks.worker", "tasks.pipeline")
    assert not found & {"ctranslate2", "faster_whisper", "onnxruntime", "torch"}


def test_every_stage_is_a_task_and_has_a_queue_and_a_worker() -> None:
    app = create_app(Settings())
    app.loader.import_default_modules()
    app.finalize()
    ours = {name for name in app.tasks if name.startswith("longhand.")}
    assert ours == set(STAGES)
    assert {queue.name for queue in app.conf.task_queues} == {queue_of(stage) for stage in STAGES}
    served = [stage for role in ROLES.values() for stage in role.stages]
    assert sorted(served) == sorted(STAGES)
    for stage in STAGES:
        assert app.conf.task_routes[stage] == {"queue": queue_of(stage)}


@pytest.mark.parametrize("field", Settings.model_fields)
def test_every_setting_is_documented(field: str) -> None:
    assert f"`{variable(field)}`" in (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
