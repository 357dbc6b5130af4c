"""Word errors: text made plain as Whisper's authors do for their own figures, and aligned by jiwer."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import jiwer
from whisper_normalizer.english import EnglishTextNormalizer


@dataclass(frozen=True, slots=True)
class Errors:
    """Word errors by the number of the spoken word; an inserted word counts at the one before it."""

    all: Counter[int]
    # Words that were left out.
    lost: frozenset[int]
    # Words before words that were heard twice in a row, though spoken once.
    twice: frozenset[int]


def words_of(text: str) -> list[str]:
    """Plain words of an English text."""
    return str(_normalizer()(text)).split()


@cache
def _normalizer() -> EnglishTextNormalizer:
    return EnglishTextNormalizer()


def error_rate(spoken: str, heard: str) -> float:
    """Word error rate, %."""
    reference = words_of(spoken)
    return round(100 * errors(reference, words_of(heard)).all.total() / len(reference), 2)


def errors(spoken: Sequence[str], heard: Sequence[str]) -> Errors:
    """What was heard wrong, by Levenshtein's distance over words."""
    (alignment,) = jiwer.process_words(" ".join(spoken), " ".join(heard)).alignments
    found: Counter[int] = Counter()
    lost: set[int] = set()
    twice: set[int] = set()
    for part in alignment:
        numbers = range(part.ref_start_idx, part.ref_end_idx)
        if part.type in ("substitute", "delete"):
            found.update(numbers)
        if part.type == "delete":
            lost.update(numbers)
        if part.type == "insert":
            before = max(0, part.ref_start_idx - 1)
            found[before] += part.hyp_end_idx - part.hyp_start_idx
            if _said_before(heard, part.hyp_start_idx, part.hyp_end_idx):
                twice.add(before)
    return Errors(found, frozenset(lost), frozenset(twice))


def _said_before(heard: Sequence[str], start: int, end: int) -> bool:
    """Whether what was inserted is what comes right before or after it."""
    length, inserted = end - start, list(heard[start:end])
    return inserted in (list(heard[max(0, start - length) : start]), list(heard[end : end + length]))
