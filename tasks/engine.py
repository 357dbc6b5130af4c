"""The engine: makes segments of one chunk's audio. Importing this loads no model and no CTranslate2."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from tasks import model_names, models
from tasks.chunks import Span, pack_windows
from tasks.errors import ConfigurationError, EngineFailed, UnknownModel
from tasks.job import Options
from tasks.settings import Settings
from tasks.transcript import ChunkResult, Segment, Word, segments_from_words

if TYPE_CHECKING:
    from tasks.whisper import Whisper

# Models kept loaded in one process; the one that has been idle longest goes first.
MAX_MODELS = 2
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

    `batch_size` windows are decoded together at most; None: as many as the settings say.
    """

    index: int
    start_ms: int
    model: str
    options: Options
    batch_size: int | None = None


class Engine(Protocol):
    """What a worker's child runs on its device."""

    def preload(self, model: str) -> None:
        """Load a model before its first chunk arrives."""

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
        self._models: dict[tuple[Path, str, str], Whisper] = {}

    def preload(self, model: str) -> None:
        """Load a model before its first chunk arrives."""
        self._load(model_names.model_of(model, self._settings))

    def transcribe(self, audio: Audio, work: ChunkWork, on_window: OnWindow) -> ChunkResult:
        """Transcribe one chunk (see Engine).

        Raises UnknownOption, InvalidInput, ModelLanguage, UnknownModel or ConfigurationError for what cannot
        be done, EngineFailed for what went wrong.
        """
        from tasks.whisper import WINDOW_MS, speech_of, speech_spans  # noqa: PLC0415 - loads CTranslate2

        options = work.options
        name = model_names.model_of(work.model, self._settings)
        model_names.check_language(name, options.language, options.task, options.multilingual)
        model = self._load(name)
        if not model.is_multilingual:
            model_names.refuse_other_languages(name, options.language, options.task, options.multilingual)
        spans = speech_spans(audio, options.vad_parameters)
        windows = pack_windows(spans, limit_ms=WINDOW_MS)
        if not windows:
            return ChunkResult(work.index, ())
        with _named_failures():
            language = options.language or model.detect_language(speech_of(audio, windows[0]))
        options = replace(options, language=language)
        batch_size = work.batch_size or self._settings.batch_size
        words = self._decode(model, audio, windows, options, on_window, batch_size=batch_size)
        segments = segments_from_words(words)
        return ChunkResult(
            index=work.index,
            segments=tuple(_shifted(segment, work.start_ms, options.word_timestamps) for segment in segments),
            language=language,
            speech_ms=_length_ms(spans),
        )

    def _load(self, name: str) -> "Whisper":
        """The model, from memory if it is there."""
        from tasks.whisper import Whisper  # noqa: PLC0415 - loads CTranslate2

        settings = self._settings
        # Only the operator may name a path.
        path = models.resolve(name, settings.model_dir, allow_path=name == settings.model)
        device = model_names.detect_device(settings.device)
        compute_type = settings.compute_type
        if compute_type == "default":
            compute_type = "float16" if device == "cuda" else "int8"
        key = path, device, compute_type
        model = self._models.pop(key, None)
        if model is None:
            while len(self._models) >= MAX_MODELS:
                del self._models[next(iter(self._models))]
            with _named_failures(loading=name):
                model = Whisper(
                    path,
                    device=device,
                    device_index=self._device_index,
                    compute_type=compute_type,
                    threads=settings.threads,
                )
        self._models[key] = model
        return model

    def _decode(
        self,
        model: "Whisper",
        audio: Audio,
        windows: Sequence[Window],
        options: Options,
        on_window: OnWindow,
        *,
        batch_size: int,
    ) -> list[Word]:
        """Decode all windows in batches, in smaller ones from the first that does not fit in memory."""
        from tasks.whisper import speech_of  # noqa: PLC0415 - loads CTranslate2

        words: list[Word] = []
        pending = list(windows)
        done = 0
        on_window(done, len(pending), min(batch_size, len(pending)))
        while pending:
            batch = pending[:batch_size]
            try:
                with _named_failures():
                    spoken = model.decode([speech_of(audio, window) for window in batch], options)
            except OutOfMemory:
                if len(batch) == 1:
                    raise
                batch_size = len(batch) // 2
                continue
            pending = pending[len(batch) :]
            for window, said in zip(batch, spoken, strict=True):
                placed = [place(word, window) for word in said]
                # Whisper leaves the end of a window out where the client limits its text.
                kept, rest = (placed, []) if options.max_new_tokens else accept(window, said, placed)
                words += kept
                pending += rest
            done += len(batch)
            on_window(done, done + len(pending), min(batch_size, len(pending)))
        return sorted(words, key=lambda word: word.start_ms)


class OutOfMemory(EngineFailed):
    """The device has no memory left for a single window: use a smaller model or compute type."""


@contextmanager
def _named_failures(loading: str = "") -> Iterator[None]:
    """Turn what CTranslate2 raises into our errors; `loading` is the model that is being loaded."""
    try:
        yield
    except (RuntimeError, ValueError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        if isinstance(error, MemoryError) or "out of memory" in reason or "ALLOC_FAILED" in reason:
            raise OutOfMemory(f"{OutOfMemory.__doc__} ({reason})") from error
        if not loading:
            raise EngineFailed(f"The model failed while decoding: {reason}") from error
        if "compute type" in reason:
            raise ConfigurationError(f"LONGHAND_COMPUTE_TYPE does not suit this device: {reason}") from error
        if "CUDA" in reason or "cuDNN" in reason:
            raise EngineFailed(f"The GPU cannot be used: {reason}") from error
        raise UnknownModel(f"Model {loading!r} cannot be loaded: {reason}") from error


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
