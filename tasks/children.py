"""What a worker's parent does for its children: it ends those that must stop and do not, and gives out again
what those had in hand that died.

A child that decodes may be in native code that does not return, and may even hold Python's lock there; only
another process can end it. Which units its children have in hand the parent knows from Celery, without Redis;
how these stand it asks in one command every half second, and only while there are any.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from billiard import active_children
from celery.worker.state import active_requests
from redis.exceptions import RedisError

from tasks import app
from tasks.context import Context
from tasks.fitness import UNFIT
from tasks.heartbeat import NUDGE
from tasks.leases import ENDED, GONE, INGEST, TRANSCRIBE
from tasks.roles import worker_name

log = structlog.get_logger()

LOOK_S = 0.5
# What a child has to stop by itself once its job has ended, or its worker gives up what is in hand.
GRACE_S = 2.0
# Exit codes of a child that was told to end, or that ended itself: no sign of poison.
IN_ORDER = (0, -signal.SIGTERM, UNFIT)


@dataclass(frozen=True, slots=True)
class InHand:
    """A unit of work that a child has begun; `message` tells two attempts at the same unit apart."""

    pid: int
    message: str
    job_id: str
    stage: str
    unit: str


@dataclass(slots=True)
class Patience:
    """Decides which children to nudge and which to end, from how their units stand, s by any clock.

    A child whose job has ended has GRACE_S. One that lost its lease has `stall_s`, as any that does not
    advance. One that does not renew its lease is nudged when half of it is over, and ended when three
    quarters are: it hangs with Python's lock in its hands, and its unit is still its own, so it is charged.
    """

    lease_s: float
    stall_s: float
    _since: dict[InHand, tuple[str, float]] = field(default_factory=dict)

    def judge(
        self, states: Mapping[InHand, int], now_s: float
    ) -> tuple[list[InHand], list[tuple[InHand, str]]]:
        """Whom to nudge, and whom to end and why, given each unit's answer of `Leases.look`."""
        doubtful = {held: why for held, state in states.items() if (why := self._doubt(state))}
        nudge = [held for held, why in doubtful.items() if self._since.get(held, ("",))[0] != why]
        self._since = {
            held: (why, now_s if held in nudge else self._since[held][1]) for held, why in doubtful.items()
        }
        patience_s = {"ended": GRACE_S, "lost": self.stall_s, "silent": self.lease_s / 4}
        over = [
            (held, why) for held, (why, since_s) in self._since.items() if now_s - since_s >= patience_s[why]
        ]
        return nudge, over

    def _doubt(self, state: int) -> str:
        if state == ENDED:
            return "ended"
        if state == GONE:
            return "lost"
        return "silent" if state < 1000 * self.lease_s / 2 else ""


class Children:
    """Watches the children of this process until it is told to stop."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._patience = Patience(context.settings.lease_ms / 1000, context.settings.stall_ms / 1000)
        self._known: dict[int, Any] = {}
        self._ended: set[int] = set()
        # Names of those that died, and whether that is a sign of poison, until Redis has heard of it.
        self._dead: list[tuple[str, bool]] = []
        self._told_to_end = False

    def told_to_end(self, **_: object) -> None:
        """This worker ends, and gives back what it has in hand: who dies from now on is not charged."""
        self._told_to_end = True

    def watch(self, stop: threading.Event, clock: Callable[[], float]) -> None:
        """Look every LOOK_S; survive a Redis that is away."""
        while not stop.wait(LOOK_S):
            try:
                self.look(clock())
            except RedisError as error:
                log.warning("children_not_watched", error=str(error))
            except Exception:  # the edge of a thread that must not end: whatever it is, the next look goes on
                log.exception("children_not_watched")

    def look(self, now_s: float) -> None:
        """Once: see to those that died, nudge those in doubt, end those whose time is over."""
        self._count_the_dead()
        self._hand_back()
        held = in_hand()
        names = [(each.job_id, each.stage, each.unit, worker_name(each.pid)) for each in held]
        states = self._context.leases.look(names) if names else []
        nudge, over = self._patience.judge(dict(zip(held, states, strict=True)), now_s)
        # Redis may have taken its time to answer.
        still = set(in_hand())
        for each in nudge:
            if each in still and each.pid in self._known:
                os.kill(each.pid, NUDGE)
        for each, why in over:
            if each in still and each.pid in self._known:
                self._end(each, why)

    def _end(self, held: InHand, why: str) -> None:
        log.warning(
            "child_ended", why=why, pid=held.pid, job_id=held.job_id, stage=held.stage, unit=held.unit
        )
        if why != "silent":
            self._ended.add(held.pid)
        os.kill(held.pid, signal.SIGKILL)

    def _count_the_dead(self) -> None:
        if self._told_to_end:
            return
        alive = {child.pid: child for child in active_children() if child.pid}
        for pid, child in self._known.items():
            if pid not in alive:
                code = child.exitcode
                bad = code not in IN_ORDER and pid not in self._ended
                self._dead.append((worker_name(pid), bad))
                self._ended.discard(pid)
                log.warning("child_died", pid=pid, exit_code=code, charged=bad)
        self._known = alive

    def _hand_back(self) -> None:
        """What the dead had in hand goes back at once, and a chunk that was fatal too often is given up."""
        while self._dead:
            name, bad = self._dead[0]
            count, finished = self._context.leases.hand_back([name], died=bad)
            del self._dead[0]
            for job_id in finished:
                self._context.bells.assemble(job_id)
            if count:
                self._context.bells.ingests()
                self._context.bells.chunks()


def in_hand() -> list[InHand]:
    """What the children of this process work on."""
    units = ((request, _unit(request.name, request.args)) for request in _requests())
    return [
        InHand(request.worker_pid, request.id, *unit)
        for request, unit in units
        if unit and request.worker_pid
    ]


def _requests() -> tuple[Any, ...]:
    while True:
        try:
            return tuple(active_requests)
        except RuntimeError:  # Celery's own thread has changed it meanwhile
            continue


def _unit(stage: str, arguments: Iterable[Any]) -> tuple[str, str, str] | None:
    """Job, stage and unit of a message. Assembling never hangs, and ends its own job."""
    job_id, *index = arguments
    if stage == app.TRANSCRIBE:
        return str(job_id), TRANSCRIBE, str(index[0])
    return (str(job_id), INGEST, INGEST) if stage == app.INGEST else None
