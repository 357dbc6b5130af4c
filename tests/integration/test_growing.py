"""A file that is read while it comes in, by a reader that cannot tell it from one that is there."""

import contextlib
import itertools
import threading
import tracemalloc
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.arrivals import Arrivals
from tasks.audio import AudioReader
from tasks.errors import LeaseLost, SourceChanged, SourceUnreachable
from tasks.growing import Bringers, Growing
from tests.hosts import BODY
from tests.media import encode, read


def quiet() -> None:
    """Nobody is interested."""


@contextlib.contextmanager
def arriving(path: Path) -> Iterator[tuple[Arrivals, Growing]]:
    with Arrivals(path) as arrivals:
        yield arrivals, Growing(arrivals, quiet, quiet)


@pytest.fixture
def file(target: Path) -> Iterator[tuple[Arrivals, Growing]]:
    with arriving(target) as both:
        yield both


def drip(arrivals: Arrivals, data: bytes, size: int) -> None:
    """All of it, in blocks of this size."""
    for start in range(0, len(data), size):
        arrivals.put(start, data[start : start + size])
    arrivals.complete()


def test_a_reader_waits_for_what_is_not_there_yet(file: tuple[Arrivals, Growing]) -> None:
    arrivals, reader = file
    arrivals.put(0, b"one")
    assert reader.read(100) == b"one"
    later = threading.Timer(0.1, arrivals.put, (3, b"two"))
    later.start()
    assert reader.read(2) == b"tw"
    assert reader.read(2) == b"o"
    arrivals.complete()
    assert reader.read(2) == b""
    assert (reader.tell(), reader.seek(-2, 2), reader.read()) == (6, 4, b"wo")
    later.join()


def test_the_end_is_known_before_it_is_there(file: tuple[Arrivals, Growing]) -> None:
    arrivals, reader = file
    arrivals.expect(1_000)
    arrivals.put(0, b"one")
    assert reader.seek(0, 2) == 1_000
    assert reader.read(10) == b"", "nothing will come there"


def test_what_its_source_raises_the_reader_raises(file: tuple[Arrivals, Growing]) -> None:
    arrivals, reader = file
    arrivals.put(0, b"one")

    def breaks() -> None:
        raise SourceUnreachable

    with Bringers(arrivals) as threads:
        reader.read(3)
        threads.start(breaks)
        for wait in (partial(reader.read, 1), reader.drain):
            with pytest.raises(SourceUnreachable):
                wait()


def test_signs_of_life_are_told_from_mere_waiting(target: Path) -> None:
    told: list[str] = []
    with Arrivals(target) as arrivals:

        def on_wait() -> None:
            told.append("waits")
            if told.count("waits") == 2:
                raise LeaseLost

        reader = Growing(arrivals, lambda: told.append("goes on"), on_wait)
        threading.Timer(0.2, arrivals.sign_of_life).start()
        with pytest.raises(LeaseLost):
            reader.read(1)
    assert told == ["goes on", "goes on", "waits", "waits"]


def test_what_nobody_reads_is_not_written(target: Path) -> None:
    stopped = threading.Event()
    with arriving(target) as (arrivals, _):
        with arrivals.stopped_by(stopped.set):
            arrivals.stop()
        assert stopped.is_set()
        with pytest.raises(LeaseLost):
            arrivals.put(0, b"one")
        with pytest.raises(LeaseLost), arrivals.stopped_by(quiet):
            pytest.fail("it would never be stopped")
    assert target.read_bytes() == b""


@pytest.mark.parametrize("where", [0, 500, 999])
def test_a_byte_that_differs_is_another_file(
    file: tuple[Arrivals, Growing], target: Path, where: int
) -> None:
    arrivals, _ = file
    data = BODY[:1_000]
    changed = bytearray(data)
    changed[where] ^= 1
    arrivals.put(0, data[:501])
    arrivals.begin_tail(900)
    arrivals.put(900, data[900:])
    with pytest.raises(SourceChanged):
        arrivals.put(0, bytes(changed))
    written = target.read_bytes()
    assert written[:501] + written[900:] == data[:501] + data[900:]


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 400),
    tail=st.integers(0, 400),
    sizes=st.lists(st.integers(1, 90), min_size=1, max_size=8),
    turns=st.lists(st.booleans(), max_size=40),
)
def test_two_writers_make_one_file(
    tmp_path_factory: pytest.TempPathFactory, length: int, tail: int, sizes: list[int], turns: list[bool]
) -> None:
    """One from the start, one from `tail` on, in any order; what can be read is right at any time."""
    data, path = BODY[:length], tmp_path_factory.getbasetemp() / "two-writers"
    with Arrivals(path) as arrivals:
        positions = [0, min(tail, length)]
        arrivals.begin_tail(positions[1])
        endless = itertools.cycle(sizes)
        for second in [*turns, *([True, False] * length)]:
            start = positions[second]
            block = data[start : start + next(endless)]
            arrivals.put(start, block)
            positions[second] += len(block)
            for place in (0, arrivals.front, tail, tail + 7):
                found = arrivals.read(place, 50)
                assert found == data[place : place + len(found)]
        assert arrivals.front == length
    assert path.read_bytes() == data


# Name, codec, and whether FFmpeg looks at the end of the file before it reads on.
FILES = {
    "talk.mp3": ("libmp3lame", False),
    "talk.m4a": ("aac", True),
    "talk.mov": ("pcm_s16le", True),
    "talk.mkv": ("aac", False),
    "talk.opus": ("libopus", False),
    "talk.flac": ("flac", False),
    "talk.wav": ("pcm_s16le", False),
    "talk.aac": ("aac", False),
    "talk.ts": ("aac", False),
    "talk.avi": ("libmp3lame", True),
    "talk.caf": ("alac", True),
    "talk.wv": ("wavpack", True),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_is_read_as_it_would_be_from_a_disk(
    file: tuple[Arrivals, Growing], tmp_path: Path, name: str
) -> None:
    arrivals, reader = file
    path = encode(tmp_path / name, FILES[name][0], rate=48_000)
    with Bringers(arrivals) as threads:
        threads.start(partial(drip, arrivals, path.read_bytes(), 3_000))
        there = AudioReader(reader)
        samples = np.concatenate(list(there))
    expected, warnings = read(path)
    assert np.array_equal(samples, expected)
    assert there.warnings == warnings


@pytest.mark.parametrize("name", [name for name, (_, looks) in FILES.items() if not looks])
def test_sound_comes_before_the_file_is_whole(
    file: tuple[Arrivals, Growing], tmp_path: Path, name: str
) -> None:
    arrivals, reader = file
    data = encode(tmp_path / name, FILES[name][0], rate=48_000).read_bytes()
    # So that its end could be looked for.
    arrivals.expect(len(data))
    arrivals.put(0, data[: len(data) * 9 // 10])
    assert len(next(iter(AudioReader(reader))))


def test_memory_does_not_grow_with_the_file(file: tuple[Arrivals, Growing]) -> None:
    arrivals, reader = file
    block = BODY[: 256 * 1024]

    def bring() -> None:
        for number in range(400):
            arrivals.put(number * len(block), block)
        arrivals.complete()

    tracemalloc.start()
    with Bringers(arrivals) as threads:
        threads.start(bring)
        count = sum(len(part) for part in iter(lambda: reader.read(32_768), b""))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 400 * len(block)
    assert peak_bytes < 4 * 2**20
