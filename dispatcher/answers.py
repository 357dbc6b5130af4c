"""What the API answers, as JSON schemas for its description; a test holds them against real answers."""

from typing import Any

from tasks.outbox import STATES
from tasks.views import PLATFORM_STATUS, STREAM_OPEN, STREAM_OVER

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
MS: Schema = {"type": "integer", "description": "ms; of a time, since the epoch"}
OR_NONE_MS: Schema = {**MS, "type": ["integer", "null"]}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _object(always: dict[str, Schema], sometimes: dict[str, Schema] | None = None) -> Schema:
    return {"type": "object", "required": list(always), "properties": {**always, **(sometimes or {})}}


STATUS: Schema = {"type": "string", "enum": list(PLATFORM_STATUS.values())}
ACCEPTED = _object({"id": TEXT, "status": {"type": "string", "enum": ["IN_QUEUE"]}})
JOB = _object(
    {"id": TEXT, "status": STATUS},
    {
        "delayTime": MS,
        "executionTime": MS,
        "workerId": TEXT,
        "output": {
            "type": "array",
            "items": {},
            "description": "all that the job streamed, once it is COMPLETED; its progress before that",
        },
        "duration": {**NUMBER, "description": "of the recording, s"},
        "language": TEXT,
        "language_probability": {**NUMBER, "description": "where it was detected"},
        "model": TEXT,
        "engine": TEXT,
        "warnings": _list(TEXT),
        "gaps": _list(_object({"start": NUMBER, "end": NUMBER, "code": TEXT}, {"index": WHOLE})),
        "error": {**TEXT, "description": "of a job that is FAILED"},
        "code": {**TEXT, "description": "stable, of the same"},
    },
)
PAGE = _object(
    {
        "status": {"type": "string", "enum": [STREAM_OPEN, STREAM_OVER]},
        "stream": _list(_object({"output": {"description": "an item, in the dialect of the job"}})),
    },
    {"cursor": {**TEXT, "description": "reads on from here"}},
)
HEALTH = _object(
    {
        "jobs": _object(dict.fromkeys(("completed", "failed", "inProgress", "inQueue", "retried"), WHOLE)),
        "workers": _object(
            dict.fromkeys(("idle", "initializing", "ready", "running", "throttled", "unhealthy"), WHOLE)
        ),
    }
)
LISTED = _object(
    {
        **{"id": TEXT, "status": STATUS, "recording_id": TEXT, "created_ms": MS},
        **{"audio_seconds_done": NUMBER, "audio_seconds_total": {"type": ["number", "null"]}, "error": TEXT},
    }
)
DELIVERY_FIELDS: dict[str, Schema] = {
    **{"id": TEXT, "job_id": TEXT, "kind": TEXT, "receiver": TEXT},
    **{"state": {"type": "string", "enum": list(STATES)}, "attempts": WHOLE},
    **{"created_ms": MS, "due_ms": OR_NONE_MS, "settled_ms": OR_NONE_MS},
}
ATTEMPT = _object({"at_ms": MS, "status": WHOLE, "duration_ms": MS, "error": TEXT})
DELIVERY = _object({**DELIVERY_FIELDS, "attempts_made": _list(ATTEMPT)})
UPLOAD = _object({"id": TEXT, "url": TEXT, "bytes": WHOLE, "offset": WHOLE, "expires": TEXT})

# "METHOD path" -> status -> schema of the body, or None where there is none.
ANSWERS: dict[str, dict[str, Schema | None]] = {
    "POST run": {"200": ACCEPTED},
    "POST runsync": {"200": JOB},
    **{
        f"{method} {name}/{{job_id}}": {"200": schema}
        for method in ("GET", "POST")
        for name, schema in (("status", JOB), ("status-sync", JOB), ("stream", PAGE))
    },
    "POST cancel/{job_id}": {"200": JOB},
    "POST retry/{job_id}": {"200": ACCEPTED},
    "POST purge-queue": {"200": _object({"removed": WHOLE, "status": TEXT})},
    "GET health": {"200": HEALTH},
    "GET jobs": {"200": _object({"jobs": _list(LISTED)})},
    "GET webhooks": {"200": _object({"webhooks": _list(_object(DELIVERY_FIELDS))})},
    "GET webhooks/{delivery_id}": {"200": DELIVERY},
    "POST webhooks/{delivery_id}/redeliver": {"200": DELIVERY},
    "POST webhook-test": {"200": DELIVERY},
    "GET transcription/{job_id}": {"200": {"type": "object", "description": "the webhook's body"}},
    "OPTIONS upload": {"204": None},
    "POST upload": {"200": UPLOAD, "201": UPLOAD},
    "GET upload/{upload_id}": {"200": UPLOAD},
    "HEAD upload/{upload_id}": {"200": None},
    "PATCH upload/{upload_id}": {"204": None},
    "POST upload/{upload_id}": {"204": None},
    "GET /ping": {"200": _object({"status": TEXT})},
}
