"""The lines that work waits in, in a real Redis: ingests, nothing lost, older versions, what a turn costs."""

from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from redis import Redis

from tasks.leases import INGEST, TRANSCRIBE
from tasks.settings import Settings
from tests.bench import NEW, Bench
from tests.conftest import OTHERS_KEY, Eventually, Receiver, Stack
from tests.fair import Cluster

# Ingests


def ingested(bench: Bench, count: int) -> list[str]:
    """The accounts of the next ingests, where one is at work at a time."""
    accounts = []
    for _ in range(count):
        (job_id,) = bench.leases.hand_out_ingests()
        lease = bench.claim(INGEST, INGEST, job_id)
        bench.leases.seal(lease, 0, 0, "[]")
        accounts.append(job_id.partition("-")[0])
    return accounts


def queue(bench: Bench, account: str, count: int, **changes: Any) -> None:
    for number in range(count):
        bench.store.create(replace(NEW, id=f"{account}-{number}", account=account, **changes))


def test_fifty_ingests_of_one_account_do_not_hold_up_that_of_another(bench: Bench) -> None:
    queue(bench, "us", 50)
    assert ingested(bench, 5) == ["us"] * 5
    queue(bench, "them", 3)
    assert Counter(ingested(bench, 6)) == {"us": 3, "them": 3}
    assert ingested(bench, 42) == ["us"] * 42, "none is lost"
    assert bench.leases.hand_out_ingests() == []


def test_ingests_are_shared_by_weight(redis: Redis, settings: Settings) -> None:
    changes = {"durable_accept": False, "account_weights": ("us=3",)}
    bench = Bench(redis, settings.model_copy(update=changes))
    queue(bench, "us", 40)
    queue(bench, "them", 40)
    assert 29 <= Counter(ingested(bench, 40))["us"] <= 31


def test_an_ingest_of_low_priority_waits_for_four_others_and_not_for_ever(bench: Bench) -> None:
    queue(bench, "us", 50)
    queue(bench, "them", 50, low_priority=True)
    assert 7 <= Counter(ingested(bench, 40))["them"] <= 9


def test_a_batch_does_not_hold_up_another_account(bench: Bench) -> None:
    assert NEW.request is not None
    bench.store.create(replace(NEW, id="us-0", account="us", parts=(NEW.request,) * 50))
    assert ingested(bench, 3) == ["us"] * 3
    queue(bench, "them", 1)
    assert "them" in ingested(bench, 2)


# Nothing lost

steps = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(0, 9), st.integers(0, 6)),
        st.tuples(st.just("hand out"), st.integers(0, 4), st.just(0)),
        st.tuples(st.just("commit"), st.integers(0, 50), st.just(0)),
    ),
    max_size=40,
)


@given(steps=steps)
@effort(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_chunk_is_handed_out_once_and_never_too_many_at_a_time(
    bench: Bench, steps: list[tuple[str, int, int]]
) -> None:
    bench.redis.flushdb()
    slots = 0
    planned: set[tuple[str, int]] = set()
    out: list[tuple[str, int]] = []
    seen: list[tuple[str, int]] = []

    def hand_out() -> None:
        rung = bench.hand_out()
        out.extend(rung)
        seen.extend(rung)
        assert len(out) <= max(2 * slots, 2)
        # Nothing is left lying while there is room.
        assert len(out) == max(2 * slots, 2) or len(seen) == len(planned)

    def commit(number: int) -> None:
        job_id, index = out.pop(number % len(out))
        bench.commit(bench.claim(TRANSCRIBE, str(index), job_id))

    for number, (step, one, other) in enumerate(steps):
        if step == "submit":
            job_id = f"j{number}"
            bench.planned(job_id, chunks=other, account=f"a{one // 2}", low_priority=one % 2 == 1)
            planned |= {(job_id, index) for index in range(other)}
        elif step == "commit" and out:
            commit(one)
        elif step == "hand out":
            slots = max(slots, one)
            bench.open_slots(TRANSCRIBE, slots)
            hand_out()
    hand_out()
    while out:
        commit(0)
        hand_out()
    assert sorted(seen) == sorted(planned)
    assert not [key for key in bench.redis.keys("lh:line:*") if key.count(b":") > 2 and pending(bench, key)]


def pending(bench: Bench, line: bytes) -> bool:
    """Whether a job in a line still has a chunk to hand out."""
    return any(
        bench.redis.exists(f"lh:job:{job.decode()}:pending") for job in bench.redis.zrange(line, 0, -1)
    )


def test_a_flow_has_an_end(bench: Bench) -> None:
    bench.store.create(replace(NEW, id="k", low_priority=True))
    assert bench.leases.hand_out_ingests() == ["k"]
    bench.planned(chunks=1, low_priority=True)
    assert bench.hand_out()
    flows = bench.redis.keys("lh:flow:*")
    assert len(flows) == 4, "of both stages, and of both priorities"
    week_ms = 7 * 24 * 3600 * 1000
    assert all(bench.redis.pttl(key) > week_ms for key in flows), "longer than a job may live"


# What an older version left


def test_jobs_in_the_lines_of_an_older_version_are_taken_over(bench: Bench) -> None:
    bench.planned("running", chunks=3)
    bench.store.create(replace(NEW, id="queued"))
    bench.redis.delete(*bench.redis.keys("lh:line:*"))
    for job_id in ("running", "queued"):
        bench.redis.hdel(f"lh:job:{job_id}", "weight")
    bench.redis.hset("lh:job:running", "virtual_ms", 5_000_000)
    bench.redis.zadd("lh:ready:transcribe", {"running": 5_000_000, "long-gone": 4_000_000})
    bench.redis.zadd("lh:ready:ingest", {"queued": bench.job("queued").created_ms})
    bench.redis.set("lh:clock:transcribe", 5_000_000)
    bench.leases.reap()
    bench.redis.delete("lh:leases:ingest")
    bench.open_slots(TRANSCRIBE, 2)
    assert bench.hand_out() == [("running", index) for index in range(3)]
    assert bench.leases.hand_out_ingests() == ["queued"]
    assert bench.redis.keys("lh:ready:*") == []


# Cost


def commands_of_a_turn(bench: Bench, jobs: int, accounts: int) -> float:
    """Commands of Redis inside the script for a chunk handed out, with so many in line."""
    bench.redis.flushdb()
    cluster = Cluster(bench, 1)
    for number in range(jobs):
        cluster.submit(f"j{number}", f"a{number % accounts}")
    bench.open_slots(TRANSCRIBE, 26)
    bench.redis.config_resetstat()
    count = len(bench.hand_out())
    assert count == 50
    calls = bench.redis.info("commandstats").values()
    return float(sum(command["calls"] for command in calls)) / count


def test_a_turn_costs_the_same_among_few_and_among_many(bench: Bench) -> None:
    few, many = commands_of_a_turn(bench, 10, 2), commands_of_a_turn(bench, 100, 50)
    assert few <= 24
    assert many <= few + 4, "the same, but for newcomers"


# With everything


def test_an_account_gets_its_share_of_real_workers(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    # The crowd is of the account that comes first by name, which a line without shares would favour.
    others = type(stack.client)(f"{stack.machine.url}/v2/longhand", OTHERS_KEY)
    crowd = [others.submit(stack.input(receiver, f"crowd{n}", 61, prompt="slow:100")) for n in range(6)]
    eventually(lambda: all(stack.store.chunks(job_id) for job_id in crowd), 180, "the plans")
    job_id = stack.client.submit(stack.input(receiver, "single", 61, prompt="slow:100"))
    eventually(lambda: stack.store.chunks(job_id), 180, "the single job's plan")
    done_before = done(stack, crowd)
    eventually(lambda: stack.ended(job_id), 180, "the single job")
    meanwhile = done(stack, crowd) - done_before
    # As many as the single job has, those that were out, and what the end of its plan and of itself took.
    assert meanwhile <= 7 + 4 + 6, f"of {done_before} before"
    eventually(
        lambda: all(others.status(each)["status"] == "COMPLETED" for each in crowd),
        180,
        "the end of the crowd",
    )


def done(stack: Stack, jobs: list[str]) -> int:
    """How many chunks of jobs are finished."""
    return sum(len(stack.store.results(job_id)) for job_id in jobs)
