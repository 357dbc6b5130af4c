"""What a worker can be: which stages it runs, in which pool, and how it shows that it can work."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from tasks import app


@dataclass(frozen=True, slots=True)
class Role:
    """`least` processes or threads, `slots(count)` of which report on `slot_stage` that they can work."""

    stages: tuple[str, ...]
    pool: str
    least: int
    slot_stage: str
    slots: Callable[[int], int]

    def concurrency(self, asked: int) -> int:
        """How many processes or threads there are where `asked` were asked for."""
        return max(asked, self.least)


ROLES = {
    "transcribe": Role((app.TRANSCRIBE,), "prefork", 1, "transcribe", lambda count: count),
    # One process is kept for assembling, however many recordings come in.
    "io": Role((app.INGEST, app.ASSEMBLE), "prefork", 3, "ingest", lambda count: count - 1),
    # Its threads are one slot, kept by a thread of the pool.
    "deliver": Role((app.DELIVER,), "threads", 16, "deliver", lambda _count: 1),
}


def command_line(description: str | None = None) -> argparse.ArgumentParser:
    """That of a worker; its health check reads it again."""
    parser = argparse.ArgumentParser(prog="python -m tasks.worker", description=description)
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("--concurrency", type=int, default=0, help="processes (io, transcribe) or threads")
    return parser
