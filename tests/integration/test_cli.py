"""The `longhand` command against a running stack."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from dispatcher.cli import main
from tasks.formats import FORMATS
from tests.conftest import KEY, Eventually, Receiver, Stack, write_recording

Longhand = Callable[..., Result]


@pytest.fixture
def longhand(stack: Stack) -> Longhand:
    """Runs the command in this process, as a user whose environment names the stack's API."""
    environment = {"LONGHAND_API_URL": f"{stack.machine.url}/v2/longhand", "LONGHAND_API_KEY": KEY}

    def run(*arguments: str, **variables: str) -> Result:
        return CliRunner().invoke(main, arguments, env={**environment, **variables}, catch_exceptions=False)

    return run


def recording(stack: Stack, receiver: Receiver, name: str, seconds: int = 11) -> str:
    return str(stack.input(receiver, name, seconds)["url"])


def failed(result: Result, *said: str) -> None:
    """One line on stderr, nothing on stdout that a pipe would take for a transcript."""
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for text in said:
        assert text in result.stderr


@pytest.mark.parametrize("form", FORMATS)
def test_transcribe_a_url_in_every_format(
    stack: Stack, receiver: Receiver, longhand: Longhand, form: str
) -> None:
    done = longhand("transcribe", recording(stack, receiver, f"cli-{form}"), "--format", form)
    assert done.exit_code == 0, done.stderr
    job_id = done.stderr.split()[1]
    assert job_id.endswith("-u1")
    assert "transcribing" in done.stderr
    assert stack.client.status(job_id)["status"] == "COMPLETED"
    text = done.stdout
    begins = {"txt": "", "srt": "1\n00:00:00,000 --> ", "vtt": "WEBVTT\n\n", "tsv": "start\tend\ttext\n"}
    assert text.startswith(begins.get(form, "{"))
    first = stack.store.results(job_id)[0].segments[0].text
    assert first in text
    if form == "json":
        document = json.loads(text)
        assert document["language"] == "he"
        assert document["segments"][0]["text"] == first
    again = longhand("result", job_id, "--format", form)
    assert (again.exit_code, again.stdout) == (0, text)


def test_transcribe_a_file_with_everything_said(
    stack: Stack, receiver: Receiver, longhand: Longhand, eventually: Eventually
) -> None:
    recording(stack, receiver, "cli-file")
    target = receiver.folder / "out.txt"
    done = longhand(
        *("transcribe", str(receiver.folder / "cli-file.wav"), "--output", str(target)),
        *("--language", "fr", "--model", "multi"),
        *("--webhook-url", f"{receiver.url}/hook", "--recording-id", "ההקלטה שלי"),
    )
    assert done.exit_code == 0, done.stderr
    assert done.stdout == ""
    assert len(target.read_text(encoding="utf-8").splitlines()) == 4
    job = stack.store.job(done.stderr.split()[1])
    assert job
    assert job.language == "fr"
    eventually(lambda: "completed" in receiver.statuses("ההקלטה שלי"))


def test_the_installed_command(stack: Stack, receiver: Receiver) -> None:
    command = Path(sys.executable).with_name("longhand")
    environment = {"LONGHAND_API_URL": f"{stack.machine.url}/v2/longhand", "LONGHAND_API_KEY": KEY}
    done = subprocess.run(
        [command, "transcribe", recording(stack, receiver, "cli-installed"), "--format", "srt"],
        env=os.environ | environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.startswith(b"1\n00:00:00,000 --> ")


def test_status_cancel_and_jobs(
    stack: Stack, receiver: Receiver, longhand: Longhand, eventually: Eventually
) -> None:
    job_id = stack.client.submit(stack.input(receiver, "cli-canceled", 61, "slow:300"))
    eventually(lambda: json.loads(longhand("status", job_id).stdout)["status"] == "IN_PROGRESS")
    failed(longhand("result", job_id), f"job {job_id} is still IN_PROGRESS")
    assert longhand("cancel", job_id).stdout == "CANCELLED\n"
    assert json.loads(longhand("status", job_id).stdout)["status"] == "CANCELLED"
    failed(longhand("result", job_id), f"job {job_id} is CANCELLED")
    (line,) = longhand("jobs", "--limit", "1").stdout.splitlines()
    assert line.split()[1:3] == [job_id, "CANCELLED"]
    assert "cli-canceled" in line


def test_status_of_a_completed_job_has_no_transcript(
    stack: Stack, receiver: Receiver, longhand: Longhand, eventually: Eventually
) -> None:
    job_id = stack.client.submit(stack.input(receiver, "cli-status", 11))
    eventually(lambda: stack.ended(job_id))
    shown = json.loads(longhand("status", job_id).stdout)
    assert shown["status"] == "COMPLETED"
    assert "output" not in shown


def test_a_job_that_fails_ends_the_command_with_its_code(receiver: Receiver, longhand: Longhand) -> None:
    done = longhand("transcribe", f"{receiver.url}/404")
    failed(done, "source_refused", "404")
    # That code says that Longhand is broken, and it is the recording's address that is wrong.
    assert "internal_error" not in done.stderr


def test_a_file_that_is_not_there(longhand: Longhand, tmp_path: Path) -> None:
    failed(longhand("transcribe", str(tmp_path / "missing.wav")), "missing.wav")


@pytest.mark.parametrize("command", ["status", "result", "cancel"])
@pytest.mark.parametrize("job_id", ["no-such-job-u1", "../health", "a:results"])
def test_a_job_that_is_not_there(longhand: Longhand, command: str, job_id: str) -> None:
    failed(longhand(command, job_id), "api_error: 404")


def test_an_option_that_is_wrong(stack: Stack, receiver: Receiver, longhand: Longhand) -> None:
    done = longhand("transcribe", recording(stack, receiver, "cli-wrong"), "--language", "klingon")
    failed(done, "klingon")
    assert longhand("transcribe", "x", "--format", "docx").exit_code == 2


def test_a_wrong_key(longhand: Longhand) -> None:
    failed(longhand("jobs", LONGHAND_API_KEY="wrong"), "api_error: 401: invalid token")


def test_an_api_that_is_not_there(longhand: Longhand) -> None:
    done = longhand("jobs", LONGHAND_API_URL="http://127.0.0.1:9/v2/longhand")
    failed(done, "api_error: no answer of Longhand at http://127.0.0.1:9/v2/longhand")


def test_a_setting_that_is_wrong(longhand: Longhand) -> None:
    failed(longhand("jobs", LONGHAND_API_KYE="x"), "configuration_error", "LONGHAND_API_KEY?")


@pytest.mark.parametrize("command", [None, *main.commands])
def test_help_a_person_can_learn_from(longhand: Longhand, command: str | None) -> None:
    done = longhand(*([command] if command else []), "--help")
    assert done.exit_code == 0
    assert "Usage: " in done.stdout
    group: click.Command = main.commands[command] if command else main
    assert group.help
    for parameter in group.params:
        if isinstance(parameter, click.Option):
            assert parameter.opts[-1] in done.stdout
            # `--limit INTEGER [default: 20]` says of what.
            assert parameter.help or parameter.name == "form", f"{parameter.name} has no help"


def test_the_commands_are_those_that_are_documented() -> None:
    commands = {
        "up",
        "runpod",
        "transcribe",
        "status",
        "result",
        "cancel",
        "jobs",
        "upload",
        "webhooks",
        "keys",
    }
    assert set(main.commands) == commands


def test_a_folder_that_is_not_there_is_told_before_anything_is_submitted(
    longhand: Longhand, receiver: Receiver, tmp_path: Path
) -> None:
    write_recording(receiver.folder / "unwritten.wav", 11)
    done = longhand(
        "transcribe", f"{receiver.url}/unwritten.wav", "--output", str(tmp_path / "none" / "a.txt")
    )
    failed(done, "there is no folder")
    assert "job " not in done.stderr


def test_what_was_cut_off_is_told(longhand: Longhand, receiver: Receiver) -> None:
    whole = receiver.folder / "cut.wav"
    write_recording(whole, 31)
    whole.write_bytes(whole.read_bytes()[:500_000])
    done = longhand("transcribe", f"{receiver.url}/cut.wav", "--format", "json")
    assert done.exit_code == 0
    assert "warning: truncated" in done.stderr
    shown = json.loads(done.stdout)
    assert shown["duration"] == pytest.approx(500_000 / 32_000, abs=0.1)
    assert [warning for warning in shown["warnings"] if warning.startswith("truncated")]
