"""Processes of one machine: started, started again when they end, and ended with their parent."""

import contextlib
import ctypes
import functools
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

PR_SET_PDEATHSIG = 1
INTERRUPT_S = 2.0
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
# A process that dies again within this time is started after ever longer waits.
STEADY_S = 10.0


@dataclass(slots=True)
class Process:
    """One process, started again whenever it ends, with its log in a file, or in that of its parent."""

    name: str
    argv: list[str]
    env: dict[str, str]
    log: Path | None
    started_s: float = 0.0
    # What it gets where its parent is killed outright: a worker would wait for a Redis that goes too.
    on_orphaned: signal.Signals = signal.SIGKILL
    failures: int = 0
    due_s: float | None = None
    popen: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self, now_s: float) -> None:
        with self.log.open("ab") if self.log else contextlib.nullcontext() as output:
            # A session of its own: Ctrl-C reaches only the parent, which ends the others in order.
            self.popen = subprocess.Popen(
                [sys.executable, "-m", *self.argv],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                start_new_session=True,
                preexec_fn=functools.partial(  # noqa: PLW1509  this process has one thread
                    _end_with_parent, self.on_orphaned
                ),
            )
        self.started_s = now_s

    @property
    def ended(self) -> bool:
        return self.popen is not None and self.popen.poll() is not None

    def revive(self, now_s: float) -> bool:
        """Start it again if it has ended and its turn has come; True where this call did."""
        if not self.ended:
            return False
        if self.due_s is None:
            quick = now_s - self.started_s < STEADY_S
            self.failures = self.failures + 1 if quick else 0
            self.due_s = now_s + min(0.1 * 2.0**self.failures, 10.0)
        if now_s < self.due_s:
            return False
        self.due_s = None
        self.kill()
        self.start(now_s)
        return True

    def kill(self) -> None:
        """End it by force, with what it started itself and left behind."""
        if self.popen:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait()

    def last_lines(self, count: int = 5) -> str:
        if self.log is None or not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])


def end_all(processes: list[Process], grace_s: float) -> None:
    """End what is running: politely, and by force what is left after `grace_s`."""
    for process in processes:
        if process.popen:
            process.popen.terminate()
    deadline_s = time.monotonic() + grace_s
    for process in processes:
        if process.popen:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.popen.wait(max(0.0, deadline_s - time.monotonic()))
        process.kill()


def end_on_signals() -> None:
    """Let SIGINT and SIGTERM raise KeyboardInterrupt, until ignore_signals()."""
    for number in ENDING_SIGNALS:
        signal.signal(number, _interrupt)


def ignore_signals() -> None:
    """Let nothing cut short what comes now."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    # Python drops what is raised inside a finaliser; so it is raised again, by SIGALRM, until it is heard.
    signal.setitimer(signal.ITIMER_REAL, INTERRUPT_S)
    raise KeyboardInterrupt


def _end_with_parent(number: signal.Signals) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
