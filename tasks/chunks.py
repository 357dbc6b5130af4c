"""Where a recording is cut into chunks, and how speech is packed into windows. All times are ms."""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, pairwise

# What Whisper hears at a time.
WINDOW_MS = 30_000
# The last chunks of a recording are made no shorter than this for the sake of balance: below it, what a chunk
# costs beside its audio is more than what an idle worker would gain.
LEAST_ENDING_MS = 60_000


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


def nominal_end_ms(
    index: int, start_ms: int, *, target_ms: int, first_ms: Sequence[int], end_ms: int | None = None
) -> int:
    """Where chunk `index` should end; `end_ms` is the recording's end, None while that is not known.

    The first chunks may be shorter than `target_ms`, so that first text comes early. Where the end is known,
    the last ones are: of long chunks each is at most a quarter of what is left, down to a minute (guided
    self-scheduling, Polychronopoulos and Kuck 1987), so that workers end at about the same time. Nothing
    shorter than crumb_ms() is left over: it joins the chunk before, which makes that the last.
    """
    length_ms = min(first_ms[index], target_ms) if index < len(first_ms) else target_ms
    if end_ms is None or end_ms <= start_ms:
        return start_ms + length_ms
    rest_ms, crumb = end_ms - start_ms, crumb_ms(target_ms)
    parts = 1
    if target_ms > LEAST_ENDING_MS:
        parts = max(1, min(4, rest_ms // LEAST_ENDING_MS))
    elif rest_ms >= target_ms + crumb:
        parts = 2
    # To the tenth of a second: heads round the end that they promise, which shall move no cut.
    length_ms = min(length_ms, rest_ms // parts // 100 * 100)
    return end_ms if rest_ms - length_ms < crumb else start_ms + length_ms


def crumb_ms(target_ms: int) -> int:
    """What is too short to be a recording's last chunk."""
    return min(target_ms // 4, LEAST_ENDING_MS // 2)


@dataclass(frozen=True, slots=True)
class Aim:
    """Where a chunk should end: in [nominal - back, nominal + ahead], once the recording reaches `due_ms`.

    `last`: with the recording; where that reaches `due_ms`, it is longer than was promised.
    """

    nominal_ms: int
    back_ms: int
    ahead_ms: int
    due_ms: int
    last: bool


def aim(
    index: int,
    start_ms: int,
    *,
    target_ms: int,
    first_ms: Sequence[int],
    search_ms: int,
    end_ms: int | None = None,
    ended: bool = False,
) -> Aim:
    """What is to be done about the end of chunk `index`.

    `end_ms` is the recording's end, as nominal_end_ms has it: promised by its head or, if `ended`, true. To
    balance the last chunks without a promise, as much again as a chunk has to be seen first; but not for a
    short first one, which shall come early.
    """
    if end_ms is not None and end_ms <= start_ms and not ended:
        end_ms = None
    nominal_ms = nominal_end_ms(index, start_ms, target_ms=target_ms, first_ms=first_ms, end_ms=end_ms)
    if end_ms is not None and nominal_ms >= end_ms:
        return Aim(end_ms, 0, 0, end_ms + crumb_ms(target_ms), last=True)
    back_ms = ahead_ms = min(search_ms, (nominal_ms - start_ms) // 3)
    if end_ms is not None:
        # At least half of what follows is left to the next chunk.
        ahead_ms = min(ahead_ms, (end_ms - nominal_ms) // 2)
    early = end_ms is not None or (index == 0 and first_ms)
    # More than the cut itself, or nothing might be left for the chunk after it.
    follow_ms = max(1, ahead_ms) if early else target_ms
    return Aim(nominal_ms, back_ms, ahead_ms, nominal_ms + follow_ms, last=False)


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


def pack_windows(
    spans: Sequence[Span], *, pauses_ms: Sequence[int] = (), limit_ms: int = WINDOW_MS
) -> list[tuple[Span, ...]]:
    """Pack spans of speech, in order and not overlapping, into windows with at most `limit_ms` of speech.

    The silence between a window's spans does not count. A span may be cut at `pauses_ms`, which are in order,
    to fill a window; a part that is still longer than the limit is split into equal ones. Nothing is lost and
    the order is kept.
    """
    windows: list[list[Span]] = []
    room_ms = 0
    for part in _parts(spans, pauses_ms, limit_ms):
        length_ms = part.end_ms - part.start_ms
        if not windows or length_ms > room_ms:
            windows.append([])
            room_ms = limit_ms
        touches = windows[-1] and windows[-1][-1].end_ms == part.start_ms
        windows[-1].append(Span(windows[-1].pop().start_ms, part.end_ms) if touches else part)
        room_ms -= length_ms
    return [tuple(window) for window in windows]


def even_windows(
    spans: Sequence[Span], *, pauses_ms: Sequence[int] = (), limit_ms: int = WINDOW_MS
) -> list[tuple[Span, ...]]:
    """As few windows as pack_windows() makes, and about as long as each other.

    No part that fits into `limit_ms` is split for it.
    """
    windows = pack_windows(spans, pauses_ms=pauses_ms, limit_ms=limit_ms)
    lengths_ms = [part.end_ms - part.start_ms for part in _parts(spans, pauses_ms, limit_ms)]
    if not windows:
        return windows
    # The least limit that is enough for as many lies between these; `windows` has the upper one's.
    low_ms, high_ms = max(*lengths_ms, -(-sum(lengths_ms) // len(windows))), limit_ms
    while low_ms < high_ms:
        middle_ms = (low_ms + high_ms) // 2
        packed = pack_windows(spans, pauses_ms=pauses_ms, limit_ms=middle_ms)
        if len(packed) <= len(windows):
            windows, high_ms = packed, middle_ms
        else:
            low_ms = middle_ms + 1
    return windows


def _parts(spans: Sequence[Span], pauses_ms: Sequence[int], limit_ms: int) -> Iterator[Span]:
    """The spans, cut at all pauses in them and then so that none is longer than the limit."""
    for span in spans:
        first, last = bisect_right(pauses_ms, span.start_ms), bisect_left(pauses_ms, span.end_ms)
        edges = (span.start_ms, *pauses_ms[first:last], span.end_ms)
        for start_ms, end_ms in pairwise(edges):
            yield from _split(Span(start_ms, end_ms), limit_ms)


def _split(span: Span, limit_ms: int) -> list[Span]:
    """The fewest equal parts (to the ms) of `span` that are no longer than `limit_ms`."""
    length_ms = span.end_ms - span.start_ms
    count = max(1, -(-length_ms // limit_ms))
    edges = [span.start_ms + length_ms * part // count for part in range(count + 1)]
    return [Span(start_ms, end_ms) for start_ms, end_ms in pairwise(edges)]
