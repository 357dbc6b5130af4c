"""Long recordings whose text is known: short clips of speech, shuffled, with gaps between them."""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np

from benchmarks.encoding import write
from benchmarks.recording import SAMPLE
from tasks.audio import SAMPLE_RATE, AudioReader, Samples

# A folder of clips with `clips.tsv`: file name without its ending, tab, what is said.
CLIPS = os.environ.get("BENCH_CLIPS", "")
SEED = 20261126
GAP_S = (0.15, 2.5)
# In no real recording is a pause all zeros: about -65 dB.
NOISE = 0.001


class Skipped(Exception):
    """A benchmark cannot run here; the message says what it needs."""


@dataclass(frozen=True, slots=True)
class Clip:
    """Some seconds of speech, and its text."""

    text: str
    samples: Samples


@dataclass(frozen=True, slots=True)
class Spoken:
    """One clip of a talk: what is said from when to when."""

    text: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Talk:
    """A recording, and what is said in it; `spoken` has it clip by clip, in order, where that is known."""

    path: Path
    duration_s: float
    text: str
    spoken: tuple[Spoken, ...] = ()


def clips() -> list[Clip]:
    """The clips of BENCH_CLIPS; raises Skipped where it names none."""
    folder = Path(CLIPS)
    if not CLIPS or not (folder / "clips.tsv").is_file():
        raise Skipped("set BENCH_CLIPS to a folder of clips of speech with clips.tsv: name, tab, text")
    found = []
    for line in (folder / "clips.tsv").read_text(encoding="utf-8").splitlines():
        name, _, text = line.partition("\t")
        (path,) = folder.glob(f"{name}.*")
        found.append(Clip(text, np.concatenate(list(AudioReader(path)))))
    return found


def talk(path: Path, minutes: float, *, codec: str = "libmp3lame", seed: int = SEED) -> Talk:
    """All clips in a new order again and again, until `minutes` have passed; written to `path`.

    The same clips, seed and length give the same recording. Raises Skipped without clips.
    """
    rng = random.Random(seed)
    noise = np.random.default_rng(seed)
    spoken: list[Spoken] = []
    at = 0

    def blocks() -> Iterator[Samples]:
        nonlocal at
        for clip in _shuffled(clips(), rng):
            gap = round(rng.uniform(*GAP_S) * SAMPLE_RATE)
            yield noise.uniform(-NOISE, NOISE, gap).astype(np.float32)
            start = at + gap
            at = start + len(clip.samples)
            spoken.append(Spoken(clip.text, start * 1000 // SAMPLE_RATE, at * 1000 // SAMPLE_RATE))
            yield clip.samples
            if at >= minutes * 60 * SAMPLE_RATE:
                return

    write(path, blocks(), codec, bit_rate=64_000)
    return Talk(path, at / SAMPLE_RATE, " ".join(each.text for each in spoken), tuple(spoken))


def bundled() -> Talk:
    """The synthetic recording of the demo."""
    text = SAMPLE.with_name("sample.txt").read_text(encoding="utf-8")
    return Talk(SAMPLE, sum(map(len, AudioReader(SAMPLE))) / SAMPLE_RATE, text)


def _shuffled(all_clips: list[Clip], rng: random.Random) -> Iterator[Clip]:
    for _ in count():
        yield from rng.sample(all_clips, len(all_clips))


def lecture(minutes: float) -> Iterator[Samples]:
    """The synthetic recording again and again: speech of any length, for what does not look at the text."""
    left = round(minutes * 60 * SAMPLE_RATE)
    while left:
        for block in AudioReader(SAMPLE):
            yield block[:left]
            left -= len(block[:left])
            if not left:
                return
