"""The long recordings of the benchmarks hold what they are said to hold."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import talks
from benchmarks.encoding import repeat, write
from benchmarks.serial import FORMATS
from tests.media import read
from tests.speech import SPEECH, recorded_speech


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "FLAC"])
def test_a_recording_is_repeated_without_a_gap(name: str, tmp_path: Path) -> None:
    format_ = FORMATS[name]
    once, often = (tmp_path / f"{stem}.{format_.suffix}" for stem in ("once", "often"))
    write(once, [recorded_speech()], format_.codec, rate=format_.rate, layout=format_.layout)
    repeat(once, often, 5)
    one, (many, warnings) = read(once)[0], read(often)
    assert warnings == []
    # What an encoder pads stays in between.
    assert 5 * len(one) - 800 <= len(many) <= 5 * (len(one) + 1_600)


def test_a_talk_is_as_its_seed_says_and_its_text_is_where_it_is_spoken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.opus").write_bytes(SPEECH.read_bytes())
    (tmp_path / "clips.tsv").write_text("a\tAsk not\n")
    monkeypatch.setattr(talks, "CLIPS", str(tmp_path))
    path = tmp_path / "talk.flac"
    made = talks.talk(path, 0.5, codec="flac", seed=1)
    again = talks.talk(tmp_path / "again.flac", 0.5, codec="flac", seed=1)
    assert (made.spoken, made.duration_s) == (again.spoken, again.duration_s)
    assert made.text == "Ask not Ask not Ask not"
    samples, clip = read(path)[0], recorded_speech()
    for spoken in made.spoken:
        assert np.abs(samples[16 * spoken.start_ms :][:8] - clip[:8]).max() < 0.01
        assert spoken.end_ms - spoken.start_ms == pytest.approx(len(clip) / 16, abs=1)
    gaps = [b.start_ms - a.end_ms for a, b in zip(made.spoken, made.spoken[1:], strict=False)]
    assert all(150 <= gap <= 2_501 for gap in gaps)


def test_without_clips_a_benchmark_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talks, "CLIPS", "")
    with pytest.raises(talks.Skipped, match="BENCH_CLIPS"):
        talks.clips()
