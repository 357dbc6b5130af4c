"""Progress events in a real Redis: true of the state they are written with, and only the newest delivered."""

import json
import threading
from collections.abc import Callable

import pytest

from tasks.events import Progress
from tasks.leases import TRANSCRIBE, Lease, Leases
from tasks.outbox import Outcome
from tasks.scripts import unpack
from tests.bench import HOOK, RECEIVER, Bench, report, result


@pytest.fixture
def bench(bench: Bench) -> Bench:
    """A running job of four chunks of a second, with a webhook."""
    bench.planned(chunks=4, webhook_url=HOOK, recording_id="r")
    return bench


def test_no_progress_is_told_before_the_announcement(bench: Bench) -> None:
    assert bench.transcribe(0) == ""
    bench.announce()
    bench.transcribe(1)
    assert [what for what, _ in bench.written()] == ["transcribing", "progress 2 of None"]


def test_progress_is_not_told_more_often_than_the_interval(bench: Bench) -> None:
    bench.leases = Leases(bench.redis, bench.settings.model_copy(update={"progress_interval_ms": 60_000}))
    bench.announce()
    assert [bench.transcribe(0), bench.transcribe(1)] == [RECEIVER, ""]
    bench.redis.hset("lh:job:j", "progress_ms", bench.store.now_ms() - 60_000)
    assert [bench.transcribe(2), bench.transcribe(3)] == [RECEIVER, ""]
    assert [what for what, _ in bench.written()[1:]] == ["progress 1 of None", "progress 3 of None"]


def test_progress_is_not_told_for_less_than_the_step(bench: Bench) -> None:
    bench.leases = Leases(bench.redis, bench.settings.model_copy(update={"progress_step": 0.5}))
    bench.announce()
    bench.seal()
    assert [bench.transcribe(index) for index in range(4)] == ["", RECEIVER, "", RECEIVER]
    assert [what for what, _ in bench.written()[1:]] == ["progress 2 of 4.0", "progress 4 of 4.0"]


def test_progress_counts_chunks_and_foresees_the_end(bench: Bench) -> None:
    bench.announce()
    bench.seal()
    bench.redis.hset("lh:job:j", "announced_ms", bench.store.now_ms() - 30_000)
    bench.transcribe(0)
    bench.drain()
    body = unpack(bench.redis.hget("lh:delivery:evt_j_1_2", "body"))
    progress = json.loads(body)["progress"]
    eta_seconds = progress.pop("eta_seconds")
    assert 90 <= eta_seconds < 120, "a quarter took half a minute"
    assert progress == {
        "fraction": 0.25,
        "audio_seconds_done": 1.0,
        "audio_seconds_total": 4.0,
        "chunks_done": 1,
        "chunks_total": 4,
    }


def test_progress_is_written_for_the_state_it_is_written_with(bench: Bench) -> None:
    """Another chunk, or the end of the plan, comes in between a look at the job and the commit."""
    bench.announce()
    meanwhile: list[Callable[[], object]] = [lambda: bench.transcribe(1), bench.seal]
    seen: list[Progress] = []

    def interrupted(progress: Progress, now_ms: int) -> str:
        seen.append(progress)
        if meanwhile:
            meanwhile.pop(0)()
        return report(progress, now_ms)

    bench.leases.commit(bench.claim(TRANSCRIBE, "0"), result(0), "he", 1000, interrupted)
    assert [progress.done_ms for progress in seen] == [1000, 2000, 2000]
    assert [what for what, _ in bench.written()[1:]] == ["progress 1 of None", "progress 2 of 4.0"]


def test_two_committers_at_once_tell_two_states(bench: Bench) -> None:
    bench.announce()
    both_have_looked = threading.Barrier(2, timeout=10)
    looks: dict[str, int] = {"0": 0, "1": 0}
    failures: list[BaseException] = []

    def commit(lease: Lease) -> None:
        def meeting(progress: Progress, now_ms: int) -> str:
            looks[lease.unit] += 1
            if looks[lease.unit] == 1:
                both_have_looked.wait()
            return report(progress, now_ms)

        try:
            bench.leases.commit(lease, result(int(lease.unit)), "he", 1000, meeting)
        except BaseException as failure:
            failures.append(failure)
            raise

    threads = [threading.Thread(target=commit, args=[bench.claim(TRANSCRIBE, unit)]) for unit in looks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not failures
    assert sorted(looks.values()) == [1, 2], "one of them looked again"
    assert [what for what, _ in bench.written()[1:]] == ["progress 1 of None", "progress 2 of None"]


def test_newer_progress_replaces_what_was_not_delivered(bench: Bench) -> None:
    bench.announce()
    bench.transcribe(0)
    bench.transcribe(1)
    assert bench.drain() == ["transcribing", "progress 2 of None"]
    bench.transcribe(2)
    assert bench.refuse() == "waiting"
    bench.transcribe(3)
    assert bench.drain() == ["progress 4 of None"]
    assert [state for _, state in bench.written()] == [
        "delivered",
        "superseded",
        "delivered",
        "superseded",
        "delivered",
    ]


def test_the_end_drops_the_progress_that_waits(bench: Bench) -> None:
    bench.announce()
    bench.transcribe(0)
    bench.finish()
    assert bench.drain() == ["transcribing", "transcription_failed"]
    assert bench.written()[1] == ("progress 1 of None", "superseded")


@pytest.mark.parametrize(("outcome", "state"), [("retry", "superseded"), ("delivered", "delivered")])
@pytest.mark.parametrize("end", [False, True])
def test_what_is_being_sent_is_overtaken_only_when_that_has_failed(
    bench: Bench, outcome: Outcome, state: str, end: bool
) -> None:
    bench.announce()
    bench.drain()
    bench.transcribe(0)
    sending = bench.take()
    if end:
        bench.finish()
    else:
        bench.transcribe(1)
    assert bench.outbox.state(sending.id) == "sending"
    assert bench.outbox.claim(RECEIVER, "drain") is None, "what is newer waits for it"
    assert bench.settle(sending, outcome, 5_000) == state
    assert bench.drain() == ["transcription_failed" if end else "progress 2 of None"]
