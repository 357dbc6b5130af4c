"""Word errors near cuts: a recording in many chunks, and the same places of it when it is not cut at all."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.recording import samples_of, serving
from benchmarks.stacks import heard, stack, transcribed
from benchmarks.talks import SEED, Talk, talk
from benchmarks.words import Errors, errors, words_of
from dispatcher.local import Plan
from tasks.engine import ChunkWork, load_engine
from tasks.job import Options
from tasks.settings import Settings

CHUNK_S = 30
NEAR_MS = 5_000
RESAMPLES = 10_000

# A row a cut, of what is nearest to it: words near it and farther off, their errors in the run that was cut,
# and in the one that was not.
Table = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Spoken:
    """The words of a talk, plain, and about when each is said: evenly over its clip, by letters."""

    words: tuple[str, ...]
    at_ms: tuple[int, ...]


def measure(minutes: float = 104) -> dict[str, object]:
    """Error rates, %, and the differences with 95 % intervals (bootstrap over cuts)."""
    with tempfile.TemporaryDirectory() as folder:
        made = talk(Path(folder) / "talk.mp3", minutes)
        spoken = _spoken(made)
        text, cuts_ms = _in_chunks(made)
        cut = errors(spoken.words, words_of(text))
        uncut = errors(spoken.words, words_of(_in_one(made)))
    return {"minutes": round(made.duration_s / 60, 1), **_figures(spoken, cuts_ms, cut, uncut)}


def _in_chunks(made: Talk) -> tuple[str, list[int]]:
    """What Longhand hears in short chunks, and where it cut."""
    with serving(made.path) as url, stack(Plan(port=0, workers=2), first_chunks_ms=()) as started:
        job_id, _ = transcribed(started, url, chunk_seconds=CHUNK_S)
        return heard(started, job_id), [chunk.end_ms for chunk in started.store.chunks(job_id)[:-1]]


def _in_one(made: Talk) -> str:
    """What the same engine hears in all of it at once."""
    engine = load_engine(Settings.from_env(api_keys={}, threads=2))
    work = ChunkWork(0, 0, "", Options(language="en"))
    found = engine.transcribe(samples_of(made.path), work, lambda *_: None)
    return " ".join(segment.text for segment in found.segments)


def _spoken(made: Talk) -> Spoken:
    words: list[str] = []
    at_ms: list[int] = []
    for clip in made.spoken:
        plain = words_of(clip.text)
        letters = sum(map(len, plain))
        done = 0
        for word in plain:
            middle = done + len(word) / 2
            at_ms.append(clip.start_ms + round((clip.end_ms - clip.start_ms) * middle / letters))
            done += len(word)
        words += plain
    return Spoken(tuple(words), tuple(at_ms))


def _figures(spoken: Spoken, cuts_ms: list[int], cut: Errors, uncut: Errors) -> dict[str, object]:
    near, table = by_cut(spoken, cuts_ms, cut, uncut)
    one = _rates(table.sum(axis=0, keepdims=True))
    weights = np.random.default_rng(SEED).multinomial(
        len(cuts_ms), np.full(len(cuts_ms), 1 / len(cuts_ms)), RESAMPLES
    )
    many = _rates(weights @ table)

    def difference(this: str, that: str) -> dict[str, object]:
        low, high = np.percentile(many[this] - many[that], (2.5, 97.5))
        return {
            "points": round(float(one[this][0] - one[that][0]), 2),
            "95 % interval": [round(float(low), 2), round(float(high), 2)],
        }

    return {
        "cuts": len(cuts_ms),
        "words": len(spoken.words),
        "words near cuts": len(near),
        **{f"WER {name}, %": round(float(rate[0]), 2) for name, rate in one.items()},
        "near cuts: cut to uncut": difference("near cuts", "there, uncut"),
        "cut: near cuts to elsewhere": difference("near cuts", "elsewhere"),
        "uncut: the same places to elsewhere": difference("there, uncut", "elsewhere, uncut"),
        "words left out near cuts, only if cut": len((cut.lost - uncut.lost) & near),
        "words left out near cuts, only if uncut": len((uncut.lost - cut.lost) & near),
        "words heard twice near cuts, only if cut": len((cut.twice - uncut.twice) & near),
        "words heard twice near cuts, only if uncut": len((uncut.twice - cut.twice) & near),
    }


def by_cut(spoken: Spoken, cuts_ms: list[int], cut: Errors, uncut: Errors) -> tuple[frozenset[int], Table]:
    """The numbers of the words near a cut, and the sums by the cut that is nearest."""
    near: set[int] = set()
    table = np.zeros((len(cuts_ms), 6), np.int64)
    for number, at_ms in enumerate(spoken.at_ms):
        nearest = min(range(len(cuts_ms)), key=lambda index: abs(cuts_ms[index] - at_ms))
        far = abs(cuts_ms[nearest] - at_ms) > NEAR_MS
        if not far:
            near.add(number)
        table[nearest, far::2] += (1, cut.all[number], uncut.all[number])
    return frozenset(near), table


def _rates(sums: Table) -> dict[str, NDArray[np.float64]]:
    """Word error rates, %, of each row of sums."""
    words, heard_cut, heard_uncut = sums[:, 0:2], sums[:, 2:4], sums[:, 4:6]
    cut, uncut = 100 * heard_cut / words, 100 * heard_uncut / words
    return {
        "near cuts": cut[:, 0],
        "elsewhere": cut[:, 1],
        "there, uncut": uncut[:, 0],
        "elsewhere, uncut": uncut[:, 1],
    }
