"""Whisper through faster-whisper: what one loaded model does with windows of speech.

Importing this loads CTranslate2: only the process that decodes may do so (`tasks.engine` sees to it).
faster-whisper's own pipelines are not used: the batched one ignores the temperature and allows half of
`max_new_tokens`, the sequential one decides on its own windows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ctranslate2 import StorageView, get_cuda_device_count
from faster_whisper import WhisperModel
from faster_whisper.audio import pad_or_trim
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_compression_ratio, get_suppressed_tokens, merge_punctuations

from tasks.chunks import WINDOW_MS
from tasks.errors import InvalidInput, ModelLanguage
from tasks.job import Options
from tasks.ladder import Decoding
from tasks.memory import return_freed
from tasks.transcript import Word
from tasks.windows import SAMPLES_PER_MS, Audio

# Tokens of one window, half of Whisper's context; the other half is for the prompt.
MAX_NEW_TOKENS = 224
MIN_NEW_TOKENS = 64
# What a model hears is a multiple of so many frames of 10 ms: matrix products are fastest so.
ALIGNED_FRAMES = 16


@dataclass(frozen=True, slots=True)
class Heard:
    """A batch of windows as the encoder heard them.

    `features` is [windows, mels, frames of 10 ms], `encoded` CTranslate2's [windows, frames / 2, states]; of
    each window, `frames` are not padding.
    """

    features: Audio
    encoded: Any
    tokenizers: tuple[Any, ...]
    frames: tuple[int, ...]


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

    def languages(self, audio: Audio) -> dict[str, float]:
        """The probability of each language that the model knows in a window of at most 30 s; 1 in all."""
        if not self.is_multilingual:
            return {"en": 1.0}
        encoded = self._encoded(self._features([audio], WINDOW_MS))
        (found,) = self._model.model.detect_language(encoded)
        return {_language(token): float(probability) for token, probability in found}

    def decode(
        self, windows: Sequence[Audio], options: Options, context_ms: int
    ) -> tuple[Heard, list[Decoding]]:
        """Decode windows as one batch, each followed by silence up to `context_ms`, which is 30 s at most.

        Without a language, or with `multilingual`, each window has its own.
        Raises InvalidInput for an option the model cannot follow, ModelLanguage for a language it has not,
        and CTranslate2's RuntimeError.
        """
        self._check(options)
        features = self._features(windows, context_ms)
        encoded = self._encoded(features)
        languages = [options.language or ""] * len(windows)
        if options.multilingual or not options.language:
            languages = self._languages(encoded)
        by_language = {language: self._tokenizer(language, options.task) for language in languages}
        frames = tuple(-(-len(window) // (10 * SAMPLES_PER_MS)) for window in windows)
        heard = Heard(features, encoded, tuple(by_language[language] for language in languages), frames)
        return heard, self.generate(heard, options)

    def only(self, heard: Heard, index: int) -> Heard:
        """One window of a batch by itself."""
        features = heard.features[index : index + 1]
        if heard.encoded.device == "cpu":
            # The encoder is half of the work, and a row does not depend on the others.
            encoded = StorageView.from_array(np.array(heard.encoded)[index : index + 1])
        else:
            encoded = self._encoded(features)
        return Heard(features, encoded, (heard.tokenizers[index],), (heard.frames[index],))

    def _check(self, options: Options) -> None:
        # CTranslate2 writes outside its memory for a token it does not have, and the process is gone.
        vocabulary = self._model.hf_tokenizer.get_vocab_size()
        prompt = options.initial_prompt if isinstance(options.initial_prompt, list) else []
        for name, least, tokens in (
            ("suppress_tokens", -1, options.suppress_tokens),
            ("initial_prompt", 0, prompt),
        ):
            for token in tokens:
                if not least <= token < vocabulary:
                    raise InvalidInput(f"{name} holds {token}; this model's tokens are 0 to {vocabulary - 1}")
        if options.no_repeat_ngram_size < 0 or min(options.temperatures) < 0:
            raise InvalidInput("no_repeat_ngram_size and temperature cannot be negative")
        if options.max_new_tokens is not None and options.max_new_tokens < 1:
            raise InvalidInput("max_new_tokens must be at least 1")

    def _features(self, windows: Sequence[Audio], context_ms: int) -> Audio:
        """Mel spectrograms, [windows, mels, frames of 10 ms], with silence after each window."""
        frames = min(-(-context_ms // (10 * ALIGNED_FRAMES)) * ALIGNED_FRAMES, WINDOW_MS // 10)
        extract, samples = self._model.feature_extractor, frames * 10 * SAMPLES_PER_MS
        return np.stack([extract(pad_or_trim(window, samples), padding=0) for window in windows])

    def _encoded(self, features: Audio) -> Any:
        if self._model.model.device != "cpu":
            return self._model.encode(features)
        # What spectrograms have left behind is in pieces too small for the attention of a window, 37 MB.
        return_freed()
        # One after the other: the attention of several at once is more than the processor's cache holds.
        encoded = [np.array(self._model.encode(window)) for window in features]
        return StorageView.from_array(np.concatenate(encoded))

    def _languages(self, encoded: Any) -> list[str]:
        """The most probable language of each encoded window."""
        if not self.is_multilingual:
            return ["en"] * encoded.shape[0]
        return [_language(found[0][0]) for found in self._model.model.detect_language(encoded)]

    def _tokenizer(self, language: str, task: str) -> Any:
        if self.is_multilingual and self._model.hf_tokenizer.token_to_id(f"<|{language}|>") is None:
            raise ModelLanguage(f"this model has no language {language!r}")
        return Tokenizer(self._model.hf_tokenizer, self.is_multilingual, task=task, language=language)

    def _prompt(self, tokenizer: Any, options: Options) -> list[int]:
        previous = options.initial_prompt or []
        if isinstance(previous, str):
            previous = tokenizer.encode(" " + previous.strip())
        prompt: list[int] = self._model.get_prompt(
            tokenizer, previous, without_timestamps=True, hotwords=options.hotwords
        )
        return prompt

    def generate(self, heard: Heard, options: Options) -> list[Decoding]:
        """The best text of each window, by beam search, or by sampling where there is a temperature."""
        tokenizers = heard.tokenizers
        prompts = [self._prompt(tokenizer, options) for tokenizer in tokenizers]
        longest = max(len(prompt) for prompt in prompts)
        room = min(MAX_NEW_TOKENS, self._model.max_length - longest)
        if room < MIN_NEW_TOKENS:
            raise InvalidInput(
                f"initial_prompt and hotwords take {longest} of {self._model.max_length} tokens and leave no"
                " room for text: shorten them"
            )
        new_tokens = options.max_new_tokens or room
        if new_tokens > room:
            raise InvalidInput(
                f"max_new_tokens is {new_tokens}, and {longest} tokens of prompt leave room for {room}:"
                " ask for less, or shorten initial_prompt and hotwords"
            )
        search = {"beam_size": options.beam_size, "patience": options.patience}
        temperature = options.temperatures[0]
        if temperature > 0:
            search = {"beam_size": 1, "num_hypotheses": options.best_of}
            search |= {"sampling_topk": 0, "sampling_temperature": temperature}
        try:
            results = self._model.model.generate(
                heard.encoded,
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
                return_no_speech_prob=True,
                **search,
            )
        except ValueError as error:
            raise InvalidInput(f"the model refuses these options: {error}") from error
        return [
            _decoding(result, tokenizer, options.length_penalty, new_tokens)
            for result, tokenizer in zip(results, tokenizers, strict=True)
        ]

    def align(self, heard: Heard, decodings: Sequence[Decoding], options: Options) -> list[list[Word]]:
        """Words with their times in each window, from the cross-attention of decoder and encoder."""
        if heard.encoded.device != "cpu":
            return self._aligned(heard, decodings, options)
        # One after the other: scores of all the vocabulary for each token of several texts would take more
        # memory than anything else.
        rows = ((self.only(heard, index), decoding) for index, decoding in enumerate(decodings))
        return [self._aligned(row, [decoding], options)[0] for row, decoding in rows]

    def _aligned(self, heard: Heard, decodings: Sequence[Decoding], options: Options) -> list[list[Word]]:
        tokens = [
            [token for token in decoding.tokens if token < tokenizer.eot]
            for decoding, tokenizer in zip(decodings, heard.tokenizers, strict=True)
        ]
        words: list[list[Word]] = [[] for _ in decodings]
        # Once per language, because the start sequence and what a word is depend on it.
        for tokenizer in dict.fromkeys(heard.tokenizers):
            aligned = self._model.find_alignment(tokenizer, tokens, heard.encoded, list(heard.frames))
            for index, alignment in enumerate(aligned):
                if heard.tokenizers[index] is tokenizer:
                    merge_punctuations(alignment, options.prepend_punctuations, options.append_punctuations)
                    words[index] = [_word(timing) for timing in alignment if timing["word"]]
        return words


def _language(token: str) -> str:
    """A language comes as its token, such as <|en|>."""
    return token[2:-2]


def _decoding(result: Any, tokenizer: Any, length_penalty: float, most_tokens: int) -> Decoding:
    tokens = tuple(result.sequences_ids[0])
    # The score is the sum of log-probabilities divided by this power; the mean counts the end token too.
    logprob = result.scores[0] * max(1, len(tokens)) ** length_penalty
    text = tokenizer.decode(tokens)
    return Decoding(
        tokens,
        text,
        avg_logprob=logprob / (len(tokens) + 1),
        compression_ratio=get_compression_ratio(text),
        no_speech=result.no_speech_prob,
        ran_out=len(tokens) >= most_tokens,
        language=tokenizer.language_code,
    )


def _word(timing: Mapping[str, Any]) -> Word:
    start_ms, end_ms = (round(float(timing[edge]) * 1000) for edge in ("start", "end"))
    return Word(timing["word"], start_ms, end_ms, float(timing["probability"]))
