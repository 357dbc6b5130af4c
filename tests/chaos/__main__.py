"""`python -m tests.chaos`: jobs go on while everything is killed, frozen and started again; all is checked.

Redis, the API, workers, their children and whoever reaps are real, and so are clients and receiver; only the
engine is fake. One seed makes the blows and the jobs; it is printed, and `--seed` repeats it. Prints every
broken promise, and exits with 1 if there is any.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.receivers import Receivers, receivers
from dispatcher.client import Client, segments_of
from tasks.scripts import connect
from tasks.settings import refuse_telemetry
from tests.chaos import leftovers
from tests.chaos.books import Count
from tests.chaos.customer import PATIENCE_S, Customer
from tests.chaos.schedule import Blow, Errand, Kind, Strike, errands, strikes
from tests.chaos.verdict import Arrival, Evidence, Segments, broken
from tests.chaos.world import World, children_of, settings_of
from tests.conftest import Receiver, receiving, write_recording

# Recordings of so many seconds, in chunks of ten.
LENGTHS_S = (4, 12, 21, 33, 58)
MOST_AT_ONCE = 24
FAILING = 0.2
# How often it is looked up what Redis has of the jobs that have ended.
BOOKS_MS = 1_000


class Chaos:
    """One run of it: `seed` and `minutes` say all."""

    def __init__(self, seed: int, minutes: float, world: World, site: Receiver, them: Receivers) -> None:
        rng = random.Random(seed)
        until_ms = round(minutes * 60_000)
        self._strikes = strikes(rng, until_ms, (500, 2_500))
        self._errands = errands(rng, until_ms, 700, len(LENGTHS_S))
        self._world, self._site, self._them = world, site, them
        self._until_ms = until_ms
        self._started_s = self._last_s = 0.0
        self._customers: list[Customer] = []
        self._books: dict[str, list[Count]] = {}
        self._read_ms = 0
        self.references: list[Segments] = []

    def listen(self) -> None:
        """Have every recording transcribed undisturbed."""
        client = Client(f"{self._world.machine.url}/v2/longhand")
        for number in range(len(LENGTHS_S)):
            job_id = client.submit({"url": self._url(number), "chunk_seconds": 10})
            assert all(True for _ in client.entries(job_id))
            self.references.append(segments_of(client.status(job_id)["output"]))

    def rage(self) -> None:
        """Strike and submit by the schedule, then let everything come to its end."""
        self._started_s = time.monotonic()
        blows, orders = list(self._strikes), list(self._errands)
        while blows or any(customer.is_alive() for customer in self._customers):
            now_ms = self._now_ms()
            self._world.tend(now_ms)
            self._read_books(now_ms)
            while blows and blows[0].at_ms <= now_ms:
                self._strike(blows.pop(0), now_ms)
            busy = sum(customer.is_alive() for customer in self._customers)
            if blows and orders and orders[0].at_ms <= now_ms and busy < MOST_AT_ONCE:
                self._send(orders.pop(0))
            time.sleep(0.02)
        self._world.thaw(None)
        self._last_s = self._quiet_s()
        self._read_books(self._now_ms() + BOOKS_MS)

    def _strike(self, strike: Strike, now_ms: int) -> None:
        if strike.blow is Blow.ECHO:
            in_work = [customer.seen.job_id for customer in self._customers if customer.is_alive()]
            self._world.echo(strike, [job_id for job_id in in_work if job_id])
        else:
            self._world.strike(strike, now_ms)
        print(f"{now_ms / 1000:8.1f} s  {strike.blow} {strike.target}", file=sys.stderr)

    def _read_books(self, now_ms: int) -> None:
        """Of whoever has left and was not looked up; while their jobs are kept, and Redis answers."""
        if now_ms < self._read_ms + BOOKS_MS:
            return
        self._read_ms = now_ms
        gone = [customer.seen.job_id for customer in self._customers if not customer.is_alive()]
        self._books |= self._world.books_of(
            [job_id for job_id in gone if job_id and job_id not in self._books]
        )

    def _send(self, errand: Errand) -> None:
        customer = Customer(
            errand, self._input(errand), f"{self._world.machine.url}/v2/longhand", self._quiet_s
        )
        self._customers.append(customer)
        customer.start()

    def _input(self, errand: Errand) -> dict[str, Any]:
        marker = self._site.folder / f"marker-{errand.number}"
        # So that there is something of the first run that the second tells again.
        chunk = int(LENGTHS_S[errand.recordings[0]] > 20)
        prompt = {
            Kind.RETRY: f"fail-until:{chunk}:{marker}",
            Kind.DEADLY: f"die:{chunk}:{marker}",
            Kind.SLOW: "slow:20000",
            Kind.CANCEL: "slow:500",
        }.get(errand.kind, "slow:60")
        urls = [self._url(recording) for recording in errand.recordings]
        if errand.kind is Kind.MISSING:
            urls = [f"{self._site.url}/404"]
        return {
            "url": urls if errand.kind is Kind.BATCH else urls[0],
            "chunk_seconds": 10,
            "transcribe_args": {"initial_prompt": prompt},
            "webhook_url": self._them.urls("healthy")[0],
        }

    def _url(self, recording: int) -> str:
        return f"{self._site.url}/{recording}.wav"

    def _now_ms(self) -> int:
        return round((time.monotonic() - self._started_s) * 1000)

    def _quiet_s(self) -> float:
        return max(0.0, (self._now_ms() - self._until_ms) / 1000)

    def judge(self) -> tuple[list[str], dict[str, Any]]:
        """The broken promises, and the figures."""
        seen = [customer.seen for customer in self._customers]
        self._wait_for_webhooks()
        arrivals = _arrivals(self._them)
        settings = self._world.settings
        commits = leftovers.commits(settings.data_path / "logs")
        found = list(broken(Evidence(seen, self.references, arrivals, commits, self._books)))
        found += self._left_over()
        ends = Counter(run.end.get("status", "") for one in seen for run in one.runs)
        return found, {
            "jobs": len(seen),
            "kinds": dict(Counter(one.errand.kind.value for one in seen)),
            "runs that ended": dict(ends),
            "chunks": len(commits),
            "jobs whose commits were counted in Redis": sum(map(bool, self._books.values())),
            "webhooks": len(arrivals),
            "answered with 500": sum(arrival.status != 200 for arrival in arrivals),
            "taken more than once": _repeats(arrivals),
            "blows": dict(sorted(self._world.struck.items())),
            "blows in all": self._world.struck.total(),
            "blows at nobody": self._world.missed,
            "from the last blow to the end of the last job, s": round(self._last_s, 1),
        }

    def _wait_for_webhooks(self) -> None:
        """Until every run's terminal event was taken, or it takes too long."""
        wanted = sum(len(customer.seen.runs) for customer in self._customers)
        while self._quiet_s() < PATIENCE_S:
            self._world.tend(self._now_ms())
            taken = {
                arrival.event
                for arrival in _arrivals(self._them)
                if arrival.terminal and arrival.status == 200
            }
            if len(taken) >= wanted:
                return
            time.sleep(0.5)

    def _left_over(self) -> list[str]:
        """Wait until retention is over, then look for what is left."""
        settings = self._world.settings
        client = connect(settings.state_url)
        deadline_s = time.monotonic() + 2 * settings.retention_ms / 1000
        while True:
            self._world.tend(self._now_ms())
            keys, files = sorted(leftovers.keys_left(client)), leftovers.files_left(settings)
            if not (keys or files) or time.monotonic() > deadline_s:
                break
            time.sleep(1)
        found = [f"key {key} is left" for key in keys[:20]] + [f"file {file} is left" for file in files[:20]]
        found += leftovers.counts_wrong(client)
        client.close()
        pids = set(self._world.machine.pids().values())
        expected = pids | {child for pid in pids for child in children_of(pid)}
        found += [f"process {pid} is nobody's" for pid in set(self._world.processes()) - expected]
        return found


def _arrivals(them: Receivers) -> list[Arrival]:
    found = []
    for line in them.arrived():
        event = line["head"].lower().partition("webhook-id: ")[2].partition("\r")[0]
        found.append(Arrival(event, json.loads(line["body"]), line["status"]))
    return found


def _repeats(arrivals: list[Arrival]) -> int:
    """How often an event came that had been taken: its answer was lost, or whoever waited for it had died."""
    taken = [arrival.event for arrival in arrivals if arrival.status == 200]
    return len(taken) - len(set(taken))


def main() -> None:
    """Rage for as long as was asked for, and judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--minutes", type=float, default=3.0)
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.minutes:g} minutes", flush=True)
    refuse_telemetry()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, length_s in enumerate(LENGTHS_S):
            write_recording(folder / f"{number}.wav", length_s)
        world = World(settings_of(folder / "data", "the secret of chaos"))
        with (
            receiving(Receiver(folder)) as site,
            receivers(folder / "arrivals", failing=FAILING, healthy=1) as them,
            world.running(),
        ):
            chaos = Chaos(options.seed, options.minutes, world, site, them)
            chaos.listen()
            chaos.rage()
            found, figures = chaos.judge()
        found += [f"process {pid} outlived its machine" for pid in world.processes()]
    print(json.dumps({"seed": options.seed, "minutes": options.minutes, **figures}, indent=2))
    for sentence in found:
        print(f"BROKEN: {sentence}")
    print(f"{len(found)} promises broken; repeat with --seed {options.seed} --minutes {options.minutes:g}")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
