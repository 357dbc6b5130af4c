"""A recording that came along with a job, where the API never learnt whether Redis has the job, or died."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import TimeoutError as RedisTimeoutError

from dispatcher.schemas import parse_policy
from dispatcher.submit import Submitter
from tasks import reaper
from tasks.app import create_app
from tasks.context import Context, build
from tasks.job import NewJob
from tasks.settings import Settings, child_environment
from tasks.store import ORPHAN_MS, Store
from tests.machines.warp import pass_time

RECORDING = b"RIFF a recording"
BLOB = base64.b64encode(RECORDING).decode()
ALONE = {"transcribe_args": {"blob": BLOB}}
BATCH = {"transcribe_args": {"blob": [BLOB, BLOB]}}

# An API that is killed when the recordings are stored, and the job is not written.
DYING = """
import json, os, signal, sys
from dispatcher.schemas import parse_policy
from dispatcher.submit import Submitter
from tasks.context import of_process

context = of_process()
context.store.create = lambda new: os.kill(os.getpid(), signal.SIGKILL)
submitter = Submitter(context.settings, context.store, context.bells, context.blobs, context.uploads)
submitter.submit("j-u1", json.loads(sys.argv[1]), "longhand", "us", parse_policy(None, context.settings))
"""


class Mute(Store):
    """State that loses its answer to a creation, or never gets the question."""

    heard = True

    def create(self, new: NewJob) -> bool:
        if self.heard:
            super().create(new)
        raise RedisTimeoutError


@pytest.fixture
def context(settings: Settings, redis: Redis) -> Context:
    assert redis.dbsize() == 0
    settings = settings.model_copy(update={"model": "multi"})
    return build(settings, create_app(settings))


def stored(context: Context) -> dict[str, bytes]:
    folder = Path(context.settings.data_path / "blobs")
    return {path.parent.name: path.read_bytes() for path in folder.glob("j-u1*/*")}


def an_hour_passes(context: Context, redis: Redis) -> None:
    reaper.tick(context)
    assert stored(context), "the job may still be written"
    pass_time(redis, ORPHAN_MS + 1_000)
    reaper.tick(context)


@pytest.mark.parametrize("heard", [True, False])
def test_a_recording_goes_only_where_there_is_no_job(context: Context, redis: Redis, heard: bool) -> None:
    store = Mute(redis, context.settings)
    store.heard = heard
    submitter = Submitter(context.settings, store, context.bells, context.blobs, context.uploads)
    limits = parse_policy(None, context.settings)
    with pytest.raises(RedisTimeoutError):
        submitter.submit("j-u1", ALONE, "longhand", "us", limits)
    an_hour_passes(context, redis)
    assert stored(context) == ({"j-u1": RECORDING} if heard else {})
    assert redis.zcard("lh:sweep") == 0


@pytest.mark.parametrize(
    ("given", "ids"), [(ALONE, {"j-u1"}), (BATCH, {"j-u1.0", "j-u1.1"})], ids=["alone", "batch"]
)
def test_a_recording_of_an_api_that_was_killed_is_swept(
    context: Context, redis: Redis, given: object, ids: set[str]
) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", DYING, json.dumps(given)],
        env=child_environment(context.settings),
        check=False,
        timeout=60,
    )
    assert ran.returncode == -9
    assert stored(context) == dict.fromkeys(ids, RECORDING)
    an_hour_passes(context, redis)
    assert stored(context) == {}
    assert redis.zcard("lh:sweep") == 0


def test_a_second_request_does_not_have_the_audio_of_the_first_one_swept(
    context: Context, redis: Redis
) -> None:
    """Both found that there is no such job, and one wrote it before the other stored its recording."""
    submitter = Submitter(context.settings, context.store, context.bells, context.blobs, context.uploads)
    assert submitter.submit("j-u1", ALONE, "longhand", "us", parse_policy(None, context.settings))
    context.store.sweep_unless_created(["j-u1"])
    an_hour_passes(context, redis)
    assert stored(context) == {"j-u1": RECORDING}
