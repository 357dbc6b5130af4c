"""Audio files that are cut short, damaged or full of holes: what there is, and a warning that is true."""

from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream

from tasks.audio import AudioReader
from tests.media import SECONDS, encode, read, shorten


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.wav", "pcm_s16le", {}),
        ("law.wav", "pcm_mulaw", {}),
        ("a.mp3", "libmp3lame", {}),
        ("a.flac", "flac", {}),
        ("a.m4a", "aac", {"movflags": "faststart"}),
        ("a.ogg", "libopus", {}),
    ],
)
def test_a_truncated_file_gives_what_there_is_and_a_warning(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    path = encode(tmp_path / name, codec, rate=48_000, options=options)
    whole, _ = read(path)
    samples, warnings = read(shorten(path, 0.6))
    assert [warning for warning in warnings if warning.startswith("truncated: ")]
    assert 0.3 * len(whole) < len(samples) < 0.7 * len(whole)
    assert np.array_equal(samples[: len(samples) // 2], whole[: len(samples) // 2])


def test_a_truncated_film_is_told_from_a_long_one(tmp_path: Path) -> None:
    path = encode(tmp_path / "film.mkv", "libopus", rate=48_000, pictures=True)
    _, warnings = read(shorten(path, 0.5))
    assert any(warning.startswith("truncated: ") for warning in warnings)


def test_a_wave_file_written_to_a_pipe_promises_nothing(tmp_path: Path) -> None:
    path = encode(tmp_path / "piped.wav", "pcm_s16le")
    data = path.read_bytes()
    path.write_bytes(data[:4] + b"\xff" * 4 + data[8:])
    samples, warnings = read(path)
    assert (len(samples), warnings) == (SECONDS * 16_000, [])


def test_a_variable_bit_rate_without_a_header_is_no_truncation(tmp_path: Path) -> None:
    path = tmp_path / "radio.mp3"
    with av.open(path, "w", container_options={"write_xing": "0", "id3v2_version": "0"}) as container:
        options = {"global_quality": "590", "flags": "+qscale"}
        stream = container.add_stream("libmp3lame", rate=44_100, layout="stereo", options=options)
        assert isinstance(stream, AudioStream)
        noise = np.random.default_rng(0).integers(-6_000, 6_000, 44_100 * 2, dtype=np.int16)
        for second in range(20):
            sound = noise // 4_000 if second < 15 else noise
            frame = AudioFrame.from_ndarray(sound[None], "s16", "stereo")
            frame.rate, frame.pts = 44_100, second * 44_100
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(path) as container:
        assert container.duration is not None
        assert container.duration > 23 * av.time_base
    samples, warnings = read(path)
    assert len(samples) / 16_000 == pytest.approx(20, abs=0.1)
    assert warnings == []


def test_damaged_packets_are_left_out_with_a_warning(tmp_path: Path) -> None:
    path = encode(tmp_path / "scratched.m4a", "aac")
    whole, _ = read(path)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 1_000] = np.random.default_rng(0).bytes(1_000)
    path.write_bytes(data)
    samples, warnings = read(path)
    assert [warning for warning in warnings if warning.startswith("damaged: ")]
    assert 0.5 * len(whole) < len(samples) < len(whole)


def test_sound_that_is_missing_in_the_middle_is_warned_about(tmp_path: Path) -> None:
    path = tmp_path / "holes.mkv"
    with av.open(path, "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        assert isinstance(stream, AudioStream)
        for second in (0, 1, 2, 7, 8):
            frame = AudioFrame.from_ndarray(np.ones((1, 16_000), np.int16), "s16", "mono")
            frame.rate, frame.pts = 16_000, second * 16_000
            container.mux(stream.encode(frame))
    samples, warnings = read(path)
    assert len(samples) == 9 * 16_000
    assert np.all(samples[3 * 16_000 + 100 : 7 * 16_000 - 100] == 0)
    assert np.all(samples[7 * 16_000 + 100 :] > 0)
    assert [warning for warning in warnings if warning.startswith("gaps: 4000 ms")]


def test_warnings_are_those_of_the_last_reading(tmp_path: Path) -> None:
    reader = AudioReader(shorten(encode(tmp_path / "a.wav", "pcm_s16le"), 0.5))
    for _ in range(2):
        for _ in reader:
            pass
        assert len(reader.warnings) == 1
