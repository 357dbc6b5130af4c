"""What a worker can be: which stages it runs, in which pool, and how it shows that it can work."""

import argparse
import socket
from dataclasses import dataclass

from tasks import app


@dataclass(frozen=True, slots=True)
class Role:
    """`least` processes or threads; each process that can work is a slot of a stage, all threads are one."""

    stages: tuple[str, ...]
    pool: str
    least: int
    slot_stage: str
    # That of the first process, where it is another.
    first_slot_stage: str = ""

    def concurrency(self, asked: int) -> int:
        """How many processes or threads there are where `asked` were asked for."""
        return max(asked, self.least)

    def slots(self, asked: int) -> int:
        """How many slots there are then, if all can work."""
        return 1 if self.pool == "threads" else self.concurrency(asked)

    def slot_stage_of(self, number: int) -> str:
        """The stage of which process `number`, from 0, is a slot."""
        return self.slot_stage if number else self.first_slot_stage or self.slot_stage

    @property
    def slot_stages(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.slot_stage, self.first_slot_stage)))


ROLES = {
    "transcribe": Role((app.TRANSCRIBE,), "prefork", 1, "transcribe"),
    # One process is kept for assembling, however many recordings come in.
    "io": Role((app.INGEST, app.ASSEMBLE), "prefork", 3, "ingest", "assemble"),
    # A thread of the pool keeps the slot.
    "deliver": Role((app.DELIVER,), "threads", 128, "deliver"),
}


def worker_name(pid: int) -> str:
    """What a worker process of this host is called in Redis, in logs and to clients."""
    return f"{socket.gethostname()}-{pid}"


def command_line(description: str | None = None) -> argparse.ArgumentParser:
    """That of a worker; its health check reads it again."""
    parser = argparse.ArgumentParser(prog="python -m tasks.worker", description=description)
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("--concurrency", type=int, default=0, help="processes (io, transcribe) or threads")
    return parser
