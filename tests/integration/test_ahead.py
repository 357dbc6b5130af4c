"""The next chunk is prepared while the model has another one: not claimed, so that nothing can be lost."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher.client import segments_of
from dispatcher.local import Plan
from tasks.errors import EngineFailed
from tasks.leases import ENDED, GONE, TRANSCRIBE, Lease, Refused
from tasks.scripts import text
from tests.bench import Bench
from tests.conftest import Eventually, Receiver, Stack, emptied, fake_settings, receiving, stack_of

# A busy machine is slow.
LONG_S = 120


@pytest.fixture
def waiting(bench: Bench) -> Bench:
    """A job whose four chunks are handed out, and wait in the broker's list."""
    bench.planned(chunks=4)
    bench.seal()
    bench.open_slots(TRANSCRIBE, 2)
    assert len(bench.hand_out()) == 4
    return bench


def prepared(bench: Bench) -> tuple[str, int]:
    """What worker-1 is to prepare."""
    found = bench.leases.next_to_prepare()
    assert found
    return found


def instead(bench: Bench, unit: str, of: str) -> Lease:
    """What worker-1 has prepared, claimed in place of what it was rung for."""
    lease = bench.leases.claim("j", TRANSCRIBE, unit, f"j/{of}")
    assert isinstance(lease, Lease)
    return lease


def stands(bench: Bench, unit: str, process: str = "worker-1") -> int:
    """What the parent of a process is told of the chunk that the message names."""
    return bench.leases.look([("j", TRANSCRIBE, unit, process)])[0]


# What is prepared


def test_each_process_prepares_another_chunk(waiting: Bench) -> None:
    waiting.claim(TRANSCRIBE, "0")
    assert [prepared(waiting)[1], prepared(waiting)[1]] == [1, 2]
    assert waiting.other.next_to_prepare() == ("j", 3)
    assert waiting.other.next_to_prepare() is None


def test_nothing_is_claimed_for_it(waiting: Bench) -> None:
    waiting.claim(TRANSCRIBE, "0")
    before = waiting.sets(), waiting.redis.hgetall("lh:job:j:leases")
    assert prepared(waiting) == ("j", 1)
    assert (waiting.sets(), waiting.redis.hgetall("lh:job:j:leases")) == before
    # Whoever is free first takes it.
    assert isinstance(waiting.other.claim("j", TRANSCRIBE, "1"), Lease)
    assert waiting.leases.claim("j", TRANSCRIBE, "1", "j/2") == Refused("held")
    assert waiting.members("inflight") == {0, 1, 2, 3}


def test_what_was_not_handed_out_is_not_prepared(bench: Bench) -> None:
    bench.planned(chunks=4)
    assert bench.leases.next_to_prepare() is None


def test_what_has_failed_waits_for_its_turn(waiting: Bench) -> None:
    waiting.leases.release(waiting.claim(TRANSCRIBE, "0"), EngineFailed(), delay_ms=60_000)
    waiting.claim(TRANSCRIBE, "1")
    waiting.leases.hand_back(["worker-1"], died=True)
    assert (1, "j") in [(chunk.index, chunk.job_id) for chunk in waiting.leases.hand_out_chunks()]
    assert [prepared(waiting)[1], prepared(waiting)[1], waiting.leases.next_to_prepare()] == [2, 3, None]


def test_a_job_that_has_ended_is_not_prepared(waiting: Bench) -> None:
    waiting.finish()
    assert waiting.leases.next_to_prepare() is None


def test_what_is_kept_of_it_lapses(waiting: Bench) -> None:
    prepared(waiting)
    instead(waiting, "0", of="1")
    assert 0 < waiting.redis.pttl("lh:ahead:j/0") <= waiting.settings.dispatch_ms
    assert waiting.redis.pttl("lh:instead:worker-1") > 0


# Claimed in place of another


def test_the_chunk_that_was_rung_for_is_rung_for_again(waiting: Bench) -> None:
    waiting.redis.zadd("lh:leases:transcribe", {"j/1": waiting.store.now_ms() + 5})
    assert instead(waiting, "2", of="1").again
    # Its message counts as new.
    due_ms = waiting.redis.zscore("lh:leases:transcribe", "j/1") - waiting.store.now_ms()
    assert due_ms > waiting.settings.dispatch_ms - 5_000
    assert isinstance(waiting.other.claim("j", TRANSCRIBE, "1"), Lease)


def test_one_that_somebody_has_or_that_is_done_is_not(waiting: Bench) -> None:
    waiting.other.claim("j", TRANSCRIBE, "0")
    assert not instead(waiting, "1", of="0").again
    waiting.transcribe(2)
    assert not instead(waiting, "3", of="2").again
    assert waiting.redis.zscore("lh:leases:transcribe", "j/2") is None


def test_the_parent_is_told_of_the_chunk_that_is_really_in_hand(waiting: Bench) -> None:
    instead(waiting, "2", of="1")
    assert stands(waiting, "1") > 50_000
    assert stands(waiting, "3") == GONE
    # Another process may have that message's chunk itself.
    waiting.other.claim("j", TRANSCRIBE, "1")
    assert stands(waiting, "1", "worker-2") > 50_000
    waiting.expire(TRANSCRIBE, "2")
    assert stands(waiting, "1") == GONE
    waiting.finish()
    assert stands(waiting, "1") == ENDED


def test_the_parent_is_told_of_the_job_that_is_really_in_hand(waiting: Bench) -> None:
    waiting.planned("k", chunks=1)
    lease = waiting.leases.claim("k", TRANSCRIBE, "0", "j/1")
    assert isinstance(lease, Lease)
    waiting.finish()
    assert stands(waiting, "1") > 50_000, "job j has ended, and k has not"


def test_the_next_message_is_looked_at_for_itself(waiting: Bench) -> None:
    lease = instead(waiting, "2", of="1")
    waiting.commit(lease)
    waiting.claim(TRANSCRIBE, "1")
    assert stands(waiting, "1") > 50_000


def test_a_lost_answer_is_given_again(waiting: Bench) -> None:
    arguments = ("j", TRANSCRIBE, "2", "worker-1/x", 60_000, 20, 120_000, "j/1")
    first = waiting.leases._scripts("claim", *arguments)
    assert waiting.leases._scripts("claim", *arguments) == first
    assert first[0] == b"ok"


# Real processes


@pytest.fixture(scope="module")
def ahead(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose two transcribing processes prepare chunks."""
    settings = fake_settings(
        data_dir=tmp_path_factory.mktemp("ahead"),
        prefetch="on",
        lease_ms=3_000,
        heartbeat_ms=300,
        stall_ms=10_000,
        dispatch_ms=60_000,
        attempt_delay_ms=200,
    )
    with stack_of(settings, Plan(port=0, workers=2, redis_url=emptied(redis_url, 14))) as running:
        yield running


def lines(stack: Stack, event: str, job_id: str) -> list[dict[str, Any]]:
    """What its workers logged of a job."""
    log = (stack.folder / "logs" / "transcribe.log").read_text()
    found = [json.loads(line) for line in log.splitlines() if job_id in line and line.startswith("{")]
    return [line for line in found if line.get("event") == event]


def finished(stack: Stack, eventually: Eventually, job_input: dict[str, Any]) -> tuple[str, Any]:
    """A job that has run, and its segments."""
    job_id = stack.client.submit(job_input)
    shown = eventually(lambda: stack.ended(job_id), LONG_S, "the end of the job")
    assert shown["status"] == "COMPLETED", shown
    return job_id, segments_of(shown["output"])


@pytest.fixture(scope="module")
def reference(
    ahead: Stack, redis_url: str, eventually: Eventually, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """What a worker says that prepares nothing."""
    folder = tmp_path_factory.mktemp("reference")
    settings = ahead.machine.settings.model_copy(update={"data_dir": folder, "prefetch": "off"})
    plan = Plan(port=0, workers=1, redis_url=emptied(redis_url, 12))
    with receiving(Receiver(folder)) as receiver, stack_of(settings, plan) as plain:
        job_id, segments = finished(plain, eventually, plain.input(receiver, "plain", 121))
        assert not any(line["prepared"] for line in lines(plain, "chunk_done", job_id))
        return segments


def test_chunks_are_prepared_and_the_transcript_is_the_same(
    ahead: Stack, receiver: Receiver, eventually: Eventually, reference: Any
) -> None:
    job_id, segments = finished(ahead, eventually, ahead.input(receiver, "even", 121, "slow:100"))
    assert segments == reference
    done = lines(ahead, "chunk_done", job_id)
    assert sorted(line["chunk"] for line in done) == list(range(12))
    # All but what each process begins and the job ends with; a message more or less does not matter.
    assert sum(line["prepared"] for line in done) >= 6


@pytest.mark.parametrize("how", ["die", "grip", "fail-once", "lost"])
def test_a_prepared_chunk_that_ends_its_process_is_done_by_another(
    ahead: Stack, receiver: Receiver, eventually: Eventually, reference: Any, how: str
) -> None:
    marker = receiver.folder / how
    job_id, segments = finished(ahead, eventually, ahead.input(receiver, how, 121, f"{how}:7:{marker}"))
    assert segments == reference
    done = lines(ahead, "chunk_done", job_id)
    assert sorted(line["chunk"] for line in done) == list(range(12)), "each is written once"
    deaths = ahead.redis.hget(f"lh:job:{job_id}:leases", "7:deaths")
    # On a busy machine the lease of one that hangs may be over before its parent ends it.
    possible: dict[str, list[bytes | None]] = {"die": [b"1"], "grip": [b"1", None]}
    assert deaths in possible.get(how, [None])
    others = [index for index in range(12) if ahead.redis.hget(f"lh:job:{job_id}:leases", f"{index}:deaths")]
    assert others == ([7] if deaths else []), "nobody else is charged"


def test_a_killed_process_loses_nothing_that_it_had_prepared(
    ahead: Stack, receiver: Receiver, eventually: Eventually, reference: Any
) -> None:
    job_id = ahead.client.submit(ahead.input(receiver, "killed", 121, "slow:300"))
    kept = eventually(lambda: ahead.redis.keys(f"lh:ahead:{job_id}/*"), what="a chunk that is prepared")
    process = text(ahead.redis.get(kept[0]) or b"")
    os.kill(int(process.rpartition("-")[2]), signal.SIGKILL)
    shown = eventually(lambda: ahead.ended(job_id), LONG_S, "the end of the job")
    assert segments_of(shown["output"]) == reference
    assert sorted(line["chunk"] for line in lines(ahead, "chunk_done", job_id)) == list(range(12))


def test_a_job_that_is_canceled_stops_though_it_was_prepared(
    ahead: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    job_id = ahead.client.submit(ahead.input(receiver, "canceled", 121, "slow:1000"))
    eventually(lambda: ahead.redis.keys(f"lh:ahead:{job_id}/*"), what="a chunk that is prepared")
    ahead.client.cancel(job_id)
    # What is prepared is of a job that has ended: the next one is not held up by it.
    other, _ = finished(ahead, eventually, ahead.input(receiver, "next", 31))
    assert len(lines(ahead, "chunk_done", other)) >= 3
    assert len(lines(ahead, "chunk_done", job_id)) < 12


def test_a_blob_that_cannot_be_read_is_the_attempts_own_failure(
    ahead: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    job_id = ahead.client.submit(ahead.input(receiver, "spoilt", 121, "slow:300"))
    eventually(lambda: len(ahead.store.chunks(job_id)) == 12, what="the plan")
    chunk = ahead.store.chunk(job_id, 11)
    assert chunk
    (Path(ahead.folder) / "blobs" / chunk.blob).write_bytes(b"no audio")
    shown = eventually(lambda: ahead.ended(job_id), LONG_S, "the end of the job")
    assert (shown["status"], shown["code"]) == ("FAILED", "chunk_failed")
    assert len(lines(ahead, "chunk_done", job_id)) == 11
