"""Figures of the experiment ``mechanism``."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from workflow.reporting.experiment import Experiment
from workflow.reporting.mechanism import (
    BIASED,
    EVERY,
    FAMILIES,
    TUNED,
    WEIGHED,
    answer,
    ending,
    fixed_rates,
    rare,
    rescue_title,
    rules_title,
    traces_title,
    weights_title,
)
from workflow.reporting.style import (
    BLACK,
    BLUE,
    FAINT,
    GREY,
    LINE_COLOURS,
    ORANGE,
    ROW,
    VERMILION,
    WIDTH,
    headline,
    legend_below,
    loss_axis,
    new_figure,
    nothing_to_show,
    styled,
    wrap,
)
from workflow.reporting.wording import readable

SHADES = LinearSegmentedColormap.from_list("learnt", ["#F6F6F6", "#9CC9E8", BLUE])
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
TRACED = (
    "dice", "cross_entropy", "generalized_dice", "generalized_dice_ce", "generalized_dice_zero",
    "gdl_zero_ce",
)  # fmt: skip
FIRST, WINDOW = 200, 20


@styled
def draw_rules(experiment: Experiment) -> Figure:
    """Seeds in which each class was learnt: rules down, learning rates and classes across."""
    arms = [TUNED, *fixed_rates(experiment)]
    table = answer(experiment, "rules")
    table = table[table["arm"].isin(arms)]
    arms = [arm for arm in arms if arm in set(table["arm"])]
    if table.empty:
        return nothing_to_show(rules_title(experiment))
    losses = list(table["loss"].unique())
    classes = list(table["class"].unique())
    figure = new_figure(WIDTH, 2.2 + ROW * len(losses))
    panels = figure.subplots(1, len(arms), sharey=True, squeeze=False)[0]
    for arm, axis in zip(arms, panels, strict=True):
        rows = table[table["arm"] == arm].set_index(["loss", "class"])
        rows = rows.reindex(pd.MultiIndex.from_product([losses, classes]))
        share = rows["share"].to_numpy(float).reshape(len(losses), len(classes))
        axis.imshow(share, cmap=SHADES, vmin=0, vmax=1, aspect="auto")
        for place, (learnt, seeds) in enumerate(rows[["learnt", "seeds"]].itertuples(index=False)):
            if seeds > 0:
                down, across = divmod(place, len(classes))
                colour = "white" if learnt > 0.7 * seeds else BLACK
                axis.text(across, down, f"{learnt:.0f}/{seeds:.0f}", ha="center", va="center",
                          fontsize=7.5, color=colour)  # fmt: skip
        axis.set_xticks(range(len(classes)), classes, rotation=35, ha="right")
        axis.set_title("tuned rate" if arm == TUNED else arm.replace("=", " "))
        axis.axvline(len(classes) - 1.5, color="white", lw=3)
        axis.tick_params(length=0)
        for spine in axis.spines.values():
            spine.set_visible(False)
    panels[0].set_yticks(range(len(losses)), [readable(loss) for loss in losses])
    headline(figure, rules_title(experiment))
    return figure


@styled
def draw_weights(experiment: Experiment) -> Figure:
    """Weight and gradient of each class against its volume, for some rules."""
    table = experiment.raw["signals"]
    table = table[(table["arm"] == TUNED) & (table["step"] < FIRST)]
    losses = [loss for loss in WEIGHED if loss in set(table["loss"])]
    if not losses:
        return nothing_to_show(weights_title(experiment))
    table = table.assign(
        gradient=table["gradient_inside"] + table["gradient_outside"],
        lacking=table.groupby(["loss", "seed", "step"])["voxels"].transform("min") == 0,
    )
    table = table[table["loss"].isin(losses)]
    names = list(dict.fromkeys(table["class"]))
    figure = new_figure(WIDTH, 5.0)
    panels = figure.subplots(2, len(losses), sharex=True, sharey="row", squeeze=False)
    for quantity, row in zip(("weight", "gradient"), panels, strict=True):
        known = table.loc[table[quantity] > 0, quantity]
        bottom = 10 ** (np.floor(np.log10(known.min())) - 1.5) if len(known) else 1e-3
        for loss, axis in zip(losses, row, strict=True):
            rows = table[table["loss"] == loss]
            _cloud(axis, rows, quantity, names, bottom)
            if rows[quantity].isna().all():
                axis.text(0.5, 0.5, "no weights", transform=axis.transAxes, ha="center",
                          color=GREY)  # fmt: skip
        row[0].set_yscale("log")
        row[0].set_ylim(bottom / 3, 4 * known.max() if len(known) else 1)
        row[0].yaxis.set_major_formatter(FuncFormatter(_power))
    for loss, axis in zip(losses, panels[0], strict=True):
        axis.set_title(wrap(readable(loss), 19), fontsize=8.5)
    panels[0, 0].set_ylabel("share of the weights")
    panels[1, 0].set_ylabel("logit gradient (L1)")
    for axis in panels[1]:
        axis.set_xlabel("voxels in the batch", fontsize=8.5)
    marks = [
        Line2D([], [], marker=mark, ls="", color=GREY, label=name)
        for name, mark in zip(names, MARKS, strict=False)
    ]
    colours = [
        Line2D([], [], marker="o", ls="", color=colour, label=words)
        for colour, words in ((BLUE, "batch has every class"), (ORANGE, "batch lacks a class"))
    ]
    figure.legend(handles=marks + colours, loc="outside lower center", ncols=6)
    headline(figure, weights_title(experiment))
    return figure


def _cloud(axis: Axes, rows: pd.DataFrame, quantity: str, names: list[str], bottom: float) -> None:
    """Marks of one rule; absent classes stand in a strip on the left, zeros on the lower edge."""
    absent = 1.2
    axis.set_xscale("log")
    axis.axvspan(0.5, 3, color=FAINT, alpha=0.6, lw=0)
    axis.set_xlim(0.5, 3e5)
    axis.set_xticks([absent, 1e1, 1e3, 1e5], ["0", "10", "10³", "10⁵"])
    axis.minorticks_off()
    axis.tick_params(labelsize=7.5)
    for first in (False, True):
        for (name, lacking), some in rows[(rows["step"] == 0) == first].groupby(
            ["class", "lacking"]
        ):
            axis.scatter(
                some["voxels"].where(some["voxels"] > 0, absent),
                some[quantity].where(some[quantity] != 0, bottom),
                marker=MARKS[names.index(name) % len(MARKS)], s=22 if first else 7,
                color=ORANGE if lacking else BLUE, alpha=0.95 if first else 0.35,
                edgecolors="white" if first else "none", linewidths=0.5,
                zorder=3 if first else 2,
            )  # fmt: skip


@styled
def draw_traces(experiment: Experiment) -> Figure:
    """Probability, slope and gradients of the rare classes over the first 200 steps."""
    names = rare(experiment)
    table = experiment.raw["signals"]
    table = table[
        table["arm"].isin((FAMILIES, BIASED)) & (table["step"] < FIRST)
        & table["class"].isin(names)
    ]  # fmt: skip
    losses = [loss for loss in TRACED if loss in set(table["loss"])]
    if not losses:
        return nothing_to_show(traces_title(experiment))
    quantities = {
        "probability": "probability\nat its own voxels", "slope": "slope p (1 − p) there",
        "ratio": "gradient inside\n: outside",
    }  # fmt: skip
    outside = table["gradient_outside"]
    table = table.assign(
        middle=table["step"] // WINDOW * WINDOW + WINDOW / 2,
        ratio=(table["gradient_inside"] / outside.where(outside > 0)).where(table["voxels"] > 0),
    )
    key = ["arm", "loss", "class", "seed", "middle"]
    table = table.groupby(key)[list(quantities)].mean().reset_index()
    figure = new_figure(WIDTH, 6.6)
    panels = figure.subplots(3, len(losses), sharex=True, sharey="row", squeeze=False)
    colours = dict(zip(names, LINE_COLOURS, strict=False))
    for loss, column in zip(losses, panels.T, strict=True):
        for quantity, axis in zip(quantities, column, strict=True):
            for (arm, name), rows in table[table["loss"] == loss].groupby(["arm", "class"]):
                seeds = rows.groupby("middle")[quantity].agg(["min", "median", "max"])
                axis.fill_between(seeds.index, seeds["min"], seeds["max"], color=colours[name],
                                  alpha=0.15, lw=0)  # fmt: skip
                axis.plot(seeds.index, seeds["median"], color=colours[name], marker="o", ms=2.5,
                          ls="--" if arm == BIASED else "-", lw=1.4)  # fmt: skip
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter(FuncFormatter(_power))
            axis.grid(axis="y", color=FAINT, linewidth=0.5)
        title = "\n".join([wrap(readable(loss), 20), *_outcomes(experiment, loss, names)])
        column[0].set_title(title, fontsize=7.5)
        column[-1].set_xlabel("training step", fontsize=8.5)
    for words, axis in zip(quantities.values(), panels[:, 0], strict=True):
        axis.set_ylabel(words)
    panels[0, 0].set_xlim(0, FIRST)
    panels[0, 0].set_xticks([0, 100, 200])
    handles = [Line2D([], [], color=colour, label=name) for name, colour in colours.items()]
    handles += [
        Line2D([], [], color=GREY, ls=style, label=words)
        for style, words in (("-", "usual start"), ("--", "output bias at class frequencies"))
    ]
    legend_below(figure, handles)
    headline(figure, traces_title(experiment))
    return figure


def _outcomes(experiment: Experiment, loss: str, names: list[str]) -> list[str]:
    """A line a class: in how many seeds it was learnt, from the usual start and with the bias."""
    counts = answer(experiment, "rules").set_index(["arm", "loss", "class"])["learnt"]
    seeds = answer(experiment, "rules").set_index(["arm", "loss", "class"])["seeds"]
    lines = []
    for name in names:
        places = [(arm, loss, name) for arm in (FAMILIES, BIASED)]
        told = [f"{counts[place]}/{seeds[place]}" for place in places if place in counts.index]
        lines.append(f"{name} {', '.join(told)}")
    return lines


def _power(value: float, _position: int) -> str:
    """`10⁻³`; text, because names may hold a dollar sign and mathematics is off."""
    exponent = f"{np.log10(value):.0f}"
    return "10" + exponent.translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


@styled
def draw_rescue(experiment: Experiment) -> Figure:
    """Gain of each family in each class by a CE term and an output bias."""
    table = answer(experiment, "rescue")
    if table.empty:
        return nothing_to_show(rescue_title(experiment))
    classes = [*experiment.classes, EVERY]
    classes = [name for name in classes if name in set(table["class"])]
    pairs = list(table[["family", "treatment"]].drop_duplicates().itertuples(index=False))
    pairs.sort(key=lambda pair: list(table["family"].unique()).index(pair.family))
    figure = new_figure(WIDTH, 1.9 + ROW * len(pairs))
    panels = figure.subplots(1, len(classes), sharey=True, sharex=True, squeeze=False)[0]
    reach = table[["low", "high", "difference"]].abs().max().max()
    for name, axis in zip(classes, panels, strict=True):
        rows = table[table["class"] == name].set_index(["family", "treatment"])
        for place, pair in enumerate(pairs):
            row = rows.loc[tuple(pair)]
            firm = row["p_holm"] < 1 - experiment.confidence
            colour = GREY if not firm else BLUE if row["difference"] > 0 else VERMILION
            axis.plot([row["low"], row["high"]], [place, place], color=colour, lw=1.6)
            axis.plot(row["difference"], place, "o", ms=5, color=colour,
                      mfc=colour if firm else "white")  # fmt: skip
            axis.text(1.02, place, ending(row["learnt_plain"], row["learnt"], row["runs"]),
                      transform=axis.get_yaxis_transform(), va="center", fontsize=6.5,
                      color=BLACK)  # fmt: skip
        axis.axvline(0, color=GREY, lw=0.8)
        axis.set_title("mean of classes" if name == EVERY else name)
        axis.set_xlim(-1.08 * reach, 1.08 * reach)
        axis.set_xlabel("difference in Dice")
    loss_axis(panels[0], [pair.family for pair in pairs])
    panels[0].set_yticklabels([f"{readable(p.family)}: + {p.treatment}" for p in pairs])
    for axis in panels[1:]:
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="y", color=FAINT, linewidth=0.5)
        axis.set_axisbelow(True)
    handles = [
        Line2D([], [], marker="o", color=BLUE, label="gain, holds after Holm's correction"),
        Line2D([], [], marker="o", color=VERMILION, label="loss, holds after it"),
        Line2D([], [], marker="o", color=GREY, mfc="white", label="not separable"),
    ]
    legend_below(figure, handles)
    headline(figure, rescue_title(experiment))
    return figure
