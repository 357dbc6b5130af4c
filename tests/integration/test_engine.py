"""The real engine on real speech: words in time, every option honoured, models kept and refused."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_whisper.audio import decode_audio

from dispatcher.options import RANGES
from tasks import models
from tasks.engine import ChunkWork, FasterWhisperEngine, load_engine
from tasks.errors import ConfigurationError, InvalidInput, ModelLanguage, UnknownModel, UnknownOption
from tasks.job import Options
from tasks.settings import Settings
from tasks.speech import Speech
from tasks.transcript import ChunkResult, Word
from tasks.windows import Audio
from tests.speech import (
    FAST,
    SECOND,
    SPEECHLESS,
    no_report,
    recorded_speech,
    silence,
    text,
    transcribe,
)

SHOUTING = "AND SO, MY FELLOW CITIZENS! ASK WHAT YOUR COUNTRY CAN DO FOR YOU!"


@pytest.fixture(scope="module")
def speech() -> Audio:
    return recorded_speech()


@pytest.fixture(scope="module")
def engine() -> FasterWhisperEngine:
    """One engine for all tests: what a test passes in must not stay in it."""
    return FasterWhisperEngine(Settings(device="cpu", batch_size=4))


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


def test_hum_and_tones_are_an_empty_result(engine: FasterWhisperEngine) -> None:
    seconds = np.arange(12 * SECOND) / SECOND
    hum = 0.1 * np.sum([np.sin(2 * np.pi * 50 * n * seconds) / n for n in (1, 2, 3, 5)], axis=0)
    notes = np.repeat([262, 330, 392, 523, 440, 349, 294, 262, 392, 330, 262, 196], SECOND)
    melody = np.sin(2 * np.pi * notes * seconds) * np.exp(-3 * (seconds % 1)) * 0.5
    for audio in (hum, melody, hum + melody):
        assert transcribe(engine, audio.astype(np.float32)).segments == ()


def test_what_only_sounds_like_a_voice_is_an_empty_result(engine: FasterWhisperEngine) -> None:
    seconds = np.arange(30 * SECOND) / SECOND
    phase = 150 * seconds + 20 * np.sin(2 * np.pi * 0.7 * seconds)
    buzz = np.sum([np.sin(2 * np.pi * n * phase) / n for n in range(1, 12)], axis=0)
    syllables = 0.1 * buzz * (np.sin(2 * np.pi * 2.5 * seconds) > 0)
    result = transcribe(engine, syllables.astype(np.float32))
    assert result.segments == ()
    # Silero takes parts of it for speech, and Whisper hears a question in them.
    assert result.counts["dropped_hallucinations"] == 1
    # It must not decide about a recording's language.
    assert result.language == ""


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
    # Those of a chunk's first windows, as this is, are aligned all the same.
    assert without.segments == tuple(replace(segment, words=()) for segment in plain[1].segments)


# None of these changes nothing in what is said of the clip.
CHANGING: list[dict[str, Any]] = [
    {"beam_size": 5},
    {"beam_size": 5, "patience": 0.2},
    {"beam_size": 5, "length_penalty": -8.0},
    {"repetition_penalty": 1.5},
    {"no_repeat_ngram_size": 2},
    # At 1.0, three draws of sixty were the greedy text to the letter.
    {"temperature": 2.0},
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


def test_as_many_tokens_as_asked_for_have_room_or_it_is_refused(
    engine: FasterWhisperEngine, speech: Audio, plain: dict[int, ChunkResult]
) -> None:
    most = int(RANGES["max_new_tokens"][1])
    assert transcribe(engine, speech, replace(FAST, max_new_tokens=most)) == plain[1]
    # Of Whisper's 448 tokens, half less one are the prompt, and two are not text.
    long = replace(FAST, initial_prompt=[1000] * 300)
    assert transcribe(engine, speech, replace(long, max_new_tokens=200)).segments
    with pytest.raises(InvalidInput, match="max_new_tokens is 224"):
        transcribe(engine, speech, replace(long, max_new_tokens=most))


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
        ({"initial_prompt": [10**9]}, InvalidInput, "initial_prompt"),
        ({"initial_prompt": [-1]}, InvalidInput, "initial_prompt"),
        ({"beam_size": 0}, InvalidInput, "beam size"),
        ({"max_new_tokens": 0}, InvalidInput, "max_new_tokens"),
        ({"no_repeat_ngram_size": -1}, InvalidInput, "no_repeat_ngram_size"),
        ({"temperature": -0.5}, InvalidInput, "temperature"),
        ({"temperature": [0.0, -0.5]}, InvalidInput, "temperature"),
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


def test_a_model_is_loaded_once(engine: FasterWhisperEngine) -> None:
    for name in ("tiny.en", "Systran/faster-whisper-tiny.en", ""):
        engine.preload(name)
    assert len(engine._models.kinds) == 1


def test_old_models_make_room(tmp_path: Path) -> None:
    original = models.resolve("tiny.en", None, download=False)
    for name in ("a.en", "b.en", "c.en"):
        (tmp_path / name).symlink_to(original)
    # As int8 each takes about 38 MB.
    engine = FasterWhisperEngine(Settings(device="cpu", model_dir=tmp_path, model_memory_bytes=100 * 1024**2))
    for name in ("a.en", "b.en", "a.en", "c.en"):
        engine.preload(name)
    assert [kind.path.name for kind in engine._models.kinds] == ["a.en", "c.en"]


def resident_bytes() -> int:
    """Of this process; the second figure of statm counts pages."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_model_that_is_dropped_gives_its_memory_back(tmp_path: Path) -> None:
    original = models.resolve("tiny.en", None, download=False)
    for number in range(8):
        (tmp_path / f"{number}.en").symlink_to(original)
    # As float32 each takes about 150 MB.
    settings = Settings(device="cpu", compute_type="float32", model_dir=tmp_path, model_memory_bytes=1)
    engine = FasterWhisperEngine(settings)
    for number in range(2):
        engine.preload(f"{number}.en")
    before = resident_bytes()
    for number in range(2, 8):
        engine.preload(f"{number}.en")
    assert resident_bytes() - before < 200 * 1024**2


def test_speech_that_was_found_before_is_not_looked_for_again(
    engine: FasterWhisperEngine, speech: Audio, plain: dict[int, ChunkResult]
) -> None:
    work = ChunkWork(3, 0, "tiny.en", FAST)
    prepared = engine.prepare(speech, work)
    assert prepared.speech
    assert prepared.speech.spans
    assert engine.transcribe(speech, prepared, no_report) == plain[1]
    none = replace(work, speech=Speech([], (), ()))
    assert engine.transcribe(speech, none, no_report).segments == ()
    strict = replace(FAST, vad_parameters={"threshold": 1.1})
    strictly = engine.prepare(speech, replace(work, options=strict))
    assert strictly.speech
    assert strictly.speech.spans == ()


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


@pytest.mark.parametrize("sound", SPEECHLESS, ids=lambda sound: sound.stem)
@pytest.mark.parametrize("words_asked", [True, False])
def test_music_and_birds_say_nothing(engine: FasterWhisperEngine, sound: Path, words_asked: bool) -> None:
    if not sound.exists():
        pytest.skip(f"{sound.name} is not on this machine")
    audio: Audio = decode_audio(str(sound))[: 120 * SECOND]
    assert transcribe(engine, audio, Options(word_timestamps=words_asked)).segments == ()
