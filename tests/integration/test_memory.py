"""What a process keeps of the memory that it frees."""

import subprocess
import sys

import pytest

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


@pytest.mark.skipif(sys.platform != "linux", reason="it is about glibc")
def test_what_is_freed_goes_back_to_the_system() -> None:
    assert kept_mib("returned") <= 4
    assert kept_mib("returned once") <= 4
    # Without it; if this fails, glibc has learned it, and there is no need any more.
    assert kept_mib("by itself") >= 30
