"""What a process keeps of the memory that it frees."""

import os
import subprocess
import sys

import pytest

from tasks.memory import tune_children

# In a process of its own: the allocator's settings stay. A large block that was freed teaches glibc to keep
# others; small ones that stay lie between these.
KEPT = """
import os, sys
from pathlib import Path
from tasks.memory import return_freed, return_large_blocks

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

if sys.argv[1] == "returned":
    return_large_blocks()
large = bytearray(30 * 2**20)
del large
before = resident()
large, small = [], []
for _ in range(20):
    large.append(bytearray(2 * 2**20))
    small.append(bytearray(60_000))
del large
if sys.argv[1] == "returned once":
    return_freed()
print((resident() - before) // 2**20)
"""


def kept_mib(how: str) -> int:
    return int(subprocess.run([sys.executable, "-c", KEPT, how], capture_output=True, check=True).stdout)


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="it is about glibc")
# Of 10 MB, as a worker's child has them.
SPAWNED = KEPT.replace("2 * 2**20", "10 * 2**20").replace("range(20)", "range(4)")


@LINUX
def test_children_of_a_transcribing_worker_return_large_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    def kept() -> int:
        return int(
            subprocess.run([sys.executable, "-c", SPAWNED, ""], capture_output=True, check=True).stdout
        )

    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert kept() >= 30
    tune_children()
    assert kept() <= 6
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=0")
    tune_children()
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.check=0"


@LINUX
def test_what_is_freed_goes_back_to_the_system() -> None:
    assert kept_mib("returned") <= 4
    assert kept_mib("returned once") <= 4
    # Without it; if this fails, glibc has learned it, and there is no need any more.
    assert kept_mib("by itself") >= 30
