"""Receivers that fail, in a real Redis: left alone for a while, tried again by one, at no cost to others."""

from dataclasses import dataclass

import pytest

from tasks import events
from tasks.outbox import Attempt, Delivery, Health
from tests.bench import HOOK, RECEIVER, Bench

OTHER = "https://other.test"
OPEN_MS = (30_000, 60_000)
DAY_MS = 24 * 3600 * 1000
DELIVERY_LIFE_MS = 7 * DAY_MS


@dataclass(slots=True)
class Line:
    """Many jobs that each have one delivery due to RECEIVER, whose circuit opens at the third failure."""

    bench: Bench
    jobs: int = 0

    def add(self, count: int, url: str = HOOK) -> None:
        for _ in range(count):
            job_id = f"job{self.jobs}"
            self.jobs += 1
            self.bench.planned(job_id, webhook_url=url)
            self.bench.store.announce(job_id, events.transcribing(job_id, "", 0))

    def claim(self, drain: str = "drain") -> Delivery | None:
        return self.bench.outbox.claim(RECEIVER, drain)

    def attempt(self, health: Health, drain: str = "drain") -> str:
        """Take what is due, which there must be, and end the attempt."""
        delivery = self.claim(drain)
        assert delivery is not None
        return self.settle(delivery, health)

    def settle(self, delivery: Delivery, health: Health) -> str:
        outcome = self.bench.outbox
        if health == "down":
            return outcome.settle(delivery, "retry", Attempt(0, 503, 5), health, 5_000)
        return outcome.settle(delivery, "delivered", Attempt(0, 200, 5), health)

    def open_for_ms(self) -> int:
        until = self.bench.redis.hget(f"lh:circuit:{RECEIVER}", "open_until_ms")
        return int(until) - self.bench.store.now_ms() if until else 0

    def let_pass(self) -> None:
        """Let the drain find the circuit open and leave, and that time be over."""
        assert self.claim() is None
        self.bench.redis.hset(f"lh:circuit:{RECEIVER}", "open_until_ms", 1)

    def rung_at_ms(self) -> int:
        """When the reaper is to ring, from now."""
        return int(self.bench.redis.zscore("lh:receivers", RECEIVER)) - self.bench.store.now_ms()

    def attempts(self) -> int:
        ids = [f"evt_job{number}_1_1" for number in range(self.jobs)]
        return sum(len(self.bench.outbox.attempts(id_)) for id_ in ids)


@pytest.fixture
def line(bench: Bench) -> Line:
    changes = {"webhook_circuit_failures": 3, "webhook_circuit_open_ms": OPEN_MS, "webhook_concurrency": 3}
    return Line(Bench(bench.redis, bench.settings.model_copy(update=changes)))


def test_after_enough_failures_nothing_is_tried_and_no_attempt_is_used_up(line: Line) -> None:
    line.add(5)
    for _ in range(3):
        assert line.open_for_ms() == 0
        line.attempt("down")
    assert 0 < line.open_for_ms() <= OPEN_MS[0]
    assert [line.claim(), line.claim("another")] == [None, None]
    assert line.attempts() == 3
    assert 0 < line.rung_at_ms() <= OPEN_MS[0], "the reaper rings when it may be tried again"


def test_one_drain_probes_and_a_success_closes_the_circuit(line: Line) -> None:
    line.add(6)
    for _ in range(3):
        line.attempt("down")
    line.let_pass()
    probe = line.claim("one")
    assert probe is not None
    assert line.claim("two") is None, "half-open: one at a time"
    assert line.settle(probe, "fast") == "delivered"
    assert line.claim("one") is not None
    assert line.claim("two") is not None


def test_a_probe_that_fails_opens_it_for_longer(line: Line) -> None:
    line.add(8)
    for _ in range(3):
        line.attempt("down")
    for expected_ms in (OPEN_MS[1], OPEN_MS[1]):
        line.let_pass()
        line.attempt("down")
        assert expected_ms - 5_000 < line.open_for_ms() <= expected_ms
        assert line.claim() is None


def test_failures_count_in_a_row(line: Line) -> None:
    line.add(9)
    for health in ("down", "down", "slow", "down", "down", "fast", "down", "down"):
        line.attempt(health)
    assert line.open_for_ms() == 0
    line.attempt("down")
    assert line.open_for_ms() > 0


def test_other_receivers_are_not_concerned(line: Line) -> None:
    line.add(3)
    line.add(1, f"{OTHER}/a")
    for _ in range(3):
        line.attempt("down")
    assert line.bench.outbox.claim(OTHER, "drain") is not None


def test_a_receiver_gets_many_drains_once_it_has_answered_and_one_when_it_fails(line: Line) -> None:
    line.add(9)
    first = line.claim("a")
    assert first is not None
    assert line.bench.outbox.health(RECEIVER) == "unknown"
    assert line.claim("b") is None, "nobody knows yet whether it works"
    line.settle(first, "fast")
    taken = [line.claim(drain) for drain in "abcd"]
    assert [delivery is not None for delivery in taken] == [True, True, True, False]
    assert line.bench.outbox.health(RECEIVER) == "fast"
    for delivery in taken[:2]:
        assert delivery is not None
        line.settle(delivery, "down")
    assert line.bench.outbox.health(RECEIVER) == "down"
    assert line.claim("a") is None, "two others are at it"
    assert line.claim("b") is None, "one other is"
    assert line.claim("c") is not None
    assert line.claim("d") is None


def test_a_drain_that_leaves_or_dies_makes_room(line: Line) -> None:
    line.add(4)
    first = line.claim("a")
    assert first is not None
    assert line.claim("b") is None
    line.bench.outbox.leave(RECEIVER, "a")
    assert line.claim("b") is not None
    line.bench.age(f"lh:drains:{RECEIVER}", "b")
    assert line.claim("c") is not None


def test_what_found_nobody_for_a_week_is_a_dead_letter_tried_or_not(line: Line) -> None:
    line.add(4)
    for _ in range(3):
        line.attempt("down")
    now_ms = line.bench.store.now_ms()
    for number, age_ms in ((2, DELIVERY_LIFE_MS + 1), (3, DELIVERY_LIFE_MS - DAY_MS)):
        row = f"lh:delivery:evt_job{number}_1_1"
        line.bench.redis.hset(row, "created_ms", now_ms - age_ms)
    line.bench.make_due("evt_job2_1_1")
    assert line.claim() is None
    states = [line.bench.outbox.state(f"evt_job{number}_1_1") for number in (2, 3)]
    assert states == ["dead", "waiting"]
    assert [entry.id for entry in line.bench.outbox.entries("us", "dead", "", 9)] == ["evt_job2_1_1"]


def test_an_attempt_that_fails_after_a_week_is_the_last(line: Line) -> None:
    line.add(1)
    old_ms = line.bench.store.now_ms() - DELIVERY_LIFE_MS + 1_000
    delivery = line.claim()
    assert delivery is not None
    line.bench.redis.hset(f"lh:delivery:{delivery.id}", "created_ms", old_ms)
    assert line.settle(delivery, "down") == "dead"


def test_a_receiver_put_off_is_rung_for_later(line: Line) -> None:
    line.add(1)
    line.bench.outbox.put_off(RECEIVER, 60_000)
    assert line.rung_at_ms() > 50_000
    line.bench.outbox.put_off(OTHER, 60_000)
    assert line.bench.redis.zscore("lh:receivers", OTHER) is None, "nothing is due to it"


# By hand


def test_a_dead_letter_is_sent_again_from_the_start_of_its_schedule(line: Line) -> None:
    line.add(1)
    first = line.claim()
    assert first is not None
    assert line.bench.settle(first, "dead") == "dead"
    outbox = line.bench.outbox
    assert [entry.state for entry in outbox.entries("us", "dead", "", 9)] == ["dead"]
    assert outbox.redeliver(first.id, "us") == RECEIVER
    assert outbox.entries("us", "dead", "", 9) == []
    again = line.claim()
    assert again is not None
    assert (again.id, again.body, again.attempts) == (first.id, first.body, 0)
    line.settle(again, "fast")
    assert [attempt.status for attempt in outbox.attempts(first.id)] == [503, 200], "both are kept"
    for key in (f"lh:delivery:{first.id}", f"lh:delivery:{first.id}:attempts"):
        assert 0 < line.bench.redis.pttl(key) <= line.bench.settings.retention_ms
    assert line.bench.redis.zscore("lh:receivers", RECEIVER) is None or line.claim() is None


def test_what_is_delivered_can_be_sent_once_more_and_nothing_else_of_the_job_moves(line: Line) -> None:
    line.add(1)
    line.attempt("fast")
    assert line.bench.outbox.redeliver("evt_job0_1_1", "us") == RECEIVER
    line.bench.transcribe_of("job0", 0)
    ids = []
    while delivery := line.claim():
        ids.append(delivery.id)
        line.settle(delivery, "fast")
    assert sorted(ids) == ["evt_job0_1_1", "evt_job0_1_2"]


def test_what_waits_is_sent_now_unless_it_is_not_its_turn(line: Line) -> None:
    line.add(1)
    line.bench.transcribe_of("job0", 0)
    line.attempt("down")
    assert line.claim() is None
    assert line.bench.outbox.redeliver("evt_job0_1_2", "us") == RECEIVER
    assert line.claim() is None, "the one before it comes first"
    line.bench.outbox.redeliver("evt_job0_1_1", "us")
    delivery = line.claim()
    assert delivery is not None
    assert (delivery.id, delivery.attempts) == ("evt_job0_1_1", 1)


def test_by_hand_an_open_circuit_is_probed(line: Line) -> None:
    line.add(4)
    for _ in range(3):
        line.attempt("down")
    assert line.claim() is None
    line.bench.outbox.redeliver("evt_job0_1_1", "us")
    assert line.claim() is not None


def test_a_test_is_sent_at_once_to_a_receiver_whose_circuit_is_open(line: Line) -> None:
    line.add(4)
    for _ in range(3):
        line.attempt("down")
    line.bench.outbox.test("test_1", "us", "longhand", url=HOOK, receiver=RECEIVER, body="{}")
    delivery = line.claim()
    assert delivery is not None
    assert delivery.id == "test_1"


def test_by_hand_it_is_this_one_that_probes(line: Line) -> None:
    line.add(6)
    for _ in range(3):
        line.attempt("down")
    line.bench.outbox.redeliver("evt_job5_1_1", "us")
    delivery = line.claim()
    assert delivery is not None
    assert delivery.id == "evt_job5_1_1"


def test_what_never_got_to_the_receiver_says_nothing_of_it(line: Line) -> None:
    line.add(9)
    line.attempt("fast")
    for _ in range(5):
        line.attempt("unknown")
    assert line.open_for_ms() == 0
    assert line.bench.outbox.health(RECEIVER) == "fast"


def test_an_attempt_that_was_lost_counts_and_is_told(line: Line) -> None:
    line.add(1)
    lost = line.claim("one")
    assert lost is not None
    line.bench.make_due(lost.id)
    line.bench.outbox.leave(RECEIVER, "one")
    again = line.claim("two")
    assert again is not None
    assert (again.id, again.attempts) == (lost.id, 1)
    assert [attempt.error for attempt in line.bench.outbox.attempts(lost.id)] == ["the attempt was lost"]


def test_a_row_that_is_not_there_blocks_nobody(line: Line) -> None:
    line.add(2)
    line.bench.redis.delete("lh:delivery:evt_job0_1_1")
    delivery = line.claim()
    assert delivery is not None
    assert delivery.id == "evt_job1_1_1"


def test_another_accounts_delivery_is_not_there(line: Line) -> None:
    line.add(1)
    outbox = line.bench.outbox
    assert outbox.entry("evt_job0_1_1", "them") is None
    assert outbox.redeliver("evt_job0_1_1", "them") == ""
    assert outbox.redeliver("evt_no_1_1", "us") == ""
    assert outbox.entries("them", "", "", 9) == []
    assert [entry.job_id for entry in outbox.entries("us", "", "job0", 9)] == ["job0"]
    assert outbox.entries("us", "", "job1", 9) == []


def test_lists_of_deliveries_end_with_what_they_list(line: Line) -> None:
    line.add(1)
    key = "lh:deliveries:us"
    assert line.bench.redis.pttl(key) > DELIVERY_LIFE_MS
    line.add(3)
    line.bench.redis.delete("lh:delivery:evt_job1_1_1", "lh:delivery:evt_job2_1_1")
    line.add(1)
    listed = {entry.decode() for entry in line.bench.redis.zrange(key, 0, -1)}
    assert listed == {"evt_job0_1_1", "evt_job3_1_1", "evt_job4_1_1"}, "their rows had gone"
    too_old_ms = line.bench.store.now_ms() - DELIVERY_LIFE_MS - line.bench.settings.retention_ms - 1
    line.bench.redis.zadd(key, {"evt_job3_1_1": too_old_ms})
    line.add(1)
    assert line.bench.redis.zcard(key) == 3, "or it was too old"
