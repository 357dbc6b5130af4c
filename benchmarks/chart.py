"""Grouped bars as SVG, written by hand: a picture that a text editor can read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, GAP = 440, 270, 20
LEFT, TOP, BOTTOM = 14, 62, 30
# Okabe and Ito's: told apart by everybody.
COLOURS = ("#0072b2", "#e69f00", "#999999", "#009e73")


@dataclass(frozen=True, slots=True)
class Panel:
    """One diagram: groups of bars by name, in each a bar a series; `aim` is a line across."""

    title: str
    groups: Mapping[str, Mapping[str, float]]
    aim: float | None = None
    decimals: int = 1

    @property
    def series(self) -> list[str]:
        """Every series there is, in order."""
        return list(dict.fromkeys(name for bars in self.groups.values() for name in bars))


def drawn(panels: Sequence[Panel]) -> str:
    """All panels, two in a row."""
    rows = -(-len(panels) // 2)
    width, height = 2 * WIDTH + 3 * GAP, rows * (HEIGHT + GAP) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        ' font-family="Helvetica, Arial, sans-serif" font-size="12" fill="#222222">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for number, panel in enumerate(panels):
        x, y = GAP + number % 2 * (WIDTH + GAP), GAP + number // 2 * (HEIGHT + GAP)
        parts += [f'<g transform="translate({x} {y})">', *_panel(panel), "</g>"]
    return "\n".join([*parts, "</svg>\n"])


def _panel(panel: Panel) -> list[str]:
    parts = [_text(0, 14, panel.title, weight="bold", size=14)]
    x = 0.0
    for colour, name in zip(COLOURS, panel.series, strict=False):
        parts += [_rect(x, 27, 10, 10, colour), _text(x + 14, 36, name)]
        x += 30 + 6.5 * len(name)
    tallest = max(max(bars.values()) for bars in panel.groups.values())
    scale = (HEIGHT - TOP - BOTTOM) / max(tallest, panel.aim or 0)
    ground = HEIGHT - BOTTOM
    step = (WIDTH - LEFT) / len(panel.groups)
    for number, (name, bars) in enumerate(panel.groups.items()):
        parts += _group(panel, bars, LEFT + step * number, step, scale)
        parts.append(_text(LEFT + step * (number + 0.5), ground + 18, name, anchor="middle"))
    parts.append(_line(ground, "#222222"))
    if panel.aim is not None:
        at = ground - panel.aim * scale
        parts += [_line(at, "#d55e00", "5 4"), _text(WIDTH, at - 4, "aim", anchor="end")]
    return parts


def _group(panel: Panel, bars: Mapping[str, float], left: float, step: float, scale: float) -> list[str]:
    parts = []
    width = 0.8 * step / len(panel.series)
    for name, value in bars.items():
        place = panel.series.index(name)
        x, tall = left + 0.1 * step + width * place, value * scale
        top = HEIGHT - BOTTOM - tall
        parts.append(_rect(x, top, width - 3, tall, COLOURS[place]))
        label = f"{value:.{panel.decimals}f}"
        parts.append(_text(x + (width - 3) / 2, top - 4, label, anchor="middle", size=11))
    return parts


def _rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def _line(y: float, colour: str, dashes: str = "none") -> str:
    return f'<path d="M0 {y:.1f}H{WIDTH}" stroke="{colour}" stroke-dasharray="{dashes}"/>'


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", size: int = 12
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" font-size="{size}">'
        f"{escape(text)}</text>"
    )
