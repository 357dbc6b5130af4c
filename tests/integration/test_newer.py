"""A job whose row is of a newer Longhand: not worked on here, not lost, and in nobody's way."""

from tasks.attempt import Seldom
from tasks.leases import ASSEMBLE, INGEST, TRANSCRIBE, Refused
from tasks.store import job_key
from tests.bench import NEW, Bench
from tests.conftest import Eventually, Receiver, Stack

NEWER = Refused("newer")


def set_schema(bench: Bench, schema: int) -> None:
    bench.redis.hset(job_key("j"), "schema", schema)


def starts(bench: Bench) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = bench.redis.hgetall("lh:job:j:leases")
    return found


def test_an_ingest_is_set_aside_and_offered_again(bench: Bench) -> None:
    bench.store.create(NEW)
    set_schema(bench, 99)
    assert bench.leases.hand_out_ingests() == ["j"]
    assert bench.leases.claim("j", INGEST, INGEST) == NEWER
    assert starts(bench) == {}, "no start is counted"
    bench.leases.reap()
    assert bench.leases.hand_out_ingests() == [], "not at once"
    assert bench.redis.zcard("lh:leases:ingest") == 0, "it takes no place of others"
    bench.age("lh:aside", "j/ingest")
    bench.leases.reap()
    assert bench.leases.hand_out_ingests() == ["j"]
    set_schema(bench, 1)
    bench.claim(INGEST, INGEST)
    assert bench.redis.exists("lh:aside") == 0


def test_a_chunk_goes_back_in_line_and_others_are_handed_out_meanwhile(bench: Bench) -> None:
    bench.planned(chunks=2)
    bench.planned("other", chunks=1)
    set_schema(bench, 99)
    for index in range(2):
        assert bench.leases.claim("j", TRANSCRIBE, str(index)) == NEWER
    assert bench.sets() == {"pending": {0, 1}, "inflight": set(), "done": set(), "dead": set()}
    assert bench.hand_out() == [("other", 0)]
    bench.age("lh:aside", "j/transcribe")
    bench.leases.reap()
    assert bench.hand_out() == [("j", 0)]


def test_what_a_newer_worker_holds_is_left_to_it(bench: Bench) -> None:
    bench.planned(chunks=1)
    held = bench.claim(TRANSCRIBE, "0")
    set_schema(bench, 99)
    assert bench.leases.claim("j", TRANSCRIBE, "0") == Refused("held")
    bench.commit(held)
    assert bench.done() == {0}


def test_an_assembly_is_rung_for_again(bench: Bench) -> None:
    bench.planned(chunks=1)
    bench.commit(bench.claim(TRANSCRIBE, "0"))
    assert bench.seal()
    set_schema(bench, 99)
    assert bench.leases.claim("j", ASSEMBLE, ASSEMBLE) == NEWER
    assert bench.leases.reap().assemble == []
    bench.expire(ASSEMBLE, ASSEMBLE)
    assert bench.leases.reap().assemble == ["j"]


def test_one_that_is_set_aside_can_be_canceled(bench: Bench) -> None:
    bench.store.create(NEW)
    set_schema(bench, 99)
    bench.leases.claim("j", INGEST, INGEST)
    assert bench.finish()[0]
    assert bench.places() == []
    assert bench.redis.exists("lh:aside") == 0


def test_it_is_logged_once_in_a_while() -> None:
    seldom = Seldom(60)
    assert [seldom.due(now_s) for now_s in (0, 1, 59, 60, 61, 120)] == [True, False, False, True, False, True]


def test_workers_leave_it_and_go_on_when_they_know_it(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    with stack.stopped("io"):
        job_id = stack.client.submit(stack.input(receiver, "newer", 21))
        stack.redis.hset(job_key(job_id), "schema", 99)
    aside = f"{job_id}/ingest"
    eventually(lambda: stack.redis.zscore("lh:aside", aside), what="the job to be set aside")
    other = stack.client.submit(stack.input(receiver, "known", 11))
    assert eventually(lambda: stack.ended(other), 60)["status"] == "COMPLETED"
    assert stack.client.status(job_id)["status"] == "IN_QUEUE"
    assert not stack.redis.exists(job_key(job_id, "leases"))
    stack.redis.hset(job_key(job_id), "schema", 1)
    assert eventually(lambda: stack.ended(job_id), 60)["status"] == "COMPLETED"
