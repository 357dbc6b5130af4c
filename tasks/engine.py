"""The engine: makes segments of one chunk's audio. Importing this loads no model and no CTranslate2."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from tasks import model_names, models
from tasks.audio import speech_probabilities
from tasks.chunks import pack_windows
from tasks.decode import ChunkDecoder
from tasks.errors import ConfigurationError, EngineFailed, UnknownModel
from tasks.job import Options
from tasks.language import Ballot, Elected, elect
from tasks.settings import Settings
from tasks.speech import VadParameters, listen
from tasks.transcript import ChunkResult, most_spoken
from tasks.windows import SAMPLES_PER_MS, Audio, Window, length_ms, speech_of

if TYPE_CHECKING:
    from tasks.whisper import Whisper

# Models kept loaded in one process; the one that has been idle longest goes first.
MAX_MODELS = 2
# What Whisper hears at a time.
MAX_WINDOW_S = 30
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
        options = work.options
        name = model_names.model_of(work.model, self._settings)
        model_names.check_language(name, options.language, options.task, options.multilingual)
        model = self._load(name)
        if not model.is_multilingual:
            model_names.refuse_other_languages(name, options.language, options.task, options.multilingual)
        probabilities = speech_probabilities(audio).tolist()
        speech = listen(probabilities, len(audio) // SAMPLES_PER_MS, VadParameters.of(options.vad_parameters))
        longest_ms = 1000 * min(options.chunk_length or MAX_WINDOW_S, MAX_WINDOW_S)
        windows = pack_windows(speech.spans, limit_ms=longest_ms)
        if not windows:
            return ChunkResult(work.index, ())
        elected = _elected(model, audio, windows, options)
        decoder = ChunkDecoder(audio, speech, replace(options, language=elected.language), len(windows))
        limits = work.batch_size, options.batch_size, self._settings.batch_size
        batch_size = min(limit for limit in limits if limit)
        self._decode(model, decoder, windows, on_window, batch_size=batch_size)
        segments = decoder.segments(
            max_ms=self._settings.segment_max_ms, max_chars=self._settings.segment_max_chars
        )
        counts = dict(sorted(decoder.counts.items()))
        if not segments:
            return ChunkResult(work.index, (), counts=counts)
        return ChunkResult(
            index=work.index,
            segments=tuple(segment.shifted(work.start_ms) for segment in segments),
            language=most_spoken(segments) if options.multilingual else elected.language,
            language_probability=elected.probability,
            speech_ms=length_ms(speech.spans),
            counts=counts,
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
        decoder: ChunkDecoder,
        windows: Sequence[Window],
        on_window: OnWindow,
        *,
        batch_size: int,
    ) -> None:
        """Decode all windows in batches, in smaller ones from the first that does not fit in memory."""
        pending = list(windows)
        done = 0
        on_window(done, len(pending), min(batch_size, len(pending)))
        while pending:
            batch = pending[:batch_size]
            try:
                with _named_failures():
                    again = decoder.decode(model, batch)
            except OutOfMemory:
                if len(batch) == 1:
                    raise
                batch_size = len(batch) // 2
                continue
            pending = pending[len(batch) :] + again
            done += len(batch)
            on_window(done, done + len(pending), min(batch_size, len(pending)))


def _elected(model: "Whisper", audio: Audio, windows: Sequence[Window], options: Options) -> Elected:
    """The language that is known, or that the first windows vote for; none where each has its own."""
    if options.language or options.multilingual:
        return Elected(options.language or "", 0.0)
    voters = windows[: options.language_detection_segments]
    with _named_failures():
        return elect([Ballot(model.languages(speech_of(audio, each)), length_ms(each)) for each in voters])


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
