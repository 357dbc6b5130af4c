"""A recording that came along with a job, where the API never learnt whether Redis has the job."""

import base64
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import TimeoutError as RedisTimeoutError

from dispatcher import submit
from dispatcher.schemas import parse_policy
from dispatcher.submit import Submitter
from tasks.app import create_app
from tasks.context import build
from tasks.job import Job, NewJob
from tasks.settings import Settings
from tasks.store import Store
from tests.conftest import Eventually


class Mute(Store):
    """State that loses its answer to a creation, or never gets the question."""

    heard = True
    looks = 0

    def job(self, job_id: str) -> Job | None:
        self.looks += 1
        return super().job(job_id)

    def create(self, new: NewJob) -> bool:
        if self.heard:
            super().create(new)
        raise RedisTimeoutError


@pytest.mark.parametrize("heard", [True, False])
def test_a_recording_goes_only_where_redis_says_that_there_is_no_job(
    settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch, eventually: Eventually, heard: bool
) -> None:
    settings = settings.model_copy(update={"model": "multi"})
    monkeypatch.setattr(submit, "LOOK_S", 0.05)
    context = build(settings, create_app(settings))
    store = Mute(redis, settings)
    store.heard = heard
    submitter = Submitter(settings, store, context.bells, context.blobs, context.uploads)
    blob = base64.b64encode(b"RIFF a recording").decode()
    limits = parse_policy(None, settings)
    with pytest.raises(RedisTimeoutError):
        submitter.submit("j-u1", {"transcribe_args": {"blob": blob}}, "longhand", "us", limits)
    before = store.looks
    source = Path(settings.data_path / "blobs" / "j-u1" / "source")
    eventually(lambda: store.looks > before, what="a look")
    if heard:
        assert source.read_bytes() == b"RIFF a recording"
        assert context.store.job("j-u1")
    else:
        eventually(lambda: not source.exists(), what="the end of the recording")
