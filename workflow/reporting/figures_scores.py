"""Held-out scores, outcomes of runs and cost: one row a loss, best loss on top."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from workflow.reporting import text, wording
from workflow.reporting.study_tables import FLOOR, Study
from workflow.reporting.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    OUTCOMES,
    SKY,
    TIER_MARKS,
    VERMILION,
    WIDTH,
    class_colours,
    headline,
    height_for,
    legend_below,
    loss_axis,
    new_figure,
    nothing_to_show,
    styled,
)


@styled
def draw_ranking(study: Study) -> Figure:
    """Mean Dice and Dice of the rarest class with intervals, tier by colour and marker."""
    table = text.trained(study)
    if table.empty:
        return nothing_to_show(text.ranking_title(study))
    labels = list(table["loss"])
    figure = new_figure(WIDTH, height_for(len(labels)))
    axes = figure.subplots(1, 2, sharey=True, width_ratios=[1.25, 1])
    floor = study.row(FLOOR)
    for axis, column in zip(axes, ("mean_dice", "rarest_dice"), strict=True):
        for place, (_, row) in enumerate(table.iterrows()):
            colour, marker, _ = TIER_MARKS.get(row["tier"], (GREY, "o", ""))
            if not math.isfinite(row[column]):
                axis.text(0.02, place, "no score", va="center", fontsize=8, color=VERMILION)
                continue
            low, high = row[f"{column}_low"], row[f"{column}_high"]
            if math.isfinite(low) and math.isfinite(high):
                axis.plot([max(low, 0), min(high, 1)], [place, place], color=colour, linewidth=2)
            axis.plot(row[column], place, marker, color=colour, markersize=6.5,
                      markeredgecolor="white", markeredgewidth=0.6)  # fmt: skip
        if floor is not None and math.isfinite(floor[column]):
            axis.axvline(floor[column], color=GREY, linestyle="--", linewidth=1.2, zorder=0)
        axis.set_xlim(-0.03, 1)
    loss_axis(axes[0], labels)
    loss_axis(axes[1], labels)
    axes[1].tick_params(labelleft=False)
    for place, (_, row) in enumerate(table.iterrows()):
        axes[1].text(1.02, place, _trouble(row), va="center", fontsize=7.5, color=VERMILION)
    axes[0].set_xlabel("mean foreground Dice, held-out")
    axes[1].set_xlabel(f"Dice of the rarest class ({study.rarest})")
    scored = set(table.loc[table["mean_dice"].notna(), "tier"])
    used = [tier for tier in TIER_MARKS if tier in scored]
    handles = [
        Line2D([], [], color=TIER_MARKS[t][0], marker=TIER_MARKS[t][1], label=TIER_MARKS[t][2])
        for t in used
    ]
    if floor is not None:
        handles.append(Line2D([], [], color=GREY, linestyle="--", label=TIER_MARKS["floor"][2]))
    legend_below(figure, handles)
    headline(figure, text.ranking_title(study))
    return figure


def _trouble(row: pd.Series) -> str:
    """How many runs of a loss collapsed or failed; empty if none did."""
    told = [f"{int(row[kind])} {kind}" for kind in ("collapsed", "failed") if row[kind] > 0]
    return f"{', '.join(told)} of {int(row['runs'])}" if told else ""


@styled
def draw_heldout_dice(study: Study) -> Figure:
    """Per class: a dot a case (averaged over seeds), box of quartiles, mean as a diamond."""
    cases = study.chosen(study.cases)
    cases = cases[cases["dice"].notna() & (cases["loss"] != FLOOR)] if len(cases) else cases
    labels = study.losses
    if not labels or cases.empty:
        return nothing_to_show(text.heldout_title(study))
    points = cases.groupby(["class", "loss", "case"])["dice"].mean()
    figure = new_figure(WIDTH, height_for(len(labels), 1.2))
    axes = figure.subplots(1, len(study.classes), sharey=True, squeeze=False)[0]
    jitter = np.random.default_rng(0)
    for axis, (name, colour) in zip(axes, class_colours(study.classes).items(), strict=True):
        for place, label in enumerate(labels):
            values = (
                points[name][label].to_numpy()
                if (name, label) in points.index.droplevel("case")
                else np.array([])
            )
            if len(values) == 0:
                axis.text(0, place, "no score", va="center", fontsize=7.5, color=VERMILION)
                continue
            shake = jitter.uniform(-0.22, 0.22, len(values))
            axis.scatter(values, place + shake, s=9, color=colour, alpha=0.75, linewidths=0.3,
                         edgecolors="#444444")  # fmt: skip
            low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
            axis.add_patch(Rectangle((low, place - 0.3), high - low, 0.6, fill=False,
                                     linewidth=1.0, edgecolor=BLACK))  # fmt: skip
            axis.plot([middle, middle], [place - 0.3, place + 0.3], color=BLACK, linewidth=1.6)
            axis.plot(values.mean(), place, "D", color="white", markeredgecolor=BLACK,
                      markersize=4.5)  # fmt: skip
        loss_axis(axis, labels)
        axis.set_xlim(-0.03, 1)
        axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
        axis.set_xlabel("Dice, held-out cases")
        held = cases[cases["class"] == name]["case"].nunique()
        axis.set_title(f"{name}\nin {wording.count(held, 'case')}")
    for axis in axes[1:]:
        axis.tick_params(labelleft=False)
    headline(figure, text.heldout_title(study))
    return figure


@styled
def draw_collapse(study: Study) -> Figure:
    """Outcome of each run as a grid of losses and seeds; false structures of absent classes."""
    runs = study.runs
    if runs.empty:
        return nothing_to_show(text.collapse_title(study))
    labels = study.losses
    absent = study.chosen(study.absent)
    seeds = sorted(runs["seed"].unique())
    figure = new_figure(WIDTH, height_for(len(labels), 1.5))
    grid, alarms = figure.subplots(1, 2, sharey=True, width_ratios=[1, 1.1])
    for _, run in runs.iterrows():
        outcome = study.outcome(run)
        place = labels.index(run["loss"])
        column = seeds.index(run["seed"])
        grid.add_patch(Rectangle((column - 0.46, place - 0.43), 0.92, 0.86, linewidth=0,
                                 facecolor=OUTCOMES[outcome][0]))  # fmt: skip
        if outcome != "none" and len(seeds) <= 10:
            dark = outcome in ("diverged", "total", "failed")
            grid.text(column, place, outcome, ha="center", va="center",
                      fontsize=7.5 if len(seeds) <= 6 else 6,
                      color="white" if dark else "black")  # fmt: skip
    grid.set_xlim(-0.5, len(seeds) - 0.5)
    grid.set_xticks(range(len(seeds)), seeds)
    grid.set_xlabel("seed")
    grid.set_title("outcome of each run")
    loss_axis(grid, labels)
    grid.grid(False)
    seen = {study.outcome(run) for _, run in runs.iterrows()}
    handles: list[Artist] = [
        Patch(color=colour, label=words)
        for outcome, (colour, words) in OUTCOMES.items()
        if outcome in seen
    ]
    alarms.set_title("false structures where the class is absent")
    alarms.set_xlabel("share of absent cases with a false structure")
    alarms.set_xlim(-0.03, 1.03)
    shown = absent[absent["class"].isin(study.classes)] if len(absent) else absent
    if len(shown):
        gap = 0.5 / max(len(study.classes), 1)
        for i, (name, colour) in enumerate(class_colours(study.classes).items()):
            rows = shown[(shown["class"] == name) & shown["loss"].isin(labels)]
            if rows.empty:
                continue
            places = [labels.index(label) + (i - (len(study.classes) - 1) / 2) * gap
                      for label in rows["loss"]]  # fmt: skip
            alarms.scatter(rows["false_structure_rate"], places, s=30, color=colour,
                           edgecolors="#333333", linewidths=0.6, clip_on=False,
                           zorder=3)  # fmt: skip
            handles.append(Line2D([], [], marker="o", linestyle="", color=colour,
                                  markeredgecolor="#333333", label=f"{name} absent"))  # fmt: skip
    else:
        alarms.text(0.5, (len(labels) - 1) / 2, "no held-out case lacks a class", ha="center")
    loss_axis(alarms, labels)
    alarms.tick_params(labelleft=False)
    legend_below(figure, handles)
    headline(figure, text.collapse_title(study))
    return figure


@styled
def draw_published_corrected(study: Study) -> Figure:
    """Each published loss beside its correction, and the difference with its interval."""
    pairs = study.pairs()
    if not pairs:
        return nothing_to_show(text.correction_title(study))
    figure = new_figure(WIDTH, 1.4 + 0.42 * max(len(pairs), 3))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1, 1.1])
    scores = study.ranked.set_index("loss")
    for place, (old, fix) in enumerate(pairs):
        before, after = scores.loc[old], scores.loc[fix]
        # Between two marks that touch, an arrow is only a smudge.
        if abs(after["mean_dice"] - before["mean_dice"]) > 0.06:
            left.annotate("", (after["mean_dice"], place), (before["mean_dice"], place),
                          arrowprops={"arrowstyle": "->", "color": GREY, "lw": 1.4})  # fmt: skip
        # The ring is larger than the dot, so that both are seen where they coincide.
        for row, size, filled in ((before, 10, False), (after, 6.5, True)):
            colour = VERMILION if row["collapsed"] > 0 else BLUE
            left.plot(row["mean_dice"], place, "o", markersize=size, markeredgewidth=1.6,
                      color=colour if filled else "none", markeredgecolor=colour)  # fmt: skip
        for shift, endpoint, colour in ((-0.13, "mean_dice", BLUE), (0.13, "rarest_dice", ORANGE)):
            _draw_difference(right, study, (old, fix), endpoint, place + shift, colour)
    left.set_xlim(-0.03, 1)
    left.set_xlabel("mean foreground Dice, held-out")
    reach = [value for value in right.dataLim.intervalx if math.isfinite(value)]
    right.set_xlim(min([-0.1, *reach]) - 0.03, max([0.1, *reach]) + 0.03)
    right.axvline(0, color=BLACK, linewidth=1)
    right.set_xlabel("corrected minus published, Dice")
    for axis in (left, right):
        loss_axis(axis, [old for old, _ in pairs])
    left.set_yticklabels([_pair_name(old, fix) for old, fix in pairs])
    right.tick_params(labelleft=False)
    handles = [
        Line2D([], [], marker="o", linestyle="", color="none", markeredgecolor=BLACK,
               markersize=10, markeredgewidth=1.6, label="published"),
        Line2D([], [], marker="o", linestyle="", color=BLACK, label="corrected"),
        Line2D([], [], marker="o", linestyle="", color=VERMILION, label="collapsed in a run"),
        Line2D([], [], marker="o", color=BLUE, label="difference of the mean"),
        Line2D([], [], marker="s", color=ORANGE, label="difference of the rarest class"),
    ]  # fmt: skip
    legend_below(figure, handles, 3)
    headline(figure, text.correction_title(study))
    return figure


def _pair_name(old: str, fix: str) -> str:
    return f"{wording.readable(old)}\n→ {wording.readable(fix)}"


def _draw_difference(
    axis: Axes, study: Study, pair: tuple[str, str], endpoint: str, place: float, colour: str
) -> None:
    found = study.contrast("correction", pair[1], pair[0], endpoint)
    if found is None or not math.isfinite(found["difference"]):
        return
    if math.isfinite(found["low"]) and math.isfinite(found["high"]):
        axis.plot([found["low"], found["high"]], [place, place], color=colour, linewidth=2)
    filled = text.separable(found, study.confidence)
    axis.plot(found["difference"], place, "o" if endpoint == "mean_dice" else "s", markersize=6,
              color=colour if filled else "white", markeredgecolor=colour,
              markeredgewidth=1.5)  # fmt: skip


@styled
def draw_cost(study: Study) -> Figure:
    """Time of a training step with the loss's share of it, and peak memory."""
    table = study.cost[study.cost["loss"] != FLOOR] if len(study.cost) else study.cost
    table = table[table["seconds_per_step"].notna()] if len(table) else table
    if table.empty:
        return nothing_to_show(text.cost_title(study))
    table = table.sort_values(["seconds_per_step", "loss"])
    labels = list(table["loss"])
    figure = new_figure(WIDTH, height_for(len(labels)))
    time, memory = figure.subplots(1, 2, sharey=True, width_ratios=[1.6, 1])
    step = 1000 * table["seconds_per_step"].to_numpy()
    share = table["loss_share"].fillna(0).to_numpy()
    places = np.arange(len(labels))
    time.barh(places, step, height=0.66, color=SKY)
    time.barh(places, step * share, height=0.66, color=BLUE)
    for place in places[table["loss_share"].isna().to_numpy()]:
        time.text(step[place], place, " share unknown", va="center", fontsize=8, color=GREY)
    time.set_xlabel("median time of a training step (ms)")
    memory.plot(table["peak_memory_mib"], places, "o", color=BLUE, markersize=6)
    peak = pd.to_numeric(table["peak_memory_mib"]).max()
    memory.set_xlim(0, 1.1 * peak if math.isfinite(peak) and peak > 0 else 1)
    memory.set_xlabel("peak memory (MiB)")
    loss_axis(time, labels)
    loss_axis(memory, labels)
    time.grid(False)
    memory.tick_params(labelleft=False)
    legend_below(
        figure,
        [Patch(color=BLUE, label="in the loss"), Patch(color=SKY, label="rest of the step")],
    )
    headline(figure, text.cost_title(study))
    return figure
