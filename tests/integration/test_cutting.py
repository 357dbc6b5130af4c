import tempfile
import tracemalloc
from functools import cache
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.audio import AudioReader, Samples, load, speech_probabilities, to_int16, write_flac
from tasks.chunks import Chunk, Span
from tasks.cutting import Cutting, cut
from tasks.decoded import Cut
from tasks.errors import ConfigurationError, SourceEmpty

RATE = 16_000
# First three formants of a, i, o, u and e, in Hz.
VOWELS = np.array(
    [(730, 1090, 2440), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240), (530, 1840, 2480)], float
)


@cache
def voice() -> Samples:
    """Ten seconds that Silero takes for speech: a gliding pitch, and five vowels a second."""
    time = np.arange(10 * RATE) / RATE
    pitch = 120 * (1 + 0.1 * np.sin(2 * np.pi * 0.7 * time) + 0.03 * np.sin(2 * np.pi * 5 * time))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    order = np.random.default_rng(0).integers(0, len(VOWELS), 50)
    glide = np.ones(800) / 800
    formants = [np.convolve(np.repeat(VOWELS[order, k], RATE // 5), glide, "same") for k in range(3)]
    sound = np.zeros_like(time)
    for harmonic in range(1, 40):
        gain = np.full_like(time, 0.01)
        for formant, height, width in zip(formants, (1, 0.6, 0.3), (80, 100, 150), strict=True):
            gain += height / (1 + ((harmonic * pitch - formant) / width) ** 2)
        sound += gain * np.sin(harmonic * phase) / harmonic**0.3
    sound *= 0.55 - 0.45 * np.cos(2 * np.pi * 5 * time)
    scaled: Samples = (sound / np.abs(sound).max() / 2).astype(np.float32)
    return scaled


def recording(path: Path, pattern: list[tuple[int, int]]) -> list[Span]:
    """Write (speech, pause) lengths in ms as FLAC; gives the spans of the pauses."""
    parts: list[npt.NDArray[np.float32]] = []
    pauses = []
    now_ms = 0
    for speech_ms, pause_ms in pattern:
        parts += [np.resize(voice(), speech_ms * 16), np.zeros(pause_ms * 16, np.float32)]
        pauses.append(Span(now_ms + speech_ms, now_ms + speech_ms + pause_ms))
        now_ms = pauses[-1].end_ms
    write_flac(path, np.concatenate(parts))
    return pauses


def spans_of(cutting: Cutting) -> list[Span]:
    return [made.span for made in cutting]


def samples_of(made: Cut) -> Samples:
    """What a worker makes of a chunk."""
    span = made.span
    return load(made.data, Chunk(0, span.start_ms, span.end_ms, made.digest, "", made.origin_ms)).samples


def test_the_voice_of_these_tests_counts_as_speech() -> None:
    assert np.mean(speech_probabilities(voice()) > 0.5) > 0.9


def test_cuts_fall_into_the_pauses(tmp_path: Path) -> None:
    path = tmp_path / "pauses.flac"
    pauses = recording(path, [(5_300, 500), (3_900, 600), (5_600, 400), (6_000, 0)])
    cutting = cut(path, target_ms=5_000, first_ms=(), search_ms=1_500)
    spans = spans_of(cutting)
    assert len(spans) == 4
    for before, pause in zip(spans, pauses[:3], strict=False):
        assert pause.start_ms < before.end_ms < pause.end_ms
        assert abs(before.end_ms - (pause.start_ms + pause.end_ms) // 2) <= 120
    assert cutting.duration_ms == spans[-1].end_ms == 22_300


def test_a_cut_is_not_drawn_to_where_the_search_begins(tmp_path: Path) -> None:
    # A model that starts cold there takes the first frames for silence in most cuts.
    path = tmp_path / "unbroken.flac"
    recording(path, [(30_000, 0)])
    into_search_ms = [
        before.end_ms - (before.start_ms + target_ms - 900)
        for target_ms in range(3_000, 8_000, 340)
        # The last two are balanced.
        for before, _ in pairwise(spans_of(cut(path, target_ms=target_ms, first_ms=(), search_ms=900))[:-1])
    ]
    assert all(0 < offset_ms < 1_800 for offset_ms in into_search_ms)
    assert np.mean(np.array(into_search_ms) <= 128) < 0.4


def test_first_chunks_are_short_and_a_short_rest_joins_the_last(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    recording(path, [(1_900, 200)] * 16)
    lengths_ms = [
        span.end_ms - span.start_ms
        for span in spans_of(cut(path, target_ms=12_000, first_ms=(3_000, 6_000), search_ms=500))
    ]
    assert lengths_ms[0] == pytest.approx(3_000, abs=500)
    assert lengths_ms[1] == pytest.approx(6_000, abs=500)
    assert lengths_ms[2] == pytest.approx(12_000, abs=500)
    assert len(lengths_ms) == 4
    assert 33_600 - sum(lengths_ms[:3]) == lengths_ms[3] > 12_500


@pytest.mark.parametrize(("length_ms", "chunks"), [(4_999, 1), (5_000, 2), (8_900, 2), (9_200, 3)])
def test_a_rest_of_a_quarter_of_the_target_is_a_chunk(tmp_path: Path, length_ms: int, chunks: int) -> None:
    path = tmp_path / "rest.flac"
    write_flac(path, np.zeros(length_ms * 16, np.float32))
    assert len(spans_of(cut(path, target_ms=4_000, first_ms=(), search_ms=600))) == chunks


def test_a_silence_at_the_very_end_leaves_no_crumb(tmp_path: Path) -> None:
    path = tmp_path / "end.flac"
    recording(path, [(7_300, 300)])
    before, last = spans_of(cut(path, target_ms=6_000, first_ms=(), search_ms=2_000))
    assert before.end_ms == last.start_ms <= 6_800
    assert last.end_ms == 7_600


def test_a_part_of_a_millisecond_at_the_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "odd.flac"
    write_flac(path, voice()[: 2_000 * 16 + 5])
    cutting = cut(path, target_ms=300_000, first_ms=(60_000,), search_ms=10_000)
    [made] = cutting
    assert made.span == Span(0, 2_001)
    assert cutting.duration_ms == 2_001
    # What is missing of the last one is silent.
    expected = np.pad(to_int16(voice()[: 2_000 * 16 + 5]), (0, 11)) / 32768
    assert np.array_equal(samples_of(made), expected.astype(np.float32))


@settings(max_examples=12, deadline=None)
@given(
    pattern=st.lists(st.tuples(st.integers(0, 4_000), st.integers(1, 1_500)), min_size=1, max_size=6),
    target_ms=st.integers(1_000, 5_000),
    first_ms=st.lists(st.integers(1_000, 3_000), max_size=2),
    search_ms=st.integers(0, 2_000),
)
def test_chunks_tile_the_recording(
    pattern: list[tuple[int, int]], target_ms: int, first_ms: list[int], search_ms: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bursts.flac"
        recording(path, pattern)
        whole = np.concatenate(list(AudioReader(path)))
        cutting = cut(path, target_ms=target_ms, first_ms=first_ms, search_ms=search_ms)
        chunks, again = list(cutting), list(cutting)
    spans = [made.span for made in chunks]
    assert spans[0].start_ms == 0
    assert spans[-1].end_ms == cutting.duration_ms == sum(map(sum, pattern))
    assert all(before.end_ms == after.start_ms for before, after in pairwise(spans))
    assert all(0 < span.end_ms - span.start_ms <= 2 * target_ms for span in spans)
    for made in chunks:
        assert np.array_equal(samples_of(made), whole[made.span.start_ms * 16 : made.span.end_ms * 16])
    assert again == chunks


def test_the_plan_does_not_depend_on_how_the_bytes_are_framed(tmp_path: Path) -> None:
    recording(tmp_path / "a.flac", [(2_300, 300)] * 8)
    with av.open(tmp_path / "a.wav", "w") as wav:
        stream = wav.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for frame in av.open(tmp_path / "a.flac").decode(audio=0):
            frame.pts = None
            wav.mux(stream.encode(frame))
    flac, wave = (
        cut(tmp_path / name, target_ms=4_000, first_ms=(2_000,), search_ms=700)
        for name in ("a.flac", "a.wav")
    )
    for one, other in zip(flac, wave, strict=True):
        assert one.span == other.span
        assert np.array_equal(samples_of(one), samples_of(other))


def test_a_chunk_comes_before_the_recording_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "minute.flac"
    recording(path, [(4_800, 200)] * 12)
    cutting = cut(path, target_ms=10_000, first_ms=(5_000,), search_ms=500)
    chunks = iter(cutting)
    assert next(chunks).span.end_ms == pytest.approx(5_000, abs=500)
    assert cutting.duration_ms == 0
    assert sum(1 for _ in chunks) == 6
    assert cutting.duration_ms == 60_000


def test_memory_is_bounded_by_the_chunk(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    write_flac(path, np.zeros(4 * 60 * RATE, np.float32))
    chunk_bytes = 10 * RATE * 4
    # The model is loaded once, and is no part of what a recording costs.
    speech_probabilities(voice())
    tracemalloc.start()
    for _ in cut(path, target_ms=10_000, first_ms=(), search_ms=500):
        pass
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 5 * chunk_bytes


def test_warnings_of_the_decoder_are_passed_on(tmp_path: Path) -> None:
    path = tmp_path / "cut-off.flac"
    recording(path, [(9_000, 1_000)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    cutting = cut(path, target_ms=2_000, first_ms=(), search_ms=200)
    assert spans_of(cutting)[-1].end_ms == cutting.duration_ms < 7_000
    assert any(warning.startswith("truncated: ") for warning in cutting.warnings)


def test_errors_of_the_decoder_are_passed_on(tmp_path: Path) -> None:
    (tmp_path / "empty.mp3").touch()
    with pytest.raises(SourceEmpty):
        spans_of(cut(tmp_path / "empty.mp3", target_ms=2_000, first_ms=(), search_ms=200))


@pytest.mark.parametrize(("target_ms", "first_ms"), [(0, ()), (999, ()), (5_000, (0,))])
def test_chunks_too_short_to_cut_are_refused(
    tmp_path: Path, target_ms: int, first_ms: tuple[int, ...]
) -> None:
    with pytest.raises(ConfigurationError, match="1000 ms"):
        cut(tmp_path / "any.mp3", target_ms=target_ms, first_ms=first_ms, search_ms=200)


def test_a_digest_tells_audio_apart(tmp_path: Path) -> None:
    digests = set()
    samples = voice()[:RATE].copy()
    for name, change in (("a.flac", 0.0), ("b.flac", 0.0), ("c.flac", 1 / 32768)):
        samples[-1] += change
        write_flac(tmp_path / name, samples)
        [made] = cut(tmp_path / name, target_ms=2_000, first_ms=(), search_ms=200)
        assert len(made.digest) == 16
        digests.add(made.digest)
    assert len(digests) == 2
