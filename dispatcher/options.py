"""What a client may ask of the engine: each option of faster-whisper is honoured, or refused by its name.

docs/options.md is the same as a table, which a test holds against this.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tasks.errors import InvalidInput, UnknownOption, UnsupportedOption
from tasks.job import VAD_PARAMETERS, Options

# Making one takes longer than all else about an input.
OPTIONS = TypeAdapter(Options)
OPTION_NAMES = tuple(field.name for field in fields(Options))
# What one client may ask of a worker's time.
RANGES: dict[str, tuple[float, float]] = {
    "beam_size": (1, 20),
    "best_of": (1, 20),
    "patience": (0.1, 4),
    "length_penalty": (-5, 5),
    "repetition_penalty": (0.1, 10),
    "no_repeat_ngram_size": (0, 100),
    "temperature": (0, 2),
    "compression_ratio_threshold": (0, 100),
    "log_prob_threshold": (-100, 0),
    "no_speech_threshold": (0, 1),
    "max_new_tokens": (1, 224),
    "chunk_length": (1, 30),
    "batch_size": (1, 1000),
    "language_detection_threshold": (0, 1),
    "language_detection_segments": (1, 20),
}
MAX_TEMPERATURES = 10


@dataclass(frozen=True, slots=True)
class Fixed:
    """An option of faster-whisper that is accepted only with what is done anyway."""

    accepted: tuple[object, ...]
    why: str


_ALONE = "every window is decoded by itself, beside others, and none is told what was said before"
_NO_TIMESTAMPS = "times come from alignment, because batches with timestamp tokens lose text"
FIXED: dict[str, Fixed] = {
    "vad_filter": Fixed((True,), "no text is made of what is not speech"),
    "condition_on_previous_text": Fixed((False,), _ALONE),
    "prompt_reset_on_temperature": Fixed((0.5,), _ALONE),
    "prefix": Fixed((None,), f"{_ALONE}; initial_prompt and hotwords are told to each"),
    "without_timestamps": Fixed((True,), _NO_TIMESTAMPS),
    "max_initial_timestamp": Fixed((1.0,), _NO_TIMESTAMPS),
    "clip_timestamps": Fixed((None, "0"), "the whole recording is transcribed"),
    "hallucination_silence_threshold": Fixed((None,), "silence is left out before anything is decoded"),
}

# Of stable-ts 2.19, and of no engine here: from its transcribe functions for Whisper and faster-whisper.
_STABLE_TS = """
    aligner audio_type avg_prob_threshold check_sorted demucs demucs_options denoiser denoiser_options
    dynamic_heads extra_models force_order gap_padding ignore_compatibility inference_kwargs input_sr
    k_size max_instant_words mel_first min_silence_dur min_word_dur model_sr nonspeech_error
    nonspeech_skip only_ffmpeg only_voice_freq progress_callback q_levels regroup split_callback stream
    suppress_attention suppress_silence suppress_ts_tokens suppress_word_ts temp_file time_scale
    ts_noise ts_num use_word_position vad vad_onnx vad_threshold
"""
STABLE_TS = frozenset(_STABLE_TS.split())


def parse_options(given: Mapping[str, Any], *, word_timestamps: bool) -> Options:
    """The options among `given`; other names are left alone. `word_timestamps` is that option's default.

    Raises InvalidInput for a value that is not right, UnsupportedOption for one that cannot be honoured, and
    UnknownOption for a VAD parameter that does not exist.
    """
    raw = {"word_timestamps": word_timestamps} | {name: given[name] for name in OPTION_NAMES if name in given}
    if raw.get("vad_parameters", 0) is None:
        # As faster-whisper's own default has it.
        del raw["vad_parameters"]
    try:
        options = OPTIONS.validate_python(raw)
    except ValidationError as error:
        raise named(error, "transcribe_args", OPTION_NAMES) from error
    for name, (least, most) in RANGES.items():
        value = getattr(options, name)
        for number in value if isinstance(value, list) else [value]:
            if number is not None and not least <= number <= most:
                raise InvalidInput(f"transcribe_args.{name} must be from {least} to {most}, not {number}")
    if not 1 <= len(options.temperatures) <= MAX_TEMPERATURES:
        raise InvalidInput(f"transcribe_args.temperature may have 1 to {MAX_TEMPERATURES} numbers")
    for name in options.vad_parameters:
        if name not in VAD_PARAMETERS:
            raise unknown(f"transcribe_args.vad_parameters.{name}", VAD_PARAMETERS)
    return options


def refuse_others(given: Mapping[str, Any], accepted: Iterable[str]) -> None:
    """Raise UnsupportedOption for what another engine, or another way to run this one, would honour.

    `accepted` are the names to tell of instead.
    """
    for name, value in given.items():
        if name in STABLE_TS:
            reason = "is an option of stable-ts, and faster-whisper is what transcribes here"
        elif name in FIXED and not any(value == each for each in FIXED[name].accepted):
            allowed = " or ".join(map(json.dumps, FIXED[name].accepted))
            reason = f"can only be {allowed} here: {FIXED[name].why}"
        else:
            continue
        raise UnsupportedOption(
            f"transcribe_args.{name} {reason}. Accepted are: {', '.join(sorted(accepted))}"
        )


def named(error: ValidationError, where: str, accepted: Iterable[str]) -> InvalidInput:
    """The first mistake, as a sentence that names the field."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in (where, *first["loc"]))
    if first["type"] == "extra_forbidden":
        return unknown(place, accepted)
    return InvalidInput(f"{place}: {first['msg']}")


def unknown(place: str, accepted: Iterable[str]) -> UnknownOption:
    return UnknownOption(f"{place} is not known; accepted are: {', '.join(accepted)}")
