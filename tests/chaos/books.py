"""What Redis has of a job that has ended, which cannot be lost as a line of a log can.

With each commit of a chunk its length is added to a sum, in the same step as its result is written. The sum
is that of the results only if each was written once.
"""

from dataclasses import dataclass
from typing import Any

from tasks.store import Store


@dataclass(frozen=True, slots=True)
class Count:
    """How much of a kind (`what`) the commits of a job have counted, and how much its results come to."""

    what: str
    counted: int
    there: int


def read(client: Any, store: Store, job_id: str) -> list[Count]:
    """The counts of a job, and of each recording of a batch; none if nothing is kept of it any more."""
    job = store.job(job_id)
    if job is None:
        return []
    lengths_ms = {id_: _lengths_ms(client, store, id_) for id_ in job.part_ids or [job_id]}
    rows = {id_: store.job(id_) for id_ in lengths_ms}
    found = [Count(f"ms of {id_}", row.done_ms, sum(lengths_ms[id_])) for id_, row in rows.items() if row]
    if job.parts:
        there = [length for each in lengths_ms.values() for length in each]
        counted = int(client.hget(f"lh:job:{job_id}", "chunks_done") or 0)
        found += [Count("ms in all", job.done_ms, sum(there)), Count("chunks in all", counted, len(there))]
    # All of it goes at one moment: what is there now was there before.
    return found if client.exists(f"lh:job:{job_id}") else []


def _lengths_ms(client: Any, store: Store, job_id: str) -> list[int]:
    """Of the chunks that have a result."""
    done = {int(index) for index in client.hkeys(f"lh:job:{job_id}:results")}
    return [chunk.end_ms - chunk.start_ms for chunk in store.chunks(job_id) if chunk.index in done]
