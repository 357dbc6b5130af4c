"""Chunks of copied packets against a full decode of the same file: each is where it should be."""

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from tasks.cutting import cut
from tasks.decoded import Cut
from tasks.demuxing import Recording
from tasks.errors import NoAudioStream
from tests.corpus.films import film
from tests.positions import chunk_lags_ms, decode_whole, write_noise

NO_HEADER = {"write_xing": "0", "id3v2_version": "0"}
FRAGMENTS = {"movflags": "empty_moov+default_base_moof", "frag_duration": "1000000"}
# Neither a length, nor an index, nor the sizes of its parts.
LIVE = {"live": "1"}
CUES = bytes.fromhex("1c53bb6b")
COPIED, DECODED = "mka", "flac"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file, and which way its chunks go."""

    file: str
    codec: str
    rate: int = 44_100
    layout: str = "stereo"
    bit_rate: int = 0
    options: dict[str, str] = field(default_factory=dict)
    codec_options: dict[str, str] = field(default_factory=dict)
    pictures: bool = False
    way: str = COPIED


VARIABLE = {"global_quality": "590", "flags": "+qscale"}
EXPERIMENTAL = {"strict": "experimental"}
KINDS = {
    "mp3": Kind("a.mp3", "libmp3lame"),
    "mp3, variable": Kind("a.mp3", "libmp3lame", codec_options=VARIABLE),
    "mp3, variable, no header": Kind("a.mp3", "libmp3lame", options=NO_HEADER, codec_options=VARIABLE),
    "mp3, 8 kHz, 8 kbit/s": Kind("a.mp3", "libmp3lame", 8_000, "mono", bit_rate=8_000),
    "mp3, 320 kbit/s": Kind("a.mp3", "libmp3lame", 48_000, bit_rate=320_000),
    "mp2": Kind("a.mp2", "mp2"),
    "m4a": Kind("a.m4a", "aac"),
    "m4a, index first": Kind("a.m4a", "aac", options={"movflags": "faststart"}),
    "m4a, fragments": Kind("a.m4a", "aac", options=FRAGMENTS),
    "m4a, 5.1": Kind("a.m4a", "aac", 48_000, "5.1"),
    "m4a, 96 kHz": Kind("a.m4a", "aac", 96_000),
    "m4a, 8 kHz": Kind("a.m4a", "aac", 8_000, "mono"),
    "mp4 film": Kind("a.mp4", "aac", pictures=True),
    "mov film": Kind("a.mov", "aac", pictures=True),
    "mov, pcm": Kind("a.mov", "pcm_s16le", 16_000, "mono"),
    "alac": Kind("a.m4a", "alac", 16_000, "mono"),
    "3gp": Kind("a.3gp", "libopencore_amrnb", 8_000, "mono", way=DECODED),
    "amr": Kind("a.amr", "libopencore_amrnb", 8_000, "mono", way=DECODED),
    "mkv film": Kind("a.mkv", "libopus", 48_000, pictures=True),
    "mkv, mp3": Kind("a.mkv", "libmp3lame"),
    "mkv, aac": Kind("a.mkv", "aac"),
    "mkv, ac3": Kind("a.mkv", "ac3", 48_000, "5.1"),
    "mkv, vorbis": Kind("a.mkv", "vorbis", codec_options=EXPERIMENTAL),
    "mkv, flac": Kind("a.mkv", "flac", 48_000),
    "webm": Kind("a.webm", "libopus", 48_000),
    "webm, as browsers record": Kind("a.webm", "libopus", 48_000, options=LIVE),
    "mkv film, as browsers record": Kind("a.mkv", "libopus", 48_000, options=LIVE, pictures=True),
    "mkv, as it is streamed": Kind("a.mkv", "aac", options=LIVE),
    "ogg, opus": Kind("a.ogg", "libopus", 48_000),
    "ogg, opus, 60 ms": Kind("a.ogg", "libopus", 48_000, codec_options={"frame_duration": "60"}),
    "ogg, opus, 2.5 ms": Kind("a.ogg", "libopus", 48_000, codec_options={"frame_duration": "2.5"}),
    "ogg, vorbis": Kind("a.ogg", "vorbis", codec_options=EXPERIMENTAL),
    "ogg, vorbis, 22 kHz": Kind("a.ogg", "vorbis", 22_050, codec_options=EXPERIMENTAL),
    "ogg, flac": Kind("a.ogg", "flac"),
    "flac": Kind("a.flac", "flac"),
    "flac, 16 kHz": Kind("a.flac", "flac", 16_000, "mono"),
    "flac, 192 kHz": Kind("a.flac", "flac", 192_000),
    "wav": Kind("a.wav", "pcm_s16le", 16_000, "mono"),
    "wav, 44.1 kHz stereo": Kind("a.wav", "pcm_s16le", way=DECODED),
    "wav, 8 bits": Kind("a.wav", "pcm_u8", 8_000, "mono"),
    "wav, 24 bits": Kind("a.wav", "pcm_s24le", 16_000, "mono"),
    "wav, 32 bits": Kind("a.wav", "pcm_s32le", 16_000, "mono"),
    "wav, float": Kind("a.wav", "pcm_f32le", 16_000, "mono"),
    "wav, 192 kHz, float": Kind("a.wav", "pcm_f32le", 192_000, way=DECODED),
    "wav, mu-law": Kind("a.wav", "pcm_mulaw", 8_000, "mono", way=DECODED),
    "wav, adpcm": Kind("a.wav", "adpcm_ima_wav", way=DECODED),
    "wav, RF64": Kind("a.wav", "pcm_s16le", 16_000, "mono", options={"rf64": "always"}),
    "w64": Kind("a.w64", "pcm_s16le", 16_000, "mono", way=DECODED),
    "aac, ADTS": Kind("a.aac", "aac"),
    "aac, ADTS, 5.1": Kind("a.aac", "aac", 48_000, "5.1"),
    "wma": Kind("a.wma", "wmav2", bit_rate=64_000, way=DECODED),
    "avi film": Kind("a.avi", "libmp3lame", pictures=True, way=DECODED),
    "ts": Kind("a.ts", "aac", 48_000),
    "ts film": Kind("a.ts", "mp2", 48_000, pictures=True),
    "flv": Kind("a.flv", "libmp3lame", way=DECODED),
    "aiff": Kind("a.aiff", "pcm_s16be", 16_000, "mono", way=DECODED),
    "caf": Kind("a.caf", "pcm_s16be", 16_000, "mono", way=DECODED),
    "ac3": Kind("a.ac3", "ac3", 48_000),
    "eac3": Kind("a.eac3", "eac3", 48_000),
}


def chunks_of(path: Path, audio_stream: int | None = None) -> list[Cut]:
    return list(cut(path, target_ms=6_000, first_ms=(4_000,), search_ms=1_500, audio_stream=audio_stream))


def write(folder: Path, kind: Kind) -> Path:
    return write_noise(
        folder / kind.file,
        kind.codec,
        rate=kind.rate,
        layout=kind.layout,
        bit_rate=kind.bit_rate,
        options=kind.options,
        codec_options=kind.codec_options,
        pictures=kind.pictures,
    )


@pytest.mark.parametrize("name", KINDS)
def test_every_chunk_is_where_a_full_decode_has_it(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    path = write(tmp_path, kind)
    chunks = chunks_of(path)
    assert {made.suffix for made in chunks} == {kind.way}
    assert len(chunks) > 3
    assert chunks[0].span.start_ms == 0
    assert all(before.span.end_ms == after.span.start_ms for before, after in pairwise(chunks))
    assert chunks[-1].span.end_ms == pytest.approx(len(decode_whole(path)) / 16, abs=20)
    assert max(map(abs, chunk_lags_ms(chunks, decode_whole(path)))) <= 2
    assert chunks_of(path) == chunks, "a second attempt gives the same bytes"


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.options == LIVE])
def test_the_length_of_a_live_recording_is_found_at_its_end(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, KINDS[name])
    assert CUES not in path.read_bytes()
    with Recording(path) as recording:
        assert recording.promised_ms == 0
    cutting = cut(path, target_ms=6_000, first_ms=(4_000,), search_ms=1_500)
    chunks = list(cutting)
    assert cutting.duration_ms == chunks[-1].span.end_ms == pytest.approx(20_000, abs=30)
    assert not cutting.warnings


@pytest.mark.parametrize("file", ["a.mkv", "a.mp4", "a.ts"])
def test_an_audio_stream_can_be_chosen(tmp_path: Path, file: str) -> None:
    path = write_noise(tmp_path / file, "aac", rate=48_000, streams=3, pictures=True)
    for number in range(3):
        chunks = chunks_of(path, number)
        assert max(map(abs, chunk_lags_ms(chunks, decode_whole(path, number)))) <= 2
    with pytest.raises(NoAudioStream, match="no audio stream 3: the file has 3"):
        chunks_of(path, 3)


@pytest.mark.parametrize("default", [0, 1, 2])
@pytest.mark.parametrize("file", ["a.mkv", "a.mp4", "a.mov"])
def test_the_stream_that_is_marked_as_the_default_is_taken(tmp_path: Path, file: str, default: int) -> None:
    path = write_noise(tmp_path / file, "aac", rate=48_000, streams=3, default=default, pictures=True)
    streams = [chunks_of(path, number) for number in range(3)]
    assert [chunks_of(path) == chunks for chunks in streams] == [number == default for number in range(3)]


def test_a_chosen_stream_of_a_file_without_sound_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    path.write_bytes(film("a.mkv"))
    with pytest.raises(NoAudioStream, match="the file has 0"):
        chunks_of(path, 0)
