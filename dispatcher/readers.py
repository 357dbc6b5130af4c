"""One reader of a job's stream at a time, so that no item goes to two requests, or to none."""

import asyncio
import contextlib

# A reader that is written to for longer than this has lost its client.
GIVE_UP_S = 10.0


class Reader:
    """A request that reads a job's stream, from its entry until its answer is written."""

    def __init__(self) -> None:
        self.superseded = asyncio.Event()
        self.finished = asyncio.Event()


class Readers:
    """The present reader of each job, of this process."""

    def __init__(self) -> None:
        self._readers: dict[str, Reader] = {}

    async def enter(self, job_id: str) -> Reader:
        """Take over from the present reader: it stops waiting, or finishes the answer it has begun."""
        older, reader = self._readers.get(job_id), Reader()
        self._readers[job_id] = reader
        if older:
            older.superseded.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(older.finished.wait(), GIVE_UP_S)
        return reader

    def leave(self, job_id: str, reader: Reader) -> None:
        reader.finished.set()
        if self._readers.get(job_id) is reader:
            del self._readers[job_id]
