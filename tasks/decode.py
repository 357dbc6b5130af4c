"""Decodes the speech of a chunk, window by window: again where it went wrong, and nothing nobody said."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, islice
from math import inf
from statistics import median
from typing import Any, Protocol

from tasks.captions import segments_from_words, words_from_text
from tasks.chunks import WINDOW_MS, Span, pack_windows
from tasks.hallucinations import is_filler, sifted, unechoed, unlooped
from tasks.job import Options
from tasks.ladder import Decoding, bytes_per_s, faults, flaws, is_improbable, is_loop, rank, repeats, rungs
from tasks.speech import Speech
from tasks.transcript import Segment, Word
from tasks.windows import Audio, Window, accept, amplitude, length_ms, place, speech_of

# Decodings that a chunk may take beyond one for each window, down the ladder and of what was left out.
SPARE_RETRIES = 4
# Mean probability of speech below which a window, or a segment, is hardly speech.
WEAK_PROBABILITY = 0.5
# Of the amplitude of the chunk's speech: 30 dB below it.
FAINT = 10 ** (-30 / 20)
# Of the usual text in a second of the chunk, and at the least: with less, part of the speech may be left out.
# Of 21 windows, the three that had lost some had 0.3, or were the first.
MIN_SHARE = 0.8
SLOW_BYTES_PER_S = 8.0
# Windows that were decoded, those of them that went down the ladder, and texts that nobody said.
COUNTED = ("windows", "fallback_windows", "dropped_hallucinations")


class Model(Protocol):
    """A loaded Whisper (tasks/whisper.py); what it `decode`s to first is what it heard, of its own type."""

    def decode(
        self, windows: Sequence[Audio], options: Options, context_ms: int
    ) -> tuple[Any, list[Decoding]]: ...

    def only(self, heard: Any, index: int) -> Any: ...

    def generate(self, heard: Any, options: Options) -> list[Decoding]: ...

    def align(self, heard: Any, decodings: Sequence[Decoding], options: Options) -> list[list[Word]]: ...


Heard = tuple[list[Decoding], list[list[Word] | None]]


@dataclass(frozen=True, slots=True)
class _Row:
    """One window of a batch."""

    model: Model
    heard: Any
    index: int

    def alone(self) -> Any:
        return self.model.only(self.heard, self.index)


class ChunkDecoder:
    """What is said in one chunk. What it makes of a window depends on those before, and on no batch."""

    def __init__(
        self,
        audio: Audio,
        speech: Speech,
        options: Options,
        windows: int,
        *,
        limit_ms: int = WINDOW_MS,
        context_ms: int = WINDOW_MS,
    ) -> None:
        self._audio = audio
        self._speech = speech
        self._options = options
        self._limit_ms = limit_ms
        self._context_ms = context_ms
        self._retries = self._rests = windows + SPARE_RETRIES
        self._rates: list[float] = []
        self._words: list[Word] = []
        self._halves: list[Window] = []
        self._ends: list[Window] = []
        # By the start of each window.
        self._languages: dict[int, str] = {}
        self.counts: Counter[str] = Counter(dict.fromkeys(COUNTED, 0))

    def decode(self, model: Model, windows: Sequence[Window]) -> None:
        """Decode a batch of windows. Where it raises, all is as it was before, and less may be tried."""
        before = self._retries, len(self._rates), self.counts.copy()
        try:
            best, said = self._heard(model, windows)
        except Exception:
            self._retries, known, self.counts = before
            del self._rates[known:]
            raise
        for window, decoding, words in zip(windows, best, said, strict=True):
            self.counts["windows"] += 1
            self._languages[window[0].start_ms] = decoding.language
            if self._is_noise(window, decoding):
                self.counts["dropped_hallucinations"] += bool(decoding.text.strip())
            else:
                left_out = self._take(window, decoding, words)
                if len(left_out) == 1:
                    self._ends += left_out
                else:
                    self._halves += left_out

    def left_out(self) -> list[Window]:
        """What has to be decoded once all windows were, in windows; asked for again, it is nothing."""
        ends, halves = self._ends, self._halves
        self._ends, self._halves = [], []
        if not self._options.multilingual:
            # Several ends take a window as much time as one.
            ends = pack_windows(
                [span for end in sorted(ends, key=_start_ms) for span in end], limit_ms=self._limit_ms
            )
        return ends + halves

    def _heard(self, model: Model, windows: Sequence[Window]) -> Heard:
        """The best decoding of each window, and its words where they were aligned."""
        spoken = [speech_of(self._audio, window) for window in windows]
        heard, first = model.decode(spoken, self._options, self._context_ms)
        rows = [_Row(model, heard, index) for index in range(len(windows))]
        best = [self._best(*each) for each in zip(rows, first, windows, strict=True)]
        if self._options.word_timestamps:
            return best, [*model.align(heard, best, self._options)]
        return best, [self._aligned_if_doubtful(*each) for each in zip(rows, windows, best, strict=True)]

    def segments(self, *, max_ms: int, max_chars: int) -> list[Segment]:
        """What was said, in captions of at most this size; with words if they were asked for."""
        in_order = sorted(self._words, key=lambda word: word.start_ms)
        made = [
            replace(segment, language=language)
            for language, said in groupby(in_order, self._own_language)
            for segment in segments_from_words(list(said), max_ms=max_ms, max_chars=max_chars)
        ]
        kept = sifted(made, self._is_weak)
        self.counts["dropped_hallucinations"] += len(made) - len(kept)
        return kept if self._options.word_timestamps else [replace(segment, words=()) for segment in kept]

    def _own_language(self, word: Word) -> str:
        """The language of the window that a word was said in, where each has its own."""
        if not self._options.multilingual:
            return ""
        return self._languages[max(start_ms for start_ms in self._languages if start_ms <= word.start_ms)]

    def _is_weak(self, segment: Segment) -> bool:
        """Whether there is hardly any speech where the segment is said to be, or hardly any sound."""
        span = Span(segment.start_ms, segment.end_ms)
        if self._speech.probability([span]) < WEAK_PROBABILITY:
            return True
        return amplitude(self._audio, [span]) < FAINT * self._usual_amplitude

    @cached_property
    def _usual_amplitude(self) -> float:
        return amplitude(self._audio, self._speech.utterances)

    def _best(self, row: _Row, first: Decoding, window: Window) -> Decoding:
        """The best decoding of a window, by the ladder where the first one is poor."""
        spoken_ms = length_ms(self._speech.spoken(window))
        if not faults(first, spoken_ms, self._options) or not self._retries:
            return first
        self.counts["fallback_windows"] += 1
        tried = [first]
        for decoding in islice(self._again(row, window), self._retries):
            self._retries -= 1
            tried.append(decoding)
            if not faults(decoding, spoken_ms, self._options) or self._is_refrain(tried, spoken_ms):
                break
        # The same search with more silence after the window: it hears a refrain again, but a loop often not.
        refrain = not self._has_more_context or all(repeats(each, self._options) for each in tried[:2])
        return max(tried, key=lambda each: rank(each, spoken_ms, self._options, refrain=refrain))

    def _is_refrain(self, tried: Sequence[Decoding], spoken_ms: int) -> bool:
        """Whether two decodings are all there is to try: more context has what repeats itself again so."""
        return (
            self._has_more_context
            and len(tried) == 2
            and all(repeats(each, self._options) for each in tried)
            and not flaws(tried[-1], spoken_ms, self._options)
            and not tried[-1].ran_out
        )

    @property
    def _has_more_context(self) -> bool:
        """Whether a window is heard again in more context; not where the client says how it shall be."""
        return self._context_ms < WINDOW_MS and not self._options.samples

    def _again(self, row: _Row, window: Window) -> Iterator[Decoding]:
        """A window's other decodings: in all of the context that Whisper was trained with, then by rungs."""
        if self._has_more_context:
            alone, decodings = row.model.decode([speech_of(self._audio, window)], self._options, WINDOW_MS)
            yield from decodings
        else:
            alone = row.alone()
        for options in rungs(self._options):
            yield from row.model.generate(alone, options)

    def _is_noise(self, window: Window, decoding: Decoding) -> bool:
        """Whether neither Whisper nor VAD are sure that somebody speaks."""
        weak = self._speech.probability(self._speech.spoken(window)) < WEAK_PROBABILITY
        threshold = self._options.no_speech_threshold
        unsure = threshold is not None and decoding.no_speech > threshold
        # Whisper's own rule, which is not enough for music.
        return (unsure and is_improbable(decoding, self._options)) or (
            weak and (unsure or is_filler(decoding.text))
        )

    def _aligned_if_doubtful(self, row: _Row, window: Window, decoding: Decoding) -> list[Word] | None:
        """Words in time where the text is so short that some may be missing, or repeats itself, else None."""
        rate = bytes_per_s(decoding.text, length_ms(self._speech.spoken(window)))
        # Of the first window nothing is known to compare it with.
        usual = median(self._rates or [inf])
        self._rates.append(rate)
        if rate >= max(SLOW_BYTES_PER_S, MIN_SHARE * usual) and not repeats(decoding, self._options):
            return None
        return row.model.align(row.alone(), [decoding], self._options)[0]

    def _take(self, window: Window, decoding: Decoding, words: list[Word] | None) -> list[Window]:
        """Keep a window's words; returns what was left out of it."""
        spoken = self._speech.spoken(window)
        estimated = words is None
        heard = words_from_text(decoding.text, spoken) if words is None else words
        said = heard if estimated else unechoed(heard)
        if is_loop(decoding, length_ms(spoken), self._options):
            said = unlooped(said)
        self.counts["dropped_hallucinations"] += len(said) < len(heard)
        if estimated:
            self._words += said
            return []
        placed = [place(word, window) for word in said]
        # Whisper leaves the end of a window out where the client limits its text.
        may_go_on = self._rests > 0 and not self._options.max_new_tokens
        kept, again = accept(window, said, placed) if may_go_on else (placed, [])
        self._words += kept
        self._rests -= len(again)
        return again


def _start_ms(window: Window) -> int:
    return window[0].start_ms
