"""How much each loss depends on its learning rate."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from workflow.reporting import evidence
from workflow.reporting.study_tables import Study
from workflow.reporting.style import (
    BLUE,
    ORANGE,
    headline,
    legend_below,
    nothing_to_show,
    small_multiples,
    styled,
)


@styled
def draw_learning_rates(study: Study) -> Figure:
    """Validation Dice of every trial against its learning rate, a panel for each loss."""
    trials = study.trials
    labels = [x for x in study.losses if x in set(trials["loss"])] if len(trials) else []
    if not labels:
        return nothing_to_show(evidence.rates_title(study))
    figure, panels = small_multiples(labels, "learning rate", "Dice")
    ticks = sorted(set(trials.loc[~trials["widened"], "learning_rate"]))
    ticks = ticks[:: -(-len(ticks) // 4)]
    for label, axis in zip(labels, panels, strict=True):
        rows = trials[trials["loss"] == label].sort_values("learning_rate")
        axis.plot(rows["learning_rate"], rows["score"], color=BLUE, linewidth=1.2, zorder=1)
        for _, row in rows.iterrows():
            broken = row["status"] != "ok"
            axis.plot(row["learning_rate"], row["score"], "x" if broken else "o", markersize=5,
                      color="white" if row["widened"] and not broken else BLUE,
                      markeredgecolor=BLUE, clip_on=False)  # fmt: skip
        chosen = rows[rows["chosen"]]
        axis.plot(chosen["learning_rate"], chosen["score"], "D", color="none", markersize=10,
                  markeredgecolor=ORANGE, markeredgewidth=1.6, clip_on=False)  # fmt: skip
        if rows["on_edge"].any():
            axis.text(0.04, 0.9, "still at an end", fontsize=7.5, transform=axis.transAxes)
        axis.set_xscale("log")
        axis.set_xticks(ticks, [f"{rate:g}".removeprefix("0") for rate in ticks])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.margins(x=0.1)
        axis.set_ylim(-0.03, 1.03)
        axis.set_yticks([0, 0.5, 1], ["0", ".5", "1"])
    legend_below(figure, [
        Line2D([], [], color=BLUE, marker="o", label="trial of the grid"),
        Line2D([], [], color="white", marker="o", markeredgecolor=BLUE, label="beyond the grid"),
        Line2D([], [], color=BLUE, marker="x", linestyle="", label="broke down"),
        Line2D([], [], color="none", marker="D", markersize=9, markeredgecolor=ORANGE,
               label="chosen"),
    ])  # fmt: skip
    headline(figure, evidence.rates_title(study))
    return figure
