"""Cutting what is still arriving: no byte is asked for too early, and errors come out as they are."""

import io
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from tasks.cutting import Cutting, cut
from tasks.errors import SourceUnreachable
from tests.positions import write_noise


class Growing(io.RawIOBase):
    """A file that gives a little at each read, knows how far it was read, and may break off."""

    def __init__(self, data: bytes, *, breaks_at: int | None = None) -> None:
        super().__init__()
        self.farthest = 0
        self.sought_end = False
        self._data = data
        self._at = 0
        self._breaks_at = breaks_at

    def read(self, size: int = -1) -> bytes:
        if self._breaks_at is not None and self._at >= self._breaks_at:
            raise SourceUnreachable("it broke off")
        data = self._data[self._at : self._at + min(size, 5_000)]
        self._at += len(data)
        self.farthest = max(self.farthest, self._at)
        return data

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.sought_end |= whence == io.SEEK_END
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._data)}[whence] + offset
        self.farthest = max(self.farthest, self._at)
        return self._at


def cutting_of(source: Growing) -> Cutting:
    return cut(cast(BinaryIO, source), target_ms=10_000, first_ms=(4_000,), search_ms=1_500)


STREAMED = {
    "a.mp3": ("libmp3lame", 44_100, {}),
    "a.aac": ("aac", 44_100, {}),
    "a.ogg": ("libopus", 48_000, {}),
    "a.webm": ("libopus", 48_000, {}),
    "live.webm": ("libopus", 48_000, {"live": "1"}),
    "a.mkv": ("aac", 44_100, {}),
    "a.flac": ("flac", 16_000, {}),
    "a.wav": ("pcm_s16le", 44_100, {}),
    "a.ts": ("aac", 48_000, {}),
    "a.m4a": ("aac", 44_100, {"movflags": "faststart"}),
    "a.mp4": ("aac", 44_100, {"movflags": "empty_moov+default_base_moof", "frag_duration": "1000000"}),
}


@pytest.mark.parametrize("file", STREAMED)
def test_the_first_chunk_needs_no_more_than_its_bytes(tmp_path: Path, file: str) -> None:
    codec, rate, options = STREAMED[file]
    data = write_noise(tmp_path / file, codec, rate=rate, seconds=120, options=options).read_bytes()
    source = Growing(data)
    cutting = cutting_of(source)
    chunks = iter(cutting)
    first = next(chunks)
    assert source.farthest < len(data) / 3
    assert not source.sought_end
    assert [first, *chunks] == list(
        cut(tmp_path / file, target_ms=10_000, first_ms=(4_000,), search_ms=1_500)
    )
    assert source.farthest == len(data)
    assert not cutting.warnings


def test_an_index_at_the_end_is_fetched_first(tmp_path: Path) -> None:
    path = write_noise(tmp_path / "a.m4a", "aac", seconds=60)
    source = Growing(path.read_bytes())
    cutting = cutting_of(source)
    assert list(cutting) == list(cut(path, target_ms=10_000, first_ms=(4_000,), search_ms=1_500))
    assert not source.sought_end


@pytest.mark.parametrize("file", STREAMED)
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_what_the_source_raises_comes_out(tmp_path: Path, file: str, share: float) -> None:
    codec, rate, options = STREAMED[file]
    data = write_noise(tmp_path / file, codec, rate=rate, seconds=20, options=options).read_bytes()
    with pytest.raises(SourceUnreachable, match="it broke off"):
        list(cutting_of(Growing(data, breaks_at=int(len(data) * share))))
