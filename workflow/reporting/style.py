"""One palette, one type size and one way of saving for all figures."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from PIL import Image

from workflow import files
from workflow.reporting.wording import readable

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

# Okabe & Ito (2008): distinguishable with every common colour-vision deficiency.
BLACK = "#000000"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"
GREY = "#8A8A8A"
FAINT = "#D9D9D9"

CLASS_COLOURS = (SKY, YELLOW, GREEN, ORANGE, BLUE, "#B2ABD2", "#A6761D", "#66A61E")
LINE_COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK)
TIER_MARKS = {
    "best": (BLUE, "o", "not separable from the best"),
    "separable": (ORANGE, "s", "separably below the best"),
    "collapsed": (VERMILION, "X", "collapsed in most runs"),
    "failed": (BLACK, "X", "no finished run"),
    "floor": (GREY, "D", "floor: predicts nothing"),
}
OUTCOMES = {
    "none": ("#CFE6F5", "no collapse"),
    "partial": (ORANGE, "partial"),
    "total": (VERMILION, "total"),
    "diverged": (BLACK, "diverged"),
    "failed": (GREY, "failed"),
}
WIDTH = 9.2  # inches: the width of the report's column
ROW = 0.27  # inches a loss
ACROSS = 6  # panels in a row of small multiples

SETTINGS: dict[RcKeyType, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "text.parse_math": False,  # names come from data: a dollar sign is a dollar sign
    "svg.fonttype": "path",  # the same picture whatever fonts the reader has
    "svg.hashsalt": "rareclass",
}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw under these settings, whatever the caller's matplotlib is set to."""

    @functools.wraps(draw)
    def inside(*args: Any, **kwargs: Any) -> Figure:
        with matplotlib.rc_context(SETTINGS):
            return draw(*args, **kwargs)

    return inside


def new_figure(width: float, height: float) -> Figure:
    """An empty figure that lays itself out."""
    return Figure(figsize=(width, height), layout="constrained")


def headline(figure: Figure, title: str, size: float = 11.5) -> None:
    """The figure's message, left-aligned above everything else, wrapped to its width."""
    font = FontProperties(size=size, weight="bold")

    def points(line: str) -> float:
        return text_to_path.get_text_width_height_descent(line, font, ismath=False)[0]

    figure.suptitle(
        wrap(title, 0.98 * 72 * figure.get_figwidth(), points),
        x=0.01,
        ha="left",
        fontsize=size,
        fontweight="bold",
    )


def class_colours(classes: Sequence[str]) -> dict[str, str]:
    """A colour for each class, the same in every figure."""
    return {name: CLASS_COLOURS[index % len(CLASS_COLOURS)] for index, name in enumerate(classes)}


def height_for(rows: int, extra: float = 1.35) -> float:
    """Inches for a figure with a row a loss."""
    return extra + ROW * max(rows, 4)


def loss_axis(axis: Axes, labels: Sequence[str]) -> None:
    """Losses from top to bottom with faint lines to follow."""
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.set_yticks(range(len(labels)))
    axis.set_yticklabels([readable(label) for label in labels])
    axis.tick_params(axis="y", length=0)
    axis.set_axisbelow(True)
    axis.grid(axis="y", color=FAINT, linewidth=0.5)
    axis.spines["left"].set_visible(False)


def legend_below(figure: Figure, handles: list, columns: int = 5) -> None:
    figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, len(handles)))


def small_multiples(
    labels: Sequence[str], across: str, upwards: str, columns: int = ACROSS
) -> tuple[Figure, list[Axes]]:
    """A small panel for each loss under its name, all with the same axes."""
    down = -(-len(labels) // columns)
    figure = new_figure(WIDTH, 1.1 + 1.65 * down * min(ACROSS / columns, 1.4))
    grid = figure.subplots(down, columns, sharex=True, sharey=True, squeeze=False)
    panels = list(grid.flat)
    for axis, label in zip(panels, labels, strict=False):
        axis.set_title(wrap(readable(label), 22), fontsize=7.5)
        axis.tick_params(labelsize=7.5)
    for axis in panels[len(labels) :]:
        axis.axis("off")
    for axis in panels[max(len(labels) - columns, 0) : len(labels)]:
        axis.tick_params(labelbottom=True)
        axis.set_xlabel(across, fontsize=8)
    for row in grid:
        row[0].set_ylabel(upwards, fontsize=8)
    return figure, panels[: len(labels)]


def wrap(text: str, width: float, length: Callable[[str], float] = len) -> str:
    """Text broken into lines of at most ``width``, in characters or what ``length`` measures."""
    lines, line = [], ""
    for word in text.split():
        if line and length(f"{line} {word}") > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line])


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `<name>.svg` and `<name>.png`; the same figure always gives the same bytes.

    Figures have few colours: with a palette of 256 a PNG is a third of its size.
    """
    svg, png = folder / f"{name}.svg", folder / f"{name}.png"
    with matplotlib.rc_context(SETTINGS):
        with files.replacing(svg) as temporary:
            figure.savefig(temporary, metadata={"Date": None, "Creator": None})
        with io.BytesIO() as drawn, files.replacing(png) as temporary:
            figure.savefig(drawn, format="png", dpi=150)
            palette = Image.open(drawn).convert("RGB").quantize(256)
            palette.save(temporary, format="png", optimize=True)
    return [svg, png]


@styled
def nothing_to_show(title: str, why: str = "The tables hold nothing to draw here.") -> Figure:
    """The figure of a table without rows: it says so instead of being blank."""
    figure = new_figure(WIDTH, 1.4)
    headline(figure, title)
    axis = figure.subplots()
    axis.axis("off")
    axis.text(0.5, 0.5, why, ha="center", va="center")
    return figure
