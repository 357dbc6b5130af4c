"""The API's description for people and tools, at /docs and /openapi.json: what FastAPI cannot see itself."""

import re
import warnings
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from dispatcher.answers import ANSWERS, Schema
from tasks.settings import Settings

PREFIX = "/v2/{endpoint_id}/"

PROBLEM = {
    "type": "object",
    "required": ["title", "detail"],
    "properties": {
        "title": {"type": "string"},
        "detail": {"type": "string"},
        "status": {"type": "integer", "description": "absent where a job is not found"},
        "code": {"type": "string", "description": "stable; docs/operations.md has them all"},
        "error": {"type": "string"},
    },
}
# Status -> what it says. A validation error is 400 here, where FastAPI would describe 422.
ERRORS = {
    "400": "The request cannot be read, or a part of it is not valid",
    "401": "No key, or a wrong one",
    "403": "A link that is not valid, or not any more",
    "404": "No such endpoint, job or webhook",
    "429": "Too many calls, jobs that wait, or minutes of audio; Retry-After says when to call again",
    "503": "Redis or the blob store is away",
}
# Of uploads alone: what tus has words for.
UPLOAD_ERRORS = {
    "405": "A POST that does not stand for a PATCH",
    "409": "The upload is at another offset",
    "412": "No Tus-Resumable header, or of another version",
    "413": "Too large",
    "415": "Neither a form nor tus",
    "507": "No room for it: later",
}
# Of /run and /runsync alone.
SUBMISSION_ERRORS = {"409": "This Idempotency-Key came with another body before"}
FILE = {
    "type": "object",
    "required": ["file"],
    "properties": {"file": {"type": "string", "format": "binary"}},
}
SUBMISSION = {
    "type": "object",
    "required": ["input"],
    "properties": {
        # No type: what is no valid input makes a job that has failed, as on the platform.
        "input": {"description": "the recording and how to transcribe it: docs/operations.md has all of it"},
        "webhook": {
            "type": ["string", "null"],
            "description": "told of the end of the job, as the platform does",
        },
        # Nor here: what is out of the platform's ranges is brought into them, and nonsense is left out.
        "policy": {"description": "ttl and executionTimeout in ms, lowPriority"},
    },
    "example": {"input": {"url": "https://example.com/talk.mp3"}},
}


def describe(app: FastAPI, settings: Settings) -> None:
    """Let the app describe itself with its keys, its endpoints, its bodies and its errors."""

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            app.openapi_schema = _described(app, settings)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def methods_of(app: FastAPI, path: str) -> list[str]:
    """The methods that an address may be called with."""
    return sorted(method.upper() for method in app.openapi()["paths"][path])


def _described(app: FastAPI, settings: Settings) -> dict[str, Any]:
    with warnings.catch_warnings():
        # A route of two methods has one id for both; it gets one for each below.
        warnings.filterwarnings("ignore", "Duplicate Operation ID")
        schema = get_openapi(title="Longhand", version=app.version, routes=app.routes)
    parts = schema.setdefault("components", {})
    parts.setdefault("schemas", {})["Problem"] = PROBLEM
    parts["securitySchemes"] = {
        "key": {"type": "apiKey", "in": "header", "name": "Authorization", "description": "KEY or Bearer KEY"}
    }
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            name = f"{method.upper()} {path.removeprefix(PREFIX)}"
            operation["operationId"] = "_".join(re.findall("[a-z]+", name.lower()))
            operation["responses"] = _answers(name)
            _complete(path, operation, sorted(settings.endpoint_names))
    return schema


def _answers(name: str) -> dict[str, Schema]:
    """Every status that an operation answers with, and its body."""
    answers = {status: _answer("As asked", schema) for status, schema in ANSWERS[name].items()}
    errors = ERRORS | (UPLOAD_ERRORS if " upload" in name else {})
    if name in ("POST run", "POST runsync"):
        errors |= SUBMISSION_ERRORS
    # A HEAD has the status alone.
    problem = None if name.startswith("HEAD ") else {"$ref": "#/components/schemas/Problem"}
    return answers | {status: _answer(words, problem) for status, words in errors.items()}


def _answer(words: str, schema: Schema | None) -> Schema:
    content = {"content": {"application/json": {"schema": schema}}} if schema else {}
    return {"description": words, **content}


def _complete(path: str, operation: dict[str, Any], endpoints: list[str]) -> None:
    for parameter in operation.get("parameters", []):
        if parameter["name"] == "endpoint_id":
            parameter["schema"]["enum"] = endpoints
    if "/transcription/" not in path and path != "/ping":
        operation["security"] = [{"key": []}]
    if operation["operationId"] == "post_upload":
        operation["requestBody"] = {"content": {"multipart/form-data": {"schema": FILE}}}
    if path.rpartition("/")[2] in ("run", "runsync"):
        content = {"application/json": {"schema": SUBMISSION}}
        operation["requestBody"] = {"required": True, "content": content}
