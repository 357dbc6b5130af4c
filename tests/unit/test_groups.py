"""Questions of many threads in one round trip: everybody has their own answer, and nobody is forgotten."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tasks.groups import MOST, Group
from tests.conftest import Eventually

WITHIN_S = 20


class Slow:
    """Answers n with 10 n, batch by batch, each once it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self._gates: list[threading.Event] = []
        self.gone = 0

    def __call__(self, questions: Sequence[int]) -> list[int]:
        gate = threading.Event()
        self._gates.append(gate)
        self.batches.append(list(questions))
        assert gate.wait(WITHIN_S)
        return [10 * question for question in questions]

    def let_go(self, number: int) -> None:
        self.gone += 1
        self._gates[number].set()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(MOST + 20) as pool:
        yield pool


def asked(
    threads: ThreadPoolExecutor, group: Group[int, int], questions: Sequence[int], eventually: Eventually
) -> list[Future[int]]:
    """Those who ask, once all of them wait, behind one who asks already."""
    before = len(group._waiting)
    found = [threads.submit(group, question) for question in questions]
    eventually(lambda: len(group._waiting) == before + len(questions))
    return found


def test_who_comes_alone_asks_alone() -> None:
    group: Group[int, int] = Group(lambda questions: [10 * question for question in questions])
    assert [group(1), group(2)] == [10, 20]


def test_all_who_come_while_one_asks_ask_together(
    threads: ThreadPoolExecutor, eventually: Eventually
) -> None:
    slow = Slow()
    group: Group[int, int] = Group(slow)
    first = threads.submit(group, 0)
    eventually(lambda: slow.batches)
    others = asked(threads, group, range(1, 6), eventually)
    slow.let_go(0)
    # It is answered although the others are not.
    assert first.result(WITHIN_S) == 0
    eventually(lambda: len(slow.batches) == 2)
    slow.let_go(1)
    assert [other.result(WITHIN_S) for other in others] == [10, 20, 30, 40, 50]
    assert sorted(slow.batches[1]) == [1, 2, 3, 4, 5]


def test_a_batch_is_bounded_and_the_rest_comes_next(
    threads: ThreadPoolExecutor, eventually: Eventually
) -> None:
    slow = Slow()
    group: Group[int, int] = Group(slow)
    first = threads.submit(group, 0)
    eventually(lambda: slow.batches)
    others = asked(threads, group, range(1, MOST + 4), eventually)
    for number in range(3):
        eventually(lambda: len(slow.batches) == slow.gone + 1)
        slow.let_go(number)
    assert first.result(WITHIN_S) == 0
    assert [other.result(WITHIN_S) for other in others] == [10 * number for number in range(1, MOST + 4)]
    assert [len(batch) for batch in slow.batches] == [1, MOST, 3]


def test_an_error_is_of_its_question_alone() -> None:
    def odd(questions: Sequence[int]) -> list[int | Exception]:
        return [question if question % 2 else ValueError(question) for question in questions]

    group: Group[int, int] = Group(odd)
    with pytest.raises(ValueError, match="2"):
        group(2)
    assert group(3) == 3


def test_what_asking_raises_is_raised_to_all_who_asked(
    threads: ThreadPoolExecutor, eventually: Eventually
) -> None:
    slow = Slow()

    def away(questions: Sequence[int]) -> list[int]:
        slow(questions)
        if 7 in questions:
            raise ConnectionError("away")
        return list(questions)

    group: Group[int, int] = Group(away)
    first = threads.submit(group, 0)
    eventually(lambda: slow.batches)
    others = asked(threads, group, [6, 7, 8], eventually)
    slow.let_go(0)
    eventually(lambda: len(slow.batches) == 2)
    slow.let_go(1)
    assert first.result(WITHIN_S) == 0
    for other in others:
        with pytest.raises(ConnectionError, match="away"):
            other.result(WITHIN_S)
    # And it goes on.
    after = threads.submit(group, 9)
    eventually(lambda: len(slow.batches) == 3)
    slow.let_go(2)
    assert after.result(WITHIN_S) == 9


def test_many_threads_all_have_their_own_answers(threads: ThreadPoolExecutor) -> None:
    group: Group[int, int] = Group(lambda questions: [10 * question for question in questions])
    assert list(threads.map(group, range(5_000))) == [10 * number for number in range(5_000)]
