"""Signed links to a transcript, for receivers whose webhooks would be too large."""

import hashlib
import hmac

from tasks.job import Job


def link(base: str, job: Job, expires_ms: int, key: bytes) -> str:
    """The address of a job's transcript; `base` is the API's own, without `/v2`, `expires_ms` Unix time."""
    query = f"expires={expires_ms}&signature={_sign(key, job, expires_ms)}"
    return f"{base.rstrip('/')}/v2/{job.endpoint}/transcription/{job.id}?{query}"


def verify(key: bytes, job: Job, expires_ms: int, signature: str, now_ms: int) -> bool:
    """Whether a link to the job's transcript is ours, in constant time, and not over yet."""
    expected = _sign(key, job, expires_ms).encode()
    return hmac.compare_digest(expected, signature.encode("ascii", "replace")) and now_ms < expires_ms


def _sign(key: bytes, job: Job, expires_ms: int) -> str:
    return hmac.new(key, f"{job.id}.{job.run}.{expires_ms}".encode(), hashlib.sha256).hexdigest()
