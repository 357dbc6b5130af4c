"""Flower as people see it: what a task is about, behind a login, read-only, and nothing that is secret."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from dispatcher.local import port_of
from tasks.settings import child_environment
from tests.conftest import KEY, SECRET, Eventually, Receiver, Stack

ROOT = Path(__file__).parents[2]
LOGIN = ("admin", "the password of tests")
# What must appear nowhere: a URL's query, secrets, a prompt, and what was said (by the fake engine).
QUERY = "token=canary-in-the-query"


@contextlib.contextmanager
def flower(stack: Stack, folder: Path) -> Iterator[str]:
    """A dashboard of the stack that keeps its memory in `folder`; its address."""
    settings = stack.machine.settings.model_copy(update={"data_dir": folder, "flower_login": ":".join(LOGIN)})
    port = port_of("127.0.0.1", 0)
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dispatcher.dashboard", "--port", str(port)],
            env=child_environment(settings),
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def get(url: str, login: tuple[str, str] | None = LOGIN) -> requests.Response:
    return requests.get(url, auth=login, timeout=10)


def listens(url: str) -> bool:
    """Whether Flower is there and hears the workers; it answers before."""
    try:
        return "flower_worker_online{" in get(f"{url}/metrics").text
    except requests.ConnectionError:
        return False


def tasks(url: str) -> list[dict[str, Any]]:
    """All tasks that Flower knows."""
    return list(get(f"{url}/api/tasks").json().values())


def of_job(url: str, job_id: str) -> list[dict[str, Any]]:
    return [task for task in tasks(url) if job_id in (task["args"] or "")]


def of_chunks(url: str, job_id: str) -> list[str]:
    """A job's chunks as they are shown."""
    return [task["args"] for task in of_job(url, job_id) if task["name"] == "longhand.transcribe"]


def run_a_job(stack: Stack, receiver: Receiver, name: str, prompt: str = "") -> str:
    job_input = stack.input(receiver, name, 31, prompt)
    return stack.client.submit({**job_input, "url": f"{job_input['url']}?{QUERY}"})


def test_a_task_says_which_part_of_which_job_it_is(
    stack: Stack, receiver: Receiver, eventually: Eventually, tmp_path: Path
) -> None:
    with flower(stack, tmp_path) as url:
        eventually(lambda: listens(url), what="Flower")
        job_id = run_a_job(stack, receiver, "shown", "slow:100")
        eventually(lambda: of_chunks(url, job_id), what="a chunk, during the job")
        assert stack.ended(job_id) is None
        eventually(lambda: stack.ended(job_id))
        eventually(lambda: len(of_job(url, job_id)) >= 5, what="every task")
        chunks = of_chunks(url, job_id)
        chunk = stack.store.chunks(job_id)[2]
        span = f"00:00:{chunk.start_ms // 1000}-00:00:31"
        assert {f"chunk 3/{total}, {span}, job {job_id}" for total in ("3", "?")} & set(chunks)
        eventually(lambda: {task["state"] for task in of_job(url, job_id)} == {"SUCCESS"})
        assert f"to {receiver.url}" in {task["args"] for task in tasks(url)}


def test_nothing_secret_is_shown_anywhere(
    stack: Stack, receiver: Receiver, eventually: Eventually, tmp_path: Path
) -> None:
    with flower(stack, tmp_path) as url:
        eventually(lambda: listens(url), what="Flower")
        job_id = run_a_job(stack, receiver, "secret")
        refused = stack.client.submit({"url": f"http://127.0.0.1:9/x?{QUERY}", "recording_id": "none"})
        broken = run_a_job(stack, receiver, "broken", "fail:1")
        jobs = (job_id, refused, broken)
        eventually(lambda: all(map(stack.ended, jobs)), 40, "the end of all")
        eventually(lambda: {"FAILURE", "SUCCESS"} <= {task["state"] for task in tasks(url)}, what="a failure")
        failed = next(task for task in tasks(url) if task["state"] == "FAILURE")
        assert "AttemptFailed" in failed["exception"]
        workers = eventually(lambda: get(f"{url}/api/workers?refresh=true").json(), what="the workers")
        pages = [
            *("/", "/workers", "/tasks", "/broker", "/metrics", "/api/tasks", "/api/workers?refresh=true"),
            *(f"/task/{task['uuid']}" for task in tasks(url)),
            *(f"/api/task/info/{task['uuid']}" for task in tasks(url)),
            *(f"/worker/{name}" for name in workers),
        ]
        texts = {page: get(url + page) for page in pages}
        assert {page: text.status_code for page, text in texts.items() if text.status_code != 200} == {}
        shown = stack.client.status(job_id)
        said = [
            segment["text"]
            for item in shown["output"]
            for entry in item
            if entry["type"] == "segments"
            for segment in entry["data"]
        ]
        assert len(said) == 12
        canaries = [QUERY, "canary", SECRET, KEY + '"', LOGIN[1], *said]
        everything = {page: text.text for page, text in texts.items()}
        everything["log"] = (tmp_path / "log").read_text()
        for canary in canaries:
            assert [page for page, text in everything.items() if canary in text] == []


@pytest.mark.parametrize("login", [None, ("admin", "guess"), ("", "")])
def test_without_the_login_nothing_is_shown(
    stack: Stack, eventually: Eventually, tmp_path: Path, login: tuple[str, str] | None
) -> None:
    with flower(stack, tmp_path) as url:
        eventually(lambda: listens(url), what="Flower")
        for page in ("/", "/workers", "/tasks", "/broker", "/api/tasks", "/api/workers"):
            assert get(url + page, login).status_code == 401, page


def test_nothing_can_be_done(stack: Stack, eventually: Eventually, tmp_path: Path) -> None:
    with flower(stack, tmp_path) as url:
        eventually(lambda: listens(url), what="Flower")
        (name, *_) = eventually(lambda: get(f"{url}/api/workers?refresh=true").json(), what="the workers")
        for order in (
            f"worker/shutdown/{name}",
            f"worker/pool/shrink/{name}",
            "task/async-apply/longhand.ingest",
        ):
            answer = requests.post(
                f"{url}/api/{order}", auth=LOGIN, data=json.dumps({"args": ["x"]}), timeout=10
            )
            assert answer.status_code in (403, 405), order
        assert stack.machine.pids().keys() >= {"io", "transcribe", "deliver"}


def test_what_it_has_seen_outlives_it(
    stack: Stack, receiver: Receiver, eventually: Eventually, tmp_path: Path
) -> None:
    with flower(stack, tmp_path) as url:
        eventually(lambda: listens(url), what="Flower")
        job_id = run_a_job(stack, receiver, "kept")
        eventually(lambda: stack.ended(job_id))
        eventually(lambda: len(of_job(url, job_id)) >= 5, what="every task")
    with flower(stack, tmp_path) as url:
        eventually(lambda: listens(url), what="Flower")
        assert len(of_job(url, job_id)) >= 5


def test_one_for_others_needs_a_login(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "dispatcher.dashboard", "--host", "0.0.0.0"],
        env={"PATH": "", "LONGHAND_DATA_DIR": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 1
    assert "set LONGHAND_FLOWER_LOGIN to user:password" in ran.stderr
    assert "Traceback" not in ran.stderr
