"""Errors as the RunPod API words them: status, title, detail; a missing job has no integer status."""

from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import JSONResponse

from tasks.errors import LonghandError


class Problem(Exception):
    """Ends a request with an error status."""

    def __init__(
        self, status: int, detail: str, code: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers
        self.detail = detail
        self.code = code

    def response(self) -> JSONResponse:
        body: dict[str, object] = {"title": HTTPStatus(self.status).phrase, "detail": self.detail}
        if self.code == JOB_NOT_FOUND:
            # runpod's asyncio client polls a body with a `status` for ever.
            body["error"] = self.detail
        else:
            body["status"] = self.status
        if self.code:
            body["code"] = self.code
        return JSONResponse(body, self.status, self.headers)


# Until a queue is shorter, or to look again at a limit of the day.
FULL_RETRY_MS = 30_000
JOB_NOT_FOUND = "job_not_found"


def job_not_found() -> Problem:
    return Problem(404, "job not found", JOB_NOT_FOUND)


def not_failed() -> Problem:
    return Problem(400, "bad request: only a FAILED job whose input was valid can be retried", "not_failed")


def webhook_not_found() -> Problem:
    return Problem(404, "webhook not found", "webhook_not_found")


def bad_link() -> Problem:
    return Problem(403, "this link is not valid, or not any more", "bad_link")


def endpoint_not_found() -> Problem:
    return Problem(404, "endpoint not found", "endpoint_not_found")


def bad_token(present: bool) -> Problem:
    return Problem(401, "invalid token" if present else "no token provided", "unauthorized")


def bad_request(detail: str, code: str = "invalid_input") -> Problem:
    return Problem(400, f"bad request: {detail}", code)


def rate_limited(operation: str, limit: int, wait_ms: int) -> Problem:
    return Problem(429, f"more than {limit} calls of {operation} in 10 s", "rate_limited", _after(wait_ms))


def full(error: LonghandError) -> Problem:
    """A limit of the account is reached: of what waits, or of the day."""
    return Problem(429, str(error), error.code, _after(FULL_RETRY_MS))


def full_for_all(error: LonghandError) -> Problem:
    """A limit that is nobody's own: what waits, memory or disk."""
    return Problem(503, str(error), error.code, _after(FULL_RETRY_MS))


def _after(wait_ms: int) -> dict[str, str]:
    return {"Retry-After": str(-(-wait_ms // 1000))}


def unavailable() -> Problem:
    return Problem(503, "the job store is away: try again in a few seconds", "unavailable")
