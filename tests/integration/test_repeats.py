"""What a worker asks twice because an answer was lost, and what a failover or an outage took away."""

import pytest

from tasks.errors import LeaseLost
from tasks.leases import INGEST, TRANSCRIBE
from tests.bench import NEW, PAST_MS, Bench, chunk


def test_a_chunk_that_is_added_twice_keeps_its_blob(bench: Bench) -> None:
    bench.store.create(NEW)
    lease = bench.claim(INGEST, INGEST)
    assert bench.leases.add_chunk(lease, chunk(0))
    assert bench.leases.add_chunk(lease, chunk(0)), "False would have its blob deleted"


def test_a_plan_that_lost_a_chunk_is_not_sealed_and_has_not_changed(bench: Bench) -> None:
    bench.store.create(NEW)
    lease = bench.claim(INGEST, INGEST)
    for index in range(2):
        bench.leases.add_chunk(lease, chunk(index))
    bench.redis.hdel("lh:job:j:chunks", "1")
    with pytest.raises(LeaseLost):
        bench.leases.seal(lease, 2, 2_000, "[]")


def test_a_lease_that_lapsed_while_redis_was_away_can_still_be_renewed(bench: Bench) -> None:
    bench.planned(chunks=2)
    lease = bench.claim(TRANSCRIBE, "0")
    bench.leases.reap()
    bench.redis.zadd("lh:leases:transcribe", {"j/0": PAST_MS})
    bench.redis.set("lh:reaped", bench.store.now_ms() - bench.settings.lease_ms)
    bench.leases.reap()
    assert 0 in bench.members("inflight")
    assert bench.redis.zscore("lh:leases:transcribe", "j/0") > bench.store.now_ms()
    # And one that lapses while somebody looks is over.
    bench.redis.zadd("lh:leases:transcribe", {"j/0": PAST_MS})
    bench.leases.reap()
    assert 0 in bench.members("pending")
    assert lease.fence
