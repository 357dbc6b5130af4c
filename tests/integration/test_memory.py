"""What a process keeps of the memory that it frees."""

import os
import subprocess
import sys

import pytest

from tasks.memory import TUNABLES, tune_children

# glibc reads its tunables as a process starts. A large block that was freed teaches it to keep others; small
# ones that stay lie between these.
KEPT = """
import os, sys
from pathlib import Path
from tasks.memory import return_freed

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

large = bytearray(30 * 2**20)
del large
before = resident()
large, small = [], []
for _ in range(4):
    large.append(bytearray(10 * 2**20))
    small.append(bytearray(60_000))
del large
if sys.argv[1] == "then returned":
    return_freed()
print((resident() - before) // 2**20)
"""
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="it is about glibc")


def kept_mib(how: str = "") -> int:
    return int(subprocess.run([sys.executable, "-c", KEPT, how], capture_output=True, check=True).stdout)


@pytest.fixture(autouse=True)
def untuned(monkeypatch: pytest.MonkeyPatch) -> None:
    # Set first, so that it is put back.
    monkeypatch.setenv("GLIBC_TUNABLES", "")
    del os.environ["GLIBC_TUNABLES"]


@LINUX
def test_glibc_keeps_what_is_freed_until_it_is_returned() -> None:
    # If it fails, glibc has learned it, and there is no need any more.
    assert kept_mib() >= 30
    assert kept_mib("then returned") <= 4


@LINUX
@pytest.mark.parametrize("role", TUNABLES)
def test_children_of_a_worker_return_large_blocks(role: str) -> None:
    tune_children(role)
    assert kept_mib() <= 6


def test_an_operators_own_tunables_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=0")
    tune_children("transcribe")
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.check=0"
