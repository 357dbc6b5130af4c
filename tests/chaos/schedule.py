"""What is done to the machine and asked of it, and when: all from one seed, so that it can be repeated."""

import random
from dataclasses import dataclass
from enum import StrEnum

# The longest that a process is frozen: longer than the lease of what it has in hand.
FREEZE_MS = 7_000


class Blow(StrEnum):
    """What befalls a process: SIGKILL, SIGTERM, or SIGSTOP and later SIGCONT.

    And what befalls all jobs in work: a message of theirs that is late, or there twice.
    """

    KILL = "kill"
    END = "end"
    FREEZE = "freeze"
    ECHO = "echo"


class Kind(StrEnum):
    """What a customer has done to a job."""

    PLAIN = "plain"
    BATCH = "batch"
    CANCEL = "cancel"
    # A chunk of it fails until it is mended, and then it is tried again.
    RETRY = "retry"
    # A chunk of it kills its process, once.
    DEADLY = "deadly"
    # Its recording is not there.
    MISSING = "missing"
    # It would take longer than it may.
    SLOW = "slow"


@dataclass(frozen=True, slots=True)
class Strike:
    """One blow at `at_ms`; `share` in [0, 1) says which of several children, or of some chunks, it meets."""

    at_ms: int
    blow: Blow
    target: str
    share: float
    for_ms: int


@dataclass(frozen=True, slots=True)
class Errand:
    """One job, submitted at `at_ms`; canceled `delay_ms` later where it is one for that.

    `drains` says that its stream is read as RunPod's clients do, each item once, and not by a cursor.
    """

    number: int
    at_ms: int
    kind: Kind
    recordings: tuple[int, ...]
    delay_ms: int
    drains: bool


# How often each is met, and by what. Frozen children outlast their leases; a frozen Redis is one that hangs.
TARGETS: dict[tuple[str, Blow], int] = {
    ("redis", Blow.KILL): 4,
    ("redis", Blow.END): 1,
    ("redis", Blow.FREEZE): 2,
    ("api", Blow.KILL): 4,
    ("api", Blow.END): 1,
    ("api", Blow.FREEZE): 2,
    ("reaper", Blow.KILL): 3,
    ("reaper", Blow.FREEZE): 2,
    ("io", Blow.KILL): 2,
    ("io", Blow.END): 1,
    ("io", Blow.FREEZE): 1,
    ("deliver", Blow.KILL): 3,
    ("deliver", Blow.END): 1,
    ("deliver", Blow.FREEZE): 2,
    ("transcribe", Blow.KILL): 3,
    ("transcribe", Blow.END): 2,
    ("transcribe", Blow.FREEZE): 1,
    ("child of io", Blow.KILL): 5,
    ("child of io", Blow.FREEZE): 3,
    ("child of transcribe", Blow.KILL): 6,
    ("child of transcribe", Blow.FREEZE): 4,
    ("ingest", Blow.ECHO): 2,
    ("transcribe", Blow.ECHO): 4,
    ("assemble", Blow.ECHO): 4,
    # A machine is lost, or loses its power.
    ("workers", Blow.KILL): 1,
    ("everything", Blow.KILL): 1,
}
KINDS = {
    Kind.PLAIN: 10,
    Kind.BATCH: 2,
    Kind.CANCEL: 4,
    Kind.RETRY: 2,
    Kind.DEADLY: 2,
    Kind.MISSING: 1,
    Kind.SLOW: 1,
}


def strikes(rng: random.Random, until_ms: int, between_ms: tuple[int, int]) -> list[Strike]:
    """Blows that follow each other after a time within `between_ms`."""
    found = []
    at_ms = rng.randint(*between_ms)
    while at_ms < until_ms:
        target, blow = rng.choices(list(TARGETS), list(TARGETS.values()))[0]
        # Whoever waits for Redis or the API waits as long.
        longest_ms = FREEZE_MS if target not in ("redis", "api") else FREEZE_MS // 2
        found.append(Strike(at_ms, blow, target, rng.random(), rng.randint(500, longest_ms)))
        at_ms += rng.randint(*between_ms)
    return found


def errands(rng: random.Random, until_ms: int, every_ms: int, recordings: int) -> list[Errand]:
    """Jobs one after the other, each of one of `recordings` recordings or a batch of some."""
    found = []
    for number, at_ms in enumerate(range(0, until_ms, every_ms)):
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        count = rng.randint(2, 3) if kind is Kind.BATCH else 1
        chosen = tuple(rng.randrange(recordings) for _ in range(count))
        found.append(Errand(number, at_ms, kind, chosen, rng.randint(0, 3_000), rng.random() < 0.3))
    return found
