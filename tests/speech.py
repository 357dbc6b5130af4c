"""Recorded speech for the tests, and what the real engine makes of it."""

from pathlib import Path

import numpy as np
from faster_whisper.audio import decode_audio

from tasks.engine import ChunkWork, FasterWhisperEngine
from tasks.job import Options
from tasks.transcript import ChunkResult
from tasks.windows import Audio

SPEECH = Path(__file__).parent / "data" / "speech.opus"
SECOND = 16_000
# Real sound that only some machines have; a trumpet, and birds.
SHARED = Path(__file__).parents[2] / "shared" / "audio"
SPEECHLESS = [SHARED / "music-trumpet.ogg", SHARED / "birds.ogg"]
# Another word than the first best would need more beams; these tests are about other things.
FAST = Options(beam_size=1)


def recorded_speech() -> Audio:
    """The clip as 16 kHz samples."""
    audio: Audio = decode_audio(str(SPEECH))
    return audio


def silence(seconds: float) -> Audio:
    """Samples of nothing."""
    return np.zeros(int(seconds * SECOND), np.float32)


def no_report(done: int, total: int, following: int) -> None: ...


def transcribe(
    engine: FasterWhisperEngine, audio: Audio, options: Options = FAST, start_ms: int = 0
) -> ChunkResult:
    """The result of a chunk, of index 3, by the smallest English model."""
    return engine.transcribe(audio, ChunkWork(3, start_ms, "tiny.en", options), no_report)


def text(result: ChunkResult) -> str:
    """All that was said."""
    return " ".join(segment.text for segment in result.segments)
