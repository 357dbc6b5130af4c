"""`python -m tasks.health`: whether every process of the workers here can work, for a container engine.

A worker's parent answers for children that cannot load a model, hang or die again and again. So it is not
asked: each child reports as a slot in Redis once it can work, and this looks for the slot of every child; one
that is missing is enough. A frozen parent gives its children nothing to do, so it has to report, too.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from redis.exceptions import RedisError

from tasks.errors import LonghandError
from tasks.presence import Presence
from tasks.roles import ROLES, command_line, worker_name
from tasks.scripts import connect
from tasks.settings import Settings

MODULE = "tasks.worker"
# What `longhand runpod` keeps running, each by its command line.
ALL_IN_ONE = (*(f"-m {MODULE} {role}" for role in ROLES), "-m dispatcher.handler")


@dataclass(frozen=True, slots=True)
class Running:
    """A worker's parent process, and its children, by process id.

    Its environment says which Redis it uses: that of an embedded one is known to nobody else.
    """

    role: str
    expected: int
    pids: tuple[int, ...]
    environment: dict[str, str] = field(default_factory=dict, repr=False)


def main(processes: Path = Path("/proc"), arguments: list[str] | None = None) -> None:
    """Exit 0 if all can work, else 1 with a sentence."""
    argparse.ArgumentParser(prog="python -m tasks.health", description=__doc__).parse_args(arguments)
    workers = list(running(processes))
    faults = list(absent(processes)) if workers else ["no worker runs here"]
    try:
        for found in workers:
            settings = Settings.from_env(found.environment)
            faults += look(Presence(connect(settings.state_url), settings), found)
    except LonghandError as error:
        faults.append(f"{error.code}: {error}")
    except RedisError as error:
        faults.append(f"Redis is away: {error}")
    if faults:
        sys.exit("; ".join(faults))


def look(presence: Presence, worker: Running) -> Iterator[str]:
    """What is wrong with a worker on this host, a sentence each. Raises redis.exceptions.RedisError."""
    live = set().union(*map(presence.able, ROLES[worker.role].slot_stages))
    able = sum(worker_name(pid) in live for pid in worker.pids)
    if able < worker.expected:
        yield f"{worker.role}: {able} of {worker.expected} can work"
    elif worker_name(worker.pids[0]) not in presence.reports(worker.role):
        yield f"{worker.role}: the parent of its processes does not report"


def absent(processes: Path) -> Iterator[str]:
    """What `longhand runpod`, if that is among the processes, should keep running and does not."""
    commands = [" ".join(_strings(process / "cmdline")) for process in processes.glob("[0-9]*")]
    if not any("longhand runpod" in command or "dispatcher.cli runpod" in command for command in commands):
        return
    for part in ALL_IN_ONE:
        if not any(part in command for command in commands):
            yield f"{part.removeprefix('-m ')} does not run"


def running(processes: Path) -> Iterator[Running]:
    """The workers among the processes in a folder like /proc."""
    parents = {int(entry.name): _parent_of(entry) for entry in processes.glob("[0-9]*")}
    for pid in parents:
        arguments = _arguments(processes / str(pid))
        if arguments is None:
            continue
        options = command_line().parse_args(arguments)
        expected = ROLES[options.role].slots(options.concurrency)
        children = tuple(child for child, parent in parents.items() if parent == pid)
        environment = dict(entry.partition("=")[::2] for entry in _strings(processes / str(pid) / "environ"))
        yield Running(options.role, expected, (pid, *children), environment)


def _parent_of(process: Path) -> int | None:
    try:
        lines = (process / "status").read_text().splitlines()
    except OSError:
        return None  # it has ended meanwhile
    return next((int(line.split()[1]) for line in lines if line.startswith("PPid:")), None)


def _arguments(process: Path) -> list[str] | None:
    """A worker's arguments after the module's name; None for any other process."""
    line = _strings(process / "cmdline")
    # An init such as tini has the whole command line of its child.
    if not line or not Path(line[0]).name.startswith("python") or "-m" not in line:
        return None
    module, *arguments = line[line.index("-m") + 1 :] or [""]
    return arguments if module == MODULE else None


def _strings(file: Path) -> list[str]:
    """The strings in a file of /proc, each ended by NUL; none where the process has ended meanwhile."""
    try:
        return file.read_text(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return []


if __name__ == "__main__":
    main()
