"""Shares of accounts and of jobs, by the real scripts in a real Redis, with workers in simulated time."""

from collections.abc import Callable, Mapping

import pytest
from redis import Redis

from tasks.job import Options
from tasks.settings import Settings
from tests.bench import Bench
from tests.fair import CHUNK_MS, TEN_HOURS_MS, TWO_MINUTES_MS, Cluster, newcomers, p95

WORKERS = 4
STEP_MS = CHUNK_MS // 20
SILENT = Options()

MakeCluster = Callable[..., Cluster]


@pytest.fixture
def cluster(redis: Redis, settings: Settings) -> MakeCluster:
    """Makes four workers over an empty state, whose leases outlast the test."""

    def make(*weights: str, search_ms: int = 10_000) -> Cluster:
        redis.flushdb()
        changes = {"durable_accept": False, "lease_ms": 3_600_000, "account_weights": weights}
        return Cluster(Bench(redis, settings.model_copy(update=changes)), WORKERS, search_ms)

    return make


@pytest.mark.parametrize("search_ms", [10_000, 0])
@pytest.mark.parametrize("account", ["us", "them"])
def test_a_short_job_has_text_at_once_beside_fifty_long_ones(
    cluster: MakeCluster, account: str, search_ms: int
) -> None:
    waits_ms = newcomers(cluster(search_ms=search_ms), account, 60)
    assert p95(waits_ms) <= 3 * CHUNK_MS, [round(wait / CHUNK_MS, 2) for wait in waits_ms]


def share(cluster: Cluster, account: str) -> float:
    """What an account was given of all audio."""
    mine = sum(audio_ms for (name, _), audio_ms in cluster.served_ms.items() if name == account)
    return mine / cluster.served_ms.total()


def test_two_accounts_get_the_same_whoever_has_more_jobs(cluster: MakeCluster) -> None:
    both = cluster()
    for number in range(50):
        both.submit(f"ours-{number}", "us")
    both.submit("theirs", "them", 5 * TEN_HOURS_MS)
    both.run(50 * CHUNK_MS)
    assert abs(share(both, "us") / share(both, "them") - 1) <= 0.1


@pytest.mark.parametrize("few_jobs", ["us", "them"])
def test_weights_of_three_to_one_give_three_to_one(cluster: MakeCluster, few_jobs: str) -> None:
    both = cluster("us=3")
    for account in ("us", "them"):
        for number in range(2 if account == few_jobs else 20):
            both.submit(f"{account}-{number}", account)
    both.run(75 * CHUNK_MS)
    assert abs(share(both, "us") / share(both, "them") / 3 - 1) <= 0.1


def test_a_lone_job_has_every_worker(cluster: MakeCluster) -> None:
    alone = cluster("us=0.01")
    alone.submit("j", "us", low=True)
    alone.run(30 * CHUNK_MS)
    assert alone.idle == 0
    assert alone.commits["j"] >= 29 * WORKERS


def test_who_was_idle_gets_no_credit(cluster: MakeCluster) -> None:
    both = cluster()
    both.submit("theirs", "them", TWO_MINUTES_MS)
    both.submit("ours", "us", 5 * TEN_HOURS_MS)
    both.run(50 * CHUNK_MS)
    both.submit("theirs-again", "them", 5 * TEN_HOURS_MS)
    both.served_ms.clear()
    both.run(125 * CHUNK_MS)
    assert abs(share(both, "us") / share(both, "them") - 1) <= 0.1


def test_an_account_that_waits_for_its_own_chunk_keeps_what_is_charged(cluster: MakeCluster) -> None:
    # While no language is known, a job waits for each of its chunks before it is in line again.
    both = cluster("them=0.05")
    both.submit("ours", "us", 5 * TEN_HOURS_MS)
    both.submit("theirs", "them", options=SILENT)
    both.run(75 * CHUNK_MS)
    assert 0.03 <= share(both, "them") <= 0.07


def test_an_account_that_is_done_for_a_moment_keeps_what_is_charged(cluster: MakeCluster) -> None:
    both = cluster("them=0.01")
    both.submit("ours", "us", 5 * TEN_HOURS_MS)
    for number in range(40):
        both.submit(f"theirs-{number}", "them", 60_000)
        both.run(both.now_ms + CHUNK_MS)
        both.end(f"theirs-{number}")
    assert 0.005 <= share(both, "them") <= 0.015


@pytest.mark.parametrize("account", ["us", "them"])
def test_low_priority_has_a_part_beside_a_steady_stream(cluster: MakeCluster, account: str) -> None:
    both = cluster()
    both.submit("low", account, low=True)
    for number in range(100):
        # Two and a half workers' work arrives later, and all this waits already.
        both.submit(f"waiting-{number}", "us", TWO_MINUTES_MS)
    both.served_ms.clear()
    for number in range(120):
        both.run(both.now_ms + 48_000)
        both.submit(f"stream-{number}", "us", TWO_MINUTES_MS)
    low_ms = both.served_ms[account, True]
    assert 0.16 <= low_ms / both.served_ms.total() <= 0.24


def test_a_long_job_has_its_turns_beside_a_flood_of_short_ones_of_its_account(cluster: MakeCluster) -> None:
    both = cluster()
    for number in range(330):
        # More than the workers can do, and each is new.
        both.submit(f"short-{number}", "us", 60_000)
        both.run(both.now_ms + 14_000)
        if number == 30:
            both.submit("long", "us")
    assert both.jobs["long"].handed >= 3


def test_both_priorities_of_an_account_have_one_share(cluster: MakeCluster) -> None:
    both = cluster()
    for number in range(8):
        both.submit(f"ours-{number}", "us")
        both.submit(f"normal-{number}", "them")
        both.submit(f"low-{number}", "them", low=True)
    both.run(75 * CHUNK_MS)
    assert abs(share(both, "us") / share(both, "them") - 1) <= 0.1
    normal_ms, low_ms = both.served_ms["them", False], both.served_ms["them", True]
    assert abs(normal_ms / low_ms / 4 - 1) <= 0.15


def took_ms(cluster: Cluster, arrivals: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """From submission to the last chunk of each job; `arrivals`: when, in chunks of time, and ms of audio."""
    waiting, found = dict(arrivals), dict[str, int]()
    while len(found) < len(arrivals):
        for job_id, (after, audio_ms) in list(waiting.items()):
            if cluster.now_ms >= after * CHUNK_MS:
                cluster.submit(job_id, "us", audio_ms)
                del waiting[job_id]
        cluster.run(cluster.now_ms + STEP_MS)
        for job_id, job in cluster.jobs.items():
            if not job.left_ms and cluster.commits[job_id] == job.planned:
                found.setdefault(job_id, cluster.now_ms - job.submitted_ms)
    return found


def test_twenty_short_jobs_and_one_of_a_thousand_chunks_hardly_notice_each_other(
    cluster: MakeCluster,
) -> None:
    long, short = {"long": (0, 1000 * CHUNK_MS)}, {f"short-{n}": (10 * n, 3 * CHUNK_MS) for n in range(20)}
    long_ms = took_ms(cluster(), long)["long"]
    short_ms = took_ms(cluster(), {"short-0": short["short-0"]})["short-0"]
    together_ms = took_ms(cluster(), long | short)
    assert together_ms.pop("long") <= 1.1 * long_ms
    assert p95(sorted(together_ms.values())) <= 3 * short_ms
