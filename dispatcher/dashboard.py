"""`python -m dispatcher.dashboard`: Flower, read-only, behind a login, with a memory that outlives it."""

import argparse
import sys

from tasks.app import create_app
from tasks.errors import ConfigurationError, LonghandError
from tasks.exposure import refuse_weak_login
from tasks.logs import start_logging
from tasks.scripts import connect
from tasks.settings import Settings
from tasks.store import Store

COLUMNS = "name,args,state,received,started,runtime,worker"
SAVE_EVERY_MS = 10_000
# A task is about 1 kB here and in the file, which is written anew at every saving.
MAX_TASKS = 10_000


def arguments(settings: Settings, address: str, port: int) -> list[str]:
    """Flower's command line. Raises ConfigurationError where it would be open to other machines."""
    refuse_weak_login(settings, address)
    folder = settings.data_path / "flower"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"Flower's memory cannot be kept in {folder} ({error}): set LONGHAND_DATA_DIR"
        ) from error
    login = [f"--basic-auth={settings.flower_login}"] if settings.flower_login else []
    return [
        "flower",
        f"--address={address}",
        f"--port={port}",
        "--read-only",
        "--persistent",
        f"--db={folder / 'state'}",
        f"--state-save-interval={SAVE_EVERY_MS}",
        f"--max-tasks={MAX_TASKS}",
        f"--tasks-columns={COLUMNS}",
        *login,
    ]


def main() -> None:
    """Check the settings and Redis, then serve until told to end."""
    parser = argparse.ArgumentParser(prog="python -m dispatcher.dashboard", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5555)
    options = parser.parse_args()
    start_logging()
    try:
        settings = Settings.from_env()
        argv = arguments(settings, options.host, options.port)
        Store(connect(settings.state_url), settings).check_server()
    except LonghandError as error:
        sys.exit(f"{error.code}: {error}")
    app = create_app(settings)
    # The stages are a worker's: they import what loads models.
    app.conf.include = []
    app.start(argv)


if __name__ == "__main__":
    main()
