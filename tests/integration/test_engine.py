import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_whisper.audio import decode_audio

from tasks import engine as engines
from tasks import models
from tasks.engine import Audio, ChunkWork, FasterWhisperEngine, load_engine
from tasks.errors import ConfigurationError, EngineFailed, InvalidInput, ModelLanguage, UnknownModel, UnknownOption
from tasks.job import Options
from tasks.settings import Settings
from tasks.transcript import ChunkResult, Word
from tasks.whisper import Whisper

SPEECH = Path(__file__).parent.parent / "data" / "speech.opus"
SECOND = 16_000
# Another word than the first best would need more beams; these tests are about other things.
FAST = Options(beam_size=1)


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


def test_words_with_their_times_in_the_recording(engine: FasterWhisperEngine, speech: Audio) -> None:
    result = transcribe(engine, speech, Options(), start_ms=60_000)
    assert "ask not what your country can do for you" in text(result).lower()
    countries = [word for word in words(result) if "country" in word.text]
    # Heard at 6.5 s and 9.7 s of the clip.
    assert [word.start_ms for word in countries] == [
        pytest.approx(66_300, abs=500),
        pytest.approx(69_600, abs=500),
    ]
    assert all(0 < word.end_ms - word.start_ms < 1_500 for word in countries)
    assert (result.index, result.language) == (3, "en")
    assert 9_000 < result.speech_ms <= 11_000
    assert all(60_000 <= word.start_ms <= word.end_ms <= 71_000 for word in words(result))
    assert all(0 <= word.probability <= 1 for word in words(result))


def test_the_same_twice(engine: FasterWhisperEngine, speech: Audio) -> None:
    assert transcribe(engine, speech, Options()) == transcribe(engine, speech, Options())


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
    assert said.count("country can do for you") == 5
    assert said.count("do for your country") == 5


def test_without_words_the_segments_stay(engine: FasterWhisperEngine, speech: Audio) -> None:
    with_words = transcribe(engine, speech)
    without = transcribe(engine, speech, replace(FAST, word_timestamps=False))
    assert words(without) == []
    assert without.segments == tuple(replace(segment, words=()) for segment in with_words.segments)


CHANGING = {
    "beam_size": 5,
    "patience": 4.0,
    "length_penalty": -8.0,
    "repetition_penalty": 3.0,
    "no_repeat_ngram_size": 2,
    "temperature": 1.0,
    "initial_prompt": "SHOUT: FELLOW AMERICANS! YOUR COUNTRY!",
    "hotwords": "AMERICANS COUNTRY ASK",
    "suppress_tokens": [-1, 1499],
    "max_new_tokens": 6,
    "append_punctuations": "",
}
