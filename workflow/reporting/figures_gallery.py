"""The gallery of the losses: how value and gradient of each answer a prediction that gets worse."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from workflow.reporting.style import (
    BLACK,
    BLUE,
    FAINT,
    GREY,
    SKY,
    VERMILION,
    WIDTH,
    headline,
    save,
    styled,
    wrap,
)
from workflow.reporting.wording import MINUS, readable, shortened

PAGE_ROWS = 14
LOWEST = 1e-6  # smaller gradients are drawn here
BLIND = 0.01  # share of the gradient that is left once the class is absent
NOTICED = 0.01  # share of the range of a loss's values
LINES = {"present": (BLUE, "-"), "absent": (VERMILION, "--")}
ROW, HEAD, PICTURE, FOOT = 0.62, 1.12, 0.55, 0.8  # inches
ERRORS = {
    "shrinks": "radius lost / radius",
    "shifts": "shift / diameter",
    "false positive grows": "its radius / the ball's",
}


def write_gallery(responses: pd.DataFrame, balls: pd.DataFrame, folder: Path) -> list[Path]:
    """Write every page as SVG and PNG and return their paths.

    Args:
        responses: loss, family, twin, course, reference, error, value, gradient.
        balls: what is predicted: course, error, ball, x, y, radius; see comparison/gallery.py.
        folder: where to.
    """
    found = []
    for name, title, names in pages(responses):
        figure = draw_page(responses, balls, title, names)
        found += save(figure, Path(folder), f"gallery_{name}")
    return found


def pages(responses: pd.DataFrame) -> Iterator[tuple[str, str, list[str]]]:
    """Name, title and losses of each page: a family, or an even part of one that is long.

    Published losses stand in the order of their corrections.
    """
    losses = responses.drop_duplicates("loss").sort_values(["twin", "loss"])
    for family, rows in losses.groupby("family", sort=True):
        names = list(rows["loss"])
        parts = math.ceil(len(names) / PAGE_ROWS)
        for part, members in enumerate(np.array_split(names, parts), 1):
            name = family.replace(" ", "_") + (f"_{part}" if parts > 1 else "")
            title = f"Losses {family}" if " " in family else f"{family.capitalize()} losses"
            yield name, title + (f" ({part} of {parts})" if parts > 1 else ""), list(members)


def message(responses: pd.DataFrame, names: Sequence[str]) -> str:
    """In a sentence: which losses hardly answer a false positive once its class is absent, and
    which rise where they should fall."""
    ends = responses[responses["loss"].isin(names)]
    last = ends[(ends["course"] == "false positive grows") & (ends["error"] == 1)]
    gradient = last.pivot(index="loss", columns="reference", values="gradient")
    left = (gradient["absent"] / gradient["present"]).loc[list(names)]
    blind = list(left.index[left < BLIND])
    if blind:
        said = (
            f"once the class is absent, {len(blind)} of {len(names)} "
            f"{'keeps' if len(blind) == 1 else 'keep'} less than {100 * BLIND:g} % of the "
            f"gradient against a false positive ({_named(blind)})"
        )
    else:
        said = (
            "with the class absent, all still act against a false positive (weakest: "
            f"{_named([left.idxmin()])}, with {100 * left.min():.0f} % of the gradient)"
        )
    lost = change_as_it_shrinks(ends, "present") < -NOTICED
    gone = change_as_it_shrinks(ends, "absent") > NOTICED
    for wrong, what in (
        (lost, "the loss of the ball is rewarded"),
        (gone, "the end of a false positive is punished"),
    ):
        if wrong.any():
            said += f"; {what} by {_named([name for name in names if wrong[name]])}"
    return said


def change_as_it_shrinks(responses: pd.DataFrame, which: str) -> pd.Series:
    """Value of each loss at the end of shrinking less that at its beginning, over its range."""
    values = responses.groupby("loss")["value"]
    rows = responses[(responses["course"] == "shrinks") & (responses["reference"] == which)]
    value = rows.pivot(index="loss", columns="error", values="value")
    return (value[1.0] - value[0.0]) / (values.max() - values.min())


def _named(losses: Sequence[str]) -> str:
    return shortened([_name(loss) for loss in losses], 2)


def _name(loss: str) -> str:
    """The loss's name; its page says whether it was published or is historic."""
    return readable(loss.removeprefix("published_").removeprefix("historic_"))


@styled
def draw_page(
    responses: pd.DataFrame, balls: pd.DataFrame, title: str, names: Sequence[str]
) -> Figure:
    """A row for each loss: three courses of the value, then the same of the gradient."""
    courses = list(responses["course"].drop_duplicates())
    height = HEAD + PICTURE + FOOT + ROW * len(names)
    figure = Figure(figsize=(WIDTH, height))
    grid = GridSpec(
        len(names) + 1, 7, figure, left=0.225, right=0.985, top=1 - HEAD / height,
        bottom=FOOT / height, hspace=0.28, wspace=0.12, width_ratios=(1, 1, 1, 0.42, 1, 1, 1),
        height_ratios=(PICTURE / ROW, *[1] * len(names)),
    )  # fmt: skip
    for column, course in enumerate([*courses, *courses]):
        at = column + (column >= len(courses))
        _picture(figure.add_subplot(grid[0, at]), balls[balls["course"] == course], course)
    for row, name in enumerate(names, 1):
        own = responses[responses["loss"] == name]
        twin = responses[responses["loss"] == own["twin"].iloc[0]]
        for column, course in enumerate(courses):
            for quantity, at in (("value", column), ("gradient", column + 4)):
                axis = figure.add_subplot(grid[row, at])
                for rows, is_twin in ((twin, True), (own, False)):
                    _curves(axis, rows[rows["course"] == course], quantity, is_twin)
                _axes(axis, own, quantity, first=not column, last=row == len(names))
                if row == len(names):
                    axis.set_xlabel(ERRORS[course], fontsize=7.5, labelpad=2)
        box = grid[row, 0].get_position(figure)
        figure.text(0.012, (box.y0 + box.y1) / 2, _label(name, own), va="center", fontsize=8.5)
    _captions(
        figure, grid, height, corrected=bool(responses["twin"][responses["loss"].isin(names)].any())
    )
    headline(figure, f"{title}: {message(responses, names)}", size=10.5)
    return figure


def _label(name: str, own: pd.DataFrame) -> str:
    """The loss's name, broken, and what it was corrected to."""
    twin = own["twin"].iloc[0]
    shown = wrap(_name(name), 22)
    return f"{shown}\n→ {readable(twin)}" if twin else shown


def _curves(axis: Axes, rows: pd.DataFrame, quantity: str, is_twin: bool) -> None:
    for which, part in rows.groupby("reference", sort=False):
        colour, line = LINES[which]
        values = part[quantity]
        axis.plot(
            part["error"],
            values.clip(lower=LOWEST) if quantity == "gradient" else values,
            line,
            color=GREY if is_twin else colour,
            linewidth=0.9 if is_twin else 1.5,
            clip_on=quantity == "value",
            zorder=2 if is_twin else 3,
        )


def _axes(axis: Axes, own: pd.DataFrame, quantity: str, first: bool, last: bool) -> None:
    axis.set_xlim(0, 1)
    axis.xaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
    axis.set_xticklabels(["0", "½", "1"] if last else [])
    sides: tuple[Literal["left", "center", "right"], ...] = ("left", "center", "right")
    for label, side in zip(axis.get_xticklabels(), sides, strict=True):
        label.set_horizontalalignment(side)  # so that the 1 of a panel and the next 0 stay apart
    axis.tick_params(length=2, labelsize=7)
    for spine in (axis.spines["left"], axis.spines["bottom"]):
        spine.set_color(GREY)
        spine.set_linewidth(0.6)
    if quantity == "gradient":
        axis.set_yscale("log")
        axis.set_ylim(LOWEST, 1)
        axis.yaxis.set_major_locator(FixedLocator([1e-6, 1e-3, 1]))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.set_yticklabels(["≤10⁻⁶", "10⁻³", "1"] if first else [])
        axis.grid(axis="y", color=FAINT, linewidth=0.4)
        return
    low, high = own["value"].min(), own["value"].max()
    room = 0.08 * (high - low)
    axis.set_ylim(low - room, high + room)
    axis.yaxis.set_major_locator(FixedLocator([low, high]))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    if not first:
        axis.set_yticklabels([])


def _short(value: float) -> str:
    return f"{value:.2g}".replace("-", MINUS)


def _picture(axis: Axes, balls: pd.DataFrame, course: str) -> None:
    """A slice at the beginning, the middle and the end of a course."""
    size, gap = balls["size"].iloc[0], 3
    for place, error in enumerate((0.0, 0.5, 1.0)):
        left = place * (size + gap)
        axis.add_patch(Rectangle((left, 0), size, size, fc="none", ec=FAINT, lw=0.6))
        for _, ball in balls[balls["error"] == error].iterrows():
            centre = (left + ball["x"], ball["y"])
            if ball["kind"] == "reference":
                axis.add_patch(
                    Circle(centre, ball["radius"], fc="none", ec=BLACK, lw=0.9, zorder=3)
                )
            else:
                face = SKY if ball["kind"] == "prediction" else FAINT
                axis.add_patch(Circle(centre, ball["radius"], fc=face, ec="none"))
    axis.set_xlim(-1, 3 * size + 2 * gap + 1)
    axis.set_ylim(-1, size + 1)
    axis.set_aspect("equal", anchor="S")
    axis.set_title(course, fontsize=8, pad=3)
    axis.axis("off")


def _captions(figure: Figure, grid: GridSpec, height: float, corrected: bool) -> None:
    for start, text in (
        (0, "value (each row on its own scale)"),
        (4, "gradient on the class's logits: sum of |∂L/∂z|"),
    ):
        left = grid[0, start].get_position(figure).x0
        right = grid[0, start + 2].get_position(figure).x1
        at = (left + right) / 2, 1 - (HEAD - 0.22) / height
        figure.text(*at, text, ha="center", fontsize=9, fontweight="bold")
    handles = [
        Line2D([], [], color=BLUE, lw=1.5, label="class present in the reference"),
        Line2D([], [], color=VERMILION, ls="--", lw=1.5, label="class absent"),
        Line2D([], [], color=GREY, lw=0.9, label="both, of the corrected loss (→)"),
        Line2D([], [], color=BLACK, marker="o", mfc="none", ls="", label="reference"),
        Line2D([], [], color=SKY, marker="o", ls="", label="prediction"),
        Line2D([], [], color=FAINT, marker="o", ls="", label="another class, always right"),
    ]
    if not corrected:
        del handles[2]
    figure.legend(handles=handles, loc="lower center", ncols=6, fontsize=7.5, columnspacing=1.2,
                  handletextpad=0.4)  # fmt: skip
