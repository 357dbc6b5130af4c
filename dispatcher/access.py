"""Who may call: the key of a request, its endpoint, and how often."""

import time
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool

from dispatcher import problems
from dispatcher.auth import ANONYMOUS, account_of, key_of
from dispatcher.service import Service

# How long a key that was revoked may still work; and how many keys are remembered.
CACHED_S = 5.0
CACHED = 10_000
# Calls of these count together. /stream is never limited: one error status, and clients cancel their job.
LIMITED = {
    "run": "run",
    "runsync": "runsync",
    "status": "status",
    "status_sync": "status",
    "cancel": "cancel",
    "retry": "cancel",
    # Both have a request sent to an address that the client names.
    "test": "cancel",
    "redeliver": "cancel",
    "purge_queue": "purge-queue",
}


class Accounts:
    """The account of a request's key, of the settings or of Redis.

    What Redis said is remembered for some seconds, and for as long as Redis is away: an error status would
    make the clients of /stream cancel their jobs. `anonymous`: whether anybody may call while no key was ever
    made; once this process has seen a key it stays closed, whatever becomes of Redis' data.
    """

    def __init__(self, service: Service, *, anonymous: bool) -> None:
        self._service = service
        self._open = anonymous and not service.settings.api_keys
        # Key ("": none) -> account, and until when, monotonic s. Only of keys that exist, or anybody could
        # fill it.
        self._known: dict[str, tuple[str, float]] = {}

    def remembered(self, header: str | None) -> str | None:
        """The account, where that is known without asking Redis."""
        key = key_of(header)
        account, until_s = self._known.get(key, (None, 0.0))
        if key and (found := account_of(key, self._service.settings.api_keys)):
            return found
        return account if time.monotonic() < until_s and (key or self._open) else None

    def of(self, header: str | None) -> str | None:
        """The account; None for a key that is none. May raise redis.exceptions.RedisError."""
        keys = self._service.settings.api_keys
        key = key_of(header)
        account = account_of(key, keys)
        if account is None and key:
            account = self._remembered(key, self._named)
        if account is None and self._open:
            account = self._remembered("", self._anonymous)
        return account

    def _named(self, key: str) -> str | None:
        name = self._service.keys.name_of(key)
        self._open = self._open and name is None
        return name

    def _anonymous(self, _key: str) -> str | None:
        self._open = self._open and not self._service.keys.exist()
        return ANONYMOUS if self._open else None

    def _remembered(self, key: str, ask: Callable[[str], str | None]) -> str | None:
        known, until_s = self._known.get(key, (None, 0.0))
        if time.monotonic() < until_s:
            return known
        try:
            found = ask(key)
        except RedisError:
            if known is None:
                raise
            # Not asked again at once: an answer that does not come takes longer than a client waits.
            found = known
        if found is None:
            self._known.pop(key, None)
            return None
        if len(self._known) >= CACHED:
            self._known.clear()
        self._known[key] = found, time.monotonic() + CACHED_S
        return found


async def known(request: Request, endpoint_id: str) -> Service:
    """The service, for a caller whose key and endpoint are right; `request.state.account` says whose.

    Who has this and not `caller` has the call counted by count().
    """
    service: Service = request.app.state.service
    accounts: Accounts = request.app.state.accounts
    header = request.headers.get("authorization")
    account = accounts.remembered(header)
    if account is None:
        account = await run_in_threadpool(accounts.of, header)
    if account is None:
        raise problems.bad_token(bool(header))
    if service.settings.endpoint(endpoint_id) is None:
        raise problems.endpoint_not_found()
    request.state.account = account
    return service


Known = Annotated[Service, Depends(known)]


def count(request: Request, service: Service) -> None:
    """Count a call, in a thread; raises Problem (429) where there were too many."""
    operation = LIMITED.get(request.scope["route"].name)
    if operation and (limit := service.settings.limit(operation)):
        wait_ms = service.keys.wait_ms(request.state.account, operation, limit)
        if wait_ms:
            raise problems.rate_limited(operation, limit, wait_ms)


async def caller(request: Request, service: Known) -> Service:
    """The service, for a caller who is known and does not call too often."""
    if request.scope["route"].name in LIMITED:
        await run_in_threadpool(count, request, service)
    return service


Caller = Annotated[Service, Depends(caller)]
