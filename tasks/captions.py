"""Captions: segments made of words, and words made of a text that nobody aligned. All times are ms."""

import re
import unicodedata
from collections.abc import Sequence
from itertools import accumulate, pairwise

from tasks.chunks import Span
from tasks.transcript import Segment, Word

# Latin, Greek and Cyrillic share the first four; then Arabic, Armenian, Chinese and Japanese, Hindi, Urdu.
SENTENCE_ENDS = (".", "?", "!", "…", "؟", "։", "。", "！", "？", "।", "۔")
CLOSERS = "\"'”’»›)]}」』"
COMMAS = (",", "،", "、", "，")
# Between two words, which ends a caption.
PAUSE_MS = 700
# Of the scripts that put no spaces between words: Thai to Khmer, Chinese and Japanese, and wide forms.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff"
    "\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_UNIT = re.compile(rf"\s*(?:[{_UNSPACED}]|[^\s{_UNSPACED}]+)")
# Marks, and punctuation that opens nothing.
_FOLLOWING = ("Mn", "Mc", "Me", "Pe", "Pf", "Po", "Pd", "Pc")
# How much nearer an end of a sentence, or a comma, is to a pause than another place in the text.
_SENTENCE_MS, _COMMA_MS = 1_500, 600


def segments_from_words(
    words: Sequence[Word], *, max_ms: int = 7_000, max_chars: int = 84, pause_ms: int = PAUSE_MS
) -> list[Segment]:
    """Group words into captions: no word is lost, none is moved, and only a lone word exceeds a limit.

    A caption ends after a sentence, before a pause of `pause_ms`, or before it would grow too long; then
    preferably at the last comma of its second half.
    """
    segments: list[Segment] = []
    current: list[Word] = []
    for word in words:
        if current and (ends_sentence(current[-1].text) or word.start_ms - current[-1].end_ms >= pause_ms):
            segments.append(_segment(current))
            current = []
        # A loop, because what remains after a comma may still be too long with the new word.
        while current and (
            word.end_ms - current[0].start_ms > max_ms or len(_text([*current, word])) > max_chars
        ):
            cut = _cut(current)
            segments.append(_segment(current[:cut]))
            current = current[cut:]
        current.append(word)
    if current:
        segments.append(_segment(current))
    return segments


def _text(words: Sequence[Word]) -> str:
    return "".join(word.text for word in words).strip()


def _segment(words: Sequence[Word]) -> Segment:
    end_ms = max(word.end_ms for word in words)
    return Segment(_text(words), words[0].start_ms, end_ms, tuple(words))


def ends_sentence(text: str) -> bool:
    """Whether a sentence ends with the text."""
    return text.rstrip().rstrip(CLOSERS).endswith(SENTENCE_ENDS)


def _cut(words: Sequence[Word]) -> int:
    """How many of the words the caption keeps."""
    length = len(_text(words))
    for count in range(len(words), 0, -1):
        text = _text(words[:count])
        if 2 * len(text) < length:
            break
        if text.endswith(COMMAS):
            return count
    return len(words)


def words_from_text(text: str, spoken: Sequence[Span]) -> list[Word]:
    """Guess when each word of a text was said, from its place in the text and the pauses between `spoken`.

    No character is lost, and each word lies in one of the spans. In scripts without spaces, each character is
    a word. The probability is 0: nothing is known of it.
    """
    units = _units(text)
    if not units or not spoken:
        return []
    sizes = list(accumulate((len(unit) for unit in units), initial=0))
    words: list[Word] = []
    for span, (first, last) in zip(spoken, pairwise(_shares(units, sizes, spoken)), strict=True):
        length_ms, size = span.end_ms - span.start_ms, sizes[last] - sizes[first]
        edges = [
            span.start_ms + length_ms * (at - sizes[first]) // max(1, size) for at in sizes[first : last + 1]
        ]
        words += [
            Word(unit, start_ms, end_ms, 0.0)
            for unit, (start_ms, end_ms) in zip(units[first:last], pairwise(edges), strict=True)
        ]
    return words


def _units(text: str) -> list[str]:
    """The text in words with the space before them; marks and punctuation stay with what they follow."""
    units: list[str] = []
    for found in _UNIT.findall(text):
        if units and unicodedata.category(found[0]) in _FOLLOWING:
            units[-1] += found
        else:
            units.append(found)
    if units:
        units[-1] += text[sum(map(len, units)) :]
    return units


def _shares(units: Sequence[str], sizes: Sequence[int], spoken: Sequence[Span]) -> list[int]:
    """The number of the first unit of each span, and of the end: in proportion, and where a sentence ends."""
    total_ms = sum(span.end_ms - span.start_ms for span in spoken)
    shares, heard_ms = [0], 0
    for span in spoken[:-1]:
        heard_ms += span.end_ms - span.start_ms

        def cost(index: int, heard_ms: int = heard_ms) -> tuple[int, int]:
            off_ms = abs(sizes[index] * total_ms // sizes[-1] - heard_ms)
            return off_ms - _bonus_ms(units[index - 1] if index else ""), index

        shares.append(min(range(shares[-1], len(units) + 1), key=cost))
    return [*shares, len(units)]


def _bonus_ms(unit: str) -> int:
    end = unit.rstrip().rstrip(CLOSERS)
    if end.endswith(SENTENCE_ENDS):
        return _SENTENCE_MS
    return _COMMA_MS if end.endswith(COMMAS) else 0
