"""A bound on what a process may allocate: decoders take a file's word for how much they will need."""

import re
import resource
import sys
from pathlib import Path


def limit_memory(spare_bytes: int) -> None:
    """Let this process allocate no more than this beyond what it has; above it, allocations fail."""
    if sys.platform != "linux":
        return
    found = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
    has_bytes = int(found[1]) * 1024 if found else 0
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = has_bytes + spare_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))
