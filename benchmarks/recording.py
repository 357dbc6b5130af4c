"""The bundled recording, served over HTTP on loopback."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.server import Site, serve

SAMPLE = Path(__file__).parents[1] / "demo" / "sample.opus"


@contextmanager
def serving(recording: Path) -> Iterator[str]:
    """The recording's URL."""
    with serve(Site("", recording)) as site:
        yield f"{site.url}/{recording.name}"
