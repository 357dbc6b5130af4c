"""A worker that ends gives back what it has in hand: at once, to anybody, and uncharged."""

import threading

import pytest

from tasks import app, context, reaper, worker
from tasks.errors import EngineFailed
from tasks.leases import ASSEMBLE, INGEST, TRANSCRIBE, Lease, Refused
from tasks.scripts import connect
from tasks.settings import Settings
from tests.bench import NEW, Bench
from tests.conftest import Eventually


def test_a_chunk_goes_back_in_line_and_that_of_another_worker_stays(bench: Bench) -> None:
    bench.planned(chunks=3)
    mine = bench.claim(TRANSCRIBE, "0")
    others = bench.other.claim("j", TRANSCRIBE, "1")
    assert isinstance(others, Lease)
    assert bench.leases.hand_back(["worker-0", "worker-1"]) == (2, [])  # with the ingest
    assert bench.members("pending") == {0, 2}
    assert bench.members("inflight") == {1}
    assert bench.leases.claim("j", TRANSCRIBE, "1") == Refused("held")
    again = bench.other.claim("j", TRANSCRIBE, "0")
    assert isinstance(again, Lease)
    assert int(again.fence) == int(mine.fence) + 1
    # Who gave it back writes nothing any more.
    assert bench.leases.release(mine, EngineFailed()) == "lost"


def test_nobody_is_charged(bench: Bench) -> None:
    bench.planned(chunks=1)
    for _ in range(bench.settings.max_attempts):
        bench.claim(TRANSCRIBE, "0")
        bench.leases.hand_back(["worker-1"])
    lease = bench.claim(TRANSCRIBE, "0")
    assert bench.leases.release(lease, EngineFailed()) == "again"


def test_an_ingest_goes_back_in_line(bench: Bench) -> None:
    assert bench.store.create(NEW)
    bench.open_slots(INGEST, 1)
    bench.claim(INGEST, INGEST)
    assert bench.leases.hand_out_ingests() == []
    assert bench.leases.hand_back(["worker-1"]) == (1, [])
    assert bench.leases.hand_out_ingests() == ["j"]


def test_an_assembly_is_rung_for_by_the_next_look_of_the_reaper(bench: Bench) -> None:
    bench.ready_to_assemble()
    assert bench.leases.reap().assemble == []
    assert bench.leases.hand_back(["worker-1"]) == (1, [])
    assert bench.leases.reap().assemble == ["j"]
    assert isinstance(bench.other.claim("j", ASSEMBLE, ASSEMBLE), Lease)


@pytest.mark.parametrize("names", [[], ["worker-2"], ["worker"], ["worker-1/"], ["worker-11"]])
def test_only_what_is_held_by_these_names(bench: Bench, names: list[str]) -> None:
    bench.planned(chunks=1)
    bench.claim(TRANSCRIBE, "0")
    assert bench.leases.hand_back(names) == (0, [])
    assert bench.members("inflight") == {0}


def test_what_was_only_rung_for_stays(bench: Bench) -> None:
    bench.planned(chunks=2)
    bench.open_slots(TRANSCRIBE, 1)
    assert bench.hand_out() == [("j", 0), ("j", 1)]
    bench.leases.hand_back(["worker-1"])
    assert bench.members("inflight") == {0, 1}


def test_what_goes_back_is_rung_for_at_once(bench: Bench) -> None:
    """Not by the reaper alone: the message that Celery puts back may come before, and is refused."""
    broker = connect(bench.settings.redis_url)
    broker.flushdb()
    bench.planned(chunks=1)
    bench.claim(TRANSCRIBE, "0")
    worker.hand_back(bench.settings, app.create_app(bench.settings), ["worker-1"])
    assert (broker.llen("transcribe"), broker.llen("ingest")) == (1, 1)


def test_a_process_that_ends_reaps_no_more(bench: Bench, settings: Settings, eventually: Eventually) -> None:
    ending = context.build(settings, app.create_app(settings))
    stop = threading.Event()
    reaping = threading.Thread(target=reaper.run, args=(ending, stop))
    reaping.start()
    eventually(lambda: bench.redis.get("lh:reaper") == ending.worker.encode(), what="the reaper")
    stop.set()
    reaping.join()
    assert bench.leases.be_the_reaper("another", 5_000)
