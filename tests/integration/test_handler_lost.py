"""Jobs whose RunPod handler is gone: ended by the reaper once its lease is over, and by nobody before."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.client import segments_of
from tasks import endings
from tasks.errors import HandlerLost
from tasks.job import Status
from tasks.store import UNATTENDED
from tests.bench import NEW, PAST_MS, Bench
from tests.conftest import Eventually, Receiver, Stack
from tests.fake_platform import FakePlatform, serving
from tests.handling import ended, handling, new_id, status

LEASE_MS = 1_500


@pytest.fixture(scope="module")
def platform(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakePlatform]:
    """A platform with one worker, whose lease is short."""
    folder, settings = tmp_path_factory.mktemp("handler"), stack.machine.settings
    with serving() as platform, handling(settings, platform, folder, handler_lease_ms=LEASE_MS):
        yield platform


def killed(
    stack: Stack, eventually: Eventually, folder: Path, job_id: str, job_input: dict[str, object]
) -> None:
    """Have a worker take the job and lose it once some of it is transcribed."""
    changes = {"handler_lease_ms": LEASE_MS}
    with serving() as lost, handling(stack.machine.settings, lost, folder, **changes) as process:
        lost.give(job_id, job_input)
        eventually(lambda: stack.redis.hlen(f"lh:job:{job_id}:results"), 30, "the first chunk")
        process.kill()
        process.wait()
    assert lost.results(job_id) == []


def test_its_tasks_stop_and_the_next_delivery_goes_on_from_there(
    stack: Stack, receiver: Receiver, eventually: Eventually, platform: FakePlatform, tmp_path: Path
) -> None:
    """Case 30: SIGKILL, then the lease of the handler is over, and the tasks of its job are ended."""
    job_id, job_input = new_id("alone"), stack.input(receiver, "alone", 121, "slow:250")
    killed(stack, eventually, tmp_path, job_id, job_input)
    eventually(lambda: status(stack, job_id) is Status.FAILED, 20, "the end of the job")
    job = stack.store.job(job_id)
    assert job is not None
    assert job.code == "handler_lost"
    done = stack.redis.hlen(f"lh:job:{job_id}:results")
    assert done < (job.total or 99)

    logged = stack.folder / "logs" / "transcribe.log"

    def stopped() -> bool:
        return any("lease_lost" in line and job_id in line for line in logged.read_text().splitlines())

    eventually(stopped, what="the end of the tasks")
    # RunPod gives the job to another worker, once.
    platform.give(job_id, job_input)
    result = ended(platform, eventually, job_id)
    assert len(segments_of(result["output"])) == 12 * 4
    assert status(stack, job_id) is Status.SUCCEEDED
    eventually(lambda: receiver.statuses("alone")[-1:] == ["completed"])


def test_a_handler_that_lives_keeps_its_job_for_longer_than_a_lease(
    stack: Stack, receiver: Receiver, eventually: Eventually, platform: FakePlatform
) -> None:
    job_id = new_id("kept")
    platform.give(job_id, stack.input(receiver, "kept", 61, "slow:400"))
    eventually(lambda: status(stack, job_id) is Status.RUNNING)
    score = stack.redis.zscore("lh:attended", job_id) or 0
    eventually(lambda: (stack.redis.zscore("lh:attended", job_id) or 0) > score + LEASE_MS, 20, "renewals")
    assert len(segments_of(ended(platform, eventually, job_id)["output"])) == 6 * 4
    eventually(lambda: stack.redis.zscore("lh:attended", job_id) is None, what="the end of the lease")


def test_a_detached_job_has_no_lease(
    stack: Stack, receiver: Receiver, eventually: Eventually, platform: FakePlatform
) -> None:
    job_id = new_id("free")
    platform.give(job_id, stack.input(receiver, "free", 21, "slow:100", detach=True))
    ended(platform, eventually, job_id)
    assert stack.redis.zscore("lh:attended", job_id) is None
    eventually(lambda: status(stack, job_id) is Status.SUCCEEDED, 30)


def test_a_stop_that_arrives_while_the_job_is_being_accepted(
    stack: Stack, receiver: Receiver, eventually: Eventually, platform: FakePlatform
) -> None:
    """Case 27: not in a yield, and not while waiting, but before there is a job to be canceled."""
    job_id, job_input = new_id("early"), stack.input(receiver, "early", 61, "slow:500")
    stack.redis.client_pause(20_000, all=False)
    try:
        platform.give(job_id, job_input)
        eventually(lambda: any(job_id in str(ping) for ping in platform.pings), what="the job to be taken")
        platform.stops.append(job_id)
        eventually(lambda: not platform.stops, what="the stop to be taken")
    finally:
        stack.redis.client_unpause()
    eventually(lambda: status(stack, job_id) is Status.CANCELED, 20, "the cancellation")
    assert platform.results(job_id) == []


# The reaper's own part


def attended(bench: Bench, until_ms: int | None = None) -> None:
    bench.store.create(NEW)
    bench.leases.reap()
    bench.leases.attend("j")
    if until_ms is not None:
        bench.redis.zadd("lh:attended", {"j": until_ms})


def lost(bench: Bench) -> bool:
    ending = endings.failed("j", "r", bench.store.now_ms(), HandlerLost())
    return bench.store.finish("j", ending, stage=UNATTENDED)[0]


def test_only_a_job_whose_lease_is_over_is_ended(bench: Bench) -> None:
    attended(bench)
    assert bench.leases.reap().unattended == []
    assert not lost(bench)
    bench.redis.zadd("lh:attended", {"j": PAST_MS})
    assert bench.leases.reap().unattended == ["j"]
    assert lost(bench)
    assert bench.job().code == "handler_lost"
    assert bench.leases.reap().unattended == []


def test_a_lease_that_is_renewed_meanwhile_holds(bench: Bench) -> None:
    attended(bench, PAST_MS)
    assert bench.leases.reap().unattended == ["j"]
    bench.leases.attend("j")
    assert not lost(bench)


def test_a_job_without_a_handler_is_not_ended_for_that(bench: Bench) -> None:
    bench.store.create(NEW)
    assert not lost(bench)


def test_after_nobody_looked_for_a_while_every_handler_has_time_to_come_back(bench: Bench) -> None:
    attended(bench, PAST_MS)
    # Redis, or every worker, was away.
    bench.redis.set("lh:reaped", bench.store.now_ms() - 60_000)
    assert bench.leases.reap().unattended == []
    assert bench.redis.zscore("lh:attended", "j") > bench.store.now_ms() + 20_000
    assert bench.leases.reap().unattended == []


@pytest.mark.parametrize("status", ["", "succeeded", "of another version"], ids=["gone", "ended", "odd"])
def test_a_lease_on_what_is_no_job_any_more_is_forgotten(bench: Bench, status: str) -> None:
    attended(bench, PAST_MS)
    if status:
        bench.redis.hset("lh:job:j", "status", status)
    else:
        bench.redis.delete("lh:job:j")
    assert bench.leases.reap().unattended == []
    assert bench.redis.zscore("lh:attended", "j") is None
