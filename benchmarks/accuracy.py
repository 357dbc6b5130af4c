"""Word error rate and RTFx of Longhand, queue and all, beside faster-whisper's own ways on the whole file.

Two workers of one thread against one process of two threads: the same cores, model, compute type, beams and
language. Models are loaded before the clock starts, and everybody decodes the file's audio.
"""

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from faster_whisper import BatchedInferencePipeline, WhisperModel

from benchmarks.recording import serving
from benchmarks.stacks import heard, stack, transcribed
from benchmarks.talks import Skipped, Talk, bundled, talk
from benchmarks.words import error_rate
from dispatcher.local import Plan
from tasks import models
from tasks.settings import Settings
from tests.conftest import Stack

CORES = 2
# faster-whisper's own default.
BATCH_SIZE = 8
WORDS = {"without words": False, "with words": True}
LONGHAND, BATCHED, SEQUENTIAL = "Longhand", "batched", "sequential"

# Text, and the seconds it took.
Heard = tuple[str, float]
Mode = Callable[[bool], Heard]


def measure(minutes: float = 20, rounds: int = 3) -> dict[str, object]:
    """Figures of a shuffle of real clips, and of the bundled synthetic recording."""
    settings = Settings.from_env(api_keys={})
    with tempfile.TemporaryDirectory() as folder, stack(Plan(port=0, workers=CORES)) as started:
        whole = WholeFile(started.machine.settings.model, settings)
        found: dict[str, object] = {}
        try:
            real = talk(Path(folder) / "talk.mp3", minutes)
            found["real clips"] = _side_by_side(real, started, whole, rounds)
        except Skipped as reason:
            found["real clips"] = {"skipped": str(reason)}
        found["synthetic sample"] = _side_by_side(bundled(), started, whole, 1)
    return found


class WholeFile:
    """faster-whisper on the whole file in this process, with its own defaults but for VAD, which all use."""

    def __init__(self, model: str, settings: Settings) -> None:
        path = models.resolve(model, settings.model_dir, allow_path=True)
        self._model: Any = WhisperModel(str(path), device="cpu", compute_type="int8", cpu_threads=CORES)
        self._batched: Any = BatchedInferencePipeline(self._model)

    def sequential(self, path: Path, words: bool) -> Heard:
        return _timed(
            lambda: self._model.transcribe(
                str(path), language="en", vad_filter=True, word_timestamps=words, beam_size=5
            )
        )

    def batched(self, path: Path, words: bool) -> Heard:
        return _timed(
            lambda: self._batched.transcribe(
                str(path), language="en", batch_size=BATCH_SIZE, word_timestamps=words, beam_size=5
            )
        )


def _timed(transcribe: Callable[[], tuple[Any, Any]]) -> Heard:
    began_s = time.perf_counter()
    text = " ".join(segment.text for segment in transcribe()[0])
    return text, time.perf_counter() - began_s


def _side_by_side(talk: Talk, started: Stack, whole: WholeFile, rounds: int) -> dict[str, object]:
    """Medians over rounds in alternating order; the sequential mode, the slow one, has one round."""
    runs: dict[tuple[str, str], list[Heard]] = defaultdict(list)
    with serving(talk.path) as url:

        def longhand(words: bool) -> Heard:
            job_id, took_s = transcribed(started, url, words=words)
            return heard(started, job_id), took_s

        modes: dict[str, Mode] = {
            LONGHAND: longhand,
            BATCHED: lambda words: whole.batched(talk.path, words),
            SEQUENTIAL: lambda words: whole.sequential(talk.path, words),
        }
        for number in range(rounds):
            for mode in modes if number % 2 else reversed(modes):
                if mode != SEQUENTIAL or number == rounds // 2:
                    for name, words in WORDS.items():
                        runs[mode, name].append(modes[mode](words))
    compared = {name: _compared({mode: runs[mode, name] for mode in modes}, talk) for name in WORDS}
    return {"audio, s": round(talk.duration_s, 1), "rounds": rounds, **compared}


def _compared(runs: Mapping[str, list[Heard]], talk: Talk) -> dict[str, object]:
    """Each mode's figures, and how Longhand's are to the others'."""
    rtfx = {mode: talk.duration_s / statistics.median(s for _, s in found) for mode, found in runs.items()}
    wer = {mode: error_rate(talk.text, found[-1][0]) for mode, found in runs.items()}
    best = min(wer[BATCHED], wer[SEQUENTIAL])
    return {
        **{mode: {"RTFx": round(rtfx[mode], 1), "WER, %": wer[mode]} for mode in runs},
        "RTFx to batched": round(rtfx[LONGHAND] / rtfx[BATCHED], 2),
        "RTFx to sequential": round(rtfx[LONGHAND] / rtfx[SEQUENTIAL], 2),
        "WER above the better whole file, points": round(wer[LONGHAND] - best, 2),
    }
