"""One case of the corpus: what is sent, what is served, and what may come of it."""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass

from tests.hosts import Request, Script

# A job ends with its code, or with this, whatever its warnings.
COMPLETED = "completed"
# With this one among its warnings.
TRUNCATED = "completed, truncated"


@dataclass(frozen=True, slots=True)
class Case:
    """`body` makes the request's bytes from the address that `serve` answers at.

    One of the `outcomes` must come: a code, COMPLETED, TRUNCATED, or the status and code of a refusal such as
    "400 invalid_input".
    """

    name: str
    outcomes: frozenset[str]
    body: Callable[[str], bytes]
    serve: Script | None = None
    # What takes time to make is made before anybody waits for it.
    prepare: Callable[[], object] = bool
    method: str = "POST"
    path: str = "run"


def named(url: str) -> bytes:
    """The plainest request for a recording."""
    return json.dumps({"input": {"url": url}}).encode()


def file_case(name: str, make: Callable[[], bytes], *outcomes: str, **headers: str | int) -> Case:
    """A file on an honest server."""
    made = functools.cache(make)

    def serve(request: Request) -> None:
        request.answer(200, made(), **headers)

    return Case(name, frozenset(outcomes), named, serve, made)


def server_case(name: str, serve: Script, *outcomes: str, prepare: Callable[[], object] = bool) -> Case:
    """A server that answers in its own way."""
    return Case(name, frozenset(outcomes), named, serve, prepare)


def body_case(name: str, body: bytes | str, *outcomes: str) -> Case:
    """A request whose bytes are these."""
    sent = body if isinstance(body, bytes) else body.encode()
    return Case(name, frozenset(outcomes), lambda _url: sent)


def input_case(name: str, job_input: object, *outcomes: str) -> Case:
    """A request whose `input` is this; "URL" in it stands for a good recording's address."""

    def body(url: str) -> bytes:
        return json.dumps({"input": job_input}).replace('"URL"', json.dumps(url)).encode()

    return Case(name, frozenset(outcomes), body)
