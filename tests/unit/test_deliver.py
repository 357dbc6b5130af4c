"""What becomes of a delivery after an attempt, and what the attempt says of the receiver."""

import pytest

from tasks.deliver import decide, health_of
from tasks.outbox import Attempt, Delivery, Health, Kind, Outcome
from tasks.settings import Settings

SETTINGS = Settings(webhook_schedule_ms=(1_000, 5_000, 20_000))
MIDDLE = 0.5


def delivery(kind: Kind, attempts: int = 0) -> Delivery:
    return Delivery("evt_j_1_1", "1", 0, "https://a.test/", b"{}", attempts, kind)


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_an_event_is_delivered_by_any_success(status: int) -> None:
    assert decide(delivery("terminal"), status, SETTINGS, MIDDLE, None) == ("delivered", 0)


@pytest.mark.parametrize("status", [0, 199, 301, 307, 400, 404, 429, 500, 503])
def test_anything_else_is_tried_again_by_the_schedule(status: int) -> None:
    waits = [decide(delivery("progress", made), status, SETTINGS, MIDDLE, None) for made in range(4)]
    assert waits == [("retry", 1_000), ("retry", 5_000), ("retry", 20_000), ("dead", 0)]


def test_gone_ends_events_and_tests_only() -> None:
    kinds: tuple[Kind, ...] = ("transcribing", "terminal", "test", "callback")
    outcomes = [decide(delivery(kind), 410, SETTINGS, MIDDLE, None)[0] for kind in kinds]
    assert outcomes == ["gone", "gone", "gone", "retry"]


def test_a_receiver_may_ask_for_more_time_up_to_the_next_step() -> None:
    for asked_ms, wait_ms in ((500, 1_000), (3_000, 3_000), (60_000, 5_000)):
        assert decide(delivery("terminal"), 503, SETTINGS, MIDDLE, asked_ms) == ("retry", wait_ms)


@pytest.mark.parametrize(
    ("made", "status", "outcome"),
    [
        (0, 200, ("delivered", 0)),
        (0, 201, ("retry", 10_000)),
        (1, 0, ("retry", 10_000)),
        (2, 500, ("dead", 0)),
        (2, 200, ("delivered", 0)),
    ],
)
def test_the_callback_is_as_the_platforms(made: int, status: int, outcome: tuple[Outcome, int]) -> None:
    for roll, asked_ms in ((0.0, None), (0.99, 60_000)):
        assert decide(delivery("callback", made), status, SETTINGS, roll, asked_ms) == outcome


def test_a_test_is_made_once() -> None:
    assert decide(delivery("test"), 500, SETTINGS, MIDDLE, None) == ("dead", 0)


@pytest.mark.parametrize(
    ("status", "duration_ms", "health"),
    [
        (200, 20, "fast"),
        (200, 2_000, "fast"),
        (200, 2_001, "slow"),
        (404, 20, "fast"),
        (410, 3_000, "slow"),
        (429, 20, "down"),
        (500, 20, "down"),
        (503, 20, "down"),
        (0, 20, "down"),
    ],
)
def test_health(status: int, duration_ms: int, health: Health) -> None:
    assert health_of(Attempt(0, status, duration_ms)) == health


def test_what_failed_on_our_side_is_no_health() -> None:
    assert health_of(Attempt(0, 0, 20), reached=False) == "unknown"
