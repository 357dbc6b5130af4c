"""Recordings that are small on disk and huge, or impossible, once they are decoded."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.audio import MIN_RATE, AudioReader
from tasks.errors import NotMedia
from tests.corpus.handmade import crowded, flac, wav
from tests.media import encode

ROOT = Path(__file__).parents[2]
SECOND = bytes(32_000)
# A process of its own: a limit once set cannot be taken back by another test.
READ = """
import re, sys
from pathlib import Path
from tasks.audio import AudioReader
from tasks.errors import LonghandError
from tasks.memory import limit_memory

limit_memory(int(sys.argv[2]) * 2**20)
try:
    list(AudioReader(Path(sys.argv[1])))
except LonghandError as error:
    print(error.code)
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


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


def test_an_index_that_does_not_fit_into_the_memory_given_is_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "crowded.m4a", "aac", options={"movflags": "faststart"})
    path.write_bytes(crowded(path.read_bytes(), 30_000_000))
    ran = subprocess.run(
        [sys.executable, "-c", READ, path, "300"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    code, peak_kib = ran.stdout.split()
    assert code == "not_media"
    # Its index is 720 MB.
    assert int(peak_kib) < 500 * 1024
