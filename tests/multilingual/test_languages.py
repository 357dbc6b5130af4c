"""What Whisper base makes of several languages: heard, voted on, translated, and each its own."""

import unicodedata
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_whisper.audio import decode_audio

from tasks.engine import ChunkWork, FasterWhisperEngine
from tasks.job import Options
from tasks.language import is_sure
from tasks.transcript import ChunkResult
from tasks.windows import Audio
from tests.multilingual.conftest import Say
from tests.multilingual.synthesis import SAID, spaced
from tests.speech import SECOND, SHARED, SPEECHLESS, no_report, silence, text

pytestmark = pytest.mark.timeout(400)

# English, then German; nobody speaks French in it, whatever is said of the file elsewhere.
SPOKEN = SHARED / "multilingual.mp3"
# A word that Whisper base understands of each.
UNDERSTOOD = {"en": "weather", "fr": "montagne", "de": "menschen", "he": "תודה"}


def heard(engine: FasterWhisperEngine, audio: Audio, **options: Any) -> ChunkResult:
    work = ChunkWork(0, 0, "base", Options(beam_size=1, **options))
    return engine.transcribe(audio, work, no_report)


def script(said: str) -> set[str]:
    """The scripts of a text's letters, as Unicode names them."""
    return {unicodedata.name(letter).split()[0] for letter in said if letter.isalpha()}


@pytest.mark.parametrize("language", SAID)
def test_a_language_is_heard(engine: FasterWhisperEngine, say: Say, language: str) -> None:
    result = heard(engine, say(language))
    assert result.language == language
    assert is_sure(result.language_probability, Options().language_detection_threshold)
    assert 0.5 <= result.language_probability <= 1
    assert UNDERSTOOD[language] in text(result).lower()
    assert script(text(result)) == ({"HEBREW"} if language == "he" else {"LATIN"})


def test_hebrew_is_kept_in_the_order_in_which_it_is_said(engine: FasterWhisperEngine, say: Say) -> None:
    result = heard(engine, say("he"), language="he")
    assert (result.language, result.language_probability) == ("he", 0.0)
    words = [word for segment in result.segments for word in segment.words]
    assert "".join(word.text for word in words).split() == text(result).split()
    thanks = next(word for word in words if "תודה" in word.text)
    # In the last third of what is said.
    assert thanks.start_ms > 0.5 * len(say("he")) / SECOND * 1000
    assert {unicodedata.bidirectional(letter) for letter in thanks.text if letter.isalpha()} == {"R"}


def test_several_windows_vote(engine: FasterWhisperEngine, say: Say) -> None:
    # English comes first, and German is most of it; each window has one of them.
    audio = spaced([say("en"), say("de"), say("de")])
    parts: dict[str, Any] = {"chunk_length": 8, "max_new_tokens": 5}
    assert heard(engine, audio, **parts).language == "de"
    assert heard(engine, audio, **parts, language_detection_segments=1).language == "en"


def test_nobody_votes_in_silence(engine: FasterWhisperEngine) -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, 8 * SECOND).astype(np.float32)
    for nothing in (silence(8), noise):
        assert heard(engine, nothing) == ChunkResult(0, ())


@pytest.mark.parametrize("sound", SPEECHLESS, ids=lambda sound: sound.stem)
def test_music_and_birds_have_no_vote(engine: FasterWhisperEngine, sound: Path) -> None:
    if not sound.exists():
        pytest.skip(f"{sound.name} is not on this machine")
    audio: Audio = decode_audio(str(sound))
    result = heard(engine, audio[: 60 * SECOND])
    assert (result.segments, result.language, result.language_probability) == ((), "", 0.0)


def test_silence_before_the_first_word_has_no_vote(engine: FasterWhisperEngine, say: Say) -> None:
    result = heard(engine, np.concatenate([silence(40), say("he")]), max_new_tokens=20)
    # Of synthesised Hebrew, how sure the model is depends on where its window begins.
    assert (result.language, result.counts["windows"]) == ("he", 1)
    assert result.language_probability > 0.3


def test_translate_gives_english(engine: FasterWhisperEngine, say: Say) -> None:
    result = heard(engine, say("de"), task="translate")
    # What was said is German, what is written is not.
    assert result.language == "de"
    said = text(result).lower()
    assert "good morning" in said
    assert "menschen" not in said
    assert "weather" in said or "mountain" in said


def test_a_given_language_is_taken_whatever_is_said(engine: FasterWhisperEngine, say: Say) -> None:
    result = heard(engine, say("en"), language="he", max_new_tokens=30)
    assert (result.language, result.language_probability) == ("he", 0.0)
    assert "HEBREW" in script(text(result))


def test_multilingual_gives_each_window_its_own(engine: FasterWhisperEngine, say: Say) -> None:
    # No longer than what is said in English, or a window would have some of both; in a shorter one the model
    # is not sure of synthesised German.
    audio = spaced([say("en"), say("en"), say("de")])
    result = heard(engine, audio, multilingual=True, chunk_length=16)
    runs = [(language, list(run)) for language, run in groupby(result.segments, lambda one: one.language)]
    assert [language for language, _ in runs] == ["en", "de"]
    for said, (_, run) in zip(("good morning", "guten morgen"), runs, strict=True):
        assert run[0].text.lower().startswith(said)
    assert result.language == "en", "the one with the most speech"
    pinned = heard(engine, audio, language="en", chunk_length=16, max_new_tokens=30)
    assert {segment.language for segment in pinned.segments} == {""}


def test_multilingual_overrides_the_language_that_is_given(engine: FasterWhisperEngine, say: Say) -> None:
    result = heard(engine, say("de"), language="en", multilingual=True, max_new_tokens=10)
    assert {segment.language for segment in result.segments} == {result.language} == {"de"}


@pytest.mark.skipif(not SPOKEN.exists(), reason=f"{SPOKEN.name} is not on this machine")
def test_real_speech_in_two_languages(engine: FasterWhisperEngine) -> None:
    audio: Audio = decode_audio(str(SPOKEN))
    result = heard(engine, audio, multilingual=True)
    languages = [language for language, _ in groupby(result.segments, lambda segment: segment.language)]
    assert languages == ["en", "de"]
    assert "genehmigung" in " ".join(one.text for one in result.segments if one.language == "de").lower()
    assert heard(engine, audio, language_detection_segments=1, max_new_tokens=20).language == "en"
