"""The figure of the benchmark: ours beside MONAI's and kornia's, and both above the floor."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from workflow.reporting.style import (
    BLACK,
    BLUE,
    FAINT,
    GREY,
    ORANGE,
    WIDTH,
    headline,
    new_figure,
    styled,
)
from workflow.reporting.wording import count, readable

TIME_TARGET, MEMORY_TARGET = 0.8, 0.6  # medians to reach, of MONAI's
MARKS = ("o", "D")  # fewest threads, most threads


@styled
def draw(table: pd.DataFrame) -> Figure:
    """Three panels with a row for each pair: time ratio, memory ratio, time above the floor."""
    size = table["size"].min()
    pairs = table[(table["library"].fillna("") != "") & (table["size"] == size)]
    first = pairs[pairs["threads"] == pairs["threads"].min()]
    order = first.sort_values(["library", "ratio"], ascending=[False, False])
    keys = [_key(row) for _, row in order.iterrows()]
    places = {key: place for place, key in enumerate(keys)}
    figure = new_figure(WIDTH, 1.7 + 0.25 * len(keys))
    time, memory, floor = figure.subplots(1, 3, sharey=True, width_ratios=(3, 2, 3))
    _time_panel(time, pairs, places)
    for _, row in order.iterrows():
        place = places[_key(row)]
        memory.plot(row["memory_ratio"], place, "s", color=BLUE, markersize=5)
        floor.plot([row["floor_ratio"], row["peer_floor_ratio"]], [place] * 2, color=FAINT, lw=2)
        floor.plot(row["peer_floor_ratio"], place, "o", color=ORANGE, markersize=5)
        floor.plot(row["floor_ratio"], place, "o", color=BLUE, markersize=5)
    time.set_yticks(range(len(keys)), [_name(key) for key in keys])
    time.axvline(TIME_TARGET, color=GREY, linewidth=0.8, linestyle=":")
    memory.axvline(MEMORY_TARGET, color=GREY, linewidth=0.8, linestyle=":")
    for axis, label in (
        (time, "time of ours / theirs"),
        (memory, "memory of ours / theirs"),
        (floor, "time / softmax alone"),
    ):
        axis.axvline(1, color=BLACK, linewidth=0.8)
        _log_axis(axis)
        axis.set_xlabel(label)
        axis.grid(axis="y", color=FAINT, linewidth=0.5)
        split = sum(key[1] != "MONAI" for key in keys) - 0.5
        axis.axhline(split, color=GREY, linewidth=0.8)
        axis.set_ylim(-0.6, len(keys) - 0.4)
    figure.legend(handles=_handles(pairs), loc="outside lower center", ncols=6)
    headline(figure, message(pairs, size))
    return figure


def message(pairs: pd.DataFrame, size: int) -> str:
    """What the figure says, in a sentence."""
    monai = pairs[(pairs["library"] == "MONAI") & ~pairs["same_labels"].astype(bool)]
    monai = monai[monai["threads"] == monai["threads"].min()]
    slower = int((monai["ratio"] > 1).sum())
    beaten = f"{slower or 'none'} of {len(monai)} {'is' if slower < 2 else 'are'}"
    return (
        f"A step of our losses takes {monai['ratio'].median():.2f} of the time and "
        f"{monai['memory_ratio'].median():.2f} of the memory of MONAI's (medians); "
        f"{beaten} slower (2 x 4 x {size}³ voxels, CPU)"
    )


def _time_panel(axis: Axes, pairs: pd.DataFrame, places: dict[tuple, int]) -> None:
    threads = sorted(pairs["threads"].unique())
    for number, mark in zip((threads[0], threads[-1])[: len(threads)], MARKS, strict=False):
        shift = 0 if len(threads) == 1 else (0.16 if mark == MARKS[0] else -0.16)
        for _, row in pairs[pairs["threads"] == number].iterrows():
            place = places[_key(row)] + shift
            axis.plot([row["ratio_low"], row["ratio_high"]], [place] * 2, color=BLUE, lw=1)
            axis.plot(
                row["ratio"], place, mark, color=BLUE, markersize=4.5,
                markerfacecolor=BLUE if mark == MARKS[0] else "white",
            )  # fmt: skip


def _key(row: pd.Series) -> tuple[str, str, bool]:
    return row["loss"], row["library"], bool(row["same_labels"])


def _name(key: tuple[str, str, bool]) -> str:
    loss, library, same = key
    return f"{readable(loss)}{', maps known' if same else ''}  ({library})"


def _log_axis(axis: Axes) -> None:
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    ticks = [
        t
        for t in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
        if low <= t <= high
    ]
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _handles(pairs: pd.DataFrame) -> list[Line2D]:
    threads = sorted(pairs["threads"].unique())
    handles = []
    for number, mark in zip(dict.fromkeys((threads[0], threads[-1])), MARKS, strict=False):
        face = BLUE if mark == MARKS[0] else "white"
        handles.append(
            Line2D([], [], color=BLUE, marker=mark, markerfacecolor=face, lw=1, markersize=4.5,
                   label=f"{count(int(number), 'thread')}, quartiles")
        )  # fmt: skip
    return [
        *handles,
        Line2D([], [], color=BLUE, marker="o", linestyle="", label="ours"),
        Line2D([], [], color=ORANGE, marker="o", linestyle="", label="theirs"),
        Line2D([], [], color=BLACK, lw=0.8, label="equal; the floor"),
        Line2D([], [], color=GREY, lw=0.8, ls=":", label="median to reach"),
    ]
