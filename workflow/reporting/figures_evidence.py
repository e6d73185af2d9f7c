"""How firm the comparison is: pairs that are equivalent, ranks that hold, rules that agree."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from workflow.reporting import evidence
from workflow.reporting.study_tables import Study
from workflow.reporting.style import (
    BLACK,
    BLUE,
    FAINT,
    GREY,
    ORANGE,
    SKY,
    VERMILION,
    WIDTH,
    headline,
    height_for,
    legend_below,
    loss_axis,
    new_figure,
    nothing_to_show,
    styled,
)
from workflow.reporting.wording import number, percent, readable

# Colour and sign say the same, for readers who do not see the colours.
VERDICTS = {
    "equivalent": (BLUE, "=", "equivalent"),
    "not shown": ("#F3D9A4", "?", "not shown"),
    "margin too small": ("#E8E8E8", "", "this study is too small for the margin"),
}


@styled
def draw_equivalence(study: Study) -> Figure:
    """Below the diagonal the verdict on each pair, above it the smallest margin it allows."""
    pairs = evidence.standing_pairs(study)
    if pairs.empty:
        return nothing_to_show(evidence.equivalence_title(study))
    labels = [x for x in study.standing if x in {*pairs["loss"], *pairs["against"]}]
    size = len(labels)
    figure = new_figure(WIDTH, height_for(size, 1.6))
    axis = figure.subplots()
    letters = 8 if size <= 14 else 6.5
    for _, pair in pairs.iterrows():
        low, high = sorted((labels.index(pair["loss"]), labels.index(pair["against"])))
        colour, sign, _ = VERDICTS[pair["verdict"]]
        axis.add_patch(Rectangle((low - 0.47, high - 0.46), 0.94, 0.92, facecolor=colour))
        axis.text(low, high, sign, ha="center", va="center", fontsize=letters + 1,
                  color="white" if sign == "=" else BLACK)  # fmt: skip
        axis.text(high, low, number(pair["smallest_margin"], 3).removeprefix("0"), ha="center",
                  va="center", fontsize=letters, color=_legible(pair))  # fmt: skip
    loss_axis(axis, labels)
    axis.set_yticklabels([f"{readable(x)}  {i}" for i, x in enumerate(labels, 1)])
    axis.set_xlim(-0.6, size - 0.4)
    axis.set_xticks(range(size), [str(i) for i in range(1, size + 1)])
    axis.tick_params(length=0)
    axis.grid(False)
    axis.spines["bottom"].set_visible(False)
    axis.set_title("above the diagonal: smallest margin that a pair allows (mean Dice)", fontsize=9)
    handles = [
        Patch(color=colour, label=f"{sign}  {name}".strip())
        for colour, sign, name in VERDICTS.values()
    ]
    legend_below(figure, handles)
    headline(figure, evidence.equivalence_title(study))
    return figure


def _legible(pair: pd.Series) -> str:
    return BLACK if pair["smallest_margin"] <= pair["margin"] else "#6A6A6A"


@styled
def draw_rank_stability(study: Study) -> Figure:
    """Left: spread of the ranks over resamples; right: agreement of other rules with ours."""
    ranks = study.endpoint(study.ranks)
    rules = evidence.against_primary(study)
    if ranks.empty:
        return nothing_to_show(evidence.stability_title(study))
    ranks = ranks.sort_values("rank", kind="stable")
    rows = max(len(ranks), 0 if rules.empty else len(rules) + rules["aspect"].nunique())
    figure = new_figure(WIDTH, height_for(rows, 1.9))
    left, right = figure.subplots(1, 2, width_ratios=[1.35, 1])
    _draw_ranks(left, ranks, study)
    _draw_agreement(right, rules)
    handles = [
        Patch(facecolor=SKY, edgecolor=BLUE, label="half of the resamples"),
        Line2D([], [], color=BLUE, label="95 % of the resamples"),
        Line2D([], [], marker="o", linestyle="", color=BLUE, label="rank of the mean"),
        Line2D([], [], marker="D", linestyle="", color="white", markeredgecolor=VERMILION,
               label="mean rank within cases"),
        Line2D([], [], marker="o", linestyle="", color=ORANGE, label="same loss first"),
        Line2D([], [], marker="o", linestyle="", color="white", markeredgecolor=ORANGE,
               label="another loss first"),
    ]  # fmt: skip
    legend_below(figure, handles, 3)
    headline(figure, evidence.stability_title(study))
    return figure


def _draw_ranks(axis: Axes, ranks: pd.DataFrame, study: Study) -> None:
    for place, (_, row) in enumerate(ranks.iterrows()):
        axis.plot([row["low"], row["high"]], [place, place], color=BLUE, linewidth=1.4)
        low, high = row["lower_quartile"], row["upper_quartile"]
        axis.add_patch(Rectangle((low, place - 0.27), max(high - low, 0.02), 0.54, facecolor=SKY,
                                 edgecolor=BLUE, linewidth=0.8, zorder=2))  # fmt: skip
        axis.plot(row["rank"], place, "o", color=BLUE, markersize=5, zorder=3)
        if math.isfinite(row["mean_rank"]):
            axis.plot(row["mean_rank"], place, "D", color="white", markersize=4.5,
                      markeredgecolor=VERMILION, zorder=4)  # fmt: skip
        axis.text(1.02, place, percent(row["first"]), fontsize=7.5, va="center",
                  transform=axis.get_yaxis_transform())  # fmt: skip
    axis.text(1.02, -0.9, "first", fontsize=7.5, va="center",
              transform=axis.get_yaxis_transform())  # fmt: skip
    loss_axis(axis, list(ranks["loss"]))
    axis.set_xlim(0.4, len(ranks) + 0.6)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_ylim(len(ranks) - 0.4, -1.2)
    tests = study.endpoint(study.friedman)
    critical = tests["critical_difference"].iloc[0] if len(tests) else math.nan
    if math.isfinite(critical):
        axis.set_ylim(len(ranks) + 0.9, -1.2)
        place = len(ranks)
        end = min(1 + critical, len(ranks) + 0.6)
        axis.plot([1, end], [place, place], color=VERMILION, linewidth=2.5, solid_capstyle="butt")
        axis.annotate(f"critical difference of mean ranks: {number(critical)}", (1, place),
                      (0, -5), textcoords="offset points", va="top", fontsize=7.5)  # fmt: skip
    axis.set_xlabel("rank by mean Dice (1: best)")


def _draw_agreement(axis: Axes, rules: pd.DataFrame) -> None:
    names, place = [], 0
    for aspect, of_aspect in rules.groupby("aspect", sort=False) if len(rules) else ():
        first = evidence.rule_name(of_aspect["rule"].iloc[0])
        names.append((place, f"{evidence.ASPECTS.get(aspect, aspect)}, against {first}:"))
        for _, row in of_aspect.iterrows():
            place += 1
            names.append((place, evidence.rule_name(row["against"])))
            axis.plot([0, row["kendall_tau"]], [place, place], color=FAINT, linewidth=1.5)
            axis.plot(row["kendall_tau"], place, "o", markersize=6, markeredgecolor=ORANGE,
                      color=ORANGE if row["same_first"] else "white", clip_on=False)  # fmt: skip
        place += 1
    if not names:
        axis.axis("off")
        axis.text(0.5, 0.5, "no other rule ranks the losses", ha="center")
        return
    axis.set_ylim(place - 0.4, -0.6)
    axis.set_yticks([at for at, _ in names], [name for _, name in names])
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.set_xlim(min(0, rules["kendall_tau"].min()) - 0.02, 1)
    axis.axvline(0, color=GREY, linewidth=0.8)
    axis.set_xlabel("agreement (Kendall's tau)")
