"""What all of Podium's figures share: sizes, colours, text, legends, files.

Pure: no pyplot, nothing kept. Text of any kind is safe: it is drawn literally, never read as
mathematics, and shortened where it would not fit.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from matplotlib.ticker import Formatter

PALETTE = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)
"""Ten colours that colour-blind readers tell apart (Petroff 2021, arXiv:2107.02270)."""
BLUE, ORANGE, RED, GREY = PALETTE[:4]
INK = "#222222"
FAINT = "#e3e6e8"
PALE_BLUE = "#dcebf9"
DPI = 120
TEXT_POINTS = 8.0
TITLE_POINTS = 11.0
NAME_INCHES = 1.8
"""The room that a class or configuration gets for its name beside an axis."""
READABLE_CLASSES = 20
"""Up to here every class gets its number in a cell; beyond, only a colour."""


class LayOutOnce(ConstrainedLayoutEngine):
    """Constrained layout when first drawn, and no more: each further one moves things a little.

    So a figure looks the same, to the byte, however often it was drawn before.
    """

    _done = False

    def execute(self, fig: Figure) -> None:
        """Places the axes of a figure that was not drawn before."""
        if not self._done:
            super().execute(fig)
            self._done = True


def save(figure: Figure, path: Path) -> Path:
    """Writes a PNG whose bytes depend on the figure alone, and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})
    return path


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """An empty figure, drawn by Agg; its size in inches, and its title wrapped to the width."""
    layout = LayOutOnce(w_pad=0.08, h_pad=0.08)
    figure = Figure((width, height), dpi=DPI, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    if title:
        columns = int(width * 72 / (0.6 * TITLE_POINTS))
        lines = textwrap.wrap(_drawable(title), columns, max_lines=4, placeholder="…")
        heading = "\n".join(lines).replace("$", r"\$")
        figure.suptitle(heading, x=0.02, ha="left", fontsize=TITLE_POINTS, color=INK)
    return figure


def plain(text: str, inches: float = NAME_INCHES) -> str:
    """Text to hand to Matplotlib so that it is drawn as it is, in one line, and fits.

    Characters that the font lacks become Python's escapes for them; what is too wide loses its
    middle. A `$` is escaped, since two of them would start mathematics.
    """
    shown, room = _drawable(text), inches * 72
    kept = min(len(shown), int(room))
    fitting = _shortened(shown, kept)
    while kept > 1 and (width := _width(fitting)) > room:
        kept = min(kept - 1, int(kept * room / width) + 1)
        fitting = _shortened(shown, kept)
    return fitting.replace("$", r"\$")


def _shortened(text: str, kept: int) -> str:
    tail = kept // 3
    return text if kept >= len(text) else f"{text[: kept - tail]}…{text[len(text) - tail :]}"


def _drawable(text: str) -> str:
    font = get_font(findfont(FontProperties()))
    return "".join(
        c if font.get_char_index(ord(c)) else c.encode("unicode_escape").decode()
        for c in " ".join(text.split())
    )


@lru_cache(maxsize=1024)
def _width(text: str) -> float:
    """In points."""
    font = FontProperties(size=TEXT_POINTS)
    return float(text_to_path.get_text_width_height_descent(text, font, False)[0])


def tidy(axes: Axes, xlabel: str = "", ylabel: str = "") -> None:
    """Labels the axes, which are Podium's own words, and removes the frame nobody reads."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=TEXT_POINTS)
    axes.set_xlabel(xlabel, fontsize=TEXT_POINTS + 1)
    axes.set_ylabel(ylabel, fontsize=TEXT_POINTS + 1)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names at y = 0, 1, 2 ..., from the top."""
    axes.set_yticks(range(len(names)), [plain(name) for name in names], fontsize=TEXT_POINTS)
    axes.set_ylim(max(1, len(names)) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def name_columns(axes: Axes, names: Sequence[str], inches: float) -> None:
    """Names at x = 0, 1, 2 ..., slanted where one is wider than its column of `inches`."""
    axes.set_xticks(range(len(names)), [plain(name) for name in names], fontsize=TEXT_POINTS)
    if _slanted(names, inches):
        for text in axes.get_xticklabels():
            text.set(rotation=45, ha="right", rotation_mode="anchor")
    axes.tick_params(axis="x", length=0)


def longest(names: Sequence[str]) -> float:
    """The inches that the longest of these names takes."""
    return max((_width(plain(name)) / 72 for name in names), default=0.0)


def table_size(
    rows: Sequence[str], columns: Sequence[str], width: float, height: float
) -> tuple[float, float]:
    """The size of a figure with cells of that size in inches, beside and under such names."""
    foot = 0.75 * longest(columns) if _slanted(columns, width) else 0.15
    size = 0.8 + longest(rows) + width * len(columns), 1.0 + foot + height * len(rows)
    return max(3.4, size[0]), size[1]


def _slanted(names: Sequence[str], inches: float) -> bool:
    return longest(names) > 0.9 * inches


def write(axes: Axes, text: str, x: float, y: float, **style: Any) -> None:
    """Text in the middle of that point, unless `style` says otherwise."""
    style = {"ha": "center", "va": "center", "fontsize": TEXT_POINTS, "color": INK, **style}
    axes.text(x, y, text, **style)


def write_value(axes: Axes, text: str, x: float, y: float) -> None:
    """The value of a horizontal bar right of its end, even if outside of the axes."""
    place: dict[str, Any] = {"textcoords": "offset points", "annotation_clip": False}
    axes.annotate(text, (x, y), (3, 0), va="center", fontsize=TEXT_POINTS - 0.5, color=INK, **place)


def legend(figure: Figure, handles: Iterable[Artist], names: Sequence[str]) -> None:
    """What the signs mean, right of the axes; given explicitly, names may start with _."""
    shown = [plain(name) for name in names]
    figure.legend(
        list(handles),
        shown,
        loc="outside right upper",
        ncols=max(1, math.ceil(len(shown) / 25)),
        fontsize=TEXT_POINTS,
        frameon=False,
    )


def swatches(colours: Iterable[str]) -> list[Artist]:
    """Squares of these colours, for a legend."""
    return [Line2D([], [], color=c, marker="s", linestyle="", markersize=7) for c in colours]


def color_scale(figure: Figure, picture: ScalarMappable, text: str, form: str | Formatter) -> None:
    """What the colours of a picture mean, right of it."""
    bar = figure.colorbar(picture, shrink=0.75, format=form)
    bar.set_label(text, fontsize=TEXT_POINTS + 1)
    bar.ax.tick_params(labelsize=TEXT_POINTS)
    bar.outline.set_visible(False)
