"""How far cutting may be ahead of the workers, by what Redis knows of both."""

from dataclasses import replace

from tasks.errors import ChunkFailed
from tasks.leases import INGEST, LOOK_AHEAD_CHUNKS, LOOK_AHEAD_PER_SLOT, TRANSCRIBE
from tests.bench import NEW, Bench, chunk


def test_ingest_is_ahead_by_so_many_chunks(bench: Bench) -> None:
    bench.planned(chunks=LOOK_AHEAD_CHUNKS)
    assert not bench.leases.is_ahead("j")
    bench.leases.add_chunk(bench.ingests["j"], chunk(LOOK_AHEAD_CHUNKS))
    assert bench.leases.is_ahead("j")
    lease = bench.claim(TRANSCRIBE, "0")
    assert bench.leases.is_ahead("j"), "what is in hand counts"
    bench.commit(lease)
    assert not bench.leases.is_ahead("j")


def test_ingest_may_be_further_ahead_of_many_workers(bench: Bench) -> None:
    bench.open_slots(TRANSCRIBE, 5)
    bench.planned(chunks=5 * LOOK_AHEAD_PER_SLOT)
    assert not bench.leases.is_ahead("j")
    bench.leases.add_chunk(bench.ingests["j"], chunk(5 * LOOK_AHEAD_PER_SLOT))
    assert bench.leases.is_ahead("j")


def test_a_dead_chunk_is_nothing_to_wait_for(bench: Bench) -> None:
    bench.planned(chunks=LOOK_AHEAD_CHUNKS + 1)
    assert bench.leases.is_ahead("j")
    bench.leases.release(bench.claim(TRANSCRIBE, "0"), ChunkFailed("no"))
    assert bench.store.dead("j")
    assert not bench.leases.is_ahead("j")


def test_ingest_does_not_wait_while_others_wait_for_it(bench: Bench) -> None:
    bench.planned(chunks=LOOK_AHEAD_CHUNKS + 1)
    assert bench.leases.is_ahead("j")
    assert bench.store.create(replace(NEW, id="other"))
    assert not bench.leases.is_ahead("j")
    bench.claim(INGEST, INGEST, "other")
    assert bench.leases.is_ahead("j")
