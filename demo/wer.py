"""Word error rate of a transcript against the text that was spoken."""

import re
import unicodedata


def words(text: str) -> list[str]:
    """Lower-case words without punctuation; an apostrophe stays inside its word."""
    plain = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    return [word.strip("'") for word in re.findall(r"[\w']+", plain) if word.strip("'")]


def word_error_rate(spoken: str, heard: str) -> float:
    """Substitutions, deletions and insertions per spoken word (Levenshtein distance over words)."""
    reference, found = words(spoken), words(heard)
    row = list(range(len(found) + 1))
    for i, expected in enumerate(reference, 1):
        diagonal, row[0] = row[0], i
        for j, word in enumerate(found, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (expected != word))
    return row[-1] / max(1, len(reference))
