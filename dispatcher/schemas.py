"""What a client may send: the input of a job, its policy. The public contract of `input`, field by field."""

import json
import math
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dispatcher.options import FIXED, OPTION_NAMES, named, parse_options, refuse_others
from dispatcher.recordings import is_upload, without_blobs
from tasks.endpoints import Dialect, Endpoint
from tasks.errors import AddressRefused, InvalidInput, NoSource, UnsupportedOption
from tasks.guard import check_url, receiver_of
from tasks.job import Callback, Request
from tasks.model_names import check_allowed, check_language
from tasks.settings import Settings

M = TypeVar("M", bound=BaseModel)

MAX_BATCH = 1000
# It is part of every webhook.
MAX_RECORDING_ID = 500


class OutputOptions(BaseModel):
    """What the ivrit client asks for in the segments."""

    model_config = ConfigDict(extra="forbid")

    word_timestamps: bool = True
    extra_data: bool = True


class Source(BaseModel):
    """Fields that the ivrit client sends among the transcribe arguments and others beside them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    url: str | list[str] | None = None
    blob: str | list[str] | None = None
    webhook_url: str | None = None
    recording_id: str | None = Field(None, max_length=MAX_RECORDING_ID)
    chunk_seconds: float | None = None
    audio_stream: int | None = Field(None, ge=0)
    stream_format: Dialect | None = None
    allow_gaps: bool = False


class TranscribeArgs(Source):
    """`input.transcribe_args`, without the engine's own options."""

    diarize: bool = False
    diarization_args: dict[str, Any] | None = None
    output_options: OutputOptions = Field(default_factory=OutputOptions)
    # The client's own wish to be told more; a worker always logs every chunk.
    verbose: bool = False
    log_progress: bool = False


class JobInput(Source):
    """`input` of /run and /runsync, and of a RunPod job."""

    type: Literal["url", "blob"] | None = None
    engine: Literal["faster-whisper", "stable-whisper"] = "faster-whisper"
    model: str = Field("", max_length=200)
    streaming: bool = True
    # Do not wait for the end: of RunPod's handler, and of /runsync.
    detach: bool = False
    transcribe_args: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contact:
    """Where a job's progress is reported, and the client's own name for the recording."""

    webhook_url: str = ""
    recording_id: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """A job's policy, ms. 0: no limit on the run time."""

    ttl_ms: int
    execution_timeout_ms: int
    low_priority: bool = False


@dataclass(frozen=True, slots=True)
class Parsed:
    """A valid input. `blobs` are base64, still to be stored; then the request's `url` names them.

    A list of recordings is a batch, even of one: `parts` has a request for each.
    """

    request: Request
    blobs: tuple[str, ...] = ()
    parts: tuple[Request, ...] = ()


def parse_contact(raw: object, settings: Settings, endpoint: str = "") -> Contact:
    """Read webhook and recording id from either place; what is not valid there counts as absent.

    So that an input with another mistake in it is still answered by webhook.
    """
    places = [raw, raw.get("transcribe_args")] if isinstance(raw, dict) else []
    found: dict[str, str] = {}
    for place in places:
        for name in ("webhook_url", "recording_id"):
            value = place.get(name) if isinstance(place, dict) else None
            if isinstance(value, str) and value and _encodable(value):
                found.setdefault(name, value)
    if len(found.get("recording_id", "")) > MAX_RECORDING_ID:
        del found["recording_id"]
    contact = Contact(**found)
    try:
        if contact.webhook_url:
            check_url(contact.webhook_url, settings.policy(endpoint))
    except (InvalidInput, AddressRefused):
        return Contact("", contact.recording_id)
    return contact


def parse_callback(
    url: object, raw: object, settings: Settings, account: str, endpoint: str = ""
) -> Callback | None:
    """Read `webhook` of /run, beside its `input`; raises InvalidInput or AddressRefused."""
    if url is None or url == "":
        return None
    # A recording that came along is not told again: it is never kept in Redis.
    told = without_blobs(raw)
    if not isinstance(url, str) or not _encodable([url, told]):
        raise InvalidInput("it must be an address, such as https://example.com/hook")
    check_url(url, settings.policy(endpoint))
    return Callback(url, receiver_of(account, url), json.dumps(told, ensure_ascii=False))


def parse_input(raw: object, settings: Settings, endpoint: str = "") -> Parsed:
    """Read the input of a job of `endpoint`; "" has what holds for all endpoints.

    Raises InvalidInput and its kinds (no source, unknown or unsupported option or scheme, a model that is not
    offered), ModelLanguage and AddressRefused.
    """
    if not isinstance(raw, dict) or not raw:
        raise InvalidInput("`input` must be an object that names a recording, such as {'url': 'https://…'}")
    if not _encodable(without_blobs(raw)):
        raise InvalidInput("the input holds NaN, Infinity or half a surrogate pair, which is not valid JSON")
    given = _validate(JobInput, raw, "input")
    arguments = given.transcribe_args
    refuse_others(arguments, {*TranscribeArgs.model_fields, *OPTION_NAMES})
    args = _validate(
        TranscribeArgs,
        {name: value for name, value in arguments.items() if name not in {*OPTION_NAMES, *FIXED}},
        "transcribe_args",
    )
    _refuse_unsupported(args)
    options = parse_options(arguments, word_timestamps=args.output_options.word_timestamps)
    defaults = settings.endpoint(endpoint) or Endpoint(endpoint)
    model = given.model or defaults.model or settings.model
    check_language(model, options.language, options.task, options.multilingual)
    urls, blobs = _sources(given, args)
    check_allowed(given.model, settings)
    policy = settings.policy(endpoint)
    for address in (given.webhook_url or args.webhook_url, *(url for url in urls if not is_upload(url))):
        if address:
            check_url(address, policy)
    batch = isinstance(given.url or args.url or given.blob or args.blob, list)
    # Only the newer one can say which recording of a batch an item is about.
    dialect = "v2" if batch else given.stream_format or args.stream_format or defaults.dialect
    request = Request(
        url="" if batch or blobs else urls[0],
        model=model,
        options=options,
        streaming=given.streaming,
        allow_gaps=given.allow_gaps or args.allow_gaps,
        extra_data=args.output_options.extra_data,
        chunk_ms=_chunk_ms(given, settings, "input") or _chunk_ms(args, settings, "transcribe_args"),
        audio_stream=args.audio_stream if given.audio_stream is None else given.audio_stream,
        dialect=dialect,
        # Without it, clients of the old dialect take what a failed job has for the whole.
        poison=not batch and (dialect == "v1" or defaults.poison or settings.stream_poison),
    )
    if not batch:
        return Parsed(request, tuple(blobs))
    parts = [replace(request, url=url, index=index) for index, url in enumerate(urls or [""] * len(blobs))]
    return Parsed(request, tuple(blobs), tuple(parts))


def detached(raw: object) -> bool:
    """Whether a job's input says that nobody waits for its end."""
    return isinstance(raw, dict) and raw.get("detach") is True


def parse_policy(raw: object, settings: Settings, endpoint: str = "") -> Limits:
    """`policy` of /run: what is outside the platform's ranges is brought to their nearest end."""
    policy = raw if isinstance(raw, dict) else {}
    defaults = settings.endpoint(endpoint)
    week = 7 * 24 * 3600 * 1000

    def within(name: str, least: int, default: int) -> int:
        value = policy.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return default
        if isinstance(value, float) and not math.isfinite(value):
            return default
        return int(min(max(value, least), week))

    return Limits(
        ttl_ms=within("ttl", 10_000, settings.ttl_ms),
        execution_timeout_ms=within("executionTimeout", 5_000, settings.execution_timeout_ms),
        low_priority=policy.get("lowPriority", bool(defaults and defaults.low_priority)) is True,
    )


def _encodable(value: object) -> bool:
    """Whether a value can be written again as JSON in UTF-8: Python reads more than that from JSON."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return False
    return True


def _validate(kind: type[M], raw: dict[str, Any], where: str) -> M:
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        accepted = list(kind.model_fields)
        if error.errors()[0]["loc"][:1] == ("output_options",):
            accepted = list(OutputOptions.model_fields)
        elif kind is TranscribeArgs:
            accepted = sorted({*accepted, *OPTION_NAMES})
        raise named(error, where, accepted) from error


def _chunk_ms(source: Source, settings: Settings, where: str) -> int | None:
    """The length of the chunks that a job asks for, if it does, within the operator's limits."""
    seconds, least, most = source.chunk_seconds, settings.min_chunk_ms / 1000, settings.max_chunk_ms / 1000
    if seconds is None:
        return None
    if not least <= seconds <= most:
        raise InvalidInput(f"{where}.chunk_seconds must be from {least:g} to {most:g}, not {seconds:g}")
    return round(seconds * 1000)


def _refuse_unsupported(args: TranscribeArgs) -> None:
    for name in ("diarize", "diarization_args"):
        if getattr(args, name):
            raise UnsupportedOption(
                f"transcribe_args.{name} is not supported yet: speakers are not told apart; leave it out"
            )


def _sources(given: JobInput, args: TranscribeArgs) -> tuple[list[str], list[str]]:
    """The URLs of the recordings, or their bytes in base64; exactly one of the two is not empty."""
    url, blob = given.url or args.url, given.blob or args.blob
    if url and blob:
        raise InvalidInput("the input has both `url` and `blob`: pass one of them")
    if not url and not blob:
        raise NoSource
    if given.type and not {"url": url, "blob": blob}[given.type]:
        raise NoSource(f"`type` is {given.type!r}, but there is no `{given.type}`")
    sources = url or blob or []
    found = sources if isinstance(sources, list) else [sources]
    if not all(found):
        raise NoSource("one of the recordings of the list has an empty address or no bytes")
    if len(found) > MAX_BATCH:
        raise InvalidInput(f"a job may have {MAX_BATCH} recordings at the most, not {len(found)}")
    return ([each.strip() for each in found], []) if url else ([], found)
