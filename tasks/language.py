"""Which language is spoken: a vote of windows of speech, each weighted by how sure Whisper is. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Of a probability: what is told and compared, so that the last bits of two processors do not matter.
DIGITS = 4


@dataclass(frozen=True, slots=True)
class Ballot:
    """What Whisper makes of one window: a probability for each language, 1 in all, and the speech in it."""

    probabilities: Mapping[str, float]
    speech_ms: int


@dataclass(frozen=True, slots=True)
class Elected:
    """The language of a vote, and the mean of its probabilities."""

    language: str
    probability: float


def elect(ballots: Sequence[Ballot]) -> Elected:
    """The language with the highest mean probability, each window counted by its speech.

    Of equals it is the first by name. A mean of whole distributions, and not a count of winners: windows that
    can hardly tell Norwegian from Danish do not outvote one that is sure of English. Raises ValueError where
    nobody votes.
    """
    whole_ms = sum(ballot.speech_ms for ballot in ballots)
    if whole_ms <= 0:
        raise ValueError("a vote needs speech")
    names = sorted({name for ballot in ballots for name in ballot.probabilities})
    means = {
        name: sum(ballot.probabilities.get(name, 0.0) * ballot.speech_ms for ballot in ballots) / whole_ms
        for name in names
    }
    language = max(names, key=means.__getitem__)
    return Elected(language, round(means[language], DIGITS))


def is_sure(probability: float, threshold: float) -> bool:
    """Whether a chunk may decide for its recording; 0 stands for a language that was known before."""
    return not probability or probability >= threshold
