"""The engine: makes segments of one chunk's audio. Importing this loads no model and no CTranslate2."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from tasks import model_names, models
from tasks.chunks import Span, pack_windows
from tasks.device_failures import named_failures
from tasks.errors import ConfigurationError, OutOfMemory
from tasks.job import Options
from tasks.model_cache import CPU_BYTES, Kind, ModelCache, Room
from tasks.model_memory import estimated_bytes, free_gpu_bytes
from tasks.settings import Settings
from tasks.transcript import ChunkResult, Segment, Word, segments_from_words

if TYPE_CHECKING:
    from tasks.whisper import Whisper

# Speech after a window's last word that is decoded once more, and what must have been gained by then.
MAX_UNSPOKEN_MS = 2_000
MIN_PROGRESS_MS = 500
# A longer word covers speech that was left out.
MAX_WORD_MS = 3_000

Audio = NDArray[np.float32]
Window = tuple[Span, ...]
OnWindow = Callable[[int, int, int], None]


@dataclass(frozen=True, slots=True)
class ChunkWork:
    """What to do with a chunk that starts at `start_ms` of its recording; `model` "" is the default one.

    `batch_size` windows are decoded together at most; None: as many as the settings say. `speech` is where
    somebody speaks in it, if that was found before: see Engine.prepare.
    """

    index: int
    start_ms: int
    model: str
    options: Options
    batch_size: int | None = None
    speech: tuple[Span, ...] | None = None


class Engine(Protocol):
    """What a worker's child runs on its device."""

    def preload(self, model: str) -> None:
        """Load a model before its first chunk arrives."""

    def prepare(self, audio: Audio, work: ChunkWork) -> ChunkWork:
        """Do for `transcribe` what needs no model. May run in another thread while that has another chunk."""

    def transcribe(self, audio: Audio, work: ChunkWork, on_window: OnWindow) -> ChunkResult:
        """Transcribe 16 kHz mono samples in [-1, 1].

        `on_window(done, total, next)` is called before each batch of windows, of which it has `next`, and at
        the end; what it raises ends the work.
        """


def load_engine(settings: Settings, device_index: int = 0) -> Engine:
    """Make the engine that the settings name as "module:factory"; raises ConfigurationError."""
    module, colon, factory = settings.engine.partition(":")
    try:
        make = getattr(import_module(module), factory)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"LONGHAND_ENGINE {settings.engine!r} cannot be imported: {error}"
        ) from error
    if not colon or not callable(make):
        raise ConfigurationError(f"LONGHAND_ENGINE is {settings.engine!r}; write it as module:factory")
    return cast(Engine, make(settings, device_index))


class FasterWhisperEngine:
    """Whisper by faster-whisper and CTranslate2, windows in batches, without timestamp tokens."""

    def __init__(self, settings: Settings, device_index: int = 0) -> None:
        self._settings = settings
        self._device_index = device_index
        on_gpu = model_names.detect_device(settings.device) == "cuda"
        limit = settings.model_memory_bytes or (0 if on_gpu else CPU_BYTES)
        self._models: ModelCache[Whisper] = ModelCache(self._load, Room(limit, self._free_bytes, _size))

    def preload(self, model: str) -> None:
        """Load a model before its first chunk arrives."""
        self._models.get(self._kind(model_names.model_of(model, self._settings)))

    def prepare(self, audio: Audio, work: ChunkWork) -> ChunkWork:
        """Find where somebody speaks."""
        return replace(work, speech=_speech(audio, work))

    def transcribe(self, audio: Audio, work: ChunkWork, on_window: OnWindow) -> ChunkResult:
        """Transcribe one chunk (see Engine).

        Raises UnknownOption, InvalidInput, ModelLanguage, UnknownModel or ConfigurationError for what cannot
        be done, EngineFailed for what went wrong.
        """
        from tasks.whisper import WINDOW_MS, speech_of  # noqa: PLC0415 - loads CTranslate2

        options = work.options
        name = model_names.model_of(work.model, self._settings)
        model_names.check_language(name, options.language, options.task, options.multilingual)
        kind = self._kind(name)
        model = self._models.get(kind)
        if not model.is_multilingual:
            model_names.refuse_other_languages(name, options.language, options.task, options.multilingual)
        spans = _speech(audio, work) if work.speech is None else work.speech
        windows = pack_windows(spans, limit_ms=WINDOW_MS)
        if not windows:
            return ChunkResult(work.index, ())
        language = options.language or self._language(kind, speech_of(audio, windows[0]))
        options = replace(options, language=language)
        batch_size = work.batch_size or self._settings.batch_size
        words = self._decode(kind, audio, windows, options, on_window, batch_size=batch_size)
        segments = segments_from_words(words)
        return ChunkResult(
            index=work.index,
            segments=tuple(_shifted(segment, work.start_ms, options.word_timestamps) for segment in segments),
            language=language,
            speech_ms=_length_ms(spans),
        )

    def _kind(self, name: str) -> Kind:
        settings = self._settings
        # Only the operator may name a path.
        own = name in (settings.model, *settings.preload_models)
        device = model_names.detect_device(settings.device)
        compute_type = settings.compute_type
        if compute_type == "default":
            compute_type = "float16" if device == "cuda" else "int8"
        return Kind(models.resolve(name, settings.model_dir, allow_path=own), device, compute_type)

    def _load(self, kind: Kind) -> "Whisper":
        from tasks.whisper import Whisper  # noqa: PLC0415 - loads CTranslate2

        with named_failures(loading=kind.path.name):
            return Whisper(
                kind.path,
                device=kind.device,
                device_index=self._device_index,
                compute_type=kind.compute_type,
                threads=self._settings.threads,
            )

    def _free_bytes(self) -> int | None:
        from tasks.whisper import gpu_number  # noqa: PLC0415 - loads CTranslate2

        return free_gpu_bytes(gpu_number(self._device_index))

    def _language(self, kind: Kind, window: Audio) -> str:
        """The most probable language of a window."""
        while True:
            try:
                with named_failures():
                    return self._models.get(kind).detect_language(window)
            except OutOfMemory as error:
                self._models.less(kind, 1, error)

    def _decode(
        self,
        kind: Kind,
        audio: Audio,
        windows: Sequence[Window],
        options: Options,
        on_window: OnWindow,
        *,
        batch_size: int,
    ) -> list[Word]:
        """Decode all windows in batches, with less from the first that does not fit (ModelCache.less)."""
        from tasks.whisper import speech_of  # noqa: PLC0415 - loads CTranslate2

        words: list[Word] = []
        pending = list(windows)
        done = 0
        on_window(done, len(pending), min(self._models.batch_size(kind, batch_size), len(pending)))
        while pending:
            batch = pending[: self._models.batch_size(kind, batch_size)]
            try:
                with named_failures():
                    model = self._models.get(kind)
                    spoken = model.decode([speech_of(audio, window) for window in batch], options)
            except OutOfMemory as error:
                self._models.less(kind, len(batch), error)
                continue
            pending = pending[len(batch) :]
            for window, said in zip(batch, spoken, strict=True):
                placed = [place(word, window) for word in said]
                # Whisper leaves the end of a window out where the client limits its text.
                kept, rest = (placed, []) if options.max_new_tokens else accept(window, said, placed)
                words += kept
                pending += rest
            done += len(batch)
            following = min(self._models.batch_size(kind, batch_size), len(pending))
            on_window(done, done + len(pending), following)
        return sorted(words, key=lambda word: word.start_ms)


def _speech(audio: Audio, work: ChunkWork) -> tuple[Span, ...]:
    from tasks.whisper import speech_spans  # noqa: PLC0415 - loads CTranslate2

    return tuple(speech_spans(audio, work.options.vad_parameters))


def _size(kind: Kind) -> int:
    return estimated_bytes(kind.path, kind.compute_type)


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
    if _length_ms(window) - _length_ms(rest) >= MIN_PROGRESS_MS and _length_ms(rest) > MAX_UNSPOKEN_MS:
        return kept, [rest]
    if stretched is not None and _length_ms(window) > MAX_WORD_MS:
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
    cut = min(cuts, key=lambda index: abs(_length_ms(window[:index]) - _length_ms(window[index:])))
    return [window[:cut], window[cut:]]


def _length_ms(spans: Sequence[Span]) -> int:
    return sum(span.end_ms - span.start_ms for span in spans)


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


def _shifted(segment: Segment, by_ms: int, with_words: bool) -> Segment:
    """The segment with its times counted from the recording's start, and without words if none are wanted."""
    words = tuple(
        replace(word, start_ms=word.start_ms + by_ms, end_ms=word.end_ms + by_ms) for word in segment.words
    )
    return replace(
        segment,
        start_ms=segment.start_ms + by_ms,
        end_ms=segment.end_ms + by_ms,
        words=words if with_words else (),
    )
