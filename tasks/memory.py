"""The memory of a process: a bound on it, what goes back to the system, what Python's collector looks at."""

import ctypes
import gc
import re
import resource
import sys
from pathlib import Path

# Of malloc.h, for mallopt(3); and bytes: what glibc begins with.
M_MMAP_THRESHOLD = -3
MMAP_THRESHOLD = 128 * 1024


def return_large_blocks() -> None:
    """Let this process give large blocks back to the system as soon as they are freed, where glibc can.

    By itself it does so only with blocks that are larger than any that was freed before, up to 32 MiB: how
    much a process keeps would depend on how much it has done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD)


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
