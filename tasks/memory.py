"""The memory of a process: a bound on it, what goes back to the system, what Python's collector looks at."""

import ctypes
import gc
import os
import re
import resource
import sys
from pathlib import Path

# Of glibc's allocator, by a worker's role. By themselves its thresholds rise with what is freed, to 32
# MiB, so that how much a process keeps depends on how much it has done. Each window that is transcribed
# takes and frees pieces of 8 to 30 MB, which broke up the heap. Huge pages, where the kernel gives them
# to those who ask, keep fresh memory cheap.
TUNABLES = {
    "io": {"mmap_threshold": 128 * 2**10},
    "transcribe": {"mmap_threshold": 8 * 2**20, "trim_threshold": 32 * 2**20, "hugetlb": 1},
}
# Of malloc.h.
M_MMAP_THRESHOLD = -3


def tune_children(role: str) -> None:
    """Let processes that this one spawns give large blocks back; glibc reads it as they start.

    An operator's own tunables stay.
    """
    told = ":".join(f"glibc.malloc.{name}={value}" for name, value in TUNABLES.get(role, {}).items())
    if told:
        os.environ.setdefault("GLIBC_TUNABLES", told)  # noqa: TID251  no setting of ours, read by nobody here


def fix_threshold() -> None:
    """Let glibc give each block of a mebibyte or more back as it is freed, whatever it was asked for before.

    By itself it keeps up to 64 MB for each thread that a large body has been in.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 2**20)


def return_freed() -> None:
    """Give back to the system, where glibc can, what this process has freed and still keeps; once."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def limit_memory(spare_bytes: int) -> None:
    """Let this process allocate no more than this beyond what it has; above it, allocations fail."""
    if sys.platform != "linux":
        return
    found = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
    has_bytes = int(found[1]) * 1024 if found else 0
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = has_bytes + spare_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))


def settle(*, look_soon: bool) -> None:
    """Let Python's collector look at what work leaves, and no more at the modules, which stay.

    A look at all of these stops an API for 100 ms. What is old is looked at only once a quarter as much has
    come to it. With `look_soon` that starts from nothing: a worker's child had no look for a thousand failed
    attempts, whose tracebacks hold 60 KB each. To an API each look is a delay.
    """
    gc.collect()
    gc.freeze()
    if look_soon:
        gc.collect()
