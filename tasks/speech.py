"""Where somebody speaks in a chunk, by the probability of speech in each frame. All times are ms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

from tasks.chunks import WINDOW_MS, Span, choose_cut_ms
from tasks.errors import UnknownOption

# Of one frame of Silero VAD: 512 samples.
FRAME_MS = 32
# A silence within a span that is long enough to be heard as a pause.
PAUSE_MS = 250


@dataclass(frozen=True, slots=True)
class VadParameters:
    """The fields of faster-whisper's VadOptions and what they mean there, with our defaults.

    `neg_threshold` None: 0.15 below `threshold`. Of a silence up to twice `speech_pad_ms` is kept, whatever
    `min_silence_duration_ms` is: that says where windows may end.
    """

    threshold: float = 0.5
    neg_threshold: float | None = None
    min_speech_duration_ms: float = 0
    max_speech_duration_s: float = WINDOW_MS / 1000
    min_silence_duration_ms: float = 160
    speech_pad_ms: float = 400

    @staticmethod
    def of(given: Mapping[str, float | int]) -> "VadParameters":
        """Raises UnknownOption for a name that is not a field."""
        accepted = [field.name for field in fields(VadParameters)]
        for name in given:
            if name not in accepted:
                raise UnknownOption(f"vad_parameters has no {name!r}; accepted are {', '.join(accepted)}")
        return VadParameters(**given)


@dataclass(frozen=True, slots=True)
class Speech:
    """`spans` are what is decoded, with some silence around; `utterances` the speech between two pauses.

    `probabilities` has one value per frame of FRAME_MS.
    """

    probabilities: Sequence[float]
    spans: tuple[Span, ...]
    utterances: tuple[Span, ...]

    def probability(self, spans: Sequence[Span]) -> float:
        """The mean probability of speech in the frames that the spans touch; 0 where there are none."""
        frames = [
            probability
            for span in spans
            for probability in self.probabilities[span.start_ms // FRAME_MS : -(-span.end_ms // FRAME_MS)]
        ]
        return sum(frames) / max(1, len(frames))

    @property
    def pauses_ms(self) -> list[int]:
        """The middle of each pause."""
        return [(before.end_ms + after.start_ms) // 2 for before, after in pairwise(self.utterances)]

    def spoken(self, window: Sequence[Span]) -> list[Span]:
        """The utterances within a window, or the window where VAD heard none."""
        cut = [
            Span(max(span.start_ms, said.start_ms), min(span.end_ms, said.end_ms))
            for span in window
            for said in self.utterances
            if said.start_ms < span.end_ms and span.start_ms < said.end_ms
        ]
        return cut or list(window)


def listen(probabilities: Sequence[float], length_ms: int, parameters: VadParameters) -> Speech:
    """Find the speech in a chunk of this length.

    Speech begins where the probability reaches the threshold. It ends where it then falls below the lower
    one and stays below the upper one for the least silence. A span longer than allowed is cut in its longest
    pause.
    """
    found = _runs(probabilities, parameters, parameters.min_silence_duration_ms)
    spans = [span for span in found if span.end_ms - span.start_ms > parameters.min_speech_duration_ms]
    pad_ms = max(0, round(parameters.speech_pad_ms))
    longest_ms = round(min(WINDOW_MS, parameters.max_speech_duration_s * 1000))
    longest_ms = max(longest_ms - 2 * pad_ms, 10 * FRAME_MS)
    parts = [part for span in spans for part in _parts(span, longest_ms, probabilities)]
    return Speech(
        probabilities,
        tuple(_padded(parts, pad_ms, length_ms)),
        tuple(_within(_runs(probabilities, parameters, PAUSE_MS), length_ms)),
    )


def _runs(probabilities: Sequence[float], parameters: VadParameters, silence_ms: float) -> list[Span]:
    """Stretches of speech with less than `silence_ms` of silence in them."""
    upper = parameters.threshold
    lower = parameters.neg_threshold
    if lower is None:
        lower = max(upper - 0.15, 0.01)
    runs: list[Span] = []
    start: int | None = None
    silent_from: int | None = None
    for frame, probability in enumerate(probabilities):
        if probability >= upper:
            start = frame if start is None else start
            silent_from = None
        elif start is not None and probability < lower:
            silent_from = frame if silent_from is None else silent_from
            if (frame - silent_from) * FRAME_MS >= silence_ms:
                runs.append(Span(start * FRAME_MS, silent_from * FRAME_MS))
                start = silent_from = None
    if start is not None:
        end = len(probabilities) if silent_from is None else silent_from
        runs.append(Span(start * FRAME_MS, end * FRAME_MS))
    return runs


def _parts(span: Span, longest_ms: int, probabilities: Sequence[float]) -> list[Span]:
    """The span in parts of at most `longest_ms`, cut in the longest pause of each one's second half."""
    parts = []
    start_ms = span.start_ms
    while span.end_ms - start_ms > longest_ms:
        first = (start_ms + longest_ms // 2) // FRAME_MS
        last = max(first + 1, (start_ms + longest_ms) // FRAME_MS)
        cut_ms = choose_cut_ms(probabilities[first:last], origin_ms=first * FRAME_MS, frame_ms=FRAME_MS)
        parts.append(Span(start_ms, cut_ms))
        start_ms = cut_ms
    return [*parts, Span(start_ms, span.end_ms)]


def _padded(spans: Sequence[Span], pad_ms: int, length_ms: int) -> list[Span]:
    """The spans with `pad_ms` more on either side, or half of the silence to the next one."""
    padded = []
    for index, span in enumerate(spans):
        before_ms = span.start_ms - spans[index - 1].end_ms if index else 2 * span.start_ms
        # The first and the last one have all of the silence to themselves.
        after_ms = spans[index + 1].start_ms - span.end_ms if index + 1 < len(spans) else 2 * pad_ms
        padded.append(
            Span(span.start_ms - min(pad_ms, before_ms // 2), span.end_ms + min(pad_ms, after_ms // 2))
        )
    return _within(padded, length_ms)


def _within(spans: Sequence[Span], length_ms: int) -> list[Span]:
    held = (Span(span.start_ms, min(span.end_ms, length_ms)) for span in spans)
    return [span for span in held if span.end_ms > span.start_ms]
