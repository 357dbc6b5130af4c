"""Windows: what is given to Whisper at once, words put back into them, and what has to be decoded again."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tasks.chunks import Span
from tasks.transcript import Word

SAMPLES_PER_MS = 16
# Speech after a window's last word that is decoded once more, and what must have been gained by then.
MAX_UNSPOKEN_MS = 2_000
MIN_PROGRESS_MS = 500
# A longer word covers speech that was left out.
MAX_WORD_MS = 3_000

Audio = NDArray[np.float32]
Window = tuple[Span, ...]


def length_ms(spans: Sequence[Span]) -> int:
    return sum(span.end_ms - span.start_ms for span in spans)


def speech_of(audio: Audio, window: Sequence[Span]) -> Audio:
    """What is said in a window, without the silence between its spans."""
    return np.concatenate(
        [audio[span.start_ms * SAMPLES_PER_MS : span.end_ms * SAMPLES_PER_MS] for span in window]
    )


def amplitude(audio: Audio, spans: Sequence[Span]) -> float:
    """The root mean square of the samples in the spans; 0 where there are none."""
    squares, count = 0.0, 0
    for span in spans:
        samples = audio[span.start_ms * SAMPLES_PER_MS : span.end_ms * SAMPLES_PER_MS]
        # Squares of all the speech, kept at once in double precision, would take twice as much as the audio.
        squares += float(np.einsum("i,i", samples, samples, dtype=np.float64))
        count += len(samples)
    return math.sqrt(squares / count) if count else 0.0


def place(word: Word, window: Window) -> Word:
    """The word moved from the window's speech to the span it was spoken in, and held inside it."""
    silence_ms = window[0].start_ms
    span = window[0]
    middle_ms = (word.start_ms + word.end_ms) // 2
    for before, span in zip((None, *window), window, strict=False):
        silence_ms += span.start_ms - before.end_ms if before else 0
        if middle_ms + silence_ms < span.end_ms:
            break
    start_ms, end_ms = (
        min(max(time_ms + silence_ms, span.start_ms), span.end_ms) for time_ms in (word.start_ms, word.end_ms)
    )
    return replace(word, start_ms=start_ms, end_ms=end_ms)


def accept(window: Window, words: Sequence[Word], placed: list[Word]) -> tuple[list[Word], list[Window]]:
    """Which of the window's words to keep, and what has to be decoded again from where Whisper left off.

    Without timestamps Whisper may stop at a pause, or leave out sentences; alignment then stretches one word
    over all of them.
    """
    long = (index for index, word in enumerate(words) if word.end_ms - word.start_ms > MAX_WORD_MS)
    stretched = next(long, None)
    kept = placed[:stretched]
    rest = _from(window, kept[-1].end_ms) if kept else window
    # Without the first condition a window could be decoded again and again.
    if length_ms(window) - length_ms(rest) >= MIN_PROGRESS_MS and length_ms(rest) > MAX_UNSPOKEN_MS:
        return kept, [rest]
    if stretched is not None and length_ms(window) > MAX_WORD_MS:
        return [], _halves(window)
    return placed, []


def _from(window: Window, start_ms: int) -> Window:
    return tuple(Span(max(span.start_ms, start_ms), span.end_ms) for span in window if span.end_ms > start_ms)


def _halves(window: Window) -> list[Window]:
    """The window in two, between spans if it has more than one."""
    if len(window) == 1:
        middle_ms = (window[0].start_ms + window[0].end_ms) // 2
        return [(replace(window[0], end_ms=middle_ms),), (replace(window[0], start_ms=middle_ms),)]
    cuts = range(1, len(window))
    cut = min(cuts, key=lambda index: abs(length_ms(window[:index]) - length_ms(window[index:])))
    return [window[:cut], window[cut:]]
