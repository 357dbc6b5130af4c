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


@SEEDS
def test_deliveries(settings: Settings, number: int | None) -> None:
    explore(partial(Deliveries, settings), chosen(number), examples=25, steps=30)
