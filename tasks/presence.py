"""Which workers there are, and how many of their processes can work: what health checks go by.

A worker's parent says how many slots its processes should keep open; the processes keep them open, each as
soon as it can work and for as long as it can (`Leases.open_slot`). The difference is what cannot work.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from redis import Redis

from tasks.scripts import Scripts, text
from tasks.settings import Settings


@dataclass(frozen=True, slots=True)
class Report:
    """What a parent says: so many slots there should be; whether each process has started, well or not."""

    slots: int
    started: bool


@dataclass(frozen=True, slots=True)
class Census:
    """The slots of a stage: those that are open, may open soon, and should be open and are not."""

    ready: int
    initializing: int
    unhealthy: int


def slot_name(parent: str, process: str) -> str:
    """The slot that a worker's process keeps open; a parent with threads keeps its own."""
    return f"{parent}/{process}"


def count(reports: Mapping[str, Report], slots: Iterable[str]) -> Census:
    """Compare what parents say, by their names, with the open slots.

    A process whose parent says nothing is given no work, so that its slot is worth nothing.
    """
    live = Counter(slot.partition("/")[0] for slot in slots)
    ready = initializing = 0
    unhealthy = sum(slots for parent, slots in live.items() if parent not in reports)
    for parent, report in reports.items():
        # A process that has just died and the one in its place may both have a slot.
        able = min(live[parent], report.slots)
        ready += able
        if report.started:
            unhealthy += report.slots - able
        else:
            initializing += report.slots - able
    return Census(ready, initializing, unhealthy)


class Presence:
    """Reports and slots in Redis. Each lapses a lease after it was last renewed, by Redis' clock."""

    def __init__(self, client: "Redis", settings: Settings) -> None:
        self._redis: Any = client
        self._scripts = Scripts(client)
        self._settings = settings

    def report(self, role: str, worker: str, report: Report) -> None:
        """A parent says what there should be; repeated every quarter of a lease."""
        self._scripts("report", role, worker, report.slots, int(report.started), self._settings.lease_ms)

    def reports(self, role: str) -> dict[str, Report]:
        """What the parents of a role say, by their names."""
        names = [text(name) for name in self._redis.zrange(f"lh:workers:{role}", 0, -1)]
        rows = self._redis.mget([f"lh:worker:{name}" for name in names]) if names else []
        found = {}
        for name, row in zip(names, rows, strict=True):
            if row is not None:
                slots, started = text(row).split()
                found[name] = Report(int(slots), started == "1")
        return found

    def census(self, role: str, stage: str) -> Census:
        """How the slots of a stage stand, which is the only one of its role."""
        return count(self.reports(role), self._slots(stage))

    def able(self, stage: str) -> set[str]:
        """The worker processes that are ready for a stage."""
        return {slot.rpartition("/")[2] for slot in self._slots(stage)}

    def _slots(self, stage: str) -> list[str]:
        seconds, micros = self._redis.time()
        now_ms = seconds * 1000 + micros // 1000
        return [text(slot) for slot in self._redis.zrange(f"lh:slots:{stage}", now_ms, "+inf", byscore=True)]
