"""`make demo` as a newcomer runs it: real model, real speech, real everything; and nothing is left of it."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Eventually

LAST_LINE = re.compile(
    r"demo: ok chunks=(\d+) workers=(\d+) webhooks=(\d+) verified=(\d+) rtfx=([\d.]+) wer=([\d.]+)"
)
ROOT = Path(__file__).parents[2]


def left_behind(folder: Path) -> list[str]:
    """Command lines of the processes whose environment names the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # it has ended meanwhile, or is another user's
    return found


def start_demo(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "demo", *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.timeout(240)
def test_the_demo_transcribes_its_sample_and_leaves_nothing(tmp_path: Path) -> None:
    demo = start_demo(tmp_path)
    output, _ = demo.communicate(timeout=230)
    assert demo.returncode == 0, output
    numbers = LAST_LINE.fullmatch(output.splitlines()[-1])
    assert numbers, output
    chunks, workers, webhooks, verified = map(int, numbers.groups()[:4])
    assert chunks >= 3
    assert workers >= 2
    assert webhooks == verified >= 4
    # 0.1-0.8 % measured; words flip with every version of a library.
    assert float(numbers[6]) < 4
    assert "'status': 'completed'" in output
    assert left_behind(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, number: int, eventually: Eventually) -> None:
    demo = start_demo(tmp_path)
    assert demo.stdout
    for line in demo.stdout:
        if line.startswith("POST"):
            break
    assert left_behind(tmp_path)
    demo.send_signal(number)
    output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert output.splitlines()[-1] == "demo: failed interrupted"
    eventually(lambda: not left_behind(tmp_path), 10, "the end of every process")
    assert list(tmp_path.iterdir()) == []


def test_a_demo_that_fails_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    demo = start_demo(tmp_path, "--language", "he")
    output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert "knows only English" in output.splitlines()[-1]
    assert left_behind(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
