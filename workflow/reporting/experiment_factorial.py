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
    "absent_rate": ("the false-positive rate on absent classes", "Absent class:\nrate predicted"),
    "absent_ml": ("the false-positive volume (ml) on absent classes", "Absent class:\nvolume (ml)"),
}
REDUCTIONS = {"image": (BLUE, "o"), "batch": (ORANGE, "s")}
BACKGROUNDS = ("in", "out")
ABSENT = {"absent_rate": "rate", "absent_ml": "volume (ml)"}
AS_PREDICTED, AGAINST, NOT_SHOWN = "as predicted", "against the prediction", "not shown"


def said(experiment: Experiment) -> list[str]:
    """The findings."""
    cells = experiment.answers["cells"]
    found = [f"{scores_title(experiment)}."]
    lost = cells[cells["collapsed"] > 0] if len(cells) else cells
    if len(lost):
        runs, all_runs = int(lost["collapsed"].sum()), int(cells["runs"].sum())
        found.append(
            f"{count(runs, 'run')} of {all_runs} lost a class: "
            f"{shortened([cell_name(row) for _, row in lost.iterrows()], 4)}."
        )
    effects = experiment.answers["effects"]
    if effects.empty:
        return [*found, "Too few cells have run for any effect to be estimated."]
    found += [_main(experiment, name) for name in _endpoints(experiment)]
    found.append(interactions_title(experiment))
    found += _absence(experiment)
    if effects["seeds"].max() == 1:
        found.append("There is one seed: the intervals speak of further cases, not of other seeds.")
    return found


def cell_name(row: pd.Series) -> str:
    """`over the batch with smoothing 1e-5 and background out`."""
    return (
        f"over the {row['reduction']} with smoothing {_level(row['smoothing'])} and "
        f"background {row['background']}"
    )


def scores_title(experiment: Experiment) -> str:
    """How far apart the cells are."""
    cells = experiment.answers["cells"]
    scored = cells.dropna(subset=["mean_dice"]) if len(cells) else cells
    if scored.empty:
        return "No cell has a score"
    best, worst = (scored.loc[f(scored["mean_dice"])] for f in (pd.Series.idxmax, pd.Series.idxmin))
    if len(scored) == 1:
        return f"One cell has run ({cell_name(best)}): mean Dice {number(best['mean_dice'])}"
    return (
        f"The same Dice loss scores {number(worst['mean_dice'])} to {number(best['mean_dice'])} in "
        f"mean Dice over its {len(scored)} cells: lowest {cell_name(worst)}; highest "
        f"{cell_name(best)}"
    )


def effects_title(experiment: Experiment) -> str:
    """Which main effects hold, and on what."""
    effects = experiment.answers["effects"]
    if effects.empty:
        return "Too few cells have run for any effect to be estimated."
    holding = effects[(effects["kind"] == "main") & _holds(experiment, effects)]
    clauses = []
    for name in _endpoints(experiment):
        on = holding[holding["endpoint"] == name]
        aspects = listing(dict.fromkeys(on["aspect"])) or "nothing"
        clauses.append(f"{aspects} on {ENDPOINTS[name][0]}")
    return f"Main effects that hold after Holm's correction: {'; '.join(clauses)}"


def interactions_title(experiment: Experiment) -> str:
    """Which factors depend on each other."""
    effects = experiment.answers["effects"]
    pairs = effects[effects["kind"] == "interaction"]
    if pairs.empty:
        return "The cells that have run show no interaction."
    holding = pairs[_holds(experiment, pairs)]
    if holding.empty:
        return (
            "No two-way interaction holds after Holm's correction: where the factors act at all, "
            "this study does not show that they act differently in each other's presence."
        )
    clauses = [
        f"{row['aspect'].replace(' x ', ' and ')} on {ENDPOINTS[row['endpoint']][0]} "
        f"({row['contrast']}: {_difference(row)})"
        for _, row in holding.iterrows()
    ]
    return f"The factors depend on each other in {shortened(clauses, 6)}."


def absence_title(experiment: Experiment) -> str:
    """Whether false positives follow the push, in a line."""
    rows = _predicted(experiment)
    if rows.empty:
        return "Where a class is absent, these cells have nothing to compare"
    followed, against = (rows["verdict"] == word for word in (AS_PREDICTED, AGAINST))
    verdict = (
        "follow" if followed.all()
        else "follow in part" if followed.any()
        else "go against" if against.any()
        else "are not shown to follow"
    )  # fmt: skip
    counts = [
        f"{word} {followed[its].sum()} of {count(its.sum(), 'main effect')} as predicted"
        + (f", {against[its].sum()} against" if against[its].any() else "")
        for word, its in ((word, rows["endpoint"] == name) for name, word in ABSENT.items())
    ]
    return (
        f"False positives on absent classes {verdict} what the loss's gradient predicts: "
        f"{'; '.join(counts)}"
    )


def _absence(experiment: Experiment) -> list[str]:
    rows = _predicted(experiment)
    if rows.empty:
        return []
    cells = experiment.answers["cells"]
    rate, volume = cells["absent_rate"], cells["absent_ml"]
    found = [
        f"A class that a case lacks is predicted there in {percent(rate.min())} (lowest cell) to "
        f"{percent(rate.max())} (highest) of such cases, with {_amount('absent_ml', volume.min())} "
        f"to {_amount('absent_ml', volume.max())}."
    ]
    clauses = []
    for (aspect, contrast), its in rows.groupby(["aspect", "contrast"], sort=False):
        changes = [
            f"{ABSENT[row['endpoint']]} {signed(row['difference'])} {row['verdict']}"
            for _, row in its.iterrows()
        ]
        ratio = _factor(its["push_ratio"].iloc[0])
        clauses.append(f"{aspect} {contrast} by {ratio} ({', '.join(changes)})")
    found.append(
        f"{absence_title(experiment)}. After Tilborghs et al. (2022), reduction and smoothing "
        "decide how strongly the loss pushes a false structure of an absent class down. What "
        f"multiplies that push, and what became of the false positives: {'; '.join(clauses)}."
    )
    taus = experiment.answers["prediction"].dropna(subset=["kendall_tau"])
    if len(taus):
        words = [
            f"{number(row['kendall_tau'])} with {ENDPOINTS[row['endpoint']][0]}"
            for _, row in taus.iterrows()
        ]
        found.append(
            f"Over the {taus['cells'].max()} cells, Kendall's tau of that push is {listing(words)} "
            f"({number(-1, 0)}: the stronger the push, the fewer false positives)."
        )
    return found


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


def _main(experiment: Experiment, endpoint: str) -> str:
    effects = experiment.answers["effects"]
    rows = effects[(effects["endpoint"] == endpoint) & (effects["kind"] == "main")]
    rows = rows.dropna(subset=["difference"])
    name = ENDPOINTS[endpoint][0]
    if rows.empty:
        return f"No main effect on {name} can be estimated."
    holding = rows[_holds(experiment, rows)]
    if holding.empty:
        seen = rows["minimum_detectable_difference"].median()
        size = f" (one of {_amount(endpoint, seen)} would be found with a power of 80 %)"
        return (
            f"No main effect on {name} holds after Holm's correction"
            f"{size if math.isfinite(seen) else ''}."
        )
    clauses = [
        f"{row['aspect']} {row['contrast']} changes it by {_difference(row)}"
        for _, row in holding.iterrows()
    ]
    return (
        f"{name[0].upper()}{name[1:]}, main effects that hold after Holm's correction "
        f"({len(holding)} of {len(rows)}): {'; '.join(clauses)}."
    )


def _difference(row: pd.Series) -> str:
    size = f"{signed(row['difference'])} {interval(row['low'], row['high'], sign=True)}".strip()
    return f"{size}, p {_relation(row['p_holm'])}"


def _amount(endpoint: str, value: float) -> str:
    return f"{number(value, 1)} ml" if endpoint == "absent_ml" else number(value)


def _relation(p: float) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


def _holds(experiment: Experiment, effects: pd.DataFrame) -> pd.Series:
    return effects["p_holm"] < 1 - experiment.confidence


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
            f"Dots: means of the cells; bars: {_intervals(experiment)}. The last two columns are "
            "taken over the test cases that lack a class."
        ),
        "effects": lambda experiment: (
            "Above the line: mean difference of two levels of a factor over all settings of the "
            "other two. Below: by how much the first difference changes between the levels of the "
            f"second factor. Bars: {_intervals(experiment)}, not corrected; filled dots hold "
            "after Holm's correction over the effects of the panel."
        ),
        "absence": lambda experiment: (
            "A dot a cell. Push: mean derivative of the loss by the logit of a class over a false "
            "structure of the class's usual size in an image that lacks it, while the other "
            f"images of the batch have it. Bars: {_intervals(experiment)}."
        ),
    },
    said=said,
    shown={"effects": "Effects", "cells": "Cells", "prediction": "Push against false positives"},
)
