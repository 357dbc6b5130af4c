"""An engine for tests: what it says depends on the samples only, what it does on the job's initial prompt.

`slow:300` takes 300 ms a window; `fail:1` always fails on chunk 1, `crash:1` in a way that nobody foresaw;
`fail-once:1:FILE` fails on it until FILE exists; `hang:1:FILE` stops for ever on it until FILE exists;
`die:1:FILE` kills its process likewise. FILE then holds the process's id. `fail-until:1:FILE` fails until
somebody else makes FILE. `fatal:1:2:FILE` kills its process in window 2 of chunk 1 until FILE.mended
exists; FILE gets a line with the batch size that was asked for. `grip:1:FILE` stops for ever in C on chunk 1
until FILE exists, with Python's lock in its hands; `deaf:1:FILE` likewise without the lock.
`gate:1:FILE` waits in the last window of chunk 1 until FILE.open exists, in its first attempt only.
`hold:1:7000` keeps Python's lock for 7 s in C, once on chunk 1.
`lost:1:FILE` loses its GPU on chunk 1 until FILE exists. `sick:FILE`: the first process to come fails on
whatever it is given; FILE holds its id. `small:1:FILE`: the first process to have chunk 1 has too little
memory for it, however often it tries. `counted` has each chunk count what a decoder counts.
`long:9000` says so many letters more in each window, `words:200` so many words.
The model `broken` fails to load, `broken-until:FILE` until FILE exists, `broken-on:1` on the second device.
"""

import contextlib
import ctypes
import hashlib
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from tasks.engine import ChunkWork, OnWindow
from tasks.errors import DeviceLost, EngineFailed, OutOfMemory
from tasks.settings import Settings
from tasks.transcript import ChunkResult, Segment, Word
from tasks.windows import Audio

WINDOWS = 4
COUNTS = {"dropped_hallucinations": 1, "fallback_windows": 2, "lighter_compute_type": 1, "windows": WINDOWS}
RAISED: dict[str, tuple[type[Exception], str]] = {
    "lost": (DeviceLost, ""),
    "crash": (RuntimeError, "nobody foresaw this"),
    "fail": (EngineFailed, "the fake engine was told to fail"),
    "fail-once": (EngineFailed, "the fake engine was told to fail"),
    "fail-until": (EngineFailed, "the fake engine was told to fail for now"),
}


class FakeEngine:
    """Four windows a chunk, one segment of two words each."""

    def __init__(self, settings: Settings, device_index: int) -> None:
        self.settings = settings
        self.device_index = device_index

    def preload(self, model: str) -> None:
        kind, _, file = model.partition(":")
        waits = kind == "broken-until" and not Path(file).exists()
        if kind == "broken" or waits or (kind == "broken-on" and int(file) == self.device_index):
            raise EngineFailed("the fake engine was told that its model is broken")

    def prepare(self, audio: Audio, work: ChunkWork) -> ChunkWork:  # noqa: ARG002
        return work

    def transcribe(self, audio: Audio, work: ChunkWork, on_window: OnWindow) -> ChunkResult:
        segments = []
        part = max(1, len(audio) // WINDOWS)
        for window in range(WINDOWS):
            on_window(window, WINDOWS, 1)
            self._behave(work, window)
            segments.append(_longer(_segment(audio, window, part, work.start_ms), work))
        language = work.options.language or "he"
        # As a vote would be, where nothing was given.
        probability = 0.0 if work.options.language else 0.9
        return ChunkResult(
            work.index,
            tuple(segments),
            language,
            len(audio) // 16,
            COUNTS if work.options.initial_prompt == "counted" else {},
            language_probability=probability,
        )

    def _behave(self, work: ChunkWork, window: int) -> None:
        kind, _, rest = str(work.options.initial_prompt or "").partition(":")
        if kind == "slow":
            time.sleep(int(rest) / 1000)
            return
        if kind == "sick":
            if _is_first(Path(rest)):
                raise EngineFailed("the fake engine was told that this process is sick")
            return
        index, _, marker = rest.partition(":")
        if kind == "small" and index == str(work.index) and _is_first(Path(marker)):
            raise OutOfMemory
        if kind in ONE_WINDOW:
            ONE_WINDOW[kind](work, window, index, marker)
            return
        if index != str(work.index) or (marker and Path(marker).exists()):
            return
        if marker and kind != "fail-until":
            Path(marker).write_text(str(os.getpid()))
        if kind in RAISED:
            error, message = RAISED[kind]
            raise error(message)
        if kind == "hang":
            while True:
                signal.pause()
        if kind in ("grip", "deaf"):
            # A library called through PyDLL keeps Python's lock, through CDLL it does not. Unlike sleep(),
            # to lock one's own mutex again is not ended by a signal.
            native = (ctypes.PyDLL if kind == "grip" else ctypes.CDLL)(None)
            mutex = ctypes.create_string_buffer(128)
            native.pthread_mutex_lock(mutex)
            native.pthread_mutex_lock(mutex)
        if kind == "die":
            os.kill(os.getpid(), signal.SIGKILL)


def _is_first(marker: Path) -> bool:
    """Whether this process is the first that came here; the file then holds its id."""
    with contextlib.suppress(FileExistsError), marker.open("x") as file:
        file.write(str(os.getpid()))
    return marker.read_text() == str(os.getpid())


def _wait_at(work: ChunkWork, window: int, index: str, rest: str) -> None:
    gate = Path(rest)
    if (index, WINDOWS - 1) != (str(work.index), window) or gate.exists():
        return
    gate.write_text(str(os.getpid()))
    while not Path(f"{gate}.open").exists():
        time.sleep(0.02)


def _hold(work: ChunkWork, window: int, index: str, rest: str) -> None:
    if (index, WINDOWS - 1) != (str(work.index), window):
        return
    native = ctypes.PyDLL(None)
    mutex = ctypes.create_string_buffer(128)
    native.pthread_mutex_lock(mutex)
    # In C, and unlike sleep() it is not ended by a signal. No clock that somebody may set.
    until = (ctypes.c_long * 2)(int(time.monotonic() + int(rest) / 1000), 0)
    native.pthread_mutex_clocklock(mutex, time.CLOCK_MONOTONIC, until)


def _die_in(work: ChunkWork, window: int, index: str, rest: str) -> None:
    fatal, _, diary = rest.partition(":")
    if (index, fatal) == (str(work.index), str(window)) and not Path(f"{diary}.mended").exists():
        with Path(diary).open("a") as file:
            file.write(f"{work.batch_size}\n")
        os.kill(os.getpid(), signal.SIGKILL)


# What happens in one window of one chunk.
ONE_WINDOW = {"fatal": _die_in, "gate": _wait_at, "hold": _hold}


def _longer(segment: Segment, work: ChunkWork) -> Segment:
    kind, _, count = str(work.options.initial_prompt or "").partition(":")
    if kind == "long":
        return replace(segment, text=segment.text + "a" * int(count))
    return _talkative(segment, int(count)) if kind == "words" else segment


def _segment(audio: Audio, window: int, part: int, offset_ms: int) -> Segment:
    samples = np.round(audio[window * part : (window + 1) * part] * 32767).astype(np.int16)
    text = hashlib.sha256(samples.tobytes()).hexdigest()[:8]
    start_ms = offset_ms + window * part // 16
    end_ms = start_ms + part // 16
    words = (
        Word(f" {text[:4]}", start_ms, start_ms + 1, 0.9),
        Word(f" {text[4:]}", start_ms + 1, end_ms, 0.8),
    )
    return Segment(f"{text[:4]} {text[4:]}", start_ms, end_ms, words)


def _talkative(segment: Segment, count: int) -> Segment:
    step_ms = (segment.end_ms - segment.start_ms) / count
    starts = [segment.start_ms + round(step_ms * number) for number in range(count)]
    words = [Word(f" מילה{start_ms}", start_ms, start_ms + 1, 0.9) for start_ms in starts]
    return Segment("".join(word.text for word in words), segment.start_ms, segment.end_ms, tuple(words))
