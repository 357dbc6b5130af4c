from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.backoff import parse_retry_after, retry_delay_ms

patient = settings(deadline=None)

SCHEDULE_MS = (5_000, 30_000, 120_000)
MIDDLE = 0.5

schedules = st.lists(st.integers(0, 10**8), min_size=1, max_size=9)
rolls = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("attempt", "delay_ms"), [(1, 5_000), (2, 30_000), (3, 120_000), (4, None), (9, None)]
)
def test_each_attempt_takes_the_next_step_until_none_is_left(attempt: int, delay_ms: int | None) -> None:
    assert retry_delay_ms(attempt, SCHEDULE_MS, MIDDLE) == delay_ms


def test_jitter_is_a_fifth_either_way() -> None:
    assert retry_delay_ms(2, SCHEDULE_MS, 0.0) == 24_000
    assert retry_delay_ms(2, SCHEDULE_MS, 0.999999) == 36_000


@pytest.mark.parametrize(
    ("attempt", "retry_after_ms", "delay_ms"),
    [
        (1, 20_000, 20_000),
        (1, 1_000, 5_000),
        (1, -7, 5_000),
        (1, 10**9, 30_000),
        (2, 10**9, 120_000),
        (3, 10**9, 120_000),
        (4, 20_000, None),
    ],
)
def test_retry_after_counts_within_the_next_step(
    attempt: int, retry_after_ms: int, delay_ms: int | None
) -> None:
    assert retry_delay_ms(attempt, SCHEDULE_MS, MIDDLE, retry_after_ms) == delay_ms


def test_no_schedule_means_no_retries() -> None:
    assert retry_delay_ms(1, (), MIDDLE, 1_000) is None


def test_attempts_count_from_one() -> None:
    with pytest.raises(ValueError, match="from 1"):
        retry_delay_ms(0, SCHEDULE_MS, MIDDLE)


@patient
@given(schedules, st.integers(1, 12), rolls, st.none() | st.integers(-(10**9), 10**12))
def test_a_delay_is_within_its_step_and_the_next(
    schedule_ms: list[int], attempt: int, roll: float, retry_after_ms: int | None
) -> None:
    delay_ms = retry_delay_ms(attempt, schedule_ms, roll, retry_after_ms)
    plain_ms = retry_delay_ms(attempt, schedule_ms, roll)
    assert (delay_ms is None) == (plain_ms is None) == (attempt > len(schedule_ms))
    if delay_ms is None or plain_ms is None:
        return
    step_ms = schedule_ms[attempt - 1]
    assert abs(plain_ms - step_ms) <= step_ms * 0.2 + 1
    following_ms = schedule_ms[attempt] if attempt < len(schedule_ms) else step_ms
    assert plain_ms <= delay_ms <= max(plain_ms, following_ms)
    if retry_after_ms is not None and plain_ms <= retry_after_ms <= following_ms:
        assert delay_ms == retry_after_ms


NOW_MS = 784_111_777_250  # Sun, 06 Nov 1994 08:49:37.250 GMT


@pytest.mark.parametrize(
    ("header", "delay_ms"),
    [
        ("120", 120_000),
        (" 0 ", 0),
        ("Sun, 06 Nov 1994 08:50:37 GMT", 59_750),
        ("Sunday, 06-Nov-94 08:50:37 GMT", 59_750),
        ("Sun Nov  6 08:50:37 1994", 59_750),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("٣", None),
        ("9" * 5_000, None),
        ("Sun, 06 Nov 1994 08:61:37 GMT", None),
        ("Nov +0000 9999999999 8.49.37", None),
        ("9999999999 Nov +99999999999999 08:49:37 1994 , 31", None),
    ],
)
def test_retry_after_header(header: str, delay_ms: int | None) -> None:
    assert parse_retry_after(header, NOW_MS) == delay_ms


@given(st.integers(0, 10**9))
def test_seconds_read_back(seconds: int) -> None:
    assert parse_retry_after(str(seconds), NOW_MS) == seconds * 1000


@given(st.integers(-(10**8), 10**9))
def test_dates_read_back(ahead_s: int) -> None:
    date = datetime.fromtimestamp(NOW_MS // 1000, UTC) + timedelta(seconds=ahead_s)
    delay_ms = parse_retry_after(format_datetime(date, usegmt=True), NOW_MS)
    assert delay_ms == max(0, ahead_s * 1000 - NOW_MS % 1000)


date_parts = st.sampled_from(
    ["Sun,", "06", "Nov", "1994", "08:49:37", "GMT", "-9999", ":", "-", "99999999999", "+"]
)


@patient
@given(st.text(max_size=40) | st.lists(date_parts, max_size=8).map(" ".join))
def test_no_header_breaks_the_parser(header: str) -> None:
    delay_ms = parse_retry_after(header, NOW_MS)
    assert delay_ms is None or delay_ms >= 0
