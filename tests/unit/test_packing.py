"""Bodies of webhooks as they are kept: back byte for byte, whatever their size."""

import random
import zlib

import pytest

from tasks.scripts import LARGE, pack, unpack


@pytest.mark.parametrize("length", [0, 1, 300, LARGE, LARGE + 1, 3 * LARGE])
def test_a_body_comes_back_byte_for_byte(length: int) -> None:
    body = "".join(random.Random(length).choices("אבגד {}[]:,0123456789", k=length))
    assert unpack(pack(body)) == body.encode()


def test_a_body_that_was_kept_before_there_were_two_forms_is_read() -> None:
    assert unpack(zlib.compress(b"x" * 2 * LARGE)) == b"x" * 2 * LARGE


def test_a_transcript_takes_the_smaller_form() -> None:
    words = random.Random(1).choices([f"word{number}" for number in range(5_000)], k=30_000)
    body = " ".join(words)
    assert len(pack(body)) < 0.9 * len(zlib.compress(body.encode()))
