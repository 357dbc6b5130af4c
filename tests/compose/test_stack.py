"""The stack as people deploy it: it transcribes, shows its work, is closed, and survives what is killed.

Run with -s, it prints the times that docs/operations.md gives.
"""

import json
import time
from typing import Any

import pytest

from demo.wer import word_error_rate
from dispatcher.client import segments_of
from tests.compose.conftest import ended, submit
from tests.compose.engine import ROOT, Project, docker
from tests.conftest import Eventually

pytestmark = pytest.mark.timeout(420)

Segments = list[dict[str, Any]]


def done(project: Project, job_id: str) -> float:
    """The transcribed share of a job in hand."""
    return next(project.client.progress(job_id), 1.0)


def statuses(project: Project, recording_id: str) -> list[str]:
    """The webhooks that arrived about a recording, in order."""
    lines = [line for line in project.logs("receiver").splitlines() if line.startswith("{")]
    return [body["status"] for body in map(json.loads, lines) if body["recording_id"] == recording_id]


def test_the_sample_comes_out_and_its_webhooks_arrive(
    project: Project, undisturbed: Segments, eventually: Eventually
) -> None:
    spoken = (ROOT / "demo" / "sample.txt").read_text(encoding="utf-8")
    heard = " ".join(segment["text"] for segment in undisturbed)
    # Cut every 20 s, there is less context than in the demo: 0.1-0.8 % there.
    assert word_error_rate(spoken, heard) < 0.04
    eventually(lambda: "completed" in statuses(project, "undisturbed"))
    said = statuses(project, "undisturbed")
    assert (said[0], said[-1]) == ("transcribing", "completed")


def test_flower_shows_the_chunks_to_who_is_logged_in(project: Project, undisturbed: Segments) -> None:
    assert project.flower("/api/tasks", None).status_code == 401
    assert project.flower("/tasks", ("admin", "admin")).status_code == 401
    shown = [task["args"] for task in project.flower("/api/tasks", project.login).json().values()]
    assert undisturbed
    assert len({args for args in shown if args.startswith("chunk ")}) >= 20
    assert "to http://receiver:8080" in shown


def test_nothing_secret_is_logged(project: Project, undisturbed: Segments) -> None:
    everything = project.logs("redis", "api", "io", "deliver", "transcribe-cpu", "flower")
    assert "job_succeeded" in everything
    secrets = [
        project.settings["REDIS_PASSWORD"],
        project.settings["WEBHOOK_SECRET"],
        project.key,
        project.login[1],
    ]
    sentences = [segment["text"] for segment in undisturbed if len(segment["text"]) > 20]
    assert len(sentences) > 20
    assert [word for word in (*secrets, *sentences) if word in everything] == []
    for container in project.containers():
        command = json.dumps([container["Path"], container["Args"], container["Config"]["Cmd"]])
        assert [secret for secret in secrets if secret in command] == []


@pytest.mark.parametrize("service", ["redis", "api", "io", "deliver", "transcribe-cpu", "flower"])
def test_a_container_can_do_no_more_than_it_has_to(project: Project, service: str) -> None:
    (container,) = project.containers(service)
    host = container["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert project.compose("exec", "-T", service, "id", "-u").strip() != "0"
    project.compose("exec", "-T", service, "touch", "/here", fails=True)
    status = project.compose("exec", "-T", service, "cat", "/proc/1/status")
    assert "CapEff:\t0000000000000000" in status


def test_redis_reaches_nothing_and_only_two_ports_are_open(project: Project) -> None:
    (redis,) = project.containers("redis")
    (network,) = redis["NetworkSettings"]["Networks"]
    assert json.loads(docker("network", "inspect", network).stdout)[0]["Internal"]
    published = {
        (binding["HostIp"], binding["HostPort"])
        for container in project.containers()
        for bindings in container["NetworkSettings"]["Ports"].values()
        for binding in bindings or []
    }
    assert published == {("127.0.0.1", str(port)) for port in (project.port, project.flower_port)}


def test_the_api_image_can_load_no_model(project: Project) -> None:
    for package in ("numpy", "av", "ctranslate2", "faster_whisper", "onnxruntime"):
        said = project.compose("exec", "-T", "api", "python", "-c", f"import {package}", fails=True)
        assert "ModuleNotFoundError" in said


@pytest.mark.parametrize("service", ["transcribe-cpu", "redis", "io", "api"])
def test_a_crash_loses_nothing(
    project: Project, undisturbed: Segments, eventually: Eventually, service: str
) -> None:
    job_id = submit(project, f"crash-{service}")
    eventually(lambda: done(project, job_id) > 0.2, 120, "a part of the job")
    crashed_s = time.monotonic()
    project.crash(service)
    shown = ended(project, job_id, eventually)
    print(f"\n{service} killed at a fifth: the job ended {time.monotonic() - crashed_s:.0f} s later")
    assert shown["status"] == "COMPLETED", shown
    assert segments_of(shown["output"]) == undisturbed
    (container,) = project.containers(service)
    assert container["RestartCount"] >= 1
    eventually(lambda: statuses(project, f"crash-{service}")[-1:] == ["completed"])
    eventually(lambda: project.containers(service)[0]["State"]["Health"]["Status"] == "healthy", 90)


def test_a_child_that_hangs_makes_its_container_unhealthy(project: Project, eventually: Eventually) -> None:
    def fault() -> str:
        """What the health check says; empty where it is content."""
        ran = project.run("exec", "-T", "transcribe-cpu", "python", "-m", "tasks.health")
        return ran.stderr if ran.returncode else ""

    def in_worker(command: str) -> str:
        return project.compose("exec", "-T", "transcribe-cpu", "sh", "-c", command)

    pid = in_worker("grep -l billiard.spawn /proc/[0-9]*/cmdline").split("/")[2]
    in_worker(f"kill -STOP {pid}")
    try:
        eventually(lambda: "transcribe: 0 of 1 can work" in fault(), 60, "the failing health check")
    finally:
        in_worker(f"kill -CONT {pid}")
    eventually(lambda: not fault(), 60, "recovery")


def test_a_worker_told_to_stop_finishes_in_time_and_the_job_goes_on(
    project: Project, undisturbed: Segments, eventually: Eventually
) -> None:
    job_id = submit(project, "stopped")
    eventually(lambda: done(project, job_id) > 0.2, 120, "a part of the job")
    began_s = time.monotonic()
    project.compose("stop", "transcribe-cpu")
    took_s = time.monotonic() - began_s
    print(f"\nstop of a busy worker: {took_s:.1f} s")
    (container,) = project.containers("transcribe-cpu")
    # 137 would be SIGKILL: it did not end in its time.
    assert container["State"]["ExitCode"] != 137
    assert took_s < 70
    assert project.client.status(job_id)["status"] == "IN_PROGRESS"
    began_s = time.monotonic()
    project.compose("start", "transcribe-cpu")
    shown = ended(project, job_id, eventually)
    print(f"started again: the job ended {time.monotonic() - began_s:.0f} s later")
    assert segments_of(shown["output"]) == undisturbed
    assert "attempt_failed" not in project.logs("transcribe-cpu")


def test_redis_told_to_stop_ends_at_once(project: Project, eventually: Eventually) -> None:
    project.compose("stop", "redis")
    (container,) = project.containers("redis")
    assert container["State"]["ExitCode"] == 0
    project.compose("start", "redis")
    eventually(lambda: project.containers("redis")[0]["State"]["Health"]["Status"] == "healthy", 60)


def test_one_flag_makes_two_workers_and_both_work(
    project: Project, undisturbed: Segments, eventually: Eventually
) -> None:
    project.up(workers=2)
    try:
        eventually(lambda: project.client.health()["workers"]["ready"] == 2, 60, "two workers")
        began_s = time.monotonic()
        job_id = submit(project, "two")
        shown = ended(project, job_id, eventually)
        print(f"\ntwo workers: {time.monotonic() - began_s:.0f} s")
        assert segments_of(shown["output"]) == undisturbed
        found = project.flower("/api/tasks", project.login).json().values()
        chunks = [task for task in found if task["name"] == "longhand.transcribe" and job_id in task["args"]]
        assert len({task["worker"] for task in chunks}) == 2
    finally:
        project.up(workers=1)
