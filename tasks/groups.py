"""Questions of many threads, asked together: one round trip, and one wait for the disk, for all who wait."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")

# Of one round trip: Redis serves nobody else meanwhile.
MOST = 100


@dataclass(eq=False, slots=True)
class _Turn(Generic[Question, Answer]):
    """One who waits; woken once it has an answer, or is the next to ask."""

    question: Question
    woken: threading.Event = field(default_factory=threading.Event)
    # Of one element, once it has one.
    answer: list[Answer | BaseException] = field(default_factory=list)


class Group(Generic[Question, Answer]):
    """`group(question)` waits for its answer, which `ask` gives for all that have gathered meanwhile.

    `ask` gives an answer, or an exception to raise, for each question in their order; what it raises itself
    is raised to all of them. It runs in the thread of one of those who wait, one call at a time; who comes
    alone asks at once.
    """

    def __init__(self, ask: Callable[[Sequence[Question]], Sequence[Answer | Exception]]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._asking = False
        self._waiting: list[_Turn[Question, Answer]] = []

    def __call__(self, question: Question) -> Answer:
        """The answer; raises what `ask` has for it."""
        turn: _Turn[Question, Answer] = _Turn(question)
        with self._lock:
            self._waiting.append(turn)
            waits, self._asking = self._asking, True
        if waits:
            turn.woken.wait()
        if not turn.answer:
            self._ask_for_all()
        (answer,) = turn.answer
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _ask_for_all(self) -> None:
        """Ask for this thread, which came first of those who wait, and for the next ones."""
        with self._lock:
            batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
        answers: Sequence[Answer | BaseException]
        try:
            answers = self._ask([turn.question for turn in batch])
        except BaseException as error:  # noqa: BLE001  raised by each who waits, this thread included
            answers = [error] * len(batch)
        # Whoever came first asks next: an answer that is there shall not wait for others' questions.
        with self._lock:
            self._asking = bool(self._waiting)
            heirs = self._waiting[:1]
        for turn, answer in zip(batch, answers, strict=True):
            turn.answer.append(answer)
        for turn in (*heirs, *batch):
            turn.woken.set()
