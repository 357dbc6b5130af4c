"""Private storage that the operator allows: by name, address or network, for all endpoints or for one."""

import socket
from pathlib import Path

import pytest
from redis import Redis

from dispatcher.schemas import parse_policy
from dispatcher.submit import Submitter
from tasks import pipeline
from tasks.app import create_app
from tasks.attempt import AttemptFailed
from tasks.context import build, of_process
from tasks.errors import AddressRefused
from tasks.guard import AddressInfo
from tasks.job import NewJob, Request, Status
from tasks.settings import Settings, child_environment
from tests.conftest import Receiver, write_recording
from tests.downloads import fetch
from tests.hosts import BODY, Host, port_of, quiet


def only_v4(host: str, port: int, _family: int, kind: int) -> list[AddressInfo]:
    return list(socket.getaddrinfo(host, port, socket.AF_INET, kind))


@pytest.mark.parametrize(
    "allowed", ["localhost", "127.0.0.1", "127.0.0.0/30", "::1,127.0.0.0/8", "e=localhost"]
)
def test_what_is_allowed_is_fetched_from_any_port(allowed: str, host: Host, target: Path) -> None:
    host.scripts = [lambda request: request.file(BODY)]
    settings = Settings.from_env({"LONGHAND_ALLOWED_ADDRESSES": allowed})
    url = f"http://localhost:{port_of(host.server)}/a"
    assert fetch(url, target, settings, quiet, endpoint="e", resolve=only_v4) == len(BODY)


@pytest.mark.parametrize("allowed", ["", "*.localhost", "127.0.0.2", "10.0.0.0/8", "e=127.0.0.1"])
def test_what_is_not_allowed_is_refused(allowed: str, host: Host, target: Path) -> None:
    settings = Settings.from_env({"LONGHAND_ALLOWED_ADDRESSES": allowed})
    url = f"http://localhost:{port_of(host.server)}/a"
    with pytest.raises(AddressRefused):
        fetch(url, target, settings, quiet, endpoint="another", resolve=only_v4)
    assert host.requests == []


@pytest.fixture
def of_one_endpoint(settings: Settings) -> Settings:
    """Private addresses are refused, but for jobs of endpoint `inside`."""
    changes = {"allow_private_addresses": False, "allowed_addresses": ("inside=127.0.0.1",), "model": "multi"}
    return settings.model_copy(update=changes)


@pytest.mark.parametrize("field", ["url", "webhook_url"])
@pytest.mark.parametrize(("endpoint", "code"), [("inside", ""), ("outside", "address_refused")])
def test_the_door_asks_for_the_jobs_endpoint(
    of_one_endpoint: Settings, redis: Redis, field: str, endpoint: str, code: str
) -> None:
    context = build(of_one_endpoint, create_app(of_one_endpoint))
    submitter = Submitter(of_one_endpoint, context.store, context.bells, context.blobs, context.uploads)
    job_input = {"url": "https://recordings.test/a", field: "http://127.0.0.1:9000/a"}
    limits = parse_policy(None, of_one_endpoint)
    assert submitter.submit("job-u1", job_input, endpoint, "tests", limits)
    job = context.store.job("job-u1")
    assert job
    assert job.code == code
    assert bool(redis.hget("lh:job:job-u1", "webhook_url")) == (field == "webhook_url" and not code)


def test_ingest_fetches_for_the_jobs_endpoint(
    of_one_endpoint: Settings, redis: Redis, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert redis.dbsize() == 0
    write_recording(receiver.folder / "talk.wav", 11)
    for name, value in child_environment(of_one_endpoint).items():
        monkeypatch.setenv(name, value)
    of_process.cache_clear()
    store = of_process().store
    for endpoint in ("inside", "outside"):
        store.create(
            NewJob(endpoint, endpoint, "us", Request(f"{receiver.url}/talk.wav", "multi"), 60_000, 0)
        )
    pipeline.ingest("inside")
    assert store.chunks("inside")
    with pytest.raises(AttemptFailed, match="address_refused"):
        pipeline.ingest("outside")
    job = store.job("outside")
    assert job
    assert job.status is not Status.SUCCEEDED
    of_process.cache_clear()
