import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_whisper.audio import decode_audio
from hypothesis import given
from hypothesis import strategies as st

from tasks import models
from tasks.chunks import Span
from tasks.engine import Audio, ChunkWork, FasterWhisperEngine, accept, load_engine, place
from tasks.errors import (
    ConfigurationError,
    EngineFailed,
    InvalidInput,
    LeaseLost,
    ModelLanguage,
    UnknownModel,
    UnknownOption,
)
from tasks.job import Options
from tasks.settings import Settings
from tasks.transcript import ChunkResult, Word
from tasks.whisper import Whisper

SPEECH = Path(__file__).parent.parent / "data" / "speech.opus"
SECOND = 16_000
# Another word than the first best would need more beams; these tests are about other things.
FAST = Options(beam_size=1)
SHOUTING = "AND SO, MY FELLOW CITIZENS! ASK WHAT YOUR COUNTRY CAN DO FOR YOU!"


@pytest.fixture(scope="module")
def speech() -> Audio:
    audio: Audio = decode_audio(str(SPEECH))
    return audio


@pytest.fixture(scope="module")
def engine() -> FasterWhisperEngine:
    """One engine for all tests: what a test passes in must not stay in it."""
    return FasterWhisperEngine(Settings(device="cpu", batch_size=4))


def silence(seconds: float) -> Audio:
    return np.zeros(int(seconds * SECOND), np.float32)


def no_report(done: int, total: int) -> None: ...


def transcribe(
    engine: FasterWhisperEngine, audio: Audio, options: Options = FAST, start_ms: int = 0
) -> ChunkResult:
    return engine.transcribe(audio, ChunkWork(3, start_ms, "tiny.en", options), no_report)


def text(result: ChunkResult) -> str:
    return " ".join(segment.text for segment in result.segments)


def words(result: ChunkResult) -> list[Word]:
    return [word for segment in result.segments for word in segment.words]


@pytest.fixture(scope="module")
def plain(engine: FasterWhisperEngine, speech: Audio) -> dict[int, ChunkResult]:
    """What is made of the clip, by beam size."""
    return {beams: transcribe(engine, speech, Options(beam_size=beams)) for beams in (1, 5)}


def test_words_with_their_times_in_the_recording(engine: FasterWhisperEngine, speech: Audio) -> None:
    result = transcribe(engine, speech, Options(), start_ms=60_000)
    assert "ask not what your country can do for you" in text(result).lower()
    countries = [word for word in words(result) if "country" in word.text]
    # Heard at 6.1 s and 10.2 s of the clip.
    assert [word.start_ms for word in countries] == [
        pytest.approx(66_100, abs=300),
        pytest.approx(70_200, abs=300),
    ]
    assert all(0 < word.end_ms - word.start_ms < 1_500 for word in countries)
    assert (result.index, result.language) == (3, "en")
    assert 9_000 < result.speech_ms <= 11_000
    assert all(60_000 <= word.start_ms <= word.end_ms <= 71_000 for word in words(result))
    assert all(0 <= word.probability <= 1 for word in words(result))


def test_the_same_twice(engine: FasterWhisperEngine, speech: Audio, plain: dict[int, ChunkResult]) -> None:
    assert transcribe(engine, speech, Options()) == plain[5]


@pytest.mark.parametrize("seconds", [0, 0.01, 3])
def test_silence_is_an_empty_result(engine: FasterWhisperEngine, seconds: float) -> None:
    assert transcribe(engine, silence(seconds)) == ChunkResult(index=3, segments=(), language="", speech_ms=0)


def test_noise_is_an_empty_result(engine: FasterWhisperEngine) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 10 * SECOND).astype(np.float32)
    assert transcribe(engine, noise).segments == ()


def test_no_word_lies_in_silence(engine: FasterWhisperEngine, speech: Audio) -> None:
    audio = np.concatenate([silence(5), speech, silence(6), speech[: 4 * SECOND]])
    result = transcribe(engine, audio)
    spoken = [(4_500, 16_500), (21_500, 26_000)]
    assert {
        any(start <= word.start_ms and word.end_ms <= end for start, end in spoken) for word in words(result)
    } == {True}
    assert any(word.start_ms > 21_500 for word in words(result))


def test_nothing_is_lost_in_windows_full_of_speech(engine: FasterWhisperEngine, speech: Audio) -> None:
    audio = np.concatenate([np.concatenate([speech, silence(pause)]) for pause in (0.2, 1.4, 0.5, 2.2, 0.9)])
    said = text(transcribe(engine, audio)).lower()
    assert (said.count("fellow"), said.count("country")) == (5, 10)


def test_without_words_the_segments_stay(
    engine: FasterWhisperEngine, speech: Audio, plain: dict[int, ChunkResult]
) -> None:
    without = transcribe(engine, speech, replace(FAST, word_timestamps=False))
    assert words(without) == []
    assert without.segments == tuple(replace(segment, words=()) for segment in plain[1].segments)


# None of these changes nothing in what is said of the clip.
CHANGING: list[dict[str, Any]] = [
    {"beam_size": 5},
    {"beam_size": 5, "patience": 0.2},
    {"beam_size": 5, "length_penalty": -8.0},
    {"repetition_penalty": 1.5},
    {"no_repeat_ngram_size": 2},
    {"temperature": 1.0},
    {"initial_prompt": SHOUTING},
    {"hotwords": "AMERIKANS KOUNTRY"},
    {"suppress_tokens": [-1, 1499]},
    {"prepend_punctuations": "ask"},
    {"append_punctuations": ""},
]


@pytest.mark.parametrize("change", CHANGING, ids=lambda change: list(change)[-1])
def test_every_option_reaches_the_model(
    engine: FasterWhisperEngine, speech: Audio, plain: dict[int, ChunkResult], change: dict[str, Any]
) -> None:
    beams = 5 if len(change) > 1 else 1
    assert transcribe(engine, speech, replace(FAST, **change)) != plain[beams]


def test_an_option_does_not_outlive_its_call(
    engine: FasterWhisperEngine, speech: Audio, plain: dict[int, ChunkResult]
) -> None:
    shouted = replace(FAST, initial_prompt=SHOUTING)
    assert "COUNTRY" in text(transcribe(engine, speech, shouted))
    assert transcribe(engine, speech) == plain[1]


def test_max_new_tokens_is_the_number_of_tokens(engine: FasterWhisperEngine, speech: Audio) -> None:
    result = transcribe(engine, speech, replace(FAST, max_new_tokens=6))
    assert text(result) == "And so my fellow Americans ask"


def test_a_long_prompt_leaves_room_for_text(engine: FasterWhisperEngine, speech: Audio) -> None:
    long = "It was a long and cold winter in the capital, and many people had come. " * 40
    assert text(transcribe(engine, speech, replace(FAST, initial_prompt=long)))
    with pytest.raises(InvalidInput, match="shorten"):
        transcribe(engine, speech, replace(FAST, initial_prompt=long, hotwords=long))


def test_vad_parameters_reach_the_vad(
    engine: FasterWhisperEngine, speech: Audio, plain: dict[int, ChunkResult]
) -> None:
    assert transcribe(engine, speech, replace(FAST, vad_parameters={"threshold": 1.1})).segments == ()
    bare = transcribe(engine, speech, replace(FAST, vad_parameters={"speech_pad_ms": 0}))
    assert bare.speech_ms < plain[1].speech_ms


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"vad_parameters": {"padding": 3}}, UnknownOption, "speech_pad_ms"),
        # CTranslate2 itself would end the process.
        ({"suppress_tokens": [10**9]}, InvalidInput, "suppress_tokens"),
        ({"suppress_tokens": [-2]}, InvalidInput, "suppress_tokens"),
        ({"beam_size": 0}, InvalidInput, "beam size"),
        ({"max_new_tokens": 0}, InvalidInput, "max_new_tokens"),
        ({"no_repeat_ngram_size": -1}, InvalidInput, "no_repeat_ngram_size"),
        ({"temperature": -0.5}, InvalidInput, "temperature"),
        ({"language": "he"}, ModelLanguage, "only English"),
        ({"language": "klingon"}, InvalidInput, "klingon"),
        ({"task": "translate"}, ModelLanguage, "translate"),
        ({"multilingual": True}, ModelLanguage, "multilingual"),
    ],
)
def test_what_cannot_be_done_is_refused(
    engine: FasterWhisperEngine, speech: Audio, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        transcribe(engine, speech, replace(FAST, **change))


class RecordedCalls:
    """CTranslate2's model, with a record of what was generated how."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.calls: list[dict[str, Any]] = []

    def generate(self, *arguments: Any, **options: Any) -> Any:
        self.calls.append(options)
        return self.model.generate(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


class SmallMemory(Whisper):
    """The real model; a batch of more than `most_windows` fails with `error`."""

    def __init__(self, most_windows: int = 100, error: str = "CUDA failed with error out of memory") -> None:
        folder = models.resolve("tiny.en", None, download=False)
        super().__init__(folder, device="cpu", device_index=0, compute_type="int8", threads=1)
        self._model.model = self.recorded = RecordedCalls(self._model.model)
        self.most_windows = most_windows
        self.error = error
        self.batches: list[int] = []

    def decode(self, windows: Sequence[Audio], options: Options) -> list[list[Word]]:
        self.batches.append(len(windows))
        if len(windows) > self.most_windows:
            raise RuntimeError(self.error)
        return super().decode(windows, options)


class Forgetful(SmallMemory):
    """The real model, which at first leaves out the end of a window, as Whisper may."""

    def decode(self, windows: Sequence[Audio], options: Options) -> list[list[Word]]:
        said = super().decode(windows, options)
        return said if len(self.batches) > 1 else [words[:3] for words in said]


class EngineOf(FasterWhisperEngine):
    """An engine of one given model."""

    def __init__(self, model: Whisper, batch_size: int = 4) -> None:
        super().__init__(Settings(device="cpu", batch_size=batch_size))
        self.model = model

    def _load(self, name: str) -> Whisper:  # noqa: ARG002
        return self.model


@pytest.fixture
def windows(speech: Audio) -> Audio:
    """Audio of four windows."""
    return np.concatenate([speech[: 2 * SECOND], silence(30)] * 4)


def test_suppress_blank_reaches_the_model(speech: Audio) -> None:
    model = SmallMemory()
    transcribe(EngineOf(model), speech, replace(FAST, suppress_blank=False))
    transcribe(EngineOf(model), speech)
    assert [call["suppress_blank"] for call in model.recorded.calls] == [False, True]


def test_a_loop_is_decoded_again_without_repetition(speech: Audio) -> None:
    # The model goes on with this to its last token.
    loop = np.concatenate([speech[int(9.6 * SECOND) : int(10.6 * SECOND)]] * 28)
    model = SmallMemory()
    said = [word.text for word in model.decode([loop], FAST)[0]]
    assert [call["no_repeat_ngram_size"] for call in model.recorded.calls] == [0, 3]
    assert 1 <= said.count(" country") <= 28


def test_progress_is_reported_before_the_first_window_and_after_each_batch(windows: Audio) -> None:
    reports = []
    engine = EngineOf(SmallMemory(), batch_size=3)
    work = ChunkWork(0, 0, "", FAST)
    engine.transcribe(windows, work, lambda done, total: reports.append((done, total)))
    assert reports == [(0, 4), (3, 4), (4, 4)]


def test_the_end_of_a_window_that_the_model_left_out_is_heard(speech: Audio) -> None:
    reports = []
    engine = EngineOf(Forgetful())
    work = ChunkWork(0, 0, "", FAST)
    result = engine.transcribe(speech, work, lambda done, total: reports.append((done, total)))
    assert [text(result).count(word) for word in ("so my", "Americans", "country")] == [1, 1, 2]
    assert reports == [(0, 1), (1, 2), (2, 2)]


def test_a_report_may_stop_the_work(windows: Audio) -> None:
    model = SmallMemory()

    def stop(done: int, total: int) -> None:
        if done and total:
            raise LeaseLost

    with pytest.raises(LeaseLost):
        EngineOf(model, batch_size=2).transcribe(windows, ChunkWork(0, 0, "", FAST), stop)
    assert model.batches == [2]


def test_batches_are_halved_until_they_fit_in_memory(windows: Audio) -> None:
    model = SmallMemory(most_windows=1)
    result = transcribe(EngineOf(model, batch_size=4), windows)
    assert model.batches == [4, 2, 1, 1, 1, 1]
    assert text(result).count("fellow") == 4


def test_a_single_window_that_does_not_fit_is_a_failure(speech: Audio) -> None:
    with pytest.raises(EngineFailed, match="no memory left"):
        transcribe(EngineOf(SmallMemory(most_windows=0)), speech)


def test_another_failure_of_the_model_is_not_tried_with_less(windows: Audio) -> None:
    model = SmallMemory(most_windows=0, error="cuDNN failed")
    with pytest.raises(EngineFailed, match="cuDNN failed") as caught:
        transcribe(EngineOf(model), windows)
    assert caught.value.retryable
    assert model.batches == [4]


def test_a_model_is_loaded_once(engine: FasterWhisperEngine) -> None:
    engine.preload("tiny.en")
    first = engine._models.copy()
    engine.preload("Systran/faster-whisper-tiny.en")
    engine.preload("")
    assert list(engine._models.values()) == list(first.values())


def test_old_models_make_room(tmp_path: Path) -> None:
    original = models.resolve("tiny.en", None, download=False)
    for name in ("a.en", "b.en", "c.en"):
        (tmp_path / name).symlink_to(original)
    engine = FasterWhisperEngine(Settings(device="cpu", model_dir=tmp_path))
    for name in ("a.en", "b.en", "a.en", "c.en"):
        engine.preload(name)
    assert [path.name for path, _, _ in engine._models] == ["a.en", "c.en"]


def test_a_broken_model_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "broken.en"
    folder.mkdir()
    for name in ("model.bin", "config.json", "vocabulary.json"):
        (folder / name).write_text("{}")
    with pytest.raises(UnknownModel, match=r"broken\.en"):
        FasterWhisperEngine(Settings(device="cpu", model_dir=tmp_path)).preload("broken.en")


def test_only_the_operators_setting_may_be_a_path() -> None:
    path = str(models.resolve("tiny.en", None, download=False))
    FasterWhisperEngine(Settings(device="cpu", model=path)).preload("")
    with pytest.raises(UnknownModel):
        FasterWhisperEngine(Settings(device="cpu")).preload(path)


def test_a_wrong_compute_type_is_the_operators_mistake() -> None:
    with pytest.raises(ConfigurationError, match="LONGHAND_COMPUTE_TYPE"):
        FasterWhisperEngine(Settings(device="cpu", compute_type="int3")).preload("tiny.en")


def test_an_english_only_model_of_another_name_is_asked_for_english_only(
    tmp_path: Path, speech: Audio
) -> None:
    (tmp_path / "mine").symlink_to(models.resolve("tiny.en", None, download=False))
    engine = FasterWhisperEngine(Settings(device="cpu", model_dir=tmp_path))
    with pytest.raises(ModelLanguage):
        engine.transcribe(speech, ChunkWork(0, 0, "mine", Options(language="he")), no_report)


def test_the_engine_is_a_setting() -> None:
    assert type(load_engine(Settings(engine="tasks.engine:FasterWhisperEngine"))) is FasterWhisperEngine
    for wrong in (
        "tasks.engine",
        "tasks.engine:Absent",
        "tasks.absent:Engine",
        ":Engine",
        "",
        "tasks.engine:",
    ):
        with pytest.raises(ConfigurationError, match="LONGHAND_ENGINE"):
            load_engine(Settings(engine=wrong))


def test_importing_it_loads_no_model_library() -> None:
    code = "import sys, tasks.engine; print({'ctranslate2', 'torch', 'faster_whisper'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout == "set()\n"


@st.composite
def windows_and_words(draw: st.DrawFn) -> tuple[tuple[Span, ...], list[Word]]:
    """A window of up to 30 s, and words that follow each other in its speech."""
    edges = sorted(draw(st.sets(st.integers(0, 30_000), min_size=2, max_size=8)))
    spans = tuple(Span(start, end) for start, end in zip(edges[::2], edges[1::2], strict=False))
    length = sum(span.end_ms - span.start_ms for span in spans)
    times = sorted(draw(st.lists(st.integers(0, length + 500), max_size=12)))
    return spans, [Word(" so", start, end, 0.5) for start, end in pairwise(times)]


@given(windows_and_words())
def test_words_are_placed_in_spans_in_order(case: tuple[tuple[Span, ...], list[Word]]) -> None:
    window, said = case
    placed = [place(word, window) for word in said]
    for word in placed:
        assert any(span.start_ms <= word.start_ms <= word.end_ms <= span.end_ms for span in window)
    for before, after in pairwise(placed):
        assert before.end_ms <= after.start_ms


@given(windows_and_words())
def test_what_is_decoded_again_is_all_the_rest_in_shorter_windows(
    case: tuple[tuple[Span, ...], list[Word]],
) -> None:
    window, said = case
    placed = [place(word, window) for word in said]
    kept, again = accept(window, said, placed)
    if not again:
        assert kept == placed
        return
    assert kept == placed[: len(kept)]
    start_ms = kept[-1].end_ms if kept else 0
    left = [ms for span in window for ms in range(max(span.start_ms, start_ms), span.end_ms)]
    assert [ms for rest in again for span in rest for ms in range(span.start_ms, span.end_ms)] == left
    length_ms = sum(span.end_ms - span.start_ms for span in window)
    for rest in again:
        assert 0 < sum(span.end_ms - span.start_ms for span in rest) < length_ms


def test_the_end_that_was_left_out_is_decoded_again() -> None:
    window = (Span(1_000, 11_000), Span(15_000, 20_000))
    said = [Word(" one", 0, 800, 1.0), Word(" two", 800, 2_000, 1.0)]
    placed = [place(word, window) for word in said]
    assert accept(window, said, placed) == (placed, [(Span(3_000, 11_000), Span(15_000, 20_000))])


def test_speech_under_a_stretched_word_is_decoded_again() -> None:
    window = (Span(1_000, 11_000), Span(15_000, 20_000))
    said = [Word(" one", 0, 800, 1.0), Word(" two", 800, 14_000, 1.0), Word(" three", 14_000, 15_000, 1.0)]
    placed = [place(word, window) for word in said]
    assert accept(window, said, placed) == (placed[:1], [(Span(1_800, 11_000), Span(15_000, 20_000))])


def test_a_window_whose_beginning_was_left_out_is_decoded_in_halves() -> None:
    window = (Span(1_000, 5_000), Span(6_000, 9_000), Span(9_000, 10_000))
    said = [Word(" one", 0, 5_000, 1.0), Word(" two", 5_000, 8_000, 1.0)]
    placed = [place(word, window) for word in said]
    assert accept(window, said, placed) == ([], [window[:1], window[1:]])
    single = (Span(1_000, 9_000),)
    assert accept(single, said, placed) == ([], [(Span(1_000, 5_000),), (Span(5_000, 9_000),)])
