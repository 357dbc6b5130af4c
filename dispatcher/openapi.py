"""The API's description for people and tools, at /docs and /openapi.json: what FastAPI cannot see itself."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from tasks.settings import Settings

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


def _described(app: FastAPI, settings: Settings) -> dict[str, Any]:
    schema = get_openapi(title="Longhand", version=app.version, routes=app.routes)
    parts = schema.setdefault("components", {})
    parts.setdefault("schemas", {})["Problem"] = PROBLEM
    parts["securitySchemes"] = {
        "key": {"type": "apiKey", "in": "header", "name": "Authorization", "description": "KEY or Bearer KEY"}
    }
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            _complete(path, operation, sorted(settings.endpoint_names))
    return schema


def _complete(path: str, operation: dict[str, Any], endpoints: list[str]) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    problem = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for status, words in ERRORS.items():
        responses[status] = {"description": words, "content": problem}
    for parameter in operation.get("parameters", []):
        if parameter["name"] == "endpoint_id":
            parameter["schema"]["enum"] = endpoints
    if "/transcription/" not in path and path != "/ping":
        operation["security"] = [{"key": []}]
    if path.rpartition("/")[2] in ("run", "runsync"):
        content = {"application/json": {"schema": SUBMISSION}}
        operation["requestBody"] = {"required": True, "content": content}
