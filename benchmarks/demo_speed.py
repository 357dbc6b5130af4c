"""RTFx of `make demo`: audio seconds per second from submission to transcript, with two workers."""

import re
import statistics
import subprocess
import sys
from pathlib import Path

ROUNDS = 3


def measure() -> dict[str, float]:
    """The median of some runs, and the word error rate of the last."""
    speeds, wer = [], 0.0
    for _ in range(ROUNDS):
        output = subprocess.run(
            [sys.executable, "-m", "demo"],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        found = re.search(r"rtfx=([\d.]+) wer=([\d.]+)\n?$", output)
        if not found:
            raise RuntimeError(output)
        speeds.append(float(found[1]))
        wer = float(found[2])
    return {"RTFx": statistics.median(speeds), "WER, %": wer}
