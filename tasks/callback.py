"""The body of the platform's callback: what the `webhook` of /run gets when its job has ended."""

import json

from tasks.errors import JobGone
from tasks.store import Store
from tasks.views import status_object


def callback_body(store: Store, job_id: str) -> bytes:
    """The status object with the client's own `input` and `webhook`. Raises JobGone once retention is over.

    Made when it is sent and not when the job ends, so that Redis does not hold a transcript twice; it is the
    same each time, since a job that has ended does not change. Shape: contracts/runpod.md, section 1.
    """
    job, callback = store.job(job_id), store.callback(job_id)
    if job is None or callback is None:
        raise JobGone
    shown = status_object(job, store, job.finished_ms or 0)
    shown |= {"input": json.loads(callback.input), "webhook": callback.url}
    return json.dumps(shown, ensure_ascii=False).encode()
