"""Uploads, an addition of our own: `/v2/{endpoint_id}/upload`, whole as a form, or resumable by tus 1.0.

tus: https://tus.io/protocols/resumable-upload, the core and the extensions named in EXTENSIONS.
"""

from collections.abc import AsyncIterator, Callable, Coroutine
from email.utils import formatdate
from typing import Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from dispatcher.access import Caller
from dispatcher.multipart import FORM, OVERHEAD_BYTES, FileField
from dispatcher.problems import Problem, bad_request
from dispatcher.receiving import receive, refuse_without_room, refused
from dispatcher.recordings import UPLOAD_ID
from dispatcher.service import Service
from tasks.errors import InvalidInput, UploadNotFound
from tasks.events import rfc3339
from tasks.parts import folder_of
from tasks.uploads import Upload, UploadTooLarge

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,expiration"
OFFSET_TYPE = "application/offset+octet-stream"
MAX_METADATA = 4096


class TusRoute(APIRoute):
    """Every answer says which protocol this is, errors too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                response = await handle(request)
            except Problem as problem:
                response = problem.response()
            except ClientDisconnect:
                response = Response(status_code=400)  # nobody reads it
            service: Service = request.app.state.service
            response.headers["Tus-Resumable"] = response.headers["Tus-Version"] = VERSION
            response.headers["Tus-Max-Size"] = str(service.settings.upload_limit)
            return response

        return answer


router = APIRouter(prefix="/v2/{endpoint_id}", route_class=TusRoute)


@router.options("/upload")
async def discover(service: Caller) -> Response:  # noqa: ARG001  who asks needs a key
    """What of tus there is."""
    return Response(status_code=204, headers={"Tus-Extension": EXTENSIONS})


@router.post("/upload")
async def create(request: Request, service: Caller) -> Response:
    """A whole file as a form, or the beginning of a resumable upload."""
    if _type(request) == FORM:
        return JSONResponse(_shown(await _whole(request, service)))
    if "tus-resumable" not in request.headers:
        raise Problem(415, f"send the file as {FORM}, or by tus {VERSION}", "invalid_input")
    _check_version(request)
    length = _number(request, "upload-length")
    metadata = request.headers.get("upload-metadata", "")
    if len(metadata) > MAX_METADATA:
        raise bad_request(f"Upload-Metadata may have {MAX_METADATA} characters")
    _refuse_large(service, length)
    await run_in_threadpool(refuse_without_room, service, length)
    upload = await run_in_threadpool(service.uploads.create, request.state.account, length, metadata)
    if _type(request) == OFFSET_TYPE:
        await receive(service, upload, request.stream())
        upload = await _found(request, service, upload.id)
    location = f"{request.url.path.rstrip('/')}/{upload.id}"
    return JSONResponse(_shown(upload), 201, headers={"Location": location, **_progress(upload)})


@router.get("/upload/{upload_id}")
async def show(request: Request, service: Caller, upload_id: str) -> JSONResponse:
    """The caller's own upload as JSON."""
    return JSONResponse(_shown(await _found(request, service, upload_id)))


@router.head("/upload/{upload_id}")
async def offset(request: Request, service: Caller, upload_id: str) -> Response:
    """How far an upload has come."""
    _check_version(request)
    upload = await _found(request, service, upload_id)
    headers = {"Upload-Length": str(upload.length)} if upload.length is not None else {}
    if upload.metadata:
        headers["Upload-Metadata"] = upload.metadata
    return Response(headers={"Cache-Control": "no-store", **headers, **_progress(upload)})


@router.api_route("/upload/{upload_id}", methods=["PATCH", "POST"])
async def append(request: Request, service: Caller, upload_id: str) -> Response:
    """More of an upload, from where it is."""
    # For clients behind what lets only GET and POST through.
    if request.method == "POST" and request.headers.get("x-http-method-override") != "PATCH":
        allowed = {"Allow": "GET, HEAD, PATCH"}
        raise Problem(405, "send PATCH, or POST with X-HTTP-Method-Override: PATCH", headers=allowed)
    _check_version(request)
    if _type(request) != OFFSET_TYPE:
        raise Problem(415, f"the content must be {OFFSET_TYPE}", "invalid_input")
    start = _number(request, "upload-offset")
    upload = await _found(request, service, upload_id)
    if start != upload.offset:
        raise Problem(409, f"the upload is at {upload.offset}, not at {start}", "offset_conflict")
    # Before any of it is read; without a length, the last part shows it.
    if upload.length is not None and start + _declared(request) > upload.length:
        raise refused(UploadTooLarge())
    await run_in_threadpool(refuse_without_room, service, _declared(request))
    await receive(service, upload, request.stream())
    return Response(status_code=204, headers=_progress(await _found(request, service, upload_id)))


async def _whole(request: Request, service: Service) -> Upload:
    """The file of a form. Where it fails, nothing is left of it."""
    least = max(0, _declared(request) - OVERHEAD_BYTES)
    _refuse_large(service, least)
    await run_in_threadpool(refuse_without_room, service, least)
    try:
        field = FileField(request.headers["content-type"])
        upload = await run_in_threadpool(service.uploads.create, request.state.account, None)
        done = False
        try:
            await receive(service, upload, _of_file(request, field))
            upload = await run_in_threadpool(service.uploads.seal, upload)
            done = True
        finally:
            if not done:
                await run_in_threadpool(_discard, service, upload.id)
    except InvalidInput as error:
        raise bad_request(str(error)) from None
    return upload


async def _of_file(request: Request, field: FileField) -> AsyncIterator[bytes]:
    async for block in request.stream():
        for data in field.feed(block):
            yield data
    if not field.ended:
        raise InvalidInput(f"the body has no field `file`, or ends in the middle of its {FORM}")


def _discard(service: Service, upload_id: str) -> None:
    service.uploads.discard(upload_id)
    try:
        service.blobs.delete_job(folder_of(upload_id))
    except OSError:
        return  # the reaper does it


async def _found(request: Request, service: Service, upload_id: str) -> Upload:
    """The caller's own upload; another's is not found."""
    # Checked first: a stranger's string must not reach into other keys.
    if not UPLOAD_ID.fullmatch(upload_id):
        raise refused(UploadNotFound())
    try:
        return await run_in_threadpool(service.uploads.find, upload_id, request.state.account)
    except UploadNotFound as error:
        raise refused(error) from None


def _shown(upload: Upload) -> dict[str, object]:
    return {
        "id": upload.id,
        "url": upload.url,
        "bytes": upload.offset if upload.length is None else upload.length,
        "offset": upload.offset,
        "expires": rfc3339(upload.expires_ms),
    }


def _progress(upload: Upload) -> dict[str, str]:
    return {
        "Upload-Offset": str(upload.offset),
        "Upload-Expires": formatdate(upload.expires_ms / 1000, usegmt=True),
    }


def _refuse_large(service: Service, size: int) -> None:
    limit = service.settings.upload_limit
    if size > limit:
        raise Problem(413, f"an upload may have {limit} bytes", "too_large")


def _check_version(request: Request) -> None:
    if request.headers.get("tus-resumable") != VERSION:
        raise Problem(412, f"send the header Tus-Resumable: {VERSION}", "invalid_input")


def _type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _declared(request: Request) -> int:
    """The body's length, 0 where it is not said."""
    return int(request.headers.get("content-length", "0"))


def _number(request: Request, name: str) -> int:
    """A header that is a number of bytes."""
    value = request.headers.get(name, "")
    if not (value.isascii() and value.isdecimal() and len(value) < 19):
        raise bad_request(f"the header {name.title()} must be a number of bytes")
    return int(value)
