"""`python -m benchmarks.plot`: writes tables and picture of docs/performance.md anew from results.json.

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`; the rest of the page is left alone.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.accuracy import BATCHED, LONGHAND, SEQUENTIAL, WORDS
from benchmarks.chart import Panel, drawn

HERE = Path(__file__).parents[1]
RESULTS = HERE / "benchmarks" / "results.json"
PAGE = HERE / "docs" / "performance.md"
PICTURE = HERE / "docs" / "images" / "performance.svg"
MODES = (LONGHAND, BATCHED, SEQUENTIAL)
RECORDINGS = ("real clips", "synthetic sample")
AIM_CPU_S = 3.5
# Of figures that are to be measured again: why.
PROVISIONAL = "provisional"

Figures = Mapping[str, Any]


def main() -> None:
    """Write what results.json holds; what was not measured stays as it is."""
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    page = PAGE.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        if found := measured(results, name):
            note = results[name].get(PROVISIONAL, "")
            page = between_marks(page, name, f"{note}\n\n{table(found)}".strip())
    PAGE.write_text(page, encoding="utf-8")
    PICTURE.write_text(drawn(panels(results)), encoding="utf-8")


def between_marks(page: str, name: str, text: str) -> str:
    """The page with other text between the marks of `name`; raises ValueError where they are not there."""
    marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not marks.search(page):
        raise ValueError(f"the page has no marks of {name}")
    return marks.sub(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", page)


def panels(results: Figures) -> list[Panel]:
    """What the picture shows of what was measured."""
    made = []
    for recording in RECORDINGS:
        found = results.get("accuracy", {}).get(recording, {})
        if "skipped" in found or not found:
            continue
        for figure, title in (("RTFx", "times real time"), ("WER, %", "word error rate, %")):
            groups = {words: {mode: found[words][mode][figure] for mode in MODES} for words in WORDS}
            made.append(Panel(f"{recording}: {title}", groups))
    if serial := measured(results, "serial"):
        lengths = {
            name: {length: each["CPU, s per audio hour"] for length, each in by_length.items()}
            for name, by_length in serial.items()
        }
        made.append(Panel("ingest: CPU seconds an audio hour", lengths, AIM_CPU_S))
    if scaling := measured(results, "scaling"):
        rates = {
            name: {series: each[f"{series}, chunks/s"] for series in (LONGHAND, "bare processes")}
            for name, each in scaling.items()
            if isinstance(each, dict)
        }
        made.append(Panel("chunks of 30 s a second", rates, decimals=2))
    return made


def measured(results: Figures, name: str) -> dict[str, Any]:
    """The figures of a benchmark, without what is said about them."""
    return {key: value for key, value in results.get(name, {}).items() if key not in ("machine", PROVISIONAL)}


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table in Markdown."""
    names = list(head)
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _accuracy(found: Figures) -> str:
    head = ["recording", "", *(f"{figure} {words}" for words in WORDS for figure in ("RTFx", "WER, %"))]
    rows: list[list[object]] = []
    for recording in RECORDINGS:
        each = found[recording]
        if "skipped" in each:
            continue
        named = f"{recording}, {each['audio, s']:.0f} s"
        for mode in MODES:
            figures = [each[words][mode][figure] for words in WORDS for figure in ("RTFx", "WER, %")]
            rows.append([named, mode, *figures])
        for aim, to in (("≥ 1.25", "batched"), ("≥ 2.5", "sequential")):
            ratios = [(each[words][f"RTFx to {to}"], "") for words in WORDS]
            rows.append([named, f"to {to}, aim {aim}", *(cell for pair in ratios for cell in pair)])
        above = [("", each[words]["WER above the better whole file, points"]) for words in WORDS]
        rows.append([named, "above the better, aim ≤ 0.2", *(cell for pair in above for cell in pair)])
    return table(head, rows)


def _serial(found: Figures) -> str:
    rows = [
        [
            name,
            length,
            each["CPU, s per audio hour"],
            each["first chunk after its last byte, s"],
            each["chunks"],
            f"{each['source, MB']} / {each['blobs, MB']}",
            each["peak, MiB"],
        ]
        for name, by_length in found.items()
        for length, each in by_length.items()
    ]
    head = (
        *("format", "length", "CPU, s per audio hour (aim ≤ 3.5)"),
        *(
            "first chunk queued after its last byte, s (aim ≤ 1.5)",
            "chunks",
            "source / blobs, MB",
            "peak, MiB",
        ),
    )
    return table(head, rows)


def _resident(found: Figures) -> str:
    lengths = list(found)
    roles = list(found[lengths[0]])
    return table(
        ["peak, MiB", *lengths], [[role, *(_middle(found[name][role]) for name in lengths)] for role in roles]
    )


def _middle(rounds: list[float]) -> str:
    """The median of figures that are in order, and the others' range."""
    middle = str(rounds[len(rounds) // 2])
    return middle if rounds[0] == rounds[-1] else f"{middle} ({rounds[0]} to {rounds[-1]})"


def _scaling(found: Figures) -> str:
    counts = [name for name, each in found.items() if isinstance(each, dict)]
    figures = list(found[counts[0]])
    return table(["", *counts], [[figure, *(found[name][figure] for name in counts)] for figure in figures])


def _seams(found: Figures) -> str:
    rows: list[tuple[str, object]] = []
    for name, value in found.items():
        if isinstance(value, dict):
            low, high = value["95 % interval"]
            rows.append((name, f"{value['points']} points, {low} to {high}"))
        else:
            rows.append((name, value))
    return table(["what", "figure"], rows)


TABLES: dict[str, Callable[[Figures], str]] = {
    "accuracy": _accuracy,
    "seams": _seams,
    "serial": _serial,
    "resident": _resident,
    "scaling": _scaling,
}


if __name__ == "__main__":
    main()
