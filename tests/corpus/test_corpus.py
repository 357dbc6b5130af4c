"""Bad recordings, bad servers and bad requests, all through one stack at the same time.

Each ends as its case says, and what they went through is the same afterwards: its processes are those it had,
their memory is bounded, nothing is left over, and a good recording is transcribed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dispatcher.client import segments_of
from dispatcher.local import Machine
from tests.conftest import Eventually
from tests.corpus import bodies, files, recordings, servers
from tests.corpus.case import COMPLETED, TRUNCATED, Case
from tests.corpus.running import KEY, RETENTION_S, SECRET, Outcome, machine_at, peak_mib, processes, run_all

CASES = [*servers.cases(), *files.cases(), *recordings.cases(), *bodies.cases()]
BY_NAME = {case.name: case for case in CASES}
GOOD = BY_NAME["an input of nothing to complain about"]
# An io process starts with 150, and may allocate INGEST_MIB more.
PEAK_MIB = 800
INSIDE = ("Traceback", "/tmp", "site-packages", ".py", "redis://", KEY, SECRET)  # noqa: S108

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True, slots=True)
class Ran:
    """The corpus, once it has run."""

    machine: Machine
    folder: Path
    outcomes: dict[str, Outcome]
    before: dict[int, str]


@pytest.fixture(scope="module")
def ran(
    request: pytest.FixtureRequest, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ran]:
    """A stack that has been through the cases that were chosen."""
    chosen = {
        item.callspec.params["name"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec") and "name" in item.callspec.params
    }
    folder = tmp_path_factory.mktemp("corpus")
    machine = machine_at(folder, redis_url.removesuffix("0") + "4")
    try:
        machine.start(within_s=120)
        before = processes(machine)
        outcomes = run_all([case for case in CASES if case.name in chosen], machine.port)
        yield Ran(machine, folder, outcomes, before)
    finally:
        machine.stop()


@pytest.mark.parametrize("name", BY_NAME)
def test_it_ends_as_it_should(ran: Ran, name: str) -> None:
    case, came = BY_NAME[name], ran.outcomes[name]
    assert fits(case, came), (came.outcome, came.warnings, came.told, came.seconds)
    told = repr({field: came.told.get(field) for field in ("error", "detail", "warnings")})
    assert not [inside for inside in INSIDE if inside in told], told


def fits(case: Case, came: Outcome) -> bool:
    """Whether one of a case's outcomes is what came of it."""
    if came.outcome != COMPLETED:
        return came.outcome in case.outcomes
    kinds = {warning.partition(":")[0] for warning in came.warnings}
    return COMPLETED in case.outcomes or (TRUNCATED in case.outcomes and "truncated" in kinds)


def test_the_corpus_is_large() -> None:
    assert len(BY_NAME) == len(CASES) > 400


def test_no_process_died(ran: Ran) -> None:
    assert processes(ran.machine) == ran.before


def test_nobody_took_much_memory(ran: Ran) -> None:
    peaks = {f"{name} {pid}": peak_mib(pid) for pid, name in ran.before.items()}
    assert max(peaks.values()) < PEAK_MIB, peaks


def test_nothing_was_unforeseen(ran: Ran) -> None:
    logs = {path.name: path.read_text(errors="replace") for path in (ran.folder / "logs").glob("*.log")}
    assert {"api.log", "io.log", "transcribe.log", "deliver.log"} <= set(logs)
    assert not [name for name, log in logs.items() if "Traceback" in log or "internal_error" in log]


def test_nothing_is_left_over(ran: Ran, eventually: Eventually) -> None:
    assert not list((ran.folder / "tmp").iterdir())
    # Of failed jobs until their retention is over, of others until now.
    eventually(lambda: not list((ran.folder / "blobs").iterdir()), 2 * RETENTION_S, "the end of all blobs")


def test_a_good_recording_is_transcribed_as_ever(ran: Ran) -> None:
    (came,) = run_all([GOOD], ran.machine.port).values()
    assert came.outcome == COMPLETED
    assert not came.warnings
    assert len(segments_of(came.told["output"])) == 4
