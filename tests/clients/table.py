"""docs/compatibility.md: what the tests of this folder found, by client and case."""

import re
from pathlib import Path
from typing import Any

import pytest

TABLE = Path(__file__).parents[2] / "docs" / "compatibility.md"
HEAD = """# Compatibility

What the clients of RunPod, unmodified, from their registries, each in an environment of its own, did against
Longhand. Written by `make test-clients`; the numbers are those of the conformance cases. ivrit's address is
fixed: a resolver and a certificate of the test lead it here. "HTTP" is what no client here sends: RunPod's
client for Go, say, which asks by POST.

| client | case | what | result |
| --- | --- | --- | --- |
"""
TAIL = """
Not run: the clients for Go and flash themselves; ivrit before 0.1.6, whose dialects are not spoken, and of
which 0.1.4 and 0.1.5 need packages of several GB; of case 17, the steps of diarization and entries of unknown
types, neither of which Longhand sends. Cases 25 to 32 are those of RunPod's handler, which the SDK's own
worker loop runs in `tests/integration/test_handler.py`, part of `make test`.
"""
# The name of the property under which a test's report has its row.
ROW = "compatibility"


def row_of(client: str, docstring: str | None, *, passed: bool) -> list[str]:
    """A row of the table, from a test whose docstring begins with `<cases>: <what>.`"""
    case, _, what = (docstring or "").strip().splitlines()[0].partition(": ")
    return [client, case, what.rstrip("."), "passed" if passed else "**failed**"]


class Table:
    """A plugin that gathers the rows of a whole run, and writes them: red where the file had others."""

    def __init__(self) -> None:
        self._rows: set[tuple[str, ...]] = set()
        self._whole = True
        self._changed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # Reports of other processes come as JSON.
        rows: list[Any] = [value for name, value in report.user_properties if name == ROW]
        self._rows |= {tuple(row) for row in rows}
        self._whole &= report.when == "call" or not report.failed

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if not self._whole or exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            return
        rows = sorted(self._rows, key=lambda row: (row[0], [int(n) for n in re.findall(r"\d+", row[1])], row))
        text = HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows) + TAIL
        self._changed = not TABLE.exists() or TABLE.read_text(encoding="utf-8") != text
        TABLE.write_text(text, encoding="utf-8")
        if self._changed:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._changed:
            terminalreporter.write_line(
                f"{TABLE.name} was not what was found, and is now: see `git diff`", red=True
            )
