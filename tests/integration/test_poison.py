"""A chunk that kills its process: bad luck is not charged, poison is given up after three deaths in a row."""

import os
import signal
from pathlib import Path

import pytest
import requests

from tasks import endings
from tasks.children import GRACE_S, InHand, Patience
from tasks.errors import ChunkFailed, EngineFailed
from tasks.leases import ENDED, GONE, TRANSCRIBE, Lease, Refused
from tests.bench import Bench
from tests.conftest import KEY, Eventually, Receiver, Stack

ME = ["worker-1"]
# A busy machine is slow.
LONG_S = 120


@pytest.fixture
def bench(bench: Bench) -> Bench:
    """One that does not give up before the rule does."""
    return Bench(bench.redis, bench.settings.model_copy(update={"max_starts": 20}))


def die(bench: Bench, unit: str, windows: tuple[int, int] | None, *, beats: bool = True) -> Lease:
    """One attempt at a chunk that dies in these windows, its parent being alive; the lease it had."""
    lease = bench.claim(TRANSCRIBE, unit)
    if beats:
        bench.leases.beat(lease, 0, windows)
    bench.leases.hand_back(ME, died=True)
    return lease


# The rule


def test_three_deaths_in_the_same_window_are_poison(bench: Bench) -> None:
    bench.planned(chunks=1)
    leases = [die(bench, "0", (4, 4)) for _ in range(3)]
    assert [lease.deaths for lease in leases] == [0, 1, 2]
    assert bench.store.dead("j") == {0: "poison_chunk: its process died 3 times in a row in window 4"}
    assert bench.members("pending") == bench.members("inflight") == set()
    assert bench.leases.claim("j", TRANSCRIBE, "0") == Refused("dead")
    # Quarantined: what it was is still there to be looked at.
    assert bench.store.chunk("j", 0) is not None


@pytest.mark.parametrize(
    ("windows", "dead"),
    [
        ([(0, 7), (0, 7), (5, 5)], "in window 5"),
        ([(0, 7), (0, 7), (0, 7)], "in windows 0 to 7"),
        ([None, None, None], "before its first window"),
        ([(0, 7), (8, 9), (0, 7)], None),
        ([(1, 1), (2, 2), (3, 3)], None),
        # What the first two have in common is window 3; the third is another.
        ([(0, 3), (3, 6), (5, 5)], None),
        ([(0, 0), None, (0, 0)], None),
    ],
)
def test_only_deaths_in_the_same_window_add_up(
    bench: Bench, windows: list[tuple[int, int] | None], dead: str | None
) -> None:
    bench.planned(chunks=1)
    for each in windows:
        die(bench, "0", each)
    reasons = list(bench.store.dead("j").values())
    assert reasons == ([f"poison_chunk: its process died 3 times in a row {dead}"] if dead else [])


def test_an_attempt_does_not_die_in_the_windows_of_the_one_before(bench: Bench) -> None:
    bench.planned(chunks=1)
    die(bench, "0", (2, 2))
    die(bench, "0", (2, 2))
    die(bench, "0", None, beats=False)
    assert bench.store.dead("j") == {}


def test_the_deaths_of_a_worker_are_not_charged(bench: Bench) -> None:
    bench.planned(chunks=1)
    for _ in range(5):
        lease = bench.claim(TRANSCRIBE, "0")
        bench.leases.beat(lease, 0, (4, 4))
        bench.leases.hand_back(ME)
    assert bench.claim(TRANSCRIBE, "0").deaths == 0


def test_lost_leases_are_not_charged(bench: Bench) -> None:
    bench.planned(chunks=1)
    for _ in range(5):
        lease = bench.claim(TRANSCRIBE, "0")
        bench.leases.beat(lease, 0, (4, 4))
        bench.expire(TRANSCRIBE, "0")
        bench.leases.reap()
    assert bench.claim(TRANSCRIBE, "0").deaths == 0


def test_what_is_not_charged_does_not_break_the_row(bench: Bench) -> None:
    bench.planned(chunks=1)
    die(bench, "0", (4, 4))
    die(bench, "0", (4, 4))
    bench.claim(TRANSCRIBE, "0")
    bench.leases.hand_back(ME)
    die(bench, "0", (4, 4))
    assert list(bench.store.dead("j")) == [0]


def test_a_failure_in_order_breaks_the_row(bench: Bench) -> None:
    bench.planned(chunks=1)
    die(bench, "0", (4, 4))
    lease = bench.claim(TRANSCRIBE, "0")
    bench.leases.release(lease, EngineFailed())
    assert bench.claim(TRANSCRIBE, "0").deaths == 0


def test_the_last_chunk_to_die_rings_for_the_end(bench: Bench) -> None:
    bench.planned(chunks=2)
    bench.seal()
    bench.commit(bench.claim(TRANSCRIBE, "1"))
    for _ in range(2):
        die(bench, "0", (0, 0))
    bench.leases.beat(bench.claim(TRANSCRIBE, "0"), 0, (0, 0))
    assert bench.leases.hand_back(ME, died=True) == (1, ["j"])
    assert bench.leases.hand_back(ME, died=True) == (0, [])


def test_the_next_run_begins_with_a_clean_record(bench: Bench) -> None:
    bench.planned(chunks=2)
    bench.seal()
    bench.commit(bench.claim(TRANSCRIBE, "1"))
    for _ in range(3):
        die(bench, "0", (0, 0))
    bench.store.finish("j", endings.failed("j", "r", 1, ChunkFailed()))
    assert bench.store.retry("j") == "queued"
    assert bench.members("pending") == {0}
    assert bench.claim(TRANSCRIBE, "0").deaths == 0


# What a parent does


def held(state: int, number: int = 1) -> dict[InHand, int]:
    return {InHand(number, f"m{number}", "j", TRANSCRIBE, "0"): state}


def decided(patience: Patience, state: int, now_s: float) -> str:
    nudge, over = patience.judge(held(state), now_s)
    return f"end: {over[0][1]}" if over else "nudge" if nudge else ""


def test_a_child_whose_job_has_ended_has_some_grace() -> None:
    patience = Patience(lease_s=60, stall_s=180)
    assert decided(patience, 59_000, 0) == ""
    assert decided(patience, ENDED, 1) == "nudge"
    assert decided(patience, ENDED, 1 + GRACE_S - 0.1) == ""
    assert decided(patience, ENDED, 1 + GRACE_S) == "end: ended"


def test_a_child_that_lost_its_lease_may_get_to_its_next_window() -> None:
    patience = Patience(lease_s=60, stall_s=180)
    assert decided(patience, GONE, 0) == "nudge"
    assert decided(patience, GONE, 179) == ""
    assert decided(patience, GONE, 180) == "end: lost"


def test_a_child_that_does_not_renew_is_ended_before_its_lease_is_over() -> None:
    patience = Patience(lease_s=60, stall_s=180)
    assert decided(patience, 30_000, 0) == ""
    assert decided(patience, 29_900, 0.1) == "nudge"
    assert decided(patience, 15_500, 14.5) == ""
    assert decided(patience, 14_800, 15.2) == "end: silent"


def test_a_child_that_renews_after_all_is_left_alone() -> None:
    patience = Patience(lease_s=60, stall_s=180)
    assert decided(patience, 20_000, 0) == "nudge"
    assert decided(patience, 60_000, 1) == ""
    assert decided(patience, 20_000, 41) == "nudge"
    assert decided(patience, 19_000, 42) == ""


# Real processes


def test_poison_is_given_up_and_named_and_the_rest_is_kept(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    diary = receiver.folder / "diary"
    job_input = stack.input(receiver, "fatal", 31, f"fatal:1:2:{diary}")
    job_id = stack.client.submit(job_input)
    beside = stack.client.submit(stack.input(receiver, "beside", 41, "slow:1000"))
    shown = eventually(lambda: stack.ended(job_id), LONG_S)
    assert (shown["status"], shown["code"]) == ("FAILED", "chunk_failed")
    assert eventually(lambda: stack.ended(beside), LONG_S)["status"] == "COMPLETED"
    starts = stack.redis.hgetall(f"lh:job:{beside}:leases")
    assert {starts[key] for key in starts if key.isdigit()} == {b"1"}, "nothing of another job was lost"
    assert "poison_chunk" in shown["error"]
    assert "in window 2" in shown["error"]
    assert "chunk 1 (" in shown["error"]
    # The third try decodes one window at a time.
    assert diary.read_text().split() == ["None", "None", "1"]
    assert stack.store.dead(job_id).keys() == {1}
    done = {result.index for result in stack.store.results(job_id)}
    assert done == {chunk.index for chunk in stack.store.chunks(job_id)} - {1}
    chunk = stack.store.chunk(job_id, 1)
    assert chunk
    assert (stack.folder / "blobs" / chunk.blob).exists(), "it is kept to be looked at"

    # Once whatever it was is mended, the next run does that chunk and no other.
    Path(f"{diary}.mended").touch()
    url = f"{stack.machine.url}/v2/longhand/retry/{job_id}"
    requests.post(url, headers={"Authorization": f"Bearer {KEY}"}, timeout=20).raise_for_status()
    shown = eventually(lambda: stack.ended(job_id), LONG_S)
    assert shown["status"] == "COMPLETED"
    starts = stack.redis.hgetall(f"lh:job:{job_id}:leases")
    # Each has been started once; with the run the fence goes up by one, and only chunk 1 goes on from there.
    assert {index: int(starts[str(index).encode()]) for index in done} == dict.fromkeys(done, 2)
    assert int(starts[b"1"]) == 3 + 1 + 1


@pytest.mark.parametrize(
    ("number", "deaths"), [(signal.SIGTERM, None), (signal.SIGKILL, b"1"), (signal.SIGSEGV, b"1")]
)
def test_a_child_that_is_told_to_end_is_not_charged(
    stack: Stack, receiver: Receiver, eventually: Eventually, number: signal.Signals, deaths: bytes | None
) -> None:
    marker = receiver.folder / "hung"
    job_id = stack.client.submit(stack.input(receiver, f"signal-{number}", 11, f"hang:0:{marker}"))
    eventually(lambda: marker.exists() and marker.read_text(), what="a chunk in hand")
    os.kill(int(marker.read_text()), number)
    assert eventually(lambda: stack.ended(job_id), LONG_S)["status"] == "COMPLETED"
    assert stack.redis.hget(f"lh:job:{job_id}:leases", "0:deaths") == deaths


def test_a_chunk_that_hangs_with_the_lock_of_python_is_taken_over(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    marker = receiver.folder / "gripped"
    job_id = stack.client.submit(stack.input(receiver, "gripped", 21, f"grip:0:{marker}"))
    assert eventually(lambda: stack.ended(job_id), LONG_S)["status"] == "COMPLETED"
    hung = Path("/proc") / marker.read_text()
    eventually(lambda: not hung.exists(), LONG_S, "the end of the process that hung")
