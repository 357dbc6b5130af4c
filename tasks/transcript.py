"""Words, segments and their merge into one transcript. All times are ms from the recording's start."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Word:
    """One word as Whisper gives it: `text` keeps its leading space."""

    text: str
    start_ms: int
    end_ms: int
    probability: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A caption-sized piece of text. `words` is empty where none were asked for."""

    text: str
    start_ms: int
    end_ms: int
    words: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """What one attempt made of one chunk. `language` is "" where nobody spoke."""

    index: int
    segments: tuple[Segment, ...]
    language: str = ""
    speech_ms: int = 0


@dataclass(frozen=True, slots=True)
class Transcript:
    """A whole recording: segments in order of time."""

    segments: tuple[Segment, ...]
    duration_ms: int
    language: str = ""
    warnings: tuple[str, ...] = field(default=())
