"""The engine: makes segments of one chunk's audio. Importing this loads no model and no CTranslate2."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from tasks import model_names, models
from tasks.audio import speech_probabilities
from tasks.chunks import WINDOW_MS, even_windows, pack_windows
from tasks.decode import ChunkDecoder
from tasks.device_failures import named_failures
from tasks.errors import ConfigurationError, OutOfMemory
from tasks.job import Options
from tasks.language import Ballot, Elected, elect
from tasks.model_cache import CPU_BYTES, Kind, ModelCache, Room
from tasks.model_memory import estimated_bytes, free_gpu_bytes
from tasks.settings import Settings
from tasks.speech import Speech, VadParameters, listen
from tasks.transcript import ChunkResult, most_spoken
from tasks.windows import SAMPLES_PER_MS, Audio, Window, length_ms, speech_of

if TYPE_CHECKING:
    from tasks.whisper import Whisper

# With less of the 30 s that Whisper was trained with, it understands short windows less well.
LEAST_CONTEXT_MS = 15_000
OnWindow = Callable[[int, int, int], None]


@dataclass(frozen=True, slots=True)
class Layout:
    """How speech is laid before a model: windows that are decoded together, the most of each, and the silence
    after the longest one of a chunk, as far as Whisper's 30 s have room for it.
    """

    batch_size: int
    window_ms: int
    padding_ms: int


# On a CPU the encoder's time grows faster than what it hears (docs/decisions/0013), and to decode eight
# windows together is a twentieth faster than four, and takes 126 MiB more for chunks of five minutes.
LAYOUTS = {"cpu": Layout(4, 24_000, 1_000), "cuda": Layout(8, WINDOW_MS, WINDOW_MS)}


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
    speech: Speech | None = None


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
        device = model_names.detect_device(settings.device)
        self._layout = _layout(settings, device)
        limit = settings.model_memory_bytes or (CPU_BYTES if device == "cpu" else 0)
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
        options = work.options
        name = model_names.model_of(work.model, self._settings)
        model_names.check_language(name, options.language, options.task, options.multilingual)
        kind, steps = self._kind(name), self._models.steps.total()
        model = self._models.get(kind)
        if not model.is_multilingual:
            model_names.refuse_other_languages(name, options.language, options.task, options.multilingual)
        speech = work.speech or _speech(audio, work)
        windows = self._windows(speech, options)
        if not windows:
            return ChunkResult(work.index, ())
        elected = self._elected(kind, audio, windows, options)
        options = replace(options, language=elected.language)
        longest_ms = max(map(length_ms, windows))
        context_ms = self._context_ms(longest_ms, options)
        decoder = ChunkDecoder(
            audio, speech, options, len(windows), limit_ms=longest_ms, context_ms=context_ms
        )
        limits = work.batch_size, options.batch_size, self._layout.batch_size
        batch_size = min(limit for limit in limits if limit)
        self._decode(kind, decoder, windows, on_window, batch_size=batch_size)
        segments = decoder.segments(
            max_ms=self._settings.segment_max_ms, max_chars=self._settings.segment_max_chars
        )
        counts = self._counts(kind, decoder, steps)
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

    def _counts(self, kind: Kind, decoder: ChunkDecoder, steps: int) -> dict[str, int]:
        """What was counted in a chunk, and whether memory did not suffice; there had been so many steps."""
        # A lighter type stays, whatever the chunk in which it was chosen, and may say something else.
        lacked = {
            "out_of_memory": self._models.steps.total() - steps,
            "lighter_compute_type": int(self._models.is_lighter(kind)),
        }
        found = {**decoder.counts, **{name: count for name, count in lacked.items() if count}}
        return dict(sorted(found.items()))

    def _windows(self, speech: Speech, options: Options) -> list[Window]:
        limit_ms = 1000 * options.chunk_length if options.chunk_length else self._layout.window_ms
        # Full windows hold two languages less often than even ones.
        pack = pack_windows if options.multilingual else even_windows
        return pack(speech.spans, pauses_ms=speech.pauses_ms, limit_ms=limit_ms)

    def _context_ms(self, longest_ms: int, options: Options) -> int:
        if options.multilingual:
            # In less, Whisper mistakes the language of a short window.
            return WINDOW_MS
        return min(max(longest_ms + self._layout.padding_ms, LEAST_CONTEXT_MS), WINDOW_MS)

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

    def _elected(self, kind: Kind, audio: Audio, windows: Sequence[Window], options: Options) -> Elected:
        """The language that is known, or that the first windows vote for; none where each has its own."""
        if options.language or options.multilingual:
            return Elected(options.language or "", 0.0)
        voters = windows[: options.language_detection_segments]
        return elect(
            [Ballot(self._languages(kind, speech_of(audio, each)), length_ms(each)) for each in voters]
        )

    def _languages(self, kind: Kind, window: Audio) -> Mapping[str, float]:
        """How probable each language is in a window."""
        while True:
            try:
                with named_failures():
                    return self._models.get(kind).languages(window)
            except OutOfMemory as error:
                self._models.less(kind, 1, error)

    def _decode(
        self,
        kind: Kind,
        decoder: ChunkDecoder,
        windows: Sequence[Window],
        on_window: OnWindow,
        *,
        batch_size: int,
    ) -> None:
        """Decode all windows in batches, with less from the first that does not fit (ModelCache.less)."""
        pending = list(windows)
        done = 0
        on_window(done, len(pending), min(self._models.batch_size(kind, batch_size), len(pending)))
        while pending:
            batch = pending[: self._models.batch_size(kind, batch_size)]
            try:
                with named_failures():
                    decoder.decode(self._models.get(kind), batch)
            except OutOfMemory as error:
                self._models.less(kind, len(batch), error)
                continue
            pending = pending[len(batch) :] or decoder.left_out()
            done += len(batch)
            following = min(self._models.batch_size(kind, batch_size), len(pending))
            on_window(done, done + len(pending), following)


def _layout(settings: Settings, device: str) -> Layout:
    own = {
        "batch_size": settings.batch_size,
        "window_ms": settings.window_ms,
        "padding_ms": settings.padding_ms,
    }
    return replace(LAYOUTS[device], **{name: value for name, value in own.items() if value is not None})


def _speech(audio: Audio, work: ChunkWork) -> Speech:
    probabilities = speech_probabilities(audio).tolist()
    parameters = VadParameters.of(work.options.vad_parameters)
    return listen(probabilities, len(audio) // SAMPLES_PER_MS, parameters)


def _size(kind: Kind) -> int:
    return estimated_bytes(kind.path, kind.compute_type)
