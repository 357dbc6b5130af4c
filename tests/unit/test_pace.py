"""How slow a host may be, with a clock that is told the time."""

import pytest

from tasks.errors import SourceTooSlow
from tasks.pace import GRACE_S, Pace
from tasks.settings import Settings


@pytest.mark.parametrize(
    ("after_s", "done", "too_slow"),
    [
        (GRACE_S, 0, False),
        (GRACE_S + 1, 0, True),
        (100, 49_999, True),
        (100, 50_000, False),
        (999, 10**9, False),
        (1000, 10**9, True),
        (5000, 10**9, True),
    ],
)
def test_a_pace(after_s: float, done: int, *, too_slow: bool) -> None:
    now_s = 7.0
    pace = Pace(Settings(min_source_bytes_per_s=500, max_source_ms=1_000_000), lambda: now_s)
    now_s += after_s
    if too_slow:
        with pytest.raises(SourceTooSlow, match=r"a\.test sen"):
            pace.check("a.test", done)
    else:
        assert pace.check("a.test", done) == 1000 - after_s


def test_no_least_speed_is_no_limit() -> None:
    now_s = 0.0
    pace = Pace(Settings(min_source_bytes_per_s=0), lambda: now_s)
    now_s = 20_000
    assert pace.check("a.test", 0) == 1600
