"""What is wrong with a window's decoding, how it is decoded again, and which decoding is the best.

The thresholds are those of Whisper's own fallback (https://arxiv.org/abs/2212.04356, section 4.5). Its rungs
are temperatures; sampling cannot be reproduced, so ours are other searches, unless the client gives some.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from tasks.job import Options

# UTF-8 bytes of text for a second of speech: slow English has 10, Hebrew 15, Chinese 12.
MIN_BYTES_PER_S, MAX_BYTES_PER_S = 3.0, 40.0
# Less of it tells nothing.
MIN_SPOKEN_MS = 2_000
# So many bytes of letters, and the same again: it was said twice, or it is a loop of one round. People do say
# shorter things twice, such as "thank you very much".
ECHO_BYTES = 20
_ECHO = re.compile(rb"(.{%d,})\1" % ECHO_BYTES, re.DOTALL)
CAREFUL_BEAMS = 5
CAREFUL_NGRAM_SIZE = 3


@dataclass(frozen=True, slots=True)
class Decoding:
    """Text of one window. `ran_out`: it goes on to the last token that was allowed; `language`: it is in."""

    tokens: tuple[int, ...]
    text: str
    avg_logprob: float
    compression_ratio: float
    no_speech: float
    ran_out: bool
    language: str = ""


def _letters(text: str) -> bytes:
    return "".join(filter(str.isalnum, text)).encode("utf-8", "surrogatepass")


def size_of(text: str) -> int:
    """UTF-8 bytes of a text's letters: in every script about as many for a second of speech."""
    return len(_letters(text))


def bytes_per_s(text: str, spoken_ms: int) -> float:
    """How fast a text was said."""
    return 1000 * size_of(text) / max(1, spoken_ms)


def repeats(decoding: Decoding, options: Options) -> bool:
    """Whether the text says something twice in a row, or is so easy to compress that it must."""
    threshold = options.compression_ratio_threshold
    if threshold is None:
        return False
    return (
        decoding.compression_ratio > threshold or _ECHO.search(_letters(decoding.text.casefold())) is not None
    )


def is_improbable(decoding: Decoding, options: Options) -> bool:
    """Whether the model itself does not think much of the text."""
    threshold = options.log_prob_threshold
    return threshold is not None and decoding.avg_logprob < threshold


def faults(decoding: Decoding, spoken_ms: int, options: Options) -> int:
    """How many signs there are that a window with so much speech was not understood."""
    return flaws(decoding, spoken_ms, options) + repeats(decoding, options)


def flaws(decoding: Decoding, spoken_ms: int, options: Options) -> int:
    """How many of them are more than a suspicion: people do repeat themselves."""
    rate = bytes_per_s(decoding.text, spoken_ms)
    enough = spoken_ms >= MIN_SPOKEN_MS
    # The client may have asked for a few tokens only.
    too_little = enough and options.max_new_tokens is None and rate < MIN_BYTES_PER_S
    too_much = enough and rate > MAX_BYTES_PER_S
    return is_improbable(decoding, options) + too_little + too_much


def rank(
    decoding: Decoding, spoken_ms: int, options: Options, *, refrain: bool = True
) -> tuple[bool, int, float]:
    """The larger, the better. `refrain`: what repeats itself may have been said so."""
    # A loop goes on to the last token, and the model is very sure of it. A refrain or a prayer ends, and what
    # may not repeat itself is a bad text for it.
    looped = not refrain and repeats(decoding, options)
    return not decoding.ran_out, -flaws(decoding, spoken_ms, options) - looped, decoding.avg_logprob


def is_loop(decoding: Decoding, spoken_ms: int, options: Options) -> bool:
    """Whether what repeats itself cannot have been said so often."""
    too_fast = bytes_per_s(decoding.text, spoken_ms) > MAX_BYTES_PER_S
    return decoding.ran_out or (too_fast and repeats(decoding, options))


def rungs(options: Options) -> Iterator[Options]:
    """The ways to decode a poor window again, in order; those that change nothing are left out."""
    if options.samples:
        yield from (replace(options, temperature=given) for given in options.temperatures[1:])
        return
    ngram_size = options.no_repeat_ngram_size
    if not 0 < ngram_size <= CAREFUL_NGRAM_SIZE:
        ngram_size = CAREFUL_NGRAM_SIZE
    wider = replace(options, beam_size=max(options.beam_size, CAREFUL_BEAMS))
    careful = replace(wider, no_repeat_ngram_size=ngram_size)
    bare = replace(careful, initial_prompt=None, hotwords=None)
    for before, tried in pairwise((options, wider, careful, bare)):
        if tried != before:
            yield tried
