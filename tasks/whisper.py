"""Whisper through faster-whisper: what one loaded model does with windows of speech.

Importing this loads CTranslate2: only the process that decodes may do so (`tasks.engine` sees to it).
faster-whisper's own pipelines are not used: the batched one ignores the temperature and allows half of
`max_new_tokens`, the sequential one decides on its own windows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from ctranslate2 import get_cuda_device_count
from faster_whisper import WhisperModel
from faster_whisper.audio import pad_or_trim
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_compression_ratio, get_suppressed_tokens, merge_punctuations
from faster_whisper.vad import VadOptions, get_speech_timestamps
from numpy.typing import NDArray

from tasks.chunks import Span
from tasks.errors import InvalidInput, ModelLanguage, UnknownOption
from tasks.job import Options
from tasks.transcript import Word

SAMPLES_PER_MS = 16
WINDOW_MS = 30_000
# Silence that ends a span of speech: with less, windows lose words at their ends; with 2 s, in their middle.
MIN_SILENCE_MS = 1_000
# Whisper's own thresholds for a failed decoding.
MIN_AVG_LOGPROB = -1.0
MAX_COMPRESSION_RATIO = 2.4
RETRY_NGRAM_SIZE = 3
# Tokens of one window, half of Whisper's context; the other half is for the prompt.
MAX_NEW_TOKENS = 224
MIN_NEW_TOKENS = 64

Audio = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Decoding:
    tokens: list[int]
    avg_logprob: float
    compression_ratio: float
    ran_out: bool

    @property
    def is_poor(self) -> bool:
        return self.compression_ratio > MAX_COMPRESSION_RATIO or self.avg_logprob < MIN_AVG_LOGPROB

    @property
    def rank(self) -> tuple[bool, float]:
        # A loop goes on to the last token, and the model is very sure of it. A refrain or a prayer ends.
        return not self.ran_out, self.avg_logprob


def speech_spans(audio: Audio, parameters: Mapping[str, float | int]) -> list[Span]:
    """Where somebody speaks in 16 kHz mono audio, by Silero VAD; no span is longer than a window.

    Raises UnknownOption for a parameter that is not a field of faster-whisper's VadOptions.
    """
    accepted = [field.name for field in fields(VadOptions)]
    for name in parameters:
        if name not in accepted:
            raise UnknownOption(f"vad_parameters has no {name!r}; accepted are {', '.join(accepted)}")
    values: dict[str, Any] = {"min_silence_duration_ms": MIN_SILENCE_MS, **parameters}
    longest_s = values.get("max_speech_duration_s", WINDOW_MS / 1000)
    values["max_speech_duration_s"] = min(longest_s, WINDOW_MS / 1000)
    found = get_speech_timestamps(audio, VadOptions(**values))
    spans = [Span(speech["start"] // SAMPLES_PER_MS, speech["end"] // SAMPLES_PER_MS) for speech in found]
    return [span for span in spans if span.end_ms > span.start_ms]


def speech_of(audio: Audio, window: Sequence[Span]) -> Audio:
    """What is said in a window, without the silence between its spans."""
    return np.concatenate(
        [audio[span.start_ms * SAMPLES_PER_MS : span.end_ms * SAMPLES_PER_MS] for span in window]
    )


def gpu_number(child: int) -> int:
    """Child 0 of a worker takes the first GPU, child 1 the second, and round again."""
    return child % max(1, int(get_cuda_device_count()))


class Whisper:
    """One loaded model. It keeps no options: all of them come with each call."""

    def __init__(
        self, path: Path, *, device: str, device_index: int, compute_type: str, threads: int
    ) -> None:
        self._model: Any = WhisperModel(
            str(path),
            device=device,
            device_index=gpu_number(device_index),
            compute_type=compute_type,
            cpu_threads=threads,
        )

    def unload(self) -> None:
        """Give its memory back; it is not used any more."""
        self._model.model.unload_model()

    @property
    def is_multilingual(self) -> bool:
        return bool(self._model.model.is_multilingual)

    def detect_language(self, audio: Audio) -> str:
        """The most probable language of a window."""
        if not self.is_multilingual:
            return "en"
        return self._languages(self._model.encode(self._features([audio])))[0]

    def decode(self, windows: Sequence[Audio], options: Options) -> list[list[Word]]:
        """Decode windows of at most 30 s as one batch; words' times count from their window's start.

        Without a language, or with `multilingual`, each window has its own.
        Raises InvalidInput for an option the model cannot follow, ModelLanguage for a language it has not,
        and CTranslate2's RuntimeError.
        """
        self._check(options)
        features = self._features(windows)
        encoded = self._model.encode(features)
        languages = [options.language or ""] * len(windows)
        if options.multilingual or not options.language:
            languages = self._languages(encoded)
        by_language = {language: self._tokenizer(language, options.task) for language in languages}
        tokenizers = [by_language[language] for language in languages]
        decodings = self._generate(encoded, tokenizers, options)
        for index, decoding in enumerate(decodings):
            if decoding.is_poor:
                decodings[index] = self._again(features[index], tokenizers[index], options, decoding)
        return self._align(encoded, windows, tokenizers, decodings, options)

    def _again(self, features: Audio, tokenizer: Any, options: Options, first: _Decoding) -> _Decoding:
        """The better of a window's first decoding and a second one that may not repeat three tokens."""
        if 0 < options.no_repeat_ngram_size <= RETRY_NGRAM_SIZE:
            return first
        careful = replace(options, no_repeat_ngram_size=RETRY_NGRAM_SIZE)
        second = self._generate(self._model.encode(features), [tokenizer], careful)[0]
        return max(first, second, key=lambda decoding: decoding.rank)

    def _check(self, options: Options) -> None:
        # CTranslate2 writes outside its memory for a token it does not have, and the process is gone.
        vocabulary = self._model.hf_tokenizer.get_vocab_size()
        for token in options.suppress_tokens:
            if not -1 <= token < vocabulary:
                raise InvalidInput(
                    f"suppress_tokens holds {token}; this model's tokens are 0 to {vocabulary - 1}"
                )
        if options.no_repeat_ngram_size < 0 or options.temperature < 0:
            raise InvalidInput("no_repeat_ngram_size and temperature cannot be negative")
        if options.max_new_tokens is not None and options.max_new_tokens < 1:
            raise InvalidInput("max_new_tokens must be at least 1")

    def _features(self, windows: Sequence[Audio]) -> Audio:
        """Mel spectrograms, [windows, mels, 3000 frames of 10 ms]."""
        extract = self._model.feature_extractor
        return np.stack([pad_or_trim(extract(window)[..., :-1]) for window in windows])

    def _languages(self, encoded: Any) -> list[str]:
        """The most probable language of each encoded window."""
        if not self.is_multilingual:
            return ["en"] * encoded.shape[0]
        # A language comes as its token, such as <|en|>.
        return [found[0][0][2:-2] for found in self._model.model.detect_language(encoded)]

    def _tokenizer(self, language: str, task: str) -> Any:
        if self.is_multilingual and self._model.hf_tokenizer.token_to_id(f"<|{language}|>") is None:
            raise ModelLanguage(f"this model has no language {language!r}")
        return Tokenizer(self._model.hf_tokenizer, self.is_multilingual, task=task, language=language)

    def _prompt(self, tokenizer: Any, options: Options) -> list[int]:
        previous = tokenizer.encode(" " + options.initial_prompt.strip()) if options.initial_prompt else []
        prompt: list[int] = self._model.get_prompt(
            tokenizer, previous, without_timestamps=True, hotwords=options.hotwords
        )
        return prompt

    def _generate(self, encoded: Any, tokenizers: Sequence[Any], options: Options) -> list[_Decoding]:
        prompts = [self._prompt(tokenizer, options) for tokenizer in tokenizers]
        longest = max(len(prompt) for prompt in prompts)
        room = min(MAX_NEW_TOKENS, self._model.max_length - longest)
        if room < MIN_NEW_TOKENS:
            raise InvalidInput(
                f"initial_prompt and hotwords take {longest} of {self._model.max_length} tokens and leave no"
                " room for text: shorten them"
            )
        new_tokens = min(options.max_new_tokens or room, room)
        search = {"beam_size": options.beam_size, "patience": options.patience}
        if options.temperature > 0:
            search = {"beam_size": 1, "sampling_topk": 0, "sampling_temperature": options.temperature}
        try:
            results = self._model.model.generate(
                encoded,
                prompts,
                length_penalty=options.length_penalty,
                repetition_penalty=options.repetition_penalty,
                no_repeat_ngram_size=options.no_repeat_ngram_size,
                # CTranslate2 generates min(max_length / 2, max_length - prompt) tokens.
                max_length=max(2 * new_tokens, longest + new_tokens),
                suppress_blank=options.suppress_blank,
                # A copy: faster-whisper appends to the list it gets.
                suppress_tokens=get_suppressed_tokens(tokenizers[0], list(options.suppress_tokens)),
                return_scores=True,
                **search,
            )
        except ValueError as error:
            raise InvalidInput(f"the model refuses these options: {error}") from error
        return [
            _decoding(result, tokenizer, options.length_penalty, new_tokens)
            for result, tokenizer in zip(results, tokenizers, strict=True)
        ]

    def _align(
        self,
        encoded: Any,
        windows: Sequence[Audio],
        tokenizers: Sequence[Any],
        decodings: Sequence[_Decoding],
        options: Options,
    ) -> list[list[Word]]:
        """Words with their times in each window, from the cross-attention of decoder and encoder."""
        frames = [-(-len(window) // (10 * SAMPLES_PER_MS)) for window in windows]
        tokens = [
            [token for token in decoding.tokens if token < tokenizer.eot]
            for decoding, tokenizer in zip(decodings, tokenizers, strict=True)
        ]
        words: list[list[Word]] = [[] for _ in windows]
        # Once per language, because the start sequence and what a word is depend on it.
        for tokenizer in dict.fromkeys(tokenizers):
            aligned = self._model.find_alignment(tokenizer, tokens, encoded, frames)
            for index, alignment in enumerate(aligned):
                if tokenizers[index] is tokenizer:
                    merge_punctuations(alignment, options.prepend_punctuations, options.append_punctuations)
                    words[index] = [_word(timing) for timing in alignment if timing["word"]]
        return words


def _decoding(result: Any, tokenizer: Any, length_penalty: float, most_tokens: int) -> _Decoding:
    tokens = result.sequences_ids[0]
    # The score is the sum of log-probabilities divided by this power; the mean counts the end token too.
    logprob = result.scores[0] * len(tokens) ** length_penalty
    return _Decoding(
        tokens,
        avg_logprob=logprob / (len(tokens) + 1),
        compression_ratio=get_compression_ratio(tokenizer.decode(tokens)),
        ran_out=len(tokens) >= most_tokens,
    )


def _word(timing: Mapping[str, Any]) -> Word:
    start_ms, end_ms = (round(float(timing[edge]) * 1000) for edge in ("start", "end"))
    return Word(timing["word"], start_ms, end_ms, float(timing["probability"]))
