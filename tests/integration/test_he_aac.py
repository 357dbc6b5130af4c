"""HE-AAC, whose frames are twice as long as its core says: chunks are where a full decode has them."""

from itertools import pairwise
from pathlib import Path

import av
import pytest

from tasks.cutting import cut
from tests.corpus.recordings import FRAGMENTS
from tests.he_aac import LC, MAIN, PS, SBR, write_he_aac
from tests.positions import chunk_lags_ms, decode_whole

# File, what its container says, channels, and its muxer's options.
FILES = {
    "m4a": ("a.m4a", SBR, "stereo", {}),
    "m4a, index first": ("a.m4a", SBR, "mono", {"movflags": "faststart"}),
    "m4a, fragments": ("a.m4a", SBR, "stereo", FRAGMENTS),
    "m4a, not told": ("a.m4a", LC, "stereo", {}),
    "m4a, PS": ("a.m4a", PS, "mono", {}),
    "mkv": ("a.mkv", SBR, "stereo", {}),
    "mkv, not told": ("a.mkv", LC, "mono", {}),
    "mkv, as it is streamed": ("a.mkv", SBR, "stereo", {"live": "1"}),
    "ADTS": ("a.aac", LC, "stereo", {}),
    "ADTS, mono": ("a.aac", LC, "mono", {}),
    "ts": ("a.ts", LC, "stereo", {}),
}


def chunks_are_right(path: Path) -> None:
    arguments = {"target_ms": 6_000, "first_ms": (4_000,), "search_ms": 1_500}
    cutting = cut(path, **arguments)  # type: ignore[arg-type]
    chunks, whole = list(cutting), decode_whole(path)
    assert {made.suffix for made in chunks} == {"mka"}
    assert len(chunks) > 3
    assert chunks[0].span.start_ms == 0
    assert all(before.span.end_ms == after.span.start_ms for before, after in pairwise(chunks))
    assert chunks[-1].span.end_ms == cutting.duration_ms == pytest.approx(len(whole) / 16, abs=1)
    assert cutting.duration_ms == pytest.approx(20_000, abs=60)
    assert max(map(abs, chunk_lags_ms(chunks, whole))) <= 2
    assert not cutting.warnings
    assert list(cut(path, **arguments)) == chunks  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FILES)
def test_every_chunk_of_he_aac_is_where_a_full_decode_has_it(tmp_path: Path, name: str) -> None:
    file, said, layout, options = FILES[name]
    path = write_he_aac(tmp_path / file, said, layout=layout, options=options)
    with av.open(path) as container:
        stream = container.streams.audio[0]
        frame = next(container.decode(stream))
        assert (frame.rate, frame.samples) == (48_000, 2_048)
        # One channel that may be two is taken for v2.
        assert stream.codec_context.profile in ("HE-AAC", "HE-AACv2")
    chunks_are_right(path)


@pytest.mark.parametrize("sbr", [True, False])
@pytest.mark.parametrize("full_ticks", [True, False])
def test_the_ticks_of_an_mp4_may_be_of_its_core_or_of_its_sound(
    tmp_path: Path, *, sbr: bool, full_ticks: bool
) -> None:
    """With frames that hold SBR, and with frames of which the container alone says so."""
    path = write_he_aac(tmp_path / "a.m4a", SBR, full_ticks=full_ticks, sbr=sbr)
    with av.open(path) as container:
        stream = container.streams.audio[0]
        assert stream.time_base is not None
        assert stream.time_base.denominator == (48_000 if full_ticks else 24_000)
        assert next(container.decode(stream)).rate == 48_000
    chunks_are_right(path)


@pytest.mark.parametrize("file", ["a.m4a", "a.mkv", "a.aac"])
def test_aac_that_refers_further_back_is_decoded(tmp_path: Path, file: str) -> None:
    path = write_he_aac(tmp_path / file, MAIN, sbr=False)
    assert {made.suffix for made in cut(path, target_ms=6_000, first_ms=(), search_ms=1_500)} == {"flac"}
