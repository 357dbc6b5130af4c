"""The figures that stay when a part of a benchmark cannot run here."""

import pytest

from benchmarks.__main__ import kept

NEW = {"machine": {"cores": 2}, "real clips": {"skipped": "no clips"}, "synthetic sample": {"RTFx": 3}}


def test_a_part_that_was_skipped_keeps_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    before = {"machine": {"cores": 8}, "real clips": {"RTFx": 1}, "synthetic sample": {"RTFx": 2}}
    after = kept("accuracy", NEW, before)
    assert after == {**NEW, "real clips": {"RTFx": 1, "machine": {"cores": 8}}}
    assert "accuracy, real clips: skipped, no clips" in capsys.readouterr().out
    # And keeps its machine, however often it is skipped.
    assert kept("accuracy", NEW, after) == after


def test_a_part_that_was_never_measured_says_why() -> None:
    assert kept("accuracy", NEW, {}) == NEW
