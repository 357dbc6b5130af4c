"""A client's `Idempotency-Key`: the same request again is the same job, whatever state that is in.

The mapping is written by create.lua, in the step that writes the job, and goes with the job's row.
"""

import hashlib
import re
from dataclasses import dataclass

from tasks.errors import LonghandError

# Printable ASCII without the space, as in most APIs that have this header.
KEY_PATTERN = r"^[!-~]{1,255}$"


class IdempotencyKeyInvalid(LonghandError):
    """An `Idempotency-Key` is 1 to 255 printable ASCII characters without a space."""

    code = "invalid_idempotency_key"


class IdempotencyConflict(LonghandError):
    """This `Idempotency-Key` came with another body before: use a new key for a new job."""

    code = "idempotency_conflict"


class AlreadyAccepted(Exception):
    """The same key came with the same body before, as the job of this id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id


@dataclass(frozen=True, slots=True)
class Once:
    """What makes two requests the same. `key` is a digest of whose it is, where it came in, and its key."""

    key: str
    # Of the body, byte for byte.
    body: str

    @staticmethod
    def of(key: str, account: str, endpoint: str, body: str) -> "Once":
        """Raises IdempotencyKeyInvalid."""
        if not re.fullmatch(KEY_PATTERN, key):
            raise IdempotencyKeyInvalid
        # No NUL is in an endpoint's name or in a key, so no two triples are written alike.
        written = "\0".join((endpoint, key, account)).encode("utf-8", "surrogateescape")
        return Once(hashlib.sha256(written).hexdigest(), body)

    def told(self, found: str) -> AlreadyAccepted | IdempotencyConflict:
        """What to raise where `BODY JOB` is written for this key."""
        body, _, job_id = found.partition(" ")
        return AlreadyAccepted(job_id) if body == self.body else IdempotencyConflict()
