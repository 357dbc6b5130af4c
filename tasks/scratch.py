"""Folders for downloads in progress, removed with their process even where it was killed."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tasks.errors import ConfigurationError

LOCK = "lock"


@contextmanager
def scratch_folder(root: Path, name: str) -> Iterator[Path]:
    """A new folder under `root`, locked while it is in use; folders that nobody holds are removed first."""
    root.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(root)
    folder, lock = _locked_folder(root, name)
    with lock:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _locked_folder(root: Path, name: str) -> tuple[Path, TextIO]:
    """A new folder, and its lock, which is held."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=root))
        lock = (folder / LOCK).open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / LOCK).exists():
            return folder, lock
        # Somebody had the lock before us, and has removed what nobody held.
        lock.close()


def check(root: Path) -> None:
    """Raise ConfigurationError where no folder can be made under `root`."""
    try:
        with scratch_folder(root, "check"):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"downloads cannot be kept in {root} ({error}): let user {os.getuid()} write there, "
            "or set LONGHAND_DATA_DIR"
        ) from error


def _remove_abandoned(root: Path) -> None:
    """The lock of a process that was killed is free. A folder without one has only just been made."""
    for folder in root.iterdir():
        try:
            with (folder / LOCK).open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue
