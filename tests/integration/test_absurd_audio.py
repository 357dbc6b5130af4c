"""Recordings that are small on disk and huge, or impossible, once they are decoded."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.audio import MIN_RATE, AudioReader
from tasks.errors import NotMedia
from tests.corpus.handmade import flac, wav

SECOND = bytes(32_000)


def peak_mib() -> int:
    """The most memory of this process since `forget_peak`."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) // 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


@pytest.mark.parametrize(
    "make",
    [
        lambda: wav(SECOND, channels=255),
        lambda: wav(SECOND, rate=2**31 - 1),
        lambda: wav(SECOND, rate=MIN_RATE - 1),
        lambda: flac(2, rate=1),
    ],
    ids=["255 channels", "2 GHz", "less than the least rate", "days in two frames"],
)
def test_sound_that_cannot_be_is_refused_without_memory_for_it(
    tmp_path: Path, make: Callable[[], bytes]
) -> None:
    path = tmp_path / "absurd"
    path.write_bytes(make())
    forget_peak()
    before = peak_mib()
    with pytest.raises(NotMedia, match="no sound could be decoded"):
        list(AudioReader(path))
    assert peak_mib() - before < 100
