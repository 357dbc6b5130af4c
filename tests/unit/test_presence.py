"""What parents say, and which slots are open: from these, how many processes can work."""

import pytest

from tasks.presence import Census, Report, count

TWO = Report(2, started=True)


@pytest.mark.parametrize(
    ("reports", "slots", "census"),
    [
        pytest.param({}, [], Census(0, 0, 0), id="no worker"),
        pytest.param({"a": TWO}, ["a/1", "a/2"], Census(2, 0, 0), id="all can work"),
        pytest.param({"a": TWO}, ["a/1"], Census(1, 0, 1), id="one cannot"),
        pytest.param({"a": TWO}, ["a/1", "a/2", "a/3"], Census(2, 0, 0), id="one took another's place"),
        pytest.param({"a": Report(2, started=False)}, ["a/1"], Census(1, 1, 0), id="one still loads"),
        pytest.param({"a": TWO, "b": TWO}, ["a/1", "a/2", "a/3"], Census(2, 0, 2), id="none for another"),
        pytest.param({"b": TWO}, ["a/1", "a/2", "b/1", "b/2"], Census(2, 0, 2), id="a parent is silent"),
        pytest.param({"a": Report(0, started=True)}, ["a/1"], Census(0, 0, 0), id="a worker that ends"),
    ],
)
def test_what_should_be_open_and_is_not_is_unhealthy(
    reports: dict[str, Report], slots: list[str], census: Census
) -> None:
    assert count(reports, slots) == census
