"""Reduction, smoothing and background of the Dice loss: cells, effects and absent classes."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from workflow.reporting.experiment import Chapter, Experiment, covered
from workflow.reporting.style import (
    BLUE,
    GREY,
    ORANGE,
    WIDTH,
    headline,
    legend_below,
    loss_axis,
    new_figure,
    nothing_to_show,
    styled,
)
from workflow.reporting.wording import (
    MINUS,
    count,
    interval,
    listing,
    number,
    p_value,
    percent,
    shortened,
    signed,
)

ENDPOINTS = {
    "mean_dice": ("mean Dice", "Mean Dice"),
    "rarest_dice": ("Dice of the rarest class", "Dice, rarest class"),
    "absent_rate": ("the false-positive rate", "Absent class:\nrate predicted"),
    "absent_ml": ("the false-positive volume", "Absent class:\nvolume (ml)"),
}
REDUCTIONS = {"image": (BLUE, "o"), "batch": (ORANGE, "s")}
BACKGROUNDS = ("in", "out")
ABSENT = {"absent_rate": "rate", "absent_ml": "volume"}
AS_PREDICTED, AGAINST, NOT_SHOWN = "as predicted", "against the prediction", "not shown"


def said(experiment: Experiment) -> list[str]:
    """The findings."""
    found = [f"{scores_title(experiment)}.", *_lost(experiment)]
    effects = experiment.answers["effects"]
    if effects.empty:
        return [*found, "Too few cells have run for any effect to be estimated."]
    found += [f"{effects_title(experiment)}.", *_mains(experiment), interactions_title(experiment)]
    found += _absence(experiment)
    if effects["seeds"].max() == 1:
        found.append("There is one seed: the intervals speak of further cases, not of other seeds.")
    return found


def _lost(experiment: Experiment) -> list[str]:
    cells = experiment.answers["cells"]
    if cells.empty or not cells["collapsed"].sum():
        return []
    sums = cells.groupby("smoothing")[["collapsed", "runs"]].sum()
    clauses = [
        f"{row.collapsed} of {count(row.runs, 'run')} with smoothing {_level(level)}"
        for level, row in zip(sums.index, sums.itertuples(), strict=True)
    ]
    return [f"A class was lost by {listing(clauses)}."]


def cell_name(row: pd.Series) -> str:
    """`batch, smoothing 1e-5, background out`."""
    smoothing = _level(row["smoothing"])
    return f"{row['reduction']}, smoothing {smoothing}, background {row['background']}"


def scores_title(experiment: Experiment) -> str:
    """How far apart the cells are."""
    cells = experiment.answers["cells"]
    scored = cells.dropna(subset=["mean_dice"]) if len(cells) else cells
    if scored.empty:
        return "No cell has a score"
    best, worst = (scored.loc[f(scored["mean_dice"])] for f in (pd.Series.idxmax, pd.Series.idxmin))
    if len(scored) == 1:
        return f"One cell has run ({cell_name(best)}): mean Dice {number(best['mean_dice'])}"
    ends = [f"{number(row['mean_dice'])} ({cell_name(row)})" for row in (worst, best)]
    return f"The same Dice loss scores {' to '.join(ends)} in mean Dice"


def effects_title(experiment: Experiment) -> str:
    """Which main effects hold, and on what."""
    effects = experiment.answers["effects"]
    if effects.empty:
        return "Too few cells have run for any effect to be estimated"
    holding = effects[(effects["kind"] == "main") & _holds(experiment, effects)]
    endpoints = [name for name in _endpoints(experiment) if name in set(holding["endpoint"])]
    clauses = [
        f"{listing(holding.loc[holding['endpoint'] == name, 'aspect'].unique())} on "
        f"{ENDPOINTS[name][0]}"
        for name in endpoints
    ]
    if not clauses:
        return "No main effect holds after Holm's correction"
    if holding["aspect"].nunique() == 1:
        on = listing(ENDPOINTS[name][0] for name in endpoints)
        return f"Only {holding['aspect'].iloc[0]} has a main effect that holds, and only on {on}"
    return f"Main effects that hold after Holm's correction: {'; '.join(clauses)}"


def interactions_title(experiment: Experiment) -> str:
    """Which factors depend on each other."""
    effects = experiment.answers["effects"]
    pairs = effects[effects["kind"] == "interaction"]
    if pairs.empty:
        return "The cells that have run show no interaction."
    holding = pairs[_holds(experiment, pairs)]
    if holding.empty:
        return "No two-way interaction holds: that the factors depend on each other is not shown."
    clauses = [
        f"{row['aspect'].replace(' x ', ' and ')} on {ENDPOINTS[row['endpoint']][0]} "
        f"({row['contrast']}: {_difference(row)})"
        for _, row in holding.iterrows()
    ]
    return f"The factors depend on each other in {shortened(clauses, 3)}."


def absence_title(experiment: Experiment) -> str:
    """Whether false positives follow the push, in a line."""
    verdicts = _verdicts(experiment)
    if verdicts.empty:
        return "Where a class is absent, these cells have nothing to compare"
    told = {
        word: [ABSENT[name] for name in verdicts.index[verdicts["verdict"] == word]]
        for word in (AS_PREDICTED, AGAINST)
    }
    start = "False positives on absent classes"
    theory = "what the loss's gradient predicts"
    clauses = [
        f"{verb} {theory} in their {listing(names)}"
        for verb, names in zip(("follow", "go against"), told.values(), strict=True)
        if names
    ]
    if not clauses:
        return f"{start} are not shown to follow {theory}"
    return f"{start} {listing(clauses)}"


def _absence(experiment: Experiment) -> list[str]:
    cells, verdicts = experiment.answers["cells"], _verdicts(experiment)
    found = []
    if "absent_rate" in cells and cells["absent_rate"].notna().any():
        kept, runs = int((cells["runs"] - cells["collapsed"]).sum()), int(cells["runs"].sum())
        rate, volume = cells["absent_rate"], cells["absent_ml"]
        middle = ""
        if "absent_median_ml" in cells:
            median = cells["absent_median_ml"]
            middle = f" (median {number(median.min(), 1)} to {number(median.max(), 1)} ml)"
        found.append(
            f"Absent classes are judged on the {kept} of {runs} runs that kept every class: cells "
            f"predict one in {percent(rate.min())} to {percent(rate.max())} of the cases that lack "
            f"it, {number(volume.min(), 1)} to {number(volume.max(), 1)} ml in the mean{middle}."
        )
    if len(verdicts):
        taus = verdicts.dropna(subset=["kendall_tau"])
        words = [
            f"{number(row['kendall_tau'])} for the {ABSENT[name]} (p {_relation(row['p'])})"
            for name, row in taus.iterrows()
        ]
        tail = (
            f": Kendall's tau with the push of the loss against them is {listing(words)} over "
            f"{count(int(taus['cells'].max()), 'cell')} (as predicted: {number(-1, 0)})"
            if words
            else ""
        )
        found.append(f"{absence_title(experiment)}{tail}.")
    return found + _floods(experiment)


def _floods(experiment: Experiment) -> list[str]:
    cells = experiment.answers["cells"]
    if "flooded" not in cells or not cells["flooded"].sum():
        return []
    its = cells[cells["flooded"] > 0]
    backgrounds = its["background"].unique()
    where = f"With the background {backgrounds[0]}, " if len(backgrounds) == 1 else ""
    low, high = (number(value, 0) for value in (its["flooded_ml"].min(), its["flooded_ml"].max()))
    ml = low if low == high else f"{low} to {high}"
    return [
        f"{where}{its['flooded'].sum()} of {count(int(cells['runs'].sum()), 'run')} spread a class "
        f"over {ml} ml where it is absent, more than any case has of it."
    ]


def _verdicts(experiment: Experiment) -> pd.DataFrame:
    """For each endpoint on absent classes: does it follow the push? Columns of ``prediction``.

    An effect alone may come from few cells, so their rank correlation must say the same.
    """
    table = experiment.answers["prediction"].set_index("endpoint")
    table = table.reindex(columns=["cells", "kendall_tau", "p"])
    rows = _predicted(experiment)
    verdicts = []
    for name, found in table.iterrows():
        over_cells = AS_PREDICTED if found["kendall_tau"] < 0 else AGAINST
        effects = set(rows.loc[rows["endpoint"] == name, "verdict"]) if len(rows) else set()
        agree = found["p"] < 1 - experiment.confidence and effects - {NOT_SHOWN} == {over_cells}
        verdicts.append(over_cells if agree else NOT_SHOWN)
    return table.assign(verdict=verdicts)


def _predicted(experiment: Experiment) -> pd.DataFrame:
    """Main effects on absent classes, whose direction the push predicts."""
    effects = experiment.answers["effects"]
    if effects.empty:
        return effects
    rows = effects[effects["endpoint"].isin(ABSENT) & (effects["kind"] == "main")]
    rows = rows.dropna(subset=["push_ratio", "difference"])
    holds = _holds(experiment, rows)
    fewer = rows["difference"] < 0
    verdict = [
        NOT_SHOWN if not real else AS_PREDICTED if less == (ratio > 1) else AGAINST
        for real, less, ratio in zip(holds, fewer, rows["push_ratio"], strict=True)
    ]  # fmt: skip
    return rows.assign(verdict=verdict)


def _mains(experiment: Experiment) -> list[str]:
    """The largest main effect that holds on each endpoint, and what the others might be."""
    effects = experiment.answers["effects"]
    mains = effects[effects["kind"] == "main"].dropna(subset=["difference"])
    mains = mains[~_of_one_start(experiment, mains)]
    holding = mains[_holds(experiment, mains)]
    clauses, unseen = [], []
    for endpoint in _endpoints(experiment):
        its, name = holding[holding["endpoint"] == endpoint], ENDPOINTS[endpoint][0]
        seen = mains.loc[mains["endpoint"] == endpoint, "minimum_detectable_difference"].median()
        if len(its):
            row = its.loc[its["difference"].abs().idxmax()]
            clauses.append(
                f"{row['aspect']} {row['contrast']} on {name} (by {_difference(row)})"
            )  # fmt: skip
        elif math.isfinite(seen):
            unseen.append(f"{_amount(endpoint, seen)} in {name}")
    found = [f"Largest: {'; '.join(clauses)}."] if clauses else []
    if unseen:
        starts = ", for these starts," if mains["seeds"].max() == 1 else ""
        found.append(
            f"With a power of 80 % a main effect would be found{starts} from {listing(unseen)} on."
        )
    return found


def _difference(row: pd.Series) -> str:
    size = f"{signed(row['difference'])} {interval(row['low'], row['high'], sign=True)}".strip()
    return f"{size}, p {_relation(row['p_holm'])}"


def _amount(endpoint: str, value: float) -> str:
    return f"{number(value, 1)} ml" if endpoint == "absent_ml" else number(value)


def _relation(p: float) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


def _holds(experiment: Experiment, effects: pd.DataFrame) -> pd.Series:
    sure = effects["p_holm"] < 1 - experiment.confidence
    return sure & ~_of_one_start(experiment, effects)


def _of_one_start(experiment: Experiment, effects: pd.DataFrame) -> pd.Series:
    """Effects that only one seed shows, in an experiment that has more of them."""
    if effects.empty:
        return pd.Series(dtype=bool)
    several = experiment.answers["effects"]["seeds"].max() > 1
    return (effects["seeds"] == 1) & several


def _endpoints(experiment: Experiment) -> list[str]:
    cells = experiment.answers["cells"]
    return [name for name in ENDPOINTS if name in cells and cells[name].notna().any()]


def _level(smoothing: float) -> str:
    return f"{smoothing:g}".replace("e-0", "e-")


def _factor(ratio: float) -> str:
    """Two digits, whether a push changes by ten or by a million."""
    if 0.01 <= ratio < 1000:
        return f"{ratio:.2g}" if ratio < 100 else f"{ratio:.0f}"
    digits, exponent = f"{ratio:.1e}".split("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}".replace("-", MINUS)


@styled
def draw_cells(experiment: Experiment) -> Figure:
    """Every cell: endpoint by column, background by row."""
    cells, endpoints = experiment.answers["cells"], _endpoints(experiment)
    if not endpoints:
        return nothing_to_show(scores_title(experiment))
    levels = sorted(cells["smoothing"].unique())
    figure = new_figure(WIDTH, 4.9)
    grid = figure.subplots(2, len(endpoints), sharex=True, sharey="col", squeeze=False)
    for axes, background in zip(grid, BACKGROUNDS, strict=True):
        axes[0].set_ylabel(f"background {background}", fontweight="bold")
        for axis, endpoint in zip(axes, endpoints, strict=True):
            for place, (reduction, (colour, marker)) in enumerate(REDUCTIONS.items()):
                its = cells[
                    (cells["reduction"] == reduction) & (cells["background"] == background)
                ].sort_values("smoothing")
                x = [levels.index(level) + 0.2 * (place - 0.5) for level in its["smoothing"]]
                axis.plot(x, its[endpoint], color=colour, alpha=0.4, linewidth=1)
                axis.vlines(x, *_ends(its, endpoint), color=colour, linewidth=1.7)
                axis.plot(x, its[endpoint], marker, color=colour, ms=6,
                          markeredgecolor="white", markeredgewidth=0.6)  # fmt: skip
            axis.set_xlim(-0.5, len(levels) - 0.5)
            axis.grid(axis="y", color="#EBEBEB", linewidth=0.6)
            axis.set_axisbelow(True)
    for axis, endpoint in zip(grid[0], endpoints, strict=True):
        axis.set_title(ENDPOINTS[endpoint][1])
    for axis in grid[1]:
        axis.set_xticks(range(len(levels)), [_level(level) for level in levels])
        axis.set_xlabel("smoothing (voxels)")
    legend_below(figure, [
        Line2D([], [], color=colour, marker=marker, label=f"over the {name}")
        for name, (colour, marker) in REDUCTIONS.items()
    ])  # fmt: skip
    headline(figure, scores_title(experiment))
    return figure


def _ends(cells: pd.DataFrame, endpoint: str) -> tuple[pd.Series, pd.Series]:
    """Ends of the intervals within the range that the endpoint has."""
    top = None if endpoint == "absent_ml" else 1
    low, high = (cells[f"{endpoint}_{end}"].clip(0, top) for end in ("low", "high"))
    return low, high


@styled
def draw_effects(experiment: Experiment) -> Figure:
    """A forest of all effects, a panel for each endpoint."""
    effects, endpoints = experiment.answers["effects"], _endpoints(experiment)
    if effects.empty:
        return nothing_to_show(effects_title(experiment))
    names = list(dict.fromkeys(effects["aspect"] + ": " + effects["contrast"]))
    mains = effects.loc[effects["kind"] == "main", ["aspect", "contrast"]].drop_duplicates()
    figure = new_figure(WIDTH, 1.9 + 0.3 * len(names))
    axes = figure.subplots(1, len(endpoints), sharey=True, squeeze=False)[0]
    for axis, endpoint in zip(axes, endpoints, strict=True):
        rows = effects[effects["endpoint"] == endpoint]
        axis.axvline(0, color=GREY, linestyle="--", linewidth=1.1, zorder=0)
        holds = _holds(experiment, rows)
        for (_, row), real in zip(rows.iterrows(), holds, strict=True):
            place = names.index(f"{row['aspect']}: {row['contrast']}")
            axis.plot([row["low"], row["high"]], [place, place], color=BLUE, linewidth=1.7)
            axis.plot(row["difference"], place, "o", color=BLUE, ms=6,
                      markerfacecolor=BLUE if real else "white")  # fmt: skip
        axis.set_title(ENDPOINTS[endpoint][1])
        axis.set_xlabel("difference")
        axis.locator_params(axis="x", nbins=3)
        loss_axis(axis, names)
        if len(mains) < len(names):
            axis.axhline(len(mains) - 0.5, color=GREY, linewidth=0.8)
    axes[0].set_yticks(range(len(names)), names, fontsize=8)
    for axis in axes[1:]:
        axis.tick_params(labelleft=False)
    legend_below(figure, [
        Line2D([], [], color=BLUE, marker="o", label="holds after Holm's correction"),
        Line2D([], [], color=BLUE, marker="o", markerfacecolor="white", label="not shown"),
    ])  # fmt: skip
    headline(figure, effects_title(experiment))
    return figure


@styled
def draw_absence(experiment: Experiment) -> Figure:
    """False positives of every cell against the push that its loss gives them."""
    cells = experiment.answers["cells"]
    endpoints = [name for name in _endpoints(experiment) if name in ABSENT]
    if not endpoints or not cells["push"].notna().any():
        return nothing_to_show(absence_title(experiment))
    marks = dict(zip(sorted(cells["smoothing"].unique()), "o^sDvP", strict=False))
    figure = new_figure(WIDTH, 4.0)
    axes = figure.subplots(1, len(endpoints), squeeze=False)[0]
    for axis, endpoint in zip(axes, endpoints, strict=True):
        colours = [REDUCTIONS[name][0] for name in cells["reduction"]]
        axis.vlines(cells["push"], *_ends(cells, endpoint), color=colours, linewidth=1.2, alpha=0.6)
        for (_, row), colour in zip(cells.iterrows(), colours, strict=True):
            axis.plot(row["push"], row[endpoint], marks[row["smoothing"]], color=colour, ms=7,
                      markeredgewidth=1.3,
                      markerfacecolor=colour if row["background"] == "in" else "white")  # fmt: skip
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _factor(value)))
        axis.tick_params(axis="x", which="minor", bottom=False)
        axis.set_xlabel("push: gradient on a false structure of an absent class")
        axis.set_ylabel(ENDPOINTS[endpoint][1].replace("\n", " "))
    grey: dict[str, Any] = {"color": GREY, "linestyle": ""}
    legend_below(figure, [
        *(Line2D([], [], color=colour, marker="o", linestyle="", label=f"over the {name}")
          for name, (colour, _) in REDUCTIONS.items()),
        *(Line2D([], [], marker=mark, label=f"smoothing {_level(level)}", **grey)
          for level, mark in marks.items()),
        Line2D([], [], marker="o", label="background in", **grey),
        Line2D([], [], marker="o", markerfacecolor="white", label="background out", **grey),
    ], columns=4)  # fmt: skip
    headline(figure, absence_title(experiment))
    return figure


def _intervals(experiment: Experiment) -> str:
    return f"{percent(experiment.confidence)} intervals over {covered(experiment)}"


CHAPTER = Chapter(
    figures={"cells": draw_cells, "effects": draw_effects, "absence": draw_absence},
    captions={
        "cells": lambda experiment: (
            f"Dots: means of the cells; bars: {_intervals(experiment)}. Absent classes: over the "
            "test cases that lack a class, in runs that kept every class; a cell without such a "
            "run has no dot."
        ),
        "effects": lambda experiment: (
            "Above the line: mean difference of two levels of a factor over all settings of the "
            "other two. Below: by how much the first difference changes between the levels of the "
            f"second factor. Bars: {_intervals(experiment)}, not corrected; filled dots hold "
            "after Holm's correction over the effects of the panel"
            + (
                "; what one of several seeds shows stays open."
                if _of_one_start(experiment, experiment.answers["effects"]).any()
                else "."
            )
        ),
        "absence": lambda experiment: (
            "A dot a cell. Push: mean derivative of the loss by the logit of a class over a false "
            "structure of the class's usual size in an image that lacks it, while the other "
            "images of the batch have it. False positives: of runs that kept every class. Bars: "
            f"{_intervals(experiment)}."
        ),
    },
    said=said,
    shown={"effects": "Effects", "cells": "Cells", "prediction": "Push against false positives"},
)
