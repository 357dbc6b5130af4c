"""A day of silence in 314 KB, through a stack of real processes: minutes of work, so not in `make test`."""

from pathlib import Path

import pytest

from tests.corpus.case import COMPLETED, file_case
from tests.corpus.handmade import flac
from tests.corpus.running import machine_at, peak_mib, processes, run_all

DAY_BLOCKS = 21_094


@pytest.mark.timeout(3_600)
def test_a_day_of_silence_is_transcribed_in_bounded_memory(redis_url: str, tmp_path: Path) -> None:
    machine = machine_at(tmp_path, redis_url.removesuffix("0") + "6", max_recording_ms=90_000_000)
    case = file_case("a day", lambda: flac(DAY_BLOCKS, rate=16_000), COMPLETED)
    try:
        machine.start(within_s=120)
        before = processes(machine)
        (came,) = run_all([case], machine.port, limit_s=3_000).values()
        assert (came.outcome, came.warnings) == (COMPLETED, ()), came
        assert 86_399 < came.told["duration"] < 86_401
        assert processes(machine) == before
        peaks = {f"{name} {pid}": peak_mib(pid) for pid, name in before.items()}
        print(f"a day of silence took {came.seconds:.0f} s; peaks in MiB: {peaks}")  # noqa: T201
        assert max(peaks.values()) < 600, peaks
    finally:
        machine.stop()
