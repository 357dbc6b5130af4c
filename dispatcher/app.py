"""The API process: `python -m dispatcher.app`."""

import argparse
import asyncio
import contextlib
import gc
import socket
import sys
from collections.abc import AsyncIterator
from http import HTTPStatus

import structlog
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from dispatcher import listing, problems, routes, uploads, webhooks
from dispatcher.access import Accounts
from dispatcher.openapi import describe, methods_of
from dispatcher.service import Service
from tasks.errors import BlobStoreFailed, LonghandError, StoreFull
from tasks.exposure import may_be_anonymous, refuse_weak_keys
from tasks.logs import start_logging
from tasks.memory import fix_threshold, settle
from tasks.redis_memory import is_full
from tasks.settings import Settings

log = structlog.get_logger()

# The event loop would wait Python's 5 ms for each thread that has work: eight of them are 40 ms of latency.
SWITCH_S = 0.000_5
# Python's collector, by its generations. A look at everything stops everybody for as long as it takes.
COLLECT = (5_000, 20, 50)
# How long an API that ends still answers on connections that it has, s.
LAST_CALL_S = 0.5
NOT_STARTED = 3


class Server(uvicorn.Server):
    """Uvicorn, which by itself ends with requests unread, and cuts off who has just connected."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listening in self.servers:
            listening.close()
        await asyncio.sleep(LAST_CALL_S)
        await super().shutdown(sockets)


def create_app(settings: Settings, *, anonymous: bool = True) -> FastAPI:
    """The HTTP API over the Redis of the settings. `anonymous`: open to all until a key was made."""
    service = Service.build(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        listener = asyncio.create_task(service.wakeups.listen())
        yield
        # Again until it has ended: a connection that is being made may swallow the first.
        while not listener.done():
            listener.cancel()
            await asyncio.wait([listener], timeout=1)
        await service.wakeups.close()
        await asyncio.to_thread(service.submitter.close)

    app = FastAPI(title="Longhand", lifespan=lifespan)
    describe(app, settings)
    app.state.service = service
    app.state.accounts = Accounts(service, anonymous=anonymous)
    app.include_router(routes.router)
    app.include_router(webhooks.router)
    app.include_router(listing.router)
    app.include_router(uploads.router)
    app.include_router(listing.probes)
    app.add_exception_handler(problems.Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RedisError, _redis_away)
    app.add_exception_handler(BlobStoreFailed, _blobs_away)
    return app


def _problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, problems.Problem)  # noqa: S101  registered for it alone
    return error.response()


def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    first = error.errors()[0]
    return problems.bad_request(f"{'.'.join(map(str, first['loc']))}: {first['msg']}").response()


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (route := request.scope.get("route")):
        # Starlette names the methods of the first of an address's routes.
        headers["Allow"] = ", ".join(methods_of(request.app, route.path))
    return problems.Problem(error.status_code, str(error.detail), headers=headers).response()


def _blobs_away(_request: Request, error: Exception) -> Response:
    log.error("blob_store_failed", error=str(error))
    assert isinstance(error, BlobStoreFailed)  # noqa: S101
    return problems.full_for_all(error).response()


async def _redis_away(request: Request, error: Exception) -> Response:
    log.error("redis_away", error=str(error))
    if request.scope["route"].name == "stream":
        # It came to nobody's job yet, and so tells a stranger nothing.
        return await routes.empty_page()
    if isinstance(error, RedisError) and is_full(error):
        return problems.full_for_all(StoreFull()).response()
    return problems.unavailable().response()


def main() -> None:
    """Check the settings and Redis, then serve until told to end."""
    parser = argparse.ArgumentParser(prog="python -m dispatcher.app", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    start_logging()
    sys.setswitchinterval(SWITCH_S)
    fix_threshold()
    try:
        settings = Settings.from_env()
        app = create_app(settings, anonymous=may_be_anonymous(settings, options.host))
        app.state.service.check()
        refuse_weak_keys(settings, options.host, stored=app.state.service.keys.exist())
    except LonghandError as error:
        sys.exit(f"{error.code}: {error}")
    settle(look_soon=False)
    gc.set_threshold(*COLLECT)
    config = uvicorn.Config(app, host=options.host, port=options.port, log_config=None, access_log=False)
    server = Server(config)
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(NOT_STARTED)


if __name__ == "__main__":
    main()
