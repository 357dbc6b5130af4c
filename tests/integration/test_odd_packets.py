"""Recordings whose packets cannot simply be copied, or are not all there."""

import re
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream

from tasks.audio import load
from tasks.chunks import Chunk
from tasks.cutting import Cutting, cut
from tasks.decoded import Cut
from tasks.errors import NotMedia
from tests.corpus.handmade import flac
from tests.positions import RATE, chunk_lags_ms, decode_whole, lag_ms, noise, sound_of, write_noise


def cutting_of(path: Path) -> Cutting:
    return cut(path, target_ms=6_000, first_ms=(4_000,), search_ms=1_500)


def heard(chunks: list[Cut]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.concatenate([sound_of(made).samples for made in chunks])


def write_at(path: Path, codec: str, rate: int, pieces: list[tuple[float, int]], seconds: int = 60) -> Path:
    """Write seconds of noise at other times than they should have: (time in s, number of the second)."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(stream, AudioStream)
        for time_s, second in pieces:
            samples = noise(seconds, rate)[second * rate : (second + 1) * rate]
            frame = AudioFrame.from_ndarray(samples[None], "s16", "mono")
            frame.rate, frame.pts = rate, int(time_s * rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("start_s", [0, 3, 5_000])
def test_stamps_may_start_anywhere(tmp_path: Path, start_s: int) -> None:
    path = write_at(tmp_path / "a.mkv", "pcm_s16le", RATE, [(start_s + n, n) for n in range(20)])
    chunks = list(cutting_of(path))
    assert {made.suffix for made in chunks} == {"mka"}
    assert chunks[-1].span.end_ms == 20_000
    assert abs(lag_ms(heard(chunks), decode_whole(path))) <= 1


def test_a_hole_is_silent_and_what_follows_is_in_time(tmp_path: Path) -> None:
    times = [(n, n) for n in range(10)] + [(n, n) for n in range(31, 45)]
    path = write_at(tmp_path / "holes.mkv", "pcm_s16le", RATE, [(float(at), n) for at, n in times])
    cutting = cutting_of(path)
    chunks = list(cutting)
    assert cutting.duration_ms == 45_000
    # Chunks of nothing but the hole have no packets to copy.
    assert {made.suffix for made in chunks} == {"mka", "flac"}
    told = heard(chunks)
    assert not told[10 * RATE + 200 : 31 * RATE - 200].any()
    expected = noise(60, RATE)[: 45 * RATE].astype(np.float32) / 32768
    for second in (*range(10), *range(31, 45)):
        span = slice(second * RATE, second * RATE + RATE)
        assert np.array_equal(told[span], expected[span])
    assert cutting.warnings == ["gaps: 21000 ms of sound are missing, and are silent here"]


@pytest.mark.parametrize("jump_s", [-3, -500, 5_000])
def test_stamps_that_jump_are_not_believed(tmp_path: Path, jump_s: int) -> None:
    times = [(600.0 + n, n) for n in range(12)] + [(600.0 + jump_s + n, n) for n in range(12, 24)]
    # Written as a transport stream, of which each half has stamps of its own.
    for half, name in ((times[:12], "a.ts"), (times[12:], "b.ts")):
        write_at(tmp_path / name, "aac", 48_000, half)
    path = tmp_path / "joined.ts"
    path.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    cutting = cutting_of(path)
    chunks = list(cutting)
    assert chunks[0].suffix == "mka"
    assert chunks[-1].suffix == "flac"
    assert cutting.duration_ms == pytest.approx(24_000, abs=150)
    assert list(cutting_of(path)) == chunks
    told, expected = heard(chunks), noise(60, RATE).astype(np.float32)
    assert abs(lag_ms(told[16 * RATE : 20 * RATE], expected[16 * RATE : 20 * RATE])) <= 100


def test_joined_files_of_other_rates_are_decoded_from_there(tmp_path: Path) -> None:
    path = write_noise(tmp_path / "a.mp3", "libmp3lame", rate=44_100)
    whole = decode_whole(path)
    other = write_noise(tmp_path / "b.mp3", "libmp3lame", rate=32_000, layout="mono")
    path.write_bytes(path.read_bytes() + other.read_bytes())
    chunks = list(cutting_of(path))
    assert chunks[0].suffix == "mka"
    assert chunks[-1].suffix == "flac"
    assert chunks[-1].span.end_ms == pytest.approx(40_000, abs=150)
    told = heard(chunks)
    for start in (0, 20):
        part = slice((start + 2) * RATE, (start + 18) * RATE)
        expected = noise(20, RATE)[2 * RATE : 18 * RATE].astype(np.float32)
        assert abs(lag_ms(told[part], expected)) <= 100
    # Where the way changes, nothing is lost or doubled.
    seam = next(made for made in chunks if made.suffix == "flac").span.start_ms * 16
    assert seam < len(whole) - RATE
    assert abs(lag_ms(told[seam - RATE : seam + RATE], whole[seam - RATE : seam + RATE])) <= 2


def test_pictures_in_tags_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "cover.mp3"
    with av.open(path, "w") as container:
        stream = container.add_stream("libmp3lame", rate=44_100, layout="mono")
        cover = container.add_stream("png", rate=1)
        assert isinstance(stream, AudioStream)
        cover.width = cover.height = 64
        cover.pix_fmt = "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        for packet in cover.encode(av.VideoFrame(64, 64, "rgb24")) + cover.encode(None):
            container.mux(packet)
        for second in range(20):
            samples = noise(20, 44_100)[second * 44_100 : (second + 1) * 44_100]
            frame = AudioFrame.from_ndarray(samples[None], "s16", "mono")
            frame.rate, frame.pts = 44_100, second * 44_100
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes() + b"TAG" + bytes(125))
    cutting = cutting_of(path)
    chunks = list(cutting)
    assert {made.suffix for made in chunks} == {"mka"}
    assert cutting.warnings == []
    assert abs(lag_ms(heard(chunks), decode_whole(path))) <= 2
    assert not any(sound_of(made).damaged for made in chunks)


def test_damage_that_only_a_worker_finds_is_counted_and_silent(tmp_path: Path) -> None:
    path = write_noise(tmp_path / "a.m4a", "aac", seconds=20)
    data = bytearray(path.read_bytes())
    # Past the first chunks' cuts and before the next one's; the index is at the end.
    for at in range(int(len(data) * 0.56), int(len(data) * 0.6)):
        data[at] = 0xFF
    path.write_bytes(data)
    cutting = cut(path, target_ms=16_000, first_ms=(4_000,), search_ms=1_000)
    chunks = list(cutting)
    assert {made.suffix for made in chunks} == {"mka"}
    sounds = [sound_of(made) for made in chunks]
    assert sounds[0].damaged == 0
    assert sounds[1].damaged > 5
    told = np.concatenate([sound.samples for sound in sounds])
    # What follows the damage is in time.
    expected = noise(20, RATE)[14 * RATE : 18 * RATE].astype(np.float32)
    assert abs(lag_ms(told[14 * RATE : 18 * RATE], expected)) <= 2


def test_a_chunk_in_which_nothing_can_be_decoded_is_silent(tmp_path: Path) -> None:
    path = write_noise(tmp_path / "a.flac", "flac", rate=RATE, layout="mono")
    made = list(cutting_of(path))[1]
    spoiled = re.sub(rb"\xff\xf8[^\0]", b"\xff\xf8\0", made.data)
    chunk = Chunk(1, made.span.start_ms, made.span.end_ms, made.digest, "", made.origin_ms)
    sound = load(spoiled, chunk)
    assert sound.damaged > 0
    assert not sound.samples.any()
    with pytest.raises(NotMedia):
        load(b"no blob", chunk)


def test_packets_that_decode_to_far_more_than_they_say_are_not_all_decoded(tmp_path: Path) -> None:
    """Each of 65 s, in a container that stamps them 20 ms apart."""
    source = tmp_path / "bomb.flac"
    source.write_bytes(flac(60, rate=1_000))
    path = tmp_path / "bomb.mkv"
    with av.open(source) as bomb, av.open(path, "w") as container:
        stream = container.add_stream_from_template(bomb.streams.audio[0])
        for number, packet in enumerate(bomb.demux()):
            if packet.size:
                packet.stream, packet.time_base = stream, Fraction(1, 1000)
                packet.pts = packet.dts = number * 20
                packet.duration = 20
                container.mux(packet)
    sound = load(path.read_bytes(), Chunk(0, 0, 1_200, "", "", 0))
    assert len(sound.samples) == 1_200 * 16
    assert sound.heard_us < 2 * 65_535_000


def edited(data: bytes, entries: list[tuple[int, int]]) -> bytes:
    """An m4a whose index is last, with another edit list: (length in ms, start in samples) of each part."""
    made = bytearray(data)
    at = made.index(b"elst")
    added = struct.pack(">I", len(entries)) + b"".join(
        struct.pack(">IiI", length_ms, start, 0x10000) for length_ms, start in entries
    )
    for box in (b"moov", b"trak", b"edts", b"elst"):
        place = made.rindex(box, 0, at + 4) - 4
        size = int.from_bytes(made[place : place + 4])
        made[place : place + 4] = (size + 12 * (len(entries) - 1)).to_bytes(4)
    made[at + 8 : at + 24] = added
    return bytes(made)


def test_an_edit_list_moves_the_beginning(tmp_path: Path) -> None:
    path = write_noise(tmp_path / "a.m4a", "aac")
    path.write_bytes(edited(path.read_bytes(), [(16_500, 1024 + 7 * 22_050)]))
    chunks = list(cutting_of(path))
    assert {made.suffix for made in chunks} == {"mka"}
    assert chunks[-1].span.end_ms == pytest.approx(16_500, abs=20)
    assert max(map(abs, chunk_lags_ms(chunks, decode_whole(path)))) <= 2


def test_an_edit_list_that_leaves_out_the_middle_is_decoded(tmp_path: Path) -> None:
    path = write_noise(tmp_path / "a.m4a", "aac")
    path.write_bytes(edited(path.read_bytes(), [(8_000, 1024), (8_000, 1024 + 12 * 44_100)]))
    chunks = list(cutting_of(path))
    assert chunks[-1].suffix == "flac"
    assert chunks[-1].span.end_ms == pytest.approx(16_000, abs=50)
    assert max(map(abs, chunk_lags_ms(chunks, decode_whole(path)))) <= 20


@pytest.mark.parametrize(("file", "codec"), [("a.aac", "aac"), ("a.mp3", "libmp3lame")])
@pytest.mark.parametrize(("rate", "layout", "way"), [(32_000, "mono", "flac"), (44_100, "stereo", "mka")])
def test_what_follows_is_copied_if_its_frames_say_the_same(
    tmp_path: Path, file: str, codec: str, rate: int, layout: str, way: str
) -> None:
    path = write_noise(tmp_path / file, codec, rate=44_100)
    other = write_noise(tmp_path / f"other-{file}", codec, rate=rate, layout=layout)
    path.write_bytes(path.read_bytes() + other.read_bytes())
    cutting = cutting_of(path)
    ways = [made.suffix for made in cutting]
    assert ways[0] == "mka"
    assert ways[-1] == way
    assert cutting.duration_ms == pytest.approx(40_000, abs=150)
