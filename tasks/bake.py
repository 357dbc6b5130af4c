"""`python -m tasks.bake FOLDER MODEL...`: copy models into a folder, for an image that carries them."""

import argparse
import shutil
import sys
from pathlib import Path

from tasks import models
from tasks.errors import LonghandError


def main() -> None:
    """Find or download each model; its files go to FOLDER/MODEL, where LONGHAND_MODEL_DIR=FOLDER looks."""
    parser = argparse.ArgumentParser(prog="python -m tasks.bake", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    options = parser.parse_args()
    for name in options.models:
        try:
            source = models.resolve(name, None)
        except LonghandError as error:
            sys.exit(f"{error.code}: {error}")
        shutil.copytree(source, options.folder / name)


if __name__ == "__main__":
    main()
