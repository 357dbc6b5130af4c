"""When to try a delivery again. All durations are milliseconds."""

import re
from collections.abc import Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime

JITTER = 0.2


def retry_delay_ms(
    attempt: int, schedule_ms: Sequence[int], roll: float, retry_after_ms: int | None = None
) -> int | None:
    """How long to wait after `attempt` attempts (1: the first has failed); None: give up.

    `roll` in [0, 1) spreads the step by +-20 %. A receiver's Retry-After can lengthen the wait up to the
    following step of the schedule, never shorten it. Raises ValueError for an attempt below 1.
    """
    if attempt < 1:
        raise ValueError(f"attempt counts from 1, not {attempt}")
    if attempt > len(schedule_ms):
        return None
    step_ms = schedule_ms[attempt - 1]
    delay_ms = round(step_ms * (1 - JITTER + 2 * JITTER * roll))
    if retry_after_ms is None:
        return delay_ms
    limit_ms = schedule_ms[attempt] if attempt < len(schedule_ms) else step_ms
    return max(delay_ms, min(retry_after_ms, limit_ms))


def parse_retry_after(header: str, now_ms: int) -> int | None:
    """Read a Retry-After header (RFC 9110, 10.2.3): seconds or an HTTP date; a past date is 0.

    `now_ms` is Unix time. None: the header is neither.
    """
    text = header.strip()
    # Ten digits are three centuries; more would only test the limits of int().
    if re.fullmatch("[0-9]{1,10}", text):
        return int(text) * 1000
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    # The obsolete asctime form has no zone: it is UTC by definition.
    moment = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0, int(moment.timestamp()) * 1000 - now_ms)
