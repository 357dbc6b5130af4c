"""How the engine uses its model: window by window in batches that fit, again where something was left out."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tasks import models
from tasks.engine import ChunkWork, FasterWhisperEngine
from tasks.errors import EngineFailed, LeaseLost, OutOfMemory
from tasks.job import Options
from tasks.ladder import Decoding
from tasks.model_cache import Kind
from tasks.settings import Settings
from tasks.transcript import Word
from tasks.whisper import Heard, Whisper
from tasks.windows import Audio
from tests.speech import FAST, SECOND, no_report, recorded_speech, silence, text, transcribe


@pytest.fixture(scope="module")
def speech() -> Audio:
    return recorded_speech()


# Windows of the fixture of that name: of each two seconds one.
SHORT = replace(FAST, chunk_length=3)


class RecordedCalls:
    """CTranslate2's model, with a record of what was generated how."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.calls: list[dict[str, Any]] = []
        self.aligned = 0

    def align(self, *arguments: Any, **options: Any) -> Any:
        self.aligned += 1
        return self.model.align(*arguments, **options)

    def generate(self, *arguments: Any, **options: Any) -> Any:
        self.calls.append(options)
        return self.model.generate(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


class SmallMemory(Whisper):
    """The real model; a batch of more than `most_windows` fails with `error`."""

    def __init__(self, most_windows: int = 100, error: str = "CUDA failed with error out of memory") -> None:
        folder = models.resolve("tiny.en", None, download=False)
        super().__init__(folder, device="cpu", device_index=0, compute_type="int8", threads=1)
        self._model.model = self.recorded = RecordedCalls(self._model.model)
        self.most_windows = most_windows
        self.error = error
        self.batches: list[int] = []
        self.contexts_ms: list[int] = []

    def decode(
        self, windows: Sequence[Audio], options: Options, context_ms: int
    ) -> tuple[Heard, list[Decoding]]:
        self.batches.append(len(windows))
        self.contexts_ms.append(context_ms)
        if len(windows) > self.most_windows:
            raise RuntimeError(self.error)
        return super().decode(windows, options, context_ms)


class Forgetful(SmallMemory):
    """The real model, which at first leaves out the end of a window, as Whisper may."""

    def align(self, heard: Heard, decodings: Sequence[Decoding], options: Options) -> list[list[Word]]:
        said = super().align(heard, decodings, options)
        return said if len(self.batches) > 1 else [words[:3] for words in said]


class EngineOf(FasterWhisperEngine):
    """An engine of one given model."""

    def __init__(self, model: Whisper, batch_size: int = 4, **settings: Any) -> None:
        super().__init__(Settings(device="cpu", batch_size=batch_size, **settings))
        self.model = model

    def _load(self, kind: Kind) -> Whisper:  # noqa: ARG002
        return self.model


@pytest.fixture
def windows(speech: Audio) -> Audio:
    """Audio of four windows."""
    return np.concatenate([speech[: 2 * SECOND], silence(30)] * 4)


def test_speech_is_laid_out_as_the_settings_say(windows: Audio) -> None:
    shortest, longest = SmallMemory(), SmallMemory()
    transcribe(EngineOf(shortest, window_ms=3_000), windows)
    transcribe(EngineOf(longest, window_ms=20_000, padding_ms=30_000), windows)
    # Two seconds in a window, but no less is heard; eight in one, and all of Whisper's context.
    assert (shortest.batches[0], shortest.contexts_ms[0]) == (4, 15_000)
    assert (longest.batches[0], longest.contexts_ms[0]) == (1, 30_000)


def test_segments_are_no_larger_than_the_settings_say(speech: Audio) -> None:
    model = SmallMemory()

    def largest(**settings: int) -> tuple[int, int]:
        said = transcribe(EngineOf(model, **settings), speech).segments
        return max(each.end_ms - each.start_ms for each in said), max(len(each.text) for each in said)

    longest_ms, most_chars = largest()
    assert longest_ms > 2_000
    assert most_chars > 20
    assert largest(segment_max_ms=2_000)[0] <= 2_000
    assert largest(segment_max_chars=20)[1] <= 20


def test_the_encoder_hears_no_more_than_the_context(speech: Audio) -> None:
    model = SmallMemory()
    heard, _ = model.decode([speech[: 2 * SECOND], speech[: 3 * SECOND]], FAST, 16_100)
    assert heard.features.shape == (2, 80, 1616)
    assert list(heard.encoded.shape) == [2, 808, 384]
    # What is heard of a window does not depend on the others.
    alone, _ = model.decode([speech[: 3 * SECOND]], FAST, 16_100)
    assert np.array_equal(np.array(heard.encoded)[1:], np.array(alone.encoded))


def test_suppress_blank_reaches_the_model(speech: Audio) -> None:
    model = SmallMemory()
    transcribe(EngineOf(model), speech, replace(FAST, suppress_blank=False))
    transcribe(EngineOf(model), speech)
    assert [call["suppress_blank"] for call in model.recorded.calls] == [False, True]


def test_a_loop_is_decoded_again_without_repetition(speech: Audio) -> None:
    # The model goes on with this to its last token.
    loop = np.concatenate([speech[int(9.6 * SECOND) : int(10.6 * SECOND)]] * 28)
    model = SmallMemory()
    result = transcribe(EngineOf(model), loop)
    rungs = [(call["beam_size"], call["no_repeat_ngram_size"]) for call in model.recorded.calls]
    assert rungs[:4] == [(1, 0), (1, 0), (5, 0), (5, 3)]
    assert 1 <= text(result).count("country") <= 28
    assert result.counts["fallback_windows"] >= 1


def test_without_words_only_the_first_window_is_aligned(windows: Audio) -> None:
    model = SmallMemory()
    bare = transcribe(EngineOf(model), windows, replace(SHORT, word_timestamps=False))
    assert [segment.words for segment in bare.segments if segment.words] == []
    assert model.recorded.aligned == 1
    assert text(bare) == text(transcribe(EngineOf(model), windows, SHORT))
    assert {segment.end_ms - segment.start_ms <= 7_000 for segment in bare.segments} == {True}


def test_what_the_model_left_out_is_heard_without_words_too(speech: Audio) -> None:
    class Terse(SmallMemory):
        """The real model, which at first stops after a few words."""

        def decode(
            self, windows: Sequence[Audio], options: Options, context_ms: int
        ) -> tuple[Heard, list[Decoding]]:
            few = replace(options, max_new_tokens=None if self.batches else 4)
            return super().decode(windows, few, context_ms)

    bare = transcribe(EngineOf(Terse()), speech, replace(FAST, word_timestamps=False))
    assert [text(bare).count(word) for word in ("so my", "Americans", "country")] == [1, 1, 2]


def test_progress_is_reported_before_the_first_window_and_after_each_batch(windows: Audio) -> None:
    reports = []
    engine = EngineOf(SmallMemory(), batch_size=3)
    work = ChunkWork(0, 0, "", SHORT)
    engine.transcribe(windows, work, lambda *report: reports.append(report))
    assert reports == [(0, 4, 3), (3, 4, 1), (4, 4, 0)]


def test_the_end_of_a_window_that_the_model_left_out_is_heard(speech: Audio) -> None:
    reports = []
    engine = EngineOf(Forgetful())
    work = ChunkWork(0, 0, "", FAST)
    result = engine.transcribe(speech, work, lambda *report: reports.append(report))
    assert [text(result).count(word) for word in ("so my", "America", "country")] == [1, 1, 2]
    assert reports == [(0, 1, 1), (1, 2, 1), (2, 2, 0)]


def test_one_call_may_have_smaller_batches(windows: Audio) -> None:
    model = SmallMemory()
    engine = EngineOf(model, batch_size=3)
    whole = engine.transcribe(windows, ChunkWork(0, 0, "", SHORT, batch_size=1), no_report)
    assert model.batches == [1, 1, 1, 1]
    # The cached model keeps nothing of it.
    again = engine.transcribe(windows, ChunkWork(0, 0, "", SHORT), no_report)
    assert model.batches[4:] == [3, 1]
    # To the last digit: batches must not change what two runs give.
    assert again == whole


def test_a_report_may_stop_the_work(windows: Audio) -> None:
    model = SmallMemory()

    def stop(done: int, total: int, _following: int) -> None:
        if done and total:
            raise LeaseLost

    with pytest.raises(LeaseLost):
        EngineOf(model, batch_size=2).transcribe(windows, ChunkWork(0, 0, "", SHORT), stop)
    assert model.batches == [2]


def test_batches_are_halved_until_they_fit_in_memory(windows: Audio) -> None:
    model = SmallMemory(most_windows=1)
    result = transcribe(EngineOf(model, batch_size=4), windows, SHORT)
    assert model.batches == [4, 2, 1, 1, 1, 1]
    assert text(result).count("fellow") == 4
    assert result.counts["out_of_memory"] == 2


def test_a_single_window_that_does_not_fit_is_a_failure(speech: Audio) -> None:
    with pytest.raises(EngineFailed, match="no memory left"):
        transcribe(EngineOf(SmallMemory(most_windows=0)), speech)


def test_a_window_that_does_not_fit_is_decoded_in_a_lighter_compute_type(windows: Audio) -> None:
    heavy, light = SmallMemory(most_windows=0), SmallMemory()

    class Ladder(FasterWhisperEngine):
        """An engine whose memory suffices for the lighter one only."""

        def _load(self, kind: Kind) -> Whisper:
            return heavy if kind.compute_type == "float32" else light

    engine = Ladder(Settings(device="cpu", compute_type="float32", batch_size=4))
    result = transcribe(engine, windows, SHORT)
    assert (heavy.batches, light.batches) == ([4, 2, 1], [4])
    assert text(result).count("fellow") == 4
    assert (result.counts["out_of_memory"], result.counts["lighter_compute_type"]) == (3, 1)
    # The next chunk does not begin with what does not fit, and says what it was decoded in.
    again = transcribe(engine, windows, SHORT)
    assert again.segments == result.segments
    assert "out_of_memory" not in again.counts
    assert again.counts["lighter_compute_type"] == 1
    assert heavy.batches == [4, 2, 1]


def test_a_chunk_says_that_its_model_was_loaded_in_a_lighter_compute_type(windows: Audio) -> None:
    light = SmallMemory()

    class TooSmall(FasterWhisperEngine):
        """An engine whose memory does not suffice to load what is asked for."""

        def _load(self, kind: Kind) -> Whisper:
            if kind.compute_type == "float32":
                raise OutOfMemory
            return light

    engine = TooSmall(Settings(device="cpu", compute_type="float32"))
    # As a worker does it, before there is a chunk to count in.
    engine.preload("tiny.en")
    assert transcribe(engine, windows, SHORT).counts["lighter_compute_type"] == 1
    assert "lighter_compute_type" not in transcribe(EngineOf(SmallMemory()), windows, SHORT).counts


def test_another_failure_of_the_model_is_not_tried_with_less(windows: Audio) -> None:
    model = SmallMemory(most_windows=0, error="cuDNN failed")
    with pytest.raises(EngineFailed, match="cuDNN failed") as caught:
        transcribe(EngineOf(model), windows, SHORT)
    assert caught.value.retryable
    assert model.batches == [4]
