"""The picture and the tables of docs/performance.md."""

import xml.etree.ElementTree as ET

import pytest

from benchmarks.chart import Panel, drawn
from benchmarks.plot import between_marks

SVG = "{http://www.w3.org/2000/svg}"


def test_bars_are_as_tall_as_their_figures() -> None:
    picture = ET.fromstring(drawn([Panel("speed < light", {"a": {"x": 10.0, "y": 5.0}})]))  # noqa: S314
    heights = [float(bar.get("height", 0)) for bar in picture.iter(f"{SVG}rect")]
    # The ground, two squares of the legend, and the bars.
    assert heights[3] == pytest.approx(2 * heights[4], abs=0.2)


def test_text_goes_between_its_marks_and_nowhere_else() -> None:
    page = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n<!-- y -->\n<!-- /y -->\n"
    assert (
        between_marks(page, "x", "new") == "a\n<!-- x -->\n\nnew\n\n<!-- /x -->\nb\n<!-- y -->\n<!-- /y -->\n"
    )
    with pytest.raises(ValueError, match="z"):
        between_marks(page, "z", "new")
