"""Rings beside the requests: who asked is rung for after that, however many ask at once."""

import threading

from redis.exceptions import ConnectionError as RedisConnectionError

from dispatcher.ringing import Ringer
from tests.conftest import Eventually

WITHIN_S = 20


class Bell:
    """Counts the rings that began; each may be held up."""

    def __init__(self) -> None:
        self.begun = 0
        self.free = threading.Event()
        self.free.set()

    def __call__(self) -> None:
        self.begun += 1
        assert self.free.wait(WITHIN_S)


def test_who_asks_during_a_ring_is_rung_for_by_another(eventually: Eventually) -> None:
    bell = Bell()
    ringer = Ringer(bell)
    bell.free.clear()
    ringer()
    eventually(lambda: bell.begun == 1)
    for _ in range(50):
        ringer()
    assert bell.begun == 1
    bell.free.set()
    eventually(lambda: bell.begun == 2)
    ringer.close()
    # Fifty have one ring, and the end of a ringer one more.
    assert bell.begun <= 3


def test_the_end_rings_for_all_who_asked(eventually: Eventually) -> None:
    bell = Bell()
    ringer = Ringer(bell)
    bell.free.clear()
    ringer()
    eventually(lambda: bell.begun == 1)
    ringer()
    closing = threading.Thread(target=ringer.close)
    closing.start()
    bell.free.set()
    closing.join(WITHIN_S)
    assert not closing.is_alive()
    assert bell.begun >= 2


def test_a_ring_that_fails_does_not_end_it(eventually: Eventually) -> None:
    answers = iter([RedisConnectionError("away")])
    rung = threading.Event()

    def ring() -> None:
        for error in answers:
            raise error
        rung.set()

    ringer = Ringer(ring)
    ringer()

    def again() -> bool:
        ringer()
        return rung.is_set()

    eventually(again)
    ringer.close()


def test_a_ringer_that_nobody_asked_ends() -> None:
    bell = Bell()
    Ringer(bell).close()
    assert bell.begun == 0
