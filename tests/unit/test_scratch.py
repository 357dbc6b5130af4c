import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.scratch import scratch_folder

HOLD = """
import sys
from pathlib import Path
from tasks.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1]), "held") as folder:
    (folder / "source").write_text("half a download")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_a_folder_lasts_as_long_as_its_use(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "tmp", "job") as first, scratch_folder(tmp_path / "tmp", "job") as second:
        assert first != second
        assert first.is_dir()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_an_error_removes_the_folder_too(tmp_path: Path) -> None:
    with pytest.raises(KeyError), scratch_folder(tmp_path, "job"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_nobody_removes_a_folder_that_is_being_made(tmp_path: Path) -> None:
    def use(_number: int) -> bool:
        with scratch_folder(tmp_path, "job") as folder:
            return folder.is_dir()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(2_000)))


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_holds_stays(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        for _ in range(2)
    ]
    folders = [Path(process.stdout.readline().strip()) for process in processes if process.stdout]
    processes[0].kill()
    processes[0].wait()
    assert all(folder.is_dir() for folder in folders)
    with scratch_folder(tmp_path, "next"):
        assert not folders[0].exists()
        assert (folders[1] / "source").read_text() == "half a download"
    processes[1].communicate()
    processes[0].communicate()
