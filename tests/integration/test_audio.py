"""Audio files of every common format read in time, and what is no recording refused."""

import io
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from faster_whisper.vad import get_vad_model

from tasks.audio import VAD_BLOCK, load, speech_probabilities, to_int16, write_flac
from tasks.chunks import Chunk
from tasks.errors import LonghandError, NoAudioStream, NotMedia, SourceEmpty
from tests.media import SECONDS, add_film, add_pictures, encode, read, shorten, tone
from tests.speech import SECOND, recorded_speech, silence

# Its blob is the span itself.
CHUNK = Chunk(0, 0, 6_000, "", "")
FORMATS = [
    ("a.wav", "pcm_s16le", 44_100),
    ("telephone.wav", "pcm_mulaw", 8_000),
    ("a.flac", "flac", 48_000),
    ("a.mp3", "libmp3lame", 44_100),
    ("a.ogg", "libopus", 48_000),
    ("a.webm", "libopus", 48_000),
    ("a.m4a", "aac", 44_100),
    ("a.ts", "aac", 48_000),
    ("a.aiff", "pcm_s16be", 22_050),
    ("a.avi", "libmp3lame", 44_100),
]


@pytest.mark.parametrize(("name", "codec", "rate"), FORMATS)
def test_every_common_format_decodes_in_time(tmp_path: Path, name: str, codec: str, rate: int) -> None:
    samples, warnings = read(encode(tmp_path / name, codec, rate=rate))
    assert warnings == []
    assert samples.dtype == np.float32
    assert len(samples) / 16_000 == pytest.approx(SECONDS, abs=0.06)
    loud = np.abs(samples) > 0.1
    edges_s = np.flatnonzero(np.diff(np.convolve(loud, np.ones(200), "same") > 0)) / 16_000
    assert edges_s == pytest.approx([1, 3, 4, 5], abs=0.06)
    assert np.abs(samples).max() == pytest.approx(0.4, abs=0.05)


def test_a_film_longer_than_its_sound_is_whole(tmp_path: Path) -> None:
    for name, codec, rate in (("film.mp4", "aac", 44_100), ("film.mkv", "libopus", 48_000)):
        samples, warnings = read(encode(tmp_path / name, codec, rate=rate, pictures=True))
        assert len(samples) / 16_000 == pytest.approx(SECONDS, abs=0.06)
        assert warnings == []


def test_sound_that_starts_long_after_the_pictures_is_found(tmp_path: Path) -> None:
    path = tmp_path / "late.ts"
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=48_000, layout="mono")
        assert isinstance(stream, AudioStream)
        film = add_film(container)
        add_pictures(container, film, range(100))
        container.mux(film.encode(None))
        frame = AudioFrame.from_ndarray(np.ones((1, 48_000), np.int16), "s16", "mono")
        frame.rate, frame.pts = 48_000, 20 * 48_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    samples, _ = read(path)
    assert len(samples) / 16_000 == pytest.approx(1, abs=0.06)


def test_a_rate_that_changes_midway_keeps_time(tmp_path: Path) -> None:
    first = encode(tmp_path / "a.mp3", "libmp3lame", rate=44_100)
    second = encode(tmp_path / "b.mp3", "libmp3lame", rate=32_000, layout="mono")
    first.write_bytes(first.read_bytes() + second.read_bytes())
    samples, _ = read(first)
    assert len(samples) / 16_000 == pytest.approx(2 * SECONDS, abs=0.15)


def test_more_channels_than_two_without_a_layout_are_read(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "room.wav"), "wb") as file:
        file.setnchannels(6)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(np.repeat(tone(16_000), 6).astype("<i2").tobytes())
    samples, warnings = read(tmp_path / "room.wav")
    assert (len(samples), warnings) == (SECONDS * 16_000, [])


def test_tags_in_a_legacy_character_set_do_no_harm(tmp_path: Path) -> None:
    path = encode(tmp_path / "tagged.wav", "pcm_s16le")
    tag = b"INFOINAM" + (4).to_bytes(4, "little") + b"\xe9\xe8\xff\x00"
    data = path.read_bytes() + b"LIST" + len(tag).to_bytes(4, "little") + tag
    path.write_bytes(data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:])
    assert len(read(path)[0]) == SECONDS * 16_000


def playlist(path: Path, text: str) -> Path:
    """A playlist that names a recording which could be read."""
    other = encode(path.with_name("other.ts"), "aac")
    path.write_text(text.replace("RECORDING", str(other)))
    return path


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\nRECORDING\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile 'RECORDING'\n"
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.m3u8", HLS), ("a.mp3", HLS), ("a.ffconcat", CONCAT), ("a.wav", CONCAT), ("a.sdp", SDP)],
)
def test_playlists_are_refused_by_content(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(NotMedia, match="playlist"):
        read(playlist(tmp_path / name, text))


def test_a_name_cannot_pass_for_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode(tmp_path / "a.wav", "pcm_s16le").rename(tmp_path / "concat:a.wav|a.wav")
    monkeypatch.chdir(tmp_path)
    assert len(read(Path("concat:a.wav|a.wav"))[0]) == SECONDS * 16_000


PAGE = b"<!DOCTYPE html><html><body>" + b"<p>Not found, sorry</p>" * 500 + b"</body></html>"
NOISE = np.random.default_rng(0).bytes(200_000)


@pytest.mark.parametrize("data", [PAGE, b'{"error": "expired"}', NOISE, bytes(100_000)])
@pytest.mark.parametrize("name", ["a.mp3", "a.wav", "a.m4a", "a.aac", "a.gsm", "a.m4v", "a"])
def test_what_is_no_recording_is_not_media(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(NotMedia):
        read(path)


def test_an_m4a_file_without_its_index_is_not_media(tmp_path: Path) -> None:
    with pytest.raises(NotMedia):
        read(shorten(encode(tmp_path / "a.m4a", "aac"), 0.6))


def test_an_empty_file_and_pictures_alone_have_errors_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").touch()
    with pytest.raises(SourceEmpty):
        read(tmp_path / "a.mp3")
    with av.open(tmp_path / "silent.mp4", "w") as container:
        film = add_film(container)
        add_pictures(container, film, range(10))
        container.mux(film.encode(None))
    with pytest.raises(NoAudioStream):
        read(tmp_path / "silent.mp4")


def test_a_codec_nobody_knows_is_not_media(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.wav", "pcm_s16le")
    data = bytearray(path.read_bytes())
    tag = data.index(b"fmt ") + 8
    data[tag : tag + 2] = b"\x99\x99"
    path.write_bytes(data)
    with pytest.raises(NotMedia, match="not known"):
        read(path)


def test_a_sound_of_no_samples_is_not_media(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "none.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
    with pytest.raises(NotMedia):
        read(tmp_path / "none.wav")


def test_flac_keeps_every_sample_and_its_bytes_are_stable(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(-32768, 32768, 50_001).astype(np.float32) / np.float32(32768)
    write_flac(tmp_path / "a.flac", samples)
    blob = io.BytesIO()
    write_flac(blob, samples)
    assert (tmp_path / "a.flac").read_bytes() == blob.getvalue()
    # Names of FFmpeg's versions would change the bytes with every upgrade.
    assert b"Lav" not in blob.getvalue()[:200]
    assert np.array_equal(load(blob.getvalue(), CHUNK).samples, samples)


def test_samples_out_of_range_are_clipped() -> None:
    samples = np.array([-2, -1, 0, 0.5, 1, 2], np.float32)
    assert to_int16(samples).tolist() == [-32768, -32768, 0, 16384, 32767, 32767]


def test_load_reads_any_format_and_raises_as_a_reader_does(tmp_path: Path) -> None:
    data = encode(tmp_path / "a.ogg", "libopus", rate=48_000).read_bytes()
    assert np.array_equal(load(data, CHUNK).samples, read(tmp_path / "a.ogg")[0])
    for bad, error in ((b"", SourceEmpty), (PAGE, NotMedia)):
        with pytest.raises(LonghandError) as caught:
            load(bad, CHUNK)
        assert type(caught.value) is error


def test_silence_and_tones_are_not_speech() -> None:
    samples = tone(16_000).astype(np.float32) / np.float32(32768)
    assert speech_probabilities(samples).shape == (-(-len(samples) // 512),)
    assert speech_probabilities(samples).mean() < 0.1
    assert speech_probabilities(samples[:0]).shape == (0,)
    assert speech_probabilities(samples[:512]).shape == (1,)


def test_speech_is_found_as_faster_whisper_finds_it() -> None:
    speech = recorded_speech()
    samples = np.concatenate([speech, silence(3)] * 6)[: 75 * SECOND]
    frames = len(samples) // 512
    assert frames > 2 * VAD_BLOCK
    theirs = np.reshape(get_vad_model()(samples[: 512 * frames].copy()), -1)
    # Of the last frame, theirs does not hear the end.
    assert np.array_equal(speech_probabilities(samples)[: frames - 1], theirs[:-1])


def test_the_samples_asked_about_stay_as_they_are() -> None:
    samples = tone(16_000)[16_000 : 16_000 + 20 * 512].astype(np.float32) / np.float32(32768)
    before = samples.copy()
    speech_probabilities(samples)
    assert np.array_equal(samples, before)
