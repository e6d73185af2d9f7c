"""What probabilities are worth: where a class is absent, and how often they come true."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from workflow.reporting import evidence
from workflow.reporting.study_tables import FLOOR, Study
from workflow.reporting.style import (
    BLUE,
    GREY,
    ORANGE,
    WIDTH,
    class_colours,
    headline,
    height_for,
    legend_below,
    loss_axis,
    new_figure,
    nothing_to_show,
    small_multiples,
    styled,
)
from workflow.reporting.wording import number


@styled
def draw_absent(study: Study) -> Figure:
    """Volume predicted where a class is not, and how well presence is told from absence."""
    rows = study.chosen(study.absent)
    rows = rows[rows["loss"] != FLOOR] if len(rows) else rows
    if rows.empty:
        return nothing_to_show(evidence.absent_title(study))
    labels = [label for label in study.losses if label in set(rows["loss"])]
    figure = new_figure(WIDTH, height_for(len(labels), 1.5))
    volume, presence = figure.subplots(1, 2, sharey=True)
    gap = 0.5 / max(len(study.classes), 1)
    handles = []
    for index, (name, colour) in enumerate(class_colours(study.classes).items()):
        of_class = rows[rows["class"] == name]
        if of_class.empty:
            continue
        shift = (index - (len(study.classes) - 1) / 2) * gap
        places = [labels.index(label) + shift for label in of_class["loss"]]
        look = {"s": 30, "color": colour, "edgecolors": "#333333", "linewidths": 0.6, "zorder": 3,
                "clip_on": False}  # fmt: skip
        volume.scatter(of_class["false_positive_mm3"], places, **look)
        presence.scatter(of_class["presence_auc"], places, **look)
        handles.append(Line2D([], [], marker="o", linestyle="", color=colour,
                              markeredgecolor="#333333", label=f"{name} absent"))  # fmt: skip
    # linear up to a cubic millimetre, less than a voxel: a loss may predict nothing at all
    volume.set_xscale("symlog", linthresh=1.0)
    volume.set_xlim(0, max(10, 3 * rows["false_positive_mm3"].max()))
    volume.xaxis.set_major_formatter(FuncFormatter(_power_of_ten))
    volume.set_xlabel("mean false-positive volume of an absent class (mm³)")
    presence.axvline(0.5, color=GREY, linestyle="--", linewidth=1.2, zorder=0)
    handles.append(Line2D([], [], color=GREY, linestyle="--", label="chance"))
    presence.set_xlim(min(0.45, rows["presence_auc"].min() - 0.03), 1.02)
    presence.set_xlabel("presence AUC: is the class there?")
    for axis in (volume, presence):
        loss_axis(axis, labels)
    presence.tick_params(labelleft=False)
    legend_below(figure, handles)
    headline(figure, evidence.absent_title(study))
    return figure


def _power_of_ten(value: float, _: int) -> str:
    if value < 1000:
        return f"{value:g}"
    return "10" + str(round(math.log10(value))).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


@styled
def draw_reliability(study: Study) -> Figure:
    """A reliability diagram for each loss that holds: top label and rarest class."""
    labels = [x for x in study.standing if len(evidence.pooled_bins(study, x, ""))]
    if not labels:
        return nothing_to_show(evidence.calibration_title(study))
    figure, panels = small_multiples(labels, "probability", "came true")
    errors = study.ranked.set_index("loss")["ece"]
    for label, axis in zip(labels, panels, strict=True):
        axis.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=0.9)
        for name, colour in (("", BLUE), (study.rarest, ORANGE)):
            bins = evidence.pooled_bins(study, label, name)
            share = bins["voxels"] / bins["voxels"].sum()
            axis.plot(bins["confidence"], bins["accuracy"], color=colour, linewidth=1.2)
            axis.scatter(bins["confidence"], bins["accuracy"], color=colour, linewidths=0,
                         s=3 + 40 * np.sqrt(share), alpha=0.75)  # fmt: skip
        axis.text(0.04, 0.9, f"ECE {number(errors[label], 3)}", fontsize=7.5)
        axis.set_xlim(-0.03, 1.03)
        axis.set_ylim(-0.03, 1.03)
        axis.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
        axis.set_yticks([0, 0.5, 1], ["0", ".5", "1"])
    legend_below(figure, [
        Line2D([], [], color=BLUE, marker="o", label="top label"),
        Line2D([], [], color=ORANGE, marker="o", label=f"{study.rarest} (rarest) against the rest"),
        Line2D([], [], color=GREY, linestyle="--", label="calibrated"),
    ])  # fmt: skip
    headline(figure, evidence.calibration_title(study))
    return figure
