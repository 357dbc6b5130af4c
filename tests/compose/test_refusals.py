"""What is set up wrong ends at once, and says in one line what to set."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.compose.engine import Project

pytestmark = pytest.mark.timeout(120)


def env(*variables: str) -> list[str]:
    return [part for variable in variables for part in ("-e", variable)]


@pytest.mark.parametrize("service", ["api", "io", "deliver", "transcribe-cpu", "flower"])
def test_a_redis_without_a_password(project: Project, service: str) -> None:
    said = project.refusal(service, *env("REDIS_URL=redis://redis:6379/0"))
    assert said.startswith("configuration_error: REDIS_URL has no password for redis: set requirepass")


def test_a_weak_password(project: Project) -> None:
    said = project.refusal("io", *env("REDIS_URL=redis://:guess@redis:6379/0"))
    assert said.startswith("configuration_error: REDIS_URL has a weak password for redis: set requirepass")
    assert project.refusal("redis", *env("REDISCLI_AUTH=guess")).startswith("REDIS_PASSWORD is weak: set")
    said = project.refusal("redis", *env("REDISCLI_AUTH=0123456789/abcdef#"))
    assert said.startswith("REDIS_PASSWORD is part of a URL: use letters, digits")


def test_a_wrong_password(project: Project) -> None:
    said = project.refusal("io", *env("REDIS_URL=redis://:0123456789abcdefghij@redis:6379/0"))
    assert said.startswith("configuration_error: Redis refuses the password of REDIS_URL")


@pytest.mark.parametrize("login", ["", "admin:admin"])
def test_flower_without_a_login(project: Project, login: str) -> None:
    said = project.refusal("flower", *env(f"LONGHAND_FLOWER_LOGIN={login}"))
    assert "set LONGHAND_FLOWER_LOGIN to user:password" in said


def test_an_api_without_keys(project: Project) -> None:
    assert "set LONGHAND_API_KEYS to name:key" in project.refusal("api", *env("LONGHAND_API_KEYS="))
    assert "LONGHAND_API_KEYS has a weak key for me" in project.refusal(
        "api", *env("LONGHAND_API_KEYS=me:1234")
    )


@pytest.mark.parametrize("service", ["api", "io", "deliver", "transcribe-cpu"])
def test_a_policy_that_deletes_jobs(project: Project, service: str) -> None:
    project.compose("exec", "-T", "redis", "redis-cli", "config", "set", "maxmemory-policy", "allkeys-lru")
    try:
        said = project.refusal(service)
    finally:
        project.compose("exec", "-T", "redis", "redis-cli", "config", "set", "maxmemory-policy", "noeviction")
    assert "maxmemory-policy allkeys-lru" in said
    assert "set noeviction" in said


def test_a_model_that_is_none(project: Project) -> None:
    said = project.refusal("transcribe-cpu", *env("LONGHAND_MODEL=no-such-model"))
    assert said.startswith("unknown_model: Model 'no-such-model' was not found")


@pytest.mark.parametrize("service", ["api", "io", "deliver", "transcribe-cpu"])
def test_a_volume_that_cannot_be_written(project: Project, tmp_path: Path, service: str) -> None:
    tmp_path.chmod(0o755)  # whose owner is not the image's user
    said = project.refusal(service, "-v", f"{tmp_path}:/data")
    assert said.startswith("configuration_error: audio cannot be kept in file:///data/blobs")
    assert "let user 10001 write there, or set LONGHAND_BLOB_URL" in said
    assert os.listdir(tmp_path) == []


def test_a_misspelt_setting(project: Project) -> None:
    assert "did you mean LONGHAND_MODEL?" in project.refusal("io", *env("LONGHAND_MODLE=x"))


@pytest.mark.parametrize("name", ["REDIS_PASSWORD", "LONGHAND_API_KEYS", "LONGHAND_FLOWER_LOGIN"])
def test_what_env_lacks_is_named(project: Project, tmp_path: Path, name: str) -> None:
    lines = project.env_file.read_text().splitlines()
    (tmp_path / ".env").write_text("\n".join(line for line in lines if not line.startswith(name)))
    said = replace(project, env_file=tmp_path / ".env").compose("config", fails=True)
    assert f"required variable {name} is missing a value: run make compose" in said
