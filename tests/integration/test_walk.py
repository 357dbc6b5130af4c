"""One job's leases in a real Redis, step by step in any order: no chunk is lost or done twice."""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from tasks.errors import ConfigurationError, EngineFailed, LeaseLost
from tasks.job import Options
from tasks.leases import TRANSCRIBE, Beat, Lease, Refused
from tests.bench import PAST_MS, Bench, chunk

UNKNOWN = Options()
EXHAUSTING = ConfigurationError()


@dataclass(frozen=True, slots=True)
class Sight:
    """Everything about job j's chunks, read in one step."""

    pending: set[int]
    inflight: set[int]
    done: set[int]
    dead: set[int]
    leased: set[int]
    live: set[int]
    in_line: bool
    pinned: bool
    done_ms: int
    events: list[int]
    rung_for_assemble: bool


def look(bench: Bench) -> Sight:
    with bench.redis.pipeline() as pipe:
        pipe.zrange("lh:job:j:pending", 0, -1).smembers("lh:job:j:inflight")
        pipe.hkeys("lh:job:j:results").hkeys("lh:job:j:dead")
        pipe.hkeys("lh:job:j:leases").zrange("lh:leases:transcribe", 0, -1, withscores=True)
        pipe.zscore("lh:line:transcribe:1/us", "j").hmget("lh:job:j", "pinned", "done_ms")
        pipe.xrange("lh:job:j:events").zscore("lh:leases:assemble", "j/assemble")
        *chunks, held, leased, in_line, (pinned, done_ms), entries, rung = pipe.execute()
    expiries = {int(member.split(b"/")[1]): expiry for member, expiry in leased}
    pending, inflight, done, dead = ({int(index) for index in found} for found in chunks)
    return Sight(
        *(pending, inflight, done, dead),
        leased=set(expiries),
        live={
            index for index, expiry in expiries.items() if expiry > PAST_MS and b"%d:owner" % index in held
        },
        in_line=in_line is not None,
        pinned=pinned == b"1",
        done_ms=int(done_ms or 0),
        events=[int(fields[b"chunk"]) for _, fields in entries],
        rung_for_assemble=rung is not None,
    )


class Walk:
    """One job, its workers and the reaper, taking steps in a random order; the checks hold after each."""

    def __init__(self, bench: Bench, seed: str) -> None:
        self.bench = bench
        self.random = random.Random(seed)
        self.steps = [seed]
        bench.redis.flushdb()
        self.ingest = bench.planned(chunks=0, options=UNKNOWN)
        self.planned = 0
        self.sealed = False
        self.messages: list[int] = []
        self.leases: list[Lease] = []
        self.written: dict[int, str] = {}
        self.told_complete = False

    def check(self, fact: object, what: str) -> None:
        assert fact, f"{what}, after {', '.join(self.steps)}"

    def tell(self, complete: bool) -> None:
        """Completion was told: is it true?"""
        if complete:
            sight = look(self.bench)
            self.check(
                self.sealed and len(sight.done | sight.dead) == self.planned, "complete before the end"
            )
            self.told_complete = True

    def any_lease(self) -> tuple[Lease, bool]:
        """A lease, perhaps long lost, and whether nobody was given a newer one."""
        lease = self.random.choice(self.leases)
        fences = [int(other.fence) for other in self.leases if other.unit == lease.unit]
        return lease, int(lease.fence) == max(fences)

    def step(self) -> None:
        moves: list[tuple[Callable[[], str], int]] = [
            (self.add_chunk, 3 if not self.sealed and self.planned < 5 else 0),
            (self.seal, 1 if self.planned > 1 else 0),
            (self.hand_out, 3),
            (self.claim, 6 if self.messages else 0),
            (self.commit, 3 if self.leases else 0),
            (self.release, 2 if self.leases else 0),
            (self.beat, 1 if self.leases else 0),
            (self.expire, 3),
            (self.reap, 2),
        ]
        (move,) = self.random.choices([move for move, _ in moves], [weight for _, weight in moves])
        self.steps.append(move.__name__)
        self.steps[-1] += f" {move()}"
        self.look_around()

    def add_chunk(self) -> str:
        self.check(self.bench.leases.add_chunk(self.ingest, chunk(self.planned)), "not added")
        again = replace(chunk(self.planned), blob="of another attempt")
        self.check(not self.bench.leases.add_chunk(self.ingest, again), "added twice")
        self.planned += 1
        return str(self.planned - 1)

    def seal(self) -> str:
        self.sealed = True
        self.tell(self.bench.leases.seal(self.ingest, self.planned, 1000 * self.planned, "[]"))
        return ""

    def hand_out(self) -> str:
        self.bench.open_slots(TRANSCRIBE, self.random.randrange(3))
        before = look(self.bench)
        rung = [index for _, index in self.bench.hand_out()]
        if rung and not before.pinned:
            self.check(not before.inflight and rung == [min(before.pending)], f"{rung} handed out unpinned")
        self.messages += rung
        return str(rung)

    def claim(self) -> str:
        """A message arrives, perhaps late, perhaps not for the first time."""
        index = self.random.choice(self.messages)
        before = look(self.bench)
        answer = self.bench.leases.claim("j", TRANSCRIBE, str(index))
        if isinstance(answer, Refused):
            self.tell(answer.reason == "complete")
            return f"{index}: {answer.reason}"
        self.check(index not in before.done | before.dead | before.live, f"{index} claimed twice")
        self.leases.append(answer)
        return f"{index}: fence {answer.fence}"

    def commit(self) -> str:
        lease, newest = self.any_lease()
        index, mark = int(lease.unit), f"{lease.unit} of fence {lease.fence}"
        given_up = index in look(self.bench).dead
        try:
            language, unsure = self.random.choice([("", None), ("he", None), ("yi", 0.3)])
            self.tell(self.bench.commit(lease, language, mark, unsure=unsure))
        except LeaseLost:
            self.check(given_up or not newest, f"{mark} lost")
        else:
            self.check(newest and not given_up, f"{mark} written by a lost lease")
            self.written.setdefault(index, mark)
        return mark

    def release(self) -> str:
        lease, newest = self.any_lease()
        error = self.random.choice([None, EngineFailed(), EXHAUSTING])
        outcome = self.bench.leases.release(lease, error, self.random.choice([0, 60_000]))
        self.check(newest or outcome == "lost", "released by a lost lease")
        self.tell(outcome == "complete")
        return f"{lease.unit} of fence {lease.fence}: {outcome}"

    def beat(self) -> str:
        lease, newest = self.any_lease()
        outcome = self.bench.leases.beat(lease)
        self.check(newest or outcome is Beat.LOST, "renewed by a lost lease")
        return f"{lease.unit} of fence {lease.fence}: {outcome.name}"

    def expire(self) -> str:
        leased = sorted(look(self.bench).leased)
        if not leased:
            return "nothing"
        index = self.random.choice(leased)
        self.bench.expire(TRANSCRIBE, str(index))
        return str(index)

    def reap(self) -> str:
        self.bench.leases.reap()
        return ""

    def look_around(self) -> None:
        sight = look(self.bench)
        together = [*sight.pending, *sight.inflight, *sight.done, *sight.dead]
        self.check(sorted(together) == list(range(self.planned)), "a chunk is not in exactly one set")
        self.check(sight.done == self.written.keys(), "done is not what was committed")
        self.check(sight.done_ms == 1000 * len(sight.done), "done_ms is not that of the chunks done")
        self.check(sight.leased == sight.inflight, "in flight and never to expire, or the reverse")
        may_go_on = sight.pending and (sight.pinned or not sight.inflight)
        self.check(sight.in_line or not may_go_on, "it can go on and is not in line")
        first = itertools.takewhile(lambda index: index in sight.done, range(self.planned))
        self.check(sight.events == list(first), "readers do not see the first chunks, in order, each once")
        ended = self.sealed and len(sight.done | sight.dead) == self.planned
        self.check(ended == self.told_complete == sight.rung_for_assemble, "its end and the telling differ")

    def carry_to_the_end(self) -> None:
        """Whatever happened, workers that work bring the job to its end."""
        if not self.planned:
            self.add_chunk()
        self.seal()
        for _ in range(3 * self.planned):
            for index in look(self.bench).leased:
                self.bench.expire(TRANSCRIBE, str(index))
            self.bench.leases.reap()
            for _, index in self.bench.hand_out():
                answer = self.bench.leases.claim("j", TRANSCRIBE, str(index))
                if isinstance(answer, Lease):
                    self.tell(self.bench.commit(answer, text="at last"))
                else:
                    self.tell(answer.reason == "complete")
        self.check(self.told_complete, "never complete")
        for found in self.bench.store.results("j"):
            text = found.segments[0].text
            self.check(text == self.written.get(found.index, "at last"), f"{found.index} was written over")

    def cancel(self) -> None:
        """After that no step changes anything."""
        self.bench.finish()
        before = self.state()
        for lease in self.leases:
            self.check(self.bench.leases.beat(lease) is Beat.ENDED, "renewed after the end")
            self.check(self.bench.leases.release(lease, None) == "lost", "released after the end")
            with pytest.raises(LeaseLost):
                self.bench.commit(lease)
        for index in self.messages:
            self.check(self.bench.leases.claim("j", TRANSCRIBE, str(index)) == Refused("gone"), "claimed")
        self.bench.leases.reap()
        self.check(self.bench.hand_out() == [], "handed out after the end")
        self.check(self.state() == before, "changed after the end")

    def state(self) -> dict[str, bytes]:
        """All keys but that of when the reaper last looked."""
        keys: list[str] = [key.decode() for key in self.bench.redis.keys("*")]
        return {key: self.bench.redis.dump(key) for key in keys if key != "lh:reaped"}


@pytest.mark.parametrize("seed", range(8))
def test_no_order_of_steps_loses_or_doubles_a_chunk(bench: Bench, seed: int) -> None:
    for number in range(7):
        walk = Walk(bench, f"walk {seed}.{number}")
        for _ in range(50):
            walk.step()
        if number:
            walk.carry_to_the_end()
        else:
            walk.cancel()
