"""Films and subtitles without sound."""

import tempfile
from pathlib import Path

import av
from av.subtitles.stream import SubtitleStream

from tests.media import add_film, add_pictures


def film(name: str) -> bytes:
    """Two seconds of black pictures, in the container of this file name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        with av.open(path, "w") as container:
            stream = add_film(container)
            add_pictures(container, stream, range(10))
            container.mux(stream.encode(None))
        return path.read_bytes()


def subtitles() -> bytes:
    """One line of text in Matroska."""
    with tempfile.TemporaryDirectory() as folder:
        source, path = Path(folder) / "a.srt", Path(folder) / "a.mkv"
        source.write_text("1\n00:00:00,000 --> 00:00:02,000\nHello\n")
        with av.open(source) as text, av.open(path, "w") as container:
            (found,) = text.streams
            assert isinstance(found, SubtitleStream)
            stream = container.add_stream_from_template(found)
            for packet in text.demux(found):
                if packet.dts is not None:
                    packet.stream = stream
                    container.mux(packet)
        return path.read_bytes()
