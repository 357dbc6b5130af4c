"""Options of faster-whisper that the shape of the work depends on, with the real engine: none is ignored."""

import inspect
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from faster_whisper import BatchedInferencePipeline, WhisperModel
from faster_whisper.vad import VadOptions

from dispatcher.options import FIXED, OPTION_NAMES
from dispatcher.schemas import TranscribeArgs
from tasks.engine import ChunkWork, FasterWhisperEngine
from tasks.job import VAD_PARAMETERS, Options
from tasks.settings import Settings
from tasks.transcript import ChunkResult
from tasks.windows import Audio
from tests.speech import FAST, SECOND, recorded_speech, silence, text, transcribe

PROMPT = "AND SO, MY FELLOW CITIZENS! ASK WHAT YOUR COUNTRY CAN DO FOR YOU!"


class Overheard:
    """A model of CTranslate2 and what it was asked to generate."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.asked: list[dict[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, *inputs: Any, **asked: Any) -> Any:
        self.asked.append(asked)
        return self._model.generate(*inputs, **asked)


@pytest.fixture(scope="module")
def speech() -> Audio:
    return recorded_speech()


@pytest.fixture(scope="module")
def engine() -> FasterWhisperEngine:
    engine = FasterWhisperEngine(Settings(device="cpu", batch_size=4))
    engine.preload("tiny.en")
    return engine


@pytest.fixture
def overheard(engine: FasterWhisperEngine, monkeypatch: pytest.MonkeyPatch) -> Overheard:
    """The engine's model, of which every decoding is noted."""
    whisper = engine._models.get(engine._kind("tiny.en"))
    model = Overheard(whisper._model.model)
    monkeypatch.setattr(whisper._model, "model", model)
    return model


def counted(result: ChunkResult, name: str) -> int:
    return result.counts[name]


@pytest.mark.parametrize("function", [WhisperModel.transcribe, BatchedInferencePipeline.transcribe])
def test_every_option_of_faster_whisper_is_known(function: Any) -> None:
    theirs = set(inspect.signature(function).parameters) - {"self", "audio"}
    assert theirs <= {*OPTION_NAMES, *FIXED, *TranscribeArgs.model_fields}


def test_every_option_of_its_vad_is_known() -> None:
    assert set(inspect.signature(VadOptions).parameters) == set(VAD_PARAMETERS)


def test_the_defaults_are_faster_whispers_but_for_those_that_the_page_names() -> None:
    theirs = inspect.signature(WhisperModel.transcribe).parameters
    ours = {name: getattr(Options(), name) for name in OPTION_NAMES if name in theirs}
    differ = {name for name in ours if (ours[name] or None) != (theirs[name].default or None)}
    assert differ == {"temperature", "word_timestamps", "vad_filter", "language_detection_segments"}


def test_a_prompt_of_tokens_is_the_same_as_its_text(engine: FasterWhisperEngine, speech: Audio) -> None:
    whisper = engine._models.get(engine._kind("tiny.en"))
    tokens = whisper._model.hf_tokenizer.encode(f" {PROMPT}", add_special_tokens=False).ids
    by_tokens = transcribe(engine, speech, replace(FAST, initial_prompt=tokens))
    assert "COUNTRY" in text(by_tokens)
    assert by_tokens == transcribe(engine, speech, replace(FAST, initial_prompt=PROMPT))


@pytest.mark.parametrize("change", [{"log_prob_threshold": 0.0}, {"compression_ratio_threshold": 0.1}])
def test_a_threshold_decides_what_has_failed(
    engine: FasterWhisperEngine, speech: Audio, change: dict[str, float]
) -> None:
    assert counted(transcribe(engine, speech, FAST), "fallback_windows") == 0
    assert counted(transcribe(engine, speech, replace(FAST, **change)), "fallback_windows") == 1  # type: ignore[arg-type]
    for name in change:
        without = replace(FAST, **{name: None})  # type: ignore[arg-type]
        assert counted(transcribe(engine, speech, without), "fallback_windows") == 0


def test_no_speech_threshold_drops_a_window_that_failed(engine: FasterWhisperEngine, speech: Audio) -> None:
    failing = replace(FAST, log_prob_threshold=0.0)
    assert text(transcribe(engine, speech, replace(failing, no_speech_threshold=None)))
    dropped = transcribe(engine, speech, replace(failing, no_speech_threshold=0.0))
    assert (dropped.segments, dropped.language) == ((), "")
    assert text(transcribe(engine, speech, replace(FAST, no_speech_threshold=0.0))), "it has not failed"


def test_temperatures_are_tried_one_after_the_other(
    engine: FasterWhisperEngine, speech: Audio, overheard: Overheard
) -> None:
    failing = replace(FAST, temperature=[0.0, 0.3, 0.7], best_of=3, log_prob_threshold=0.0)
    transcribe(engine, speech, failing)
    tried = [(asked.get("sampling_temperature"), asked.get("num_hypotheses")) for asked in overheard.asked]
    assert tried == [(None, None), (0.3, 3), (0.7, 3)]


def test_a_window_that_has_not_failed_is_not_sampled(
    engine: FasterWhisperEngine, speech: Audio, overheard: Overheard
) -> None:
    transcribe(engine, speech, replace(FAST, temperature=[0.0, 0.3]))
    assert [asked.get("sampling_temperature") for asked in overheard.asked] == [None]


def test_best_of_is_how_many_texts_are_sampled(
    engine: FasterWhisperEngine, speech: Audio, overheard: Overheard
) -> None:
    transcribe(engine, speech, replace(FAST, temperature=0.4, best_of=2))
    assert (overheard.asked[0]["num_hypotheses"], overheard.asked[0]["sampling_temperature"]) == (2, 0.4)


def test_chunk_length_is_the_most_of_a_window(engine: FasterWhisperEngine, speech: Audio) -> None:
    audio = np.concatenate([speech, silence(1.2), speech])
    whole = transcribe(engine, audio, FAST)
    parts = transcribe(engine, audio, replace(FAST, chunk_length=6))
    assert len(audio) < 30 * SECOND
    assert counted(whole, "windows") == 1
    assert counted(parts, "windows") >= 4
    assert text(parts).lower().count("fellow") == 2


@pytest.mark.parametrize(("batch_size", "largest"), [(None, 4), (2, 2), (100, 4)])
def test_batch_size_is_the_most_that_is_decoded_together(
    engine: FasterWhisperEngine, speech: Audio, batch_size: int | None, largest: int
) -> None:
    batches: list[int] = []
    options = replace(FAST, batch_size=batch_size, chunk_length=3)
    work = ChunkWork(0, 0, "tiny.en", options)
    engine.transcribe(speech, work, lambda _done, _all, following: batches.append(following))
    assert max(batches) == largest
