"""The job as a value: its request, its status, and which changes of status are legal."""

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Literal


class Status(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"


TERMINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELED, Status.EXPIRED})

TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.FAILED, Status.CANCELED, Status.EXPIRED}),
    Status.RUNNING: TERMINAL,
    **dict.fromkeys(TERMINAL, frozenset()),
}


def may_become(old: Status, new: Status) -> bool:
    """Whether a job of status `old` may take status `new` within one run."""
    return new in TRANSITIONS[old]


@dataclass(frozen=True, slots=True)
class Options:
    """How to transcribe: faster-whisper's names, each one honoured on every call.

    `temperature` other than 0 samples, and sampling cannot be reproduced.
    `vad_parameters` are the fields of faster-whisper's `VadOptions`.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    language: str | None = None
    task: Literal["transcribe", "translate"] = "transcribe"
    multilingual: bool = False
    word_timestamps: bool = True
    beam_size: int = 5
    patience: float = 1.0
    length_penalty: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    temperature: float = 0.0
    initial_prompt: str | None = None
    hotwords: str | None = None
    suppress_blank: bool = True
    suppress_tokens: list[int] = field(default_factory=lambda: [-1])
    prepend_punctuations: str = "\"'“¿([{-"
    append_punctuations: str = "\"'.。,，!！?？:：”)]}、"
    max_new_tokens: int | None = None
    vad_filter: Literal[True] = True
    vad_parameters: dict[str, float | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked for, validated. `url` is http(s), or `blob:NAME` in the blob store."""

    url: str
    model: str
    options: Options = field(default_factory=Options)
    webhook_url: str = ""
    recording_id: str = ""
    streaming: bool = True
    extra_data: bool = True
    chunk_ms: int | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> "Request":
        fields = json.loads(text)
        return Request(**{**fields, "options": Options(**fields["options"])})
