"""Streams that appear midway in an MPEG transport stream, as they do in damaged ones."""

from contextlib import suppress
from pathlib import Path

from tasks.audio import AudioReader
from tasks.errors import NoAudioStream, NotMedia
from tests.corpus.recordings import flipped, whole


def test_a_stream_that_appears_midway_does_no_harm(tmp_path: Path) -> None:
    path, read = tmp_path / "a.ts", 0
    for seed in range(40):
        path.write_bytes(flipped(seed)(whole("ts film")))
        with suppress(NotMedia, NoAudioStream):
            read += bool(list(AudioReader(path)))
    # Of these, eight have such a stream.
    assert read > 30
