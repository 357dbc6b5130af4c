"""Deliveries in a real Redis: written with the change they report, in order, tried until settled."""

from dataclasses import replace

import pytest

from tasks import events
from tasks.errors import LeaseLost
from tasks.leases import TRANSCRIBE
from tasks.outbox import Attempt, Delivery, Outbox, Outcome
from tasks.settings import Settings
from tasks.store import Store
from tests.bench import HOOK, RECEIVER, Bench, report, result


@pytest.fixture
def bench(bench: Bench) -> Bench:
    """A running job of four chunks of a second, with a webhook."""
    bench.planned(chunks=4, webhook_url=HOOK, recording_id="r")
    return bench


DELIVERY_LIFE_MS = 7 * 86_400_000

# What is written


def test_events_are_written_in_their_order(bench: Bench) -> None:
    assert bench.announce() == RECEIVER
    assert bench.drain() == ["transcribing"]
    assert bench.transcribe(0) == RECEIVER
    assert bench.drain() == ["progress 1 of None"]
    bench.seal()
    bench.transcribe(1)
    assert bench.drain() == ["progress 2 of 4.0"]
    assert bench.finish() == (True, (RECEIVER,))
    assert bench.drain() == ["transcription_failed"]
    assert bench.outbox.pending("j") == 0


def test_a_delivery_carries_the_body_and_an_id_of_its_own(bench: Bench) -> None:
    body = events.transcribing("j", "הקלטה", 1_700_000_000_000)
    bench.store.announce("j", body)
    first = bench.take()
    assert replace(first, taken_ms=0) == Delivery(
        "evt_j_1_1", "1", 0, HOOK, body.encode(), 0, "transcribing", "j", "us", "longhand"
    )
    bench.settle(first, "delivered")
    bench.finish()
    assert bench.take().id == "evt_j_1_2"


def test_transcription_is_announced_once(bench: Bench) -> None:
    assert [bench.announce(), bench.announce()] == [RECEIVER, ""]
    assert bench.job().announced_ms is not None
    assert bench.outbox.pending("j") == 1


def test_nothing_is_written_after_the_end(bench: Bench) -> None:
    lease = bench.claim(TRANSCRIBE, "0")
    bench.announce()
    bench.finish()
    assert bench.announce() == ""
    assert bench.finish() == (False, ())
    with pytest.raises(LeaseLost):
        bench.leases.commit(lease, result(0), "he", 1000, report)
    assert [what for what, _ in bench.written()] == ["transcribing", "transcription_failed"]


def test_a_job_that_has_ended_is_not_announced(bench: Bench) -> None:
    bench.finish()
    assert bench.announce() == ""
    assert [what for what, _ in bench.written()] == ["transcription_failed"]


def test_a_job_without_a_webhook_writes_nothing(bench: Bench) -> None:
    bench.redis.flushdb()
    bench.planned(chunks=4)
    assert [bench.announce(), bench.transcribe(0), bench.finish()] == ["", "", (True, ())]
    assert bench.redis.keys("lh:delivery:*") + bench.redis.keys("lh:receiver*") == []


# What is due


def test_only_the_first_of_a_jobs_deliveries_is_due(bench: Bench) -> None:
    bench.announce()
    bench.finish()
    first = bench.take()
    assert bench.outbox.claim(RECEIVER, "drain") is None
    bench.settle(first, "retry", 5_000)
    assert bench.outbox.claim(RECEIVER, "drain") is None, "it waits, and so does all behind it"
    bench.make_due(first.id)
    assert bench.drain() == ["transcribing", "transcription_failed"]
    assert bench.redis.zscore("lh:receivers", RECEIVER) is None


def test_jobs_do_not_wait_for_each_other(bench: Bench) -> None:
    bench.announce()
    bench.settle(bench.take(), "retry", 60_000)
    bench.planned("k", webhook_url=HOOK)
    bench.planned("m", webhook_url="https://other.test/a")
    bench.announce("k")
    bench.announce("m")
    assert bench.take().id == "evt_k_1_1"
    assert bench.outbox.claim(RECEIVER, "drain") is None
    other = bench.outbox.claim("https://other.test", "drain")
    assert other is not None
    assert other.id == "evt_m_1_1"


def test_a_retry_waits_for_its_delay_and_keeps_its_id(bench: Bench) -> None:
    bench.announce()
    first = bench.take()
    assert bench.settle(first, "retry", 5_000) == "waiting"
    assert 0 < bench.due_in_ms(first.id) <= 5_000
    assert bench.outbox.claim(RECEIVER, "drain") is None
    assert bench.redis.zscore("lh:receivers", RECEIVER) == bench.redis.zscore(
        f"lh:receiver:{RECEIVER}", first.id
    )
    bench.make_due(first.id)
    second = bench.take()
    assert (second.id, second.body, second.attempts) == (first.id, first.body, 1)
    assert int(second.fence) > int(first.fence)


def test_what_was_taken_and_never_settled_becomes_due_again(bench: Bench) -> None:
    bench.announce()
    lost = bench.take()
    wait_ms = bench.due_in_ms(lost.id)
    assert 2 * bench.settings.webhook_timeout_ms < wait_ms <= 3 * bench.settings.webhook_timeout_ms
    bench.outbox.claim(RECEIVER, "drain")
    assert bench.redis.zscore("lh:receivers", RECEIVER) is not None, "the reaper will ring again"
    bench.make_due(lost.id)
    again = bench.take()
    assert (again.id, again.attempts) == (lost.id, 1), "it may have been sent"
    assert bench.settle(lost, "delivered") == "lost", "the slow one comes too late"
    assert [attempt.error for attempt in bench.outbox.attempts(lost.id)] == ["the attempt was lost"]
    assert bench.settle(again, "delivered") == "delivered"
    assert bench.settle(again, "delivered") == "lost", "an attempt is settled once"


def test_every_attempt_is_kept(bench: Bench) -> None:
    bench.announce()
    tries = [Attempt(1_000, 503, 12), Attempt(7_000, 0, 10_000, "timed out"), Attempt(40_000, 200, 3)]
    outcomes: list[Outcome] = ["retry", "retry", "delivered"]
    for attempt, outcome in zip(tries, outcomes, strict=True):
        delivery = bench.take()
        bench.outbox.settle(delivery, outcome, attempt, "fast")
    assert bench.outbox.attempts("evt_j_1_1") == tries
    assert bench.outbox.state("evt_j_1_1") == "delivered"
    for key in ("lh:delivery:evt_j_1_1", "lh:delivery:evt_j_1_1:attempts"):
        assert 0 < bench.redis.pttl(key) <= bench.settings.retention_ms
    assert (bench.outbox.attempts("no"), bench.outbox.pending("no")) == ([], 0)


@pytest.mark.parametrize("own_ms", [60_000, 10 * 86_400_000])
def test_a_delivery_is_kept_as_long_as_its_job_and_the_lists_as_the_longest(
    bench: Bench, own_ms: int
) -> None:
    longest = Settings(endpoints=("nightly:retention=864000",), redis_url=bench.settings.redis_url)
    store, outbox = Store(bench.redis, longest), Outbox(bench.redis, longest)
    store.finish("j", bench.canceled())
    bench.settle(bench.take(), "delivered")
    bench.planned("k", webhook_url=HOOK, retention_ms=own_ms)
    store.finish("k", bench.canceled("k"))
    told = outbox.claim(RECEIVER, "drain")
    assert told
    assert outbox.settle(told, "dead", Attempt(1_000, 503, 12), "fast") == "dead"
    for key in ("lh:job:k", f"lh:delivery:{told.id}", f"lh:delivery:{told.id}:attempts"):
        assert 0.9 * own_ms < bench.redis.pttl(key) <= own_ms, key
    assert bench.redis.pttl("lh:delivery:evt_j_1_1") > 0.9 * bench.settings.retention_ms
    assert bench.redis.pttl("lh:dead:us") > 0.9 * longest.longest_retention_ms
    assert bench.redis.pttl("lh:deliveries:us") > DELIVERY_LIFE_MS + 0.9 * longest.longest_retention_ms


def test_a_dead_letter_lets_the_next_one_go(bench: Bench) -> None:
    bench.announce()
    bench.finish()
    assert bench.settle(bench.take(), "dead") == "dead"
    assert bench.drain() == ["transcription_failed"]
    assert bench.written()[0] == ("transcribing", "dead")


# What is given up


def test_the_first_event_keeps_two_retries_once_the_end_waits(bench: Bench) -> None:
    bench.announce()
    bench.finish()
    assert [bench.refuse() for _ in range(3)] == ["waiting", "waiting", "superseded"]
    assert bench.drain() == ["transcription_failed"]
    assert len(bench.outbox.attempts("evt_j_1_1")) == 3


def test_the_first_event_is_tried_for_as_long_as_the_job_runs(bench: Bench) -> None:
    bench.announce()
    bench.transcribe(0)
    assert [bench.refuse() for _ in range(5)] == ["waiting"] * 5
    bench.finish()
    assert bench.drain() == ["transcription_failed"]
    assert [state for _, state in bench.written()] == ["superseded", "superseded", "delivered"]


def test_the_last_event_is_overtaken_by_nothing(bench: Bench) -> None:
    bench.finish()
    assert [bench.refuse() for _ in range(6)] == ["waiting"] * 6
    assert bench.drain() == ["transcription_failed"]


def test_a_receiver_that_is_gone_hears_nothing_more_of_the_job(bench: Bench) -> None:
    bench.announce()
    first = bench.take()
    bench.transcribe(0)
    bench.planned("k", webhook_url=HOOK)
    bench.announce("k")
    assert bench.settle(first, "gone") == "gone"
    assert [state for _, state in bench.written()] == ["gone", "gone"]
    assert bench.outbox.pending("j") == 0
    assert bench.transcribe(1) == ""
    assert bench.finish() == (True, ())
    assert len(bench.written()) == 2
    assert bench.take().id == "evt_k_1_1", "another job is another matter"


def test_one_drain_at_a_time_serves_a_receiver(bench: Bench) -> None:
    bench.planned("k", webhook_url=HOOK)
    for job_id in "jk":
        bench.store.announce(job_id, "{}")
    first = bench.outbox.claim(RECEIVER, "one")
    assert first is not None
    assert bench.outbox.claim(RECEIVER, "two") is None, "a slow receiver must not take every thread"
    bench.outbox.settle(first, "delivered", Attempt(0, 200, 1), "fast")
    assert bench.outbox.claim(RECEIVER, "one") is not None
    bench.redis.delete(f"lh:drains:{RECEIVER}")
    assert bench.outbox.claim(RECEIVER, "two") is None, "the other delivery is being sent"
    bench.age(f"lh:receiver:{RECEIVER}", bench.redis.zrange(f"lh:receiver:{RECEIVER}", 0, 0)[0])
    assert bench.outbox.claim(RECEIVER, "two") is not None, "a drain that died is taken over"
