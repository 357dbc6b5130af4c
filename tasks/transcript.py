"""Words, segments and their merge into one transcript. All times are ms from the recording's start."""

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar


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

    def shifted(self, by_ms: int) -> "Segment":
        """The segment with its times counted from another point."""
        words = tuple(
            replace(word, start_ms=word.start_ms + by_ms, end_ms=word.end_ms + by_ms) for word in self.words
        )
        return replace(self, start_ms=self.start_ms + by_ms, end_ms=self.end_ms + by_ms, words=words)


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """What one attempt made of one chunk. `language` is "" where nobody spoke.

    `counts`: windows decoded, those decoded again, pieces of text that were dropped (docs/operations.md);
    `damaged`: packets of its audio that could not be decoded.
    """

    index: int
    segments: tuple[Segment, ...]
    language: str = ""
    speech_ms: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    damaged: int = 0


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch that could not be transcribed, and the stable code of the reason."""

    start_ms: int
    end_ms: int
    code: str

    def to_wire(self) -> dict[str, object]:
        return {"start": self.start_ms / 1000, "end": self.end_ms / 1000, "code": self.code}


@dataclass(frozen=True, slots=True)
class Transcript:
    """A whole recording, but for its gaps: segments in order of time."""

    segments: tuple[Segment, ...]
    duration_ms: int
    language: str = ""
    warnings: tuple[str, ...] = field(default=())
    gaps: tuple[Gap, ...] = ()
    # The sums of the chunks' counts.
    counts: Mapping[str, int] = field(default_factory=dict)

    def gaps_to_wire(self) -> dict[str, object]:
        """The field `gaps`, where there are any."""
        return {"gaps": [gap.to_wire() for gap in self.gaps]} if self.gaps else {}


Span = TypeVar("Span", Word, Segment)


def merge(results: Iterable[ChunkResult], *, duration_ms: int, warnings: tuple[str, ...] = ()) -> Transcript:
    """Put the chunks of a recording together, whatever their order and however often each arrives.

    Segments come out in order of start, ties in order of chunk, and no time is outside [0, duration].
    The language is the one with the most speech, the earlier chunk's if two have the same.
    """
    chosen: dict[int, ChunkResult] = {}
    for result in results:
        known = chosen.setdefault(result.index, result)
        if known != result:
            # Results are committed once, so this is a bug elsewhere; at least it stays reproducible.
            chosen[result.index] = min(known, result, key=repr)
    in_order = [chosen[index] for index in sorted(chosen)]
    speech_ms: Counter[str] = Counter()
    for result in in_order:
        if result.language:
            speech_ms[result.language] += result.speech_ms
    segments = [_segment_within(segment, duration_ms) for result in in_order for segment in result.segments]
    if damaged := sum(result.damaged for result in in_order):
        warnings = (*warnings, damage_warning(damaged))
    return Transcript(
        segments=tuple(sorted(segments, key=lambda segment: segment.start_ms)),
        duration_ms=duration_ms,
        language=max(speech_ms, key=speech_ms.__getitem__, default=""),
        warnings=warnings,
        counts=_total(result.counts for result in in_order),
    )


def damage_warning(damaged: int) -> str:
    """What a client is told of packets that could not be decoded."""
    return f"damaged: {damaged} packets could not be decoded and are left out"


def _total(counted: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for counts in counted:
        total.update(counts)
    return dict(sorted(total.items()))


def _segment_within(segment: Segment, duration_ms: int) -> Segment:
    words = tuple(_within(word, duration_ms) for word in segment.words)
    return replace(_within(segment, duration_ms), words=words)


def _within(span: Span, duration_ms: int) -> Span:
    if 0 <= span.start_ms <= span.end_ms <= duration_ms:
        return span
    start_ms = min(max(span.start_ms, 0), duration_ms)
    return replace(span, start_ms=start_ms, end_ms=min(max(span.end_ms, start_ms), duration_ms))


def result_to_bytes(result: ChunkResult) -> bytes:
    """Serialize as zlib-compressed JSON, words and segments as arrays; the inverse is exact."""
    segments = [
        [
            segment.text,
            segment.start_ms,
            segment.end_ms,
            [[word.text, word.start_ms, word.end_ms, word.probability] for word in segment.words],
        ]
        for segment in result.segments
    ]
    fields = [result.index, result.language, result.speech_ms, segments, dict(result.counts), result.damaged]
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    return zlib.compress(text.encode("utf-8", "surrogatepass"))


def result_from_bytes(data: bytes) -> ChunkResult:
    """Read what `result_to_bytes` wrote. Damaged data raises zlib.error: a checksum is part of it."""
    # Workers up to 0.1 wrote no counts.
    index, language, speech_ms, rows, *more = json.loads(zlib.decompress(data))
    segments = tuple(
        Segment(text, start_ms, end_ms, tuple(Word(*word) for word in words))
        for text, start_ms, end_ms, words in rows
    )
    return ChunkResult(index, segments, language, speech_ms, *more)


def segment_to_wire(segment: Segment, *, language: str, extra_data: bool, words: bool) -> dict[str, object]:
    """The segment as ivrit's clients read it, times in seconds; they refuse any key more or less."""
    wire_words = [
        {
            "word": word.text,
            "start": word.start_ms / 1000,
            "end": word.end_ms / 1000,
            "probability": word.probability,
            "speaker": None,
        }
        for word in segment.words
    ]
    return {
        "text": segment.text,
        "start": segment.start_ms / 1000,
        "end": segment.end_ms / 1000,
        "speakers": [],
        "words": wire_words if words else [],
        "extra_data": {"language": language} if extra_data else {},
    }
