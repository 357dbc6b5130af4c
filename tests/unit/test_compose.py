"""What `make compose` writes into .env, and what it tells."""

import re
from pathlib import Path

import pytest

from demo.compose import complete, settings_of, told
from dispatcher.local import REST_S
from tasks.exposure import is_weak


def test_missing_secrets_are_written_for_nobody_else_to_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / ".env"
    written = complete(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert settings_of(file) == written
    assert not any(is_weak(value.rpartition(":")[2]) for value in written.values())
    assert not any(value in capsys.readouterr().out for value in written.values())
    assert set(complete(tmp_path / "other").values()).isdisjoint(written.values())


def test_what_is_there_stays(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("# ours\nREDIS_PASSWORD=mine\n\nAPI_ADDRESS=127.0.0.1:9000\n")
    found = complete(file)
    assert found["REDIS_PASSWORD"] == "mine"
    assert file.read_text().startswith("# ours\nREDIS_PASSWORD=mine\n\nAPI_ADDRESS=127.0.0.1:9000\n")
    before = file.read_text()
    assert complete(file) == found
    assert file.read_text() == before


def test_a_file_of_another_hand_is_completed(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("CPU_PROCESSES=2\nREDIS_PASSWORD=\nGPUS=3")
    file.chmod(0o644)
    found = complete(file)
    assert found == settings_of(file)
    assert (found["CPU_PROCESSES"], found["GPUS"]) == ("2", "3")
    assert not is_weak(found["REDIS_PASSWORD"])
    assert file.stat().st_mode & 0o777 == 0o600


def test_it_tells_how_to_use_it() -> None:
    said = told(
        {
            "LONGHAND_API_KEYS": "us:key:1,them:2",
            "LONGHAND_FLOWER_LOGIN": "me:x",
            "API_ADDRESS": "127.0.0.1:9",
        }
    )
    assert "http://127.0.0.1:9/v2/longhand/runsync -H 'Authorization: key:1' " in said
    assert "http://127.0.0.1:5555, login me:x" in said


def test_a_worker_is_given_the_time_that_it_takes_to_end() -> None:
    text = (Path(__file__).parents[2] / "compose.yaml").read_text()
    (worker,) = re.findall(r"^x-worker:.*?^  stop_grace_period: (\d+)s$", text, re.DOTALL | re.MULTILINE)
    (soft_ms,) = re.findall(r'LONGHAND_SOFT_SHUTDOWN_MS: "(\d+)"', text)
    assert int(worker) >= int(soft_ms) / 1000 + REST_S
