"""Where a recording is cut into chunks, and how speech is packed into windows. All times are ms."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, pairwise


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time, [start_ms, end_ms)."""

    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """The span of a recording given to one task: `digest` tells its content, `blob` names its audio.

    A blob of packets reaches beyond the span on both sides, and its stamps count from `origin_ms` of the
    recording, which may be before its beginning; None: the blob is the span, to the sample.
    """

    index: int
    start_ms: int
    end_ms: int
    digest: str
    blob: str
    origin_ms: int | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> "Chunk":
        return Chunk(**json.loads(text))


def nominal_end_ms(index: int, start_ms: int, *, target_ms: int, first_ms: Sequence[int]) -> int:
    """Where chunk `index` should end: the first chunks may be shorter than `target_ms`, never longer."""
    length_ms = min(first_ms[index], target_ms) if index < len(first_ms) else target_ms
    return start_ms + length_ms


def choose_cut_ms(
    probabilities: Sequence[float],
    *,
    origin_ms: int,
    frame_ms: int = 32,
    threshold: float = 0.35,
    min_silence_ms: int = 160,
) -> int:
    """The best place to cut, given one probability of speech per frame from `origin_ms` on.

    The middle of the longest silence (frames below `threshold`) of at least `min_silence_ms`; of equals,
    the one nearest the middle of the range. Without one, the middle of the frame least like speech.
    Raises ValueError where there are no frames.
    """
    if not probabilities:
        raise ValueError("a cut needs at least one frame to choose from")
    count = len(probabilities)

    def off_centre(run: tuple[int, int]) -> int:
        return abs(run[0] + run[1] - count)

    silences = [
        (first, last)
        for first, last in _runs_below(probabilities, threshold)
        if (last - first) * frame_ms >= min_silence_ms
    ]
    if silences:
        best = min(silences, key=lambda run: (run[0] - run[1], off_centre(run)))
    else:
        frames = ((frame, frame + 1) for frame in range(count))
        best = min(frames, key=lambda run: (probabilities[run[0]], off_centre(run)))
    return origin_ms + (best[0] + best[1]) * frame_ms // 2


def _runs_below(probabilities: Sequence[float], threshold: float) -> list[tuple[int, int]]:
    """The runs of frames below `threshold`, as [first, last) frame numbers."""
    runs = []
    first = 0
    for silent, frames in groupby(probabilities, key=lambda probability: probability < threshold):
        last = first + sum(1 for _ in frames)
        if silent:
            runs.append((first, last))
        first = last
    return runs


def pack_windows(spans: Sequence[Span], *, limit_ms: int = 30_000) -> list[tuple[Span, ...]]:
    """Pack spans of speech, in order and not overlapping, into windows of at most `limit_ms`.

    A window reaches from its first span's start to its last span's end. A span longer than the limit
    is split into equal parts; nothing is lost and the order is kept.
    """
    windows: list[list[Span]] = []
    for span in spans:
        for part in _split(span, limit_ms):
            if windows and part.end_ms - windows[-1][0].start_ms <= limit_ms:
                windows[-1].append(part)
            else:
                windows.append([part])
    return [tuple(window) for window in windows]


def _split(span: Span, limit_ms: int) -> list[Span]:
    """The fewest equal parts (to the ms) of `span` that are no longer than `limit_ms`."""
    length_ms = span.end_ms - span.start_ms
    count = max(1, -(-length_ms // limit_ms))
    edges = [span.start_ms + length_ms * part // count for part in range(count + 1)]
    return [Span(start_ms, end_ms) for start_ms, end_ms in pairwise(edges)]
