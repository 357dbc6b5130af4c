"""Words, segments and their merge into one transcript. All times are ms from the recording's start."""

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from tasks.language import DIGITS


@dataclass(frozen=True, slots=True)
class Word:
    """One word as Whisper gives it: `text` keeps its leading space."""

    text: str
    start_ms: int
    end_ms: int
    probability: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A caption-sized piece of text. `words` is empty where none were asked for.

    `language` is its own where each window has one, else "".
    """

    text: str
    start_ms: int
    end_ms: int
    words: tuple[Word, ...] = ()
    language: str = ""

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
    `language_probability` is how sure the vote was of it, 0 where it was not detected.
    """

    index: int
    segments: tuple[Segment, ...]
    language: str = ""
    speech_ms: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    damaged: int = 0
    language_probability: float = 0.0


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
    # 0 where the language was not detected.
    language_probability: float = 0.0

    def language_to_wire(self) -> dict[str, object]:
        """The field `language`, and how probable it is where it was detected."""
        probability = self.language_probability
        return {"language": self.language} | ({"language_probability": probability} if probability else {})

    def gaps_to_wire(self) -> dict[str, object]:
        """The field `gaps`, where there are any."""
        return {"gaps": [gap.to_wire() for gap in self.gaps]} if self.gaps else {}


Span = TypeVar("Span", Word, Segment)


def merge(results: Iterable[ChunkResult], *, duration_ms: int, warnings: tuple[str, ...] = ()) -> Transcript:
    """Put the chunks of a recording together, whatever their order and however often each arrives.

    Segments come out in order of start, ties in order of chunk, and no time is outside [0, duration].
    The language is the one with the most speech, the earlier chunk's if two have the same; its probability is
    the mean over the chunks that detected it, each counted by its speech.
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
    if damaged := sum(result.damaged for result in in_order):
        warnings = (*warnings, damage_warning(damaged))
    language = max(speech_ms, key=speech_ms.__getitem__, default="")
    segments = [
        _segment_within(segment, duration_ms) for result in in_order for segment in segments_of(result)
    ]
    return Transcript(
        segments=tuple(sorted(segments, key=lambda segment: segment.start_ms)),
        duration_ms=duration_ms,
        language=language,
        warnings=warnings,
        counts=sums(result.counts for result in in_order),
        language_probability=_probability(in_order, language),
    )


def damage_warning(damaged: int) -> str:
    """What a client is told of packets that could not be decoded."""
    return f"damaged: {damaged} packets could not be decoded and are left out"


def sums(counted: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """What several have counted, by name, in order."""
    total: Counter[str] = Counter()
    for counts in counted:
        total.update(counts)
    return dict(sorted(total.items()))


def segments_of(result: ChunkResult) -> list[Segment]:
    """The segments of a chunk, each with its language."""
    return [replace(segment, language=segment.language or result.language) for segment in result.segments]


def most_spoken(segments: Iterable[Segment]) -> str:
    """The language of most of the time, the earlier one's if two have the same; "" where there is none."""
    spoken_ms: Counter[str] = Counter()
    for segment in segments:
        spoken_ms[segment.language] += segment.end_ms - segment.start_ms
    return max(spoken_ms, key=spoken_ms.__getitem__, default="")


def _probability(results: Sequence[ChunkResult], language: str) -> float:
    """Mean probability of a language over the chunks that detected it."""
    detected = [result for result in results if result.language == language and result.language_probability]
    speech_ms = sum(result.speech_ms for result in detected)
    weighted = sum(result.language_probability * result.speech_ms for result in detected)
    return round(weighted / speech_ms, DIGITS) if speech_ms else 0.0


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
            *([segment.language] if segment.language else []),
        ]
        for segment in result.segments
    ]
    more = dict(result.counts), result.damaged, result.language_probability
    fields = [result.index, result.language, result.speech_ms, segments, *more]
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    return zlib.compress(text.encode("utf-8", "surrogatepass"))


def result_from_bytes(data: bytes) -> ChunkResult:
    """Read what `result_to_bytes` wrote. Damaged data raises zlib.error: a checksum is part of it."""
    # Workers up to 0.1 wrote no counts and no probability.
    index, language, speech_ms, rows, *more = json.loads(zlib.decompress(data))
    segments = tuple(
        Segment(text, start_ms, end_ms, tuple(Word(*word) for word in words), *own)
        for text, start_ms, end_ms, words, *own in rows
    )
    return ChunkResult(index, segments, language, speech_ms, *more)


def segment_to_wire(segment: Segment, *, extra_data: bool, words: bool) -> dict[str, object]:
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
        "extra_data": {"language": segment.language} if extra_data else {},
    }
