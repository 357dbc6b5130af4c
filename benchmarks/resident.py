"""The most memory that each process of a stack has had resident, for recordings of any length."""

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.encoding import repeat, write
from benchmarks.sources import Source, sending
from benchmarks.stacks import stack, until_succeeded
from benchmarks.talks import lecture
from dispatcher.local import Plan
from tasks.store import job_key
from tests.conftest import Stack
from tests.corpus.running import peak_mib, processes

UNIT_MINUTES = 10
# Units, and rounds: a process' peak depends on who gets which chunk.
LENGTHS = {"10 minutes": (1, 3), "1 hour": (6, 3), "10 hours": (60, 1)}
STAGES = ("ingest", "assemble")
POLL_S = 0.003


def measure() -> dict[str, object]:
    """Peaks in MiB by length, those of all rounds in order; each has its own stack: a peak is for life."""
    with tempfile.TemporaryDirectory() as folder:
        unit = Path(folder) / "unit.mp3"
        write(unit, lecture(UNIT_MINUTES), "libmp3lame", rate=44_100, bit_rate=64_000)
        found: dict[str, object] = {}
        for name, (times, rounds) in LENGTHS.items():
            path = unit.with_stem("long")
            repeat(unit, path, times)
            peaks = [_round(path) for _ in range(rounds)]
            found[name] = {what: sorted(each[what] for each in peaks) for what in peaks[0]}
    return found


def _round(path: Path) -> dict[str, float]:
    with sending(Source(path)) as source, stack(Plan(port=0, workers=2)) as started:
        return _peaks(started, source.url)


def _peaks(started: Stack, url: str) -> dict[str, float]:
    idle = _by_role(started)
    began_s = time.monotonic()
    job_id = started.client.submit({"url": url, "transcribe_args": {"language": "en"}})
    of_stage = _of_stages(started, job_id)
    until_succeeded(started.store, job_id)
    took_s = time.monotonic() - began_s
    # As a client does that wants the whole transcript.
    started.client.status(job_id)
    peaks = _by_role(started)
    return {
        **{role: peak for role, peak in peaks.items() if role != "io"},
        "io, idle": idle["io"],
        **{f"io, {stage}": peak for stage, peak in of_stage.items()},
        "took, s": round(took_s, 1),
    }


def _by_role(started: Stack) -> dict[str, int]:
    """The largest process of each role."""
    found: dict[str, int] = {}
    for pid, role in processes(started.machine).items():
        found[role] = max(found.get(role, 0), peak_mib(pid))
    return found


def _of_stages(started: Stack, job_id: str) -> dict[str, int]:
    """The peaks of whoever cut and of whoever assembled, when the lease was over; until the job's end."""
    owners: dict[str, int] = {}
    peaks: dict[str, int] = {}
    row, leases = job_key(job_id), job_key(job_id, "leases")
    while not started.redis.hexists(row, "finished_ms"):
        found: Any = started.redis.hmget(leases, [f"{stage}:owner" for stage in STAGES])
        for stage, owner in zip(STAGES, found, strict=True):
            if owner:
                owners[stage] = int(owner.decode().partition("/")[0].rpartition("-")[2])
                peaks[stage] = peak_mib(owners[stage])
        time.sleep(POLL_S)
    # Whoever assembled has no lease any more, and has not let go of the transcript yet.
    if "assemble" in owners:
        peaks["assemble"] = peak_mib(owners["assemble"])
    return peaks
