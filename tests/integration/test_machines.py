"""Every order of attempts, drains, the reaper, clients and time that is tried leaves Redis right."""

import random
import sys
from functools import partial

import pytest

from tasks.settings import Settings
from tests.machines.jobs import Jobs
from tests.machines.outbox import Deliveries
from tests.machines.run import explore

SEEDS = pytest.mark.parametrize("number", [7, None], ids=["fixed", "random"])


def chosen(number: int | None) -> int:
    """The seed, printed, so that a failure can be had again."""
    number = random.randrange(10**6) if number is None else number
    sys.stdout.write(f"python -m tests.machines.run ... --seed {number}")
    return number


@SEEDS
def test_jobs(settings: Settings, number: int | None) -> None:
    explore(partial(Jobs, settings), chosen(number), examples=40, steps=30)


def test_a_recording_that_may_not_be_started_any_more_ends_in_its_batch(settings: Settings) -> None:
    """The first of them to be looked at, while the batch still waits in the queue."""
    state = Jobs(settings)
    state.begin(plan=1, parts=2, done=0, planning=False, failed=False)
    state.redis.hset("lh:job:j0.0:leases", "ingest", settings.max_starts)
    state.teardown()


@SEEDS
def test_deliveries(settings: Settings, number: int | None) -> None:
    explore(partial(Deliveries, settings), chosen(number), examples=25, steps=30)
