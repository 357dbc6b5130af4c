"""The bundled recording, served over HTTP on loopback."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from demo.server import Site, serve
from tasks.audio import AudioReader, Samples

SAMPLE = Path(__file__).parents[1] / "demo" / "sample.opus"


@contextmanager
def serving(recording: Path) -> Iterator[str]:
    """The recording's URL."""
    with serve(Site("", recording)) as site:
        yield f"{site.url}/{recording.name}"


def samples_of(recording: Path) -> Samples:
    """All of a recording, or of a chunk's blob with what lies around it: 16 kHz mono in [-1, 1)."""
    return np.concatenate(list(AudioReader(recording)))
