"""The job as a value: its request, its status, and which changes of status are legal."""

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Literal

from tasks.endpoints import Dialect
from tasks.idempotency import Once

# The fields of faster-whisper's VadOptions, which the dispatcher cannot import.
VAD_PARAMETERS = (
    "threshold",
    "neg_threshold",
    "min_speech_duration_ms",
    "max_speech_duration_s",
    "min_silence_duration_ms",
    "speech_pad_ms",
)
# A request's URL that names a blob of our own store.
BLOB_SCHEME = "blob:"
# One that names what a client has uploaded.
UPLOAD_SCHEME = "longhand-upload:"


class Status(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"


TERMINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELED, Status.EXPIRED})


@dataclass(frozen=True, slots=True)
class Options:
    """How to transcribe: faster-whisper's names, each one honoured on every call (docs/options.md).

    `temperature` other than 0 samples, and sampling cannot be reproduced; of several, the next one is for
    windows that failed with those before. `initial_prompt` is text, or tokens.
    `vad_parameters` are some of VAD_PARAMETERS. `chunk_length` is the most of a window, s; `batch_size` how
    many are decoded together at most.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    language: str | None = None
    task: Literal["transcribe", "translate"] = "transcribe"
    multilingual: bool = False
    word_timestamps: bool = True
    beam_size: int = 5
    best_of: int = 5
    patience: float = 1.0
    length_penalty: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    temperature: float | list[float] = 0.0
    compression_ratio_threshold: float | None = 2.4
    log_prob_threshold: float | None = -1.0
    no_speech_threshold: float | None = 0.6
    initial_prompt: str | list[int] | None = None
    hotwords: str | None = None
    suppress_blank: bool = True
    suppress_tokens: list[int] = field(default_factory=lambda: [-1])
    prepend_punctuations: str = "\"'“¿([{-"
    append_punctuations: str = "\"'.。,，!！?？:：”)]}、"
    max_new_tokens: int | None = None
    vad_filter: Literal[True] = True
    vad_parameters: dict[str, float | int] = field(default_factory=dict)
    chunk_length: int | None = None
    batch_size: int | None = None
    language_detection_threshold: float = 0.5
    language_detection_segments: int = 4

    @property
    def temperatures(self) -> tuple[float, ...]:
        """In the order in which they are tried."""
        given = self.temperature
        return tuple(given) if isinstance(given, list) else (given,)

    @property
    def samples(self) -> bool:
        """Whether the client asked for what cannot be reproduced."""
        return any(temperature > 0 for temperature in self.temperatures)


def is_english_only(model: str) -> bool:
    """Whisper's English-only models end in `.en`."""
    return model.rpartition("/")[2].endswith(".en")


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked for, validated.

    `url` is http(s), `blob:NAME` in the blob store, or `longhand-upload:ID`.
    """

    url: str
    model: str
    options: Options = field(default_factory=Options)
    streaming: bool = True
    extra_data: bool = True
    chunk_ms: int | None = None
    # Of the recording's audio streams, from 0; None: the default one.
    audio_stream: int | None = None
    # Of stream items: typed entries, or lists of segments (ivrit up to 0.2.2).
    dialect: Dialect = "v2"
    # The number of this recording in its batch, told with every stream entry.
    index: int | None = None
    # End the stream of a job that fails with an item that ivrit's clients cannot read.
    poison: bool = False
    # Succeed although a part could not be transcribed.
    allow_gaps: bool = False

    @property
    def language(self) -> str:
        """The language known before anything was heard, or ""."""
        return self.options.language or ("en" if is_english_only(self.model) else "")

    @property
    def pinned(self) -> bool:
        """Whether chunks may be transcribed before a language was detected."""
        return bool(self.language) or self.options.multilingual

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> "Request":
        fields = json.loads(text)
        return Request(**{**fields, "options": Options(**fields["options"])})


@dataclass(frozen=True, slots=True)
class Callback:
    """The `webhook` of /run, told once of the job's end as the platform does. `input` is JSON, as it came."""

    url: str
    receiver: str
    input: str


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job about to be written. `request` is None where the input was not valid.

    `ttl_ms` counts from now, `execution_timeout_ms` from the start of the work (0: no limit).
    """

    id: str
    endpoint: str
    account: str
    request: Request | None
    ttl_ms: int
    execution_timeout_ms: int
    low_priority: bool = False
    webhook_url: str = ""
    recording_id: str = ""
    # Deliveries to one scheme, host and port are one receiver's.
    receiver: str = ""
    callback: Callback | None = None
    # How long it is kept once it has ended; None: as the settings say.
    retention_ms: int | None = None
    # Of a batch: the request of each of its recordings.
    parts: tuple[Request, ...] = ()
    # What a repetition of its request is known by.
    once: Once | None = None


def _int(text: str | None) -> int | None:
    return int(text) if text else None


@dataclass(frozen=True, slots=True)
class Job:
    """One job as its row in Redis has it. Stamps are ms since the epoch, by Redis' clock.

    `request` is None where the input was not valid: such a job exists only to tell its error.
    `total` and `duration_ms` are None until the plan is sealed. A batch has `parts` recordings, each a job of
    its own whose `batch` is this one's id and whose `part` is its number from 0.
    """

    id: str
    endpoint: str
    account: str
    status: Status
    run: int
    request: Request | None
    recording_id: str
    created_ms: int
    deadline_ms: int
    execution_timeout_ms: int
    started_ms: int | None = None
    announced_ms: int | None = None
    finished_ms: int | None = None
    language: str = ""
    total: int | None = None
    duration_ms: int | None = None
    done_ms: int = 0
    warnings: tuple[str, ...] = ()
    code: str = ""
    error: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    retention_ms: int | None = None
    parts: int = 0
    batch: str = ""
    part: int = 0

    @property
    def part_ids(self) -> list[str]:
        """The jobs of a batch's recordings, in their order."""
        return [f"{self.id}.{part}" for part in range(self.parts)]

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL

    @staticmethod
    def from_row(job_id: str, row: dict[str, str]) -> "Job":
        return Job(
            id=job_id,
            endpoint=row["endpoint"],
            account=row["account"],
            status=Status(row["status"]),
            run=int(row["run"]),
            request=Request.from_json(row["request"]) if row.get("request") else None,
            recording_id=row.get("recording_id") or job_id,
            created_ms=int(row["created_ms"]),
            deadline_ms=int(row["deadline_ms"]),
            execution_timeout_ms=int(row.get("execution_timeout_ms") or 0),
            started_ms=_int(row.get("started_ms")),
            announced_ms=_int(row.get("announced_ms")),
            finished_ms=_int(row.get("finished_ms")),
            language=row.get("language", ""),
            total=_int(row.get("total")),
            duration_ms=_int(row.get("duration_ms")),
            done_ms=int(row.get("done_ms") or 0),
            warnings=tuple(json.loads(row.get("warnings") or "[]")),
            code=row.get("code", ""),
            error=row.get("error", ""),
            meta=json.loads(row.get("meta") or "{}"),
            retention_ms=_int(row.get("retention_ms")),
            parts=int(row.get("parts") or 0),
            batch=row.get("batch", ""),
            part=int(row.get("part") or 0),
        )
