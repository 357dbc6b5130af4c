"""Bodies and signatures of progress webhooks: the exact text to send, frozen when the event is written."""

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from tasks.errors import ConfigurationError, LonghandError
from tasks.setting_values import signing_key
from tasks.transcript import Transcript


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is. `total_ms` is None while the recording's length is unknown."""

    done_ms: int
    total_ms: int | None
    chunks_done: int
    chunks_total: int | None
    eta_ms: int | None

    def to_wire(self) -> dict[str, int | float | None]:
        """Times in seconds; totals, fraction and eta are None while the length is unknown."""
        known = self.total_ms is not None
        return {
            "fraction": self._fraction(),
            "audio_seconds_done": self.done_ms / 1000,
            "audio_seconds_total": _seconds(self.total_ms),
            "chunks_done": self.chunks_done,
            "chunks_total": self.chunks_total if known else None,
            "eta_seconds": _seconds(self.eta_ms) if known else None,
        }

    def _fraction(self) -> float | None:
        if self.total_ms is None:
            return None
        # An empty recording is done from the start.
        share = self.done_ms / self.total_ms if self.total_ms else 1.0
        return round(min(max(share, 0.0), 1.0), 4)


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000


def transcribing(job_id: str, recording_id: str, now_ms: int) -> str:
    """Body of a job's first event."""
    return _body(job_id, recording_id, now_ms, status="transcribing")


def progressed(job_id: str, recording_id: str, now_ms: int, progress: Progress) -> str:
    """Body of an event in the middle of a job."""
    return _body(job_id, recording_id, now_ms, status="transcribing", progress=progress.to_wire())


def completed(
    job_id: str,
    recording_id: str,
    now_ms: int,
    transcript: Transcript,
    transcription: list[dict[str, object]],
    *,
    sources: list[dict[str, object]] | None = None,
) -> str:
    """Body of the event that carries the transcript, `transcription` being its wire segments.

    `sources` are the recordings of a batch: what is known of each, or its error. `warnings` are there only
    where there are any: a file that was cut off, or damaged. So are `gaps`, where the client allowed them.
    """
    more = {} if sources is None else {"sources": sources}
    return _completed(job_id, recording_id, now_ms, transcript, transcription=transcription, **more)


def _completed(job_id: str, recording_id: str, now_ms: int, transcript: Transcript, **content: object) -> str:
    warnings = {"warnings": transcript.warnings} if transcript.warnings else {}
    return _body(
        job_id,
        recording_id,
        now_ms,
        status="completed",
        duration=transcript.duration_ms / 1000,
        **transcript.language_to_wire(),
        **content,
        **warnings,
        **transcript.gaps_to_wire(),
    )


def completed_elsewhere(
    job_id: str, recording_id: str, now_ms: int, transcript: Transcript, transcription_url: str
) -> str:
    """Body in place of one that would be too large: the same, with a link to the transcript."""
    return _completed(job_id, recording_id, now_ms, transcript, transcription_url=transcription_url)


def tried(now_ms: int) -> str:
    """Body with which a receiver is tried; it is about no job."""
    return _body("", "test", now_ms, status="test")


def failed(
    job_id: str,
    recording_id: str,
    now_ms: int,
    status: Literal["error", "transcription_failed"],
    error: LonghandError,
) -> str:
    """Body of a failure; status `error` is for a run whose transcription never started."""
    return _body(job_id, recording_id, now_ms, status=status, code=error.code, error=str(error))


def _body(job_id: str, recording_id: str, now_ms: int, **fields: object) -> str:
    payload = {
        "job_id": job_id,
        "recording_id": recording_id or job_id,
        "timestamp": rfc3339(now_ms),
        **fields,
    }
    # Default separators and ASCII: receivers that parse and dump again must get these same bytes.
    return json.dumps(payload, sort_keys=True)


def rfc3339(unix_ms: int) -> str:
    """UTC with milliseconds: `2026-01-31T12:00:00.000Z`."""
    moment = datetime.fromtimestamp(unix_ms // 1000, UTC).replace(microsecond=unix_ms % 1000 * 1000)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def signature_headers(secrets: Sequence[str], event_id: str, unix_s: int, body: bytes) -> dict[str, str]:
    """Headers of one attempt: the seed's signature by the first secret, Standard Webhooks' by each.

    `unix_s` is the time of the attempt. Empty secrets do not count; without any, nothing is signed.
    Format: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md.
    Raises ConfigurationError for a `whsec_` secret that is not base64.
    """
    headers = {"webhook-id": event_id, "webhook-timestamp": str(unix_s)}
    secrets = [secret for secret in secrets if secret]
    if secrets:
        signed = f"{event_id}.{unix_s}.".encode() + body
        digests = [hmac.digest(_key(secret), signed, hashlib.sha256) for secret in secrets]
        headers["webhook-signature"] = " ".join(
            f"v1,{base64.b64encode(digest).decode()}" for digest in digests
        )
        headers["X-Webhook-Signature"] = _seed_signature(secrets[0], body)
    return headers


def verify_seed(secret: str, body: bytes, signature: str) -> bool:
    """Whether `X-Webhook-Signature` is right, in constant time; an empty secret verifies nothing."""
    expected = _seed_signature(secret, body).encode()
    return bool(secret) and hmac.compare_digest(expected, signature.encode("ascii", "replace"))


def _seed_signature(secret: str, body: bytes) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _key(secret: str) -> bytes:
    try:
        return signing_key(secret)
    except ValueError as error:
        raise ConfigurationError(f"WEBHOOK_SECRET: {error}") from error
