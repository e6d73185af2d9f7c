"""Validation Dice while training: published and corrected losses share a panel."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from workflow.reporting.study_tables import Study
from workflow.reporting.style import (
    BLACK,
    FAINT,
    GREY,
    LINE_COLOURS,
    WIDTH,
    headline,
    nothing_to_show,
    styled,
)
from workflow.reporting.text import curves_title
from workflow.reporting.wording import readable

PANEL_LOSSES = 4


def curve_groups(study: Study) -> list[list[str]]:
    """Losses that share a row of panels: a correction with its published losses, then the rest.

    Losses without a partner are put together by family, a few a row. Rows in which a loss
    collapsed come first, and then the best.
    """
    published: dict[str, list[str]] = {}
    for old, fix in study.pairs():
        published.setdefault(fix, []).append(old)
    paired = {label for fix, olds in published.items() for label in (fix, *olds)}
    groups: list[list[str]] = []
    for fix, olds in published.items():
        if not any(fix in group for group in groups):
            groups += [[fix, *part] for part in _chunks(olds, PANEL_LOSSES - 1)]
    families: dict[str, list[str]] = {}
    for label in study.losses:
        if label not in paired:
            row = study.row(label)
            families.setdefault(str(row["family"]) if row is not None else "", []).append(label)
    for members in families.values():
        groups += _chunks(members, PANEL_LOSSES)
    return sorted(
        groups,
        key=lambda group: (
            not (_ever_collapsed(study) & set(group)),
            min(study.losses.index(label) for label in group),
        ),
    )


def _ever_collapsed(study: Study) -> set[str]:
    return set(study.runs.loc[study.runs["collapsed"], "loss"]) if len(study.runs) else set()


def _chunks(items: Sequence[str], size: int) -> list[list[str]]:
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


@styled
def draw_validation_curves(study: Study) -> Figure:
    """A row of panels for each group of losses, a column for each foreground class."""
    curves = study.curves
    if len(curves):
        curves = curves[(curves["split"] == "validation") & (curves["quantity"] == "dice")]
        curves = curves[curves["class"].isin(study.classes)]
    groups = [g for g in curve_groups(study) if len(curves) and curves["loss"].isin(g).any()]
    if not groups:
        return nothing_to_show(curves_title(study))
    # Constrained layout would shrink every panel for the longest legend: fixed margins do not.
    row, top, bottom = 1.25, 0.75, 0.85
    height = top + bottom + row * len(groups)
    figure = Figure(figsize=(WIDTH, height))
    panels = figure.subplots(
        len(groups), len(study.classes), sharex=True, sharey=True, squeeze=False
    )
    figure.subplots_adjust(
        left=0.065, right=0.745, top=1 - top / height, bottom=bottom / height, hspace=0.22,
        wspace=0.08,
    )  # fmt: skip
    lost = _lost_classes(study)
    for group, axes in zip(groups, panels, strict=True):
        for name, axis in zip(study.classes, axes, strict=True):
            rows = curves[curves["class"] == name]
            if study.reference_loss not in group:
                _median(axis, rows[rows["loss"] == study.reference_loss], GREY, "-", 1.1)
            for label, colour in zip(group, LINE_COLOURS, strict=False):
                _draw_loss(axis, rows[rows["loss"] == label], label, name, colour, lost)
            axis.set_ylim(-0.03, 1.0)
            axis.set_yticks([0, 0.5, 1.0])
            axis.grid(axis="y", color=FAINT, linewidth=0.5)
        _legend(axes[-1], group)
    for name, axis in zip(study.classes, panels[0], strict=True):
        axis.set_title(name + (" (rarest)" if name == study.rarest else ""))
    for axis in panels[-1]:
        axis.set_xlabel("training step")
    figure.supylabel("validation Dice", fontsize=9.5, x=0.005)
    figure.legend(handles=_handles(study), loc="lower center", ncols=4)
    headline(figure, curves_title(study))
    return figure


def _lost_classes(study: Study) -> dict[tuple[str, float, int], set[str]]:
    """The classes that each run lost."""
    return {
        (run["loss"], float(run["learning_rate"]), int(run["seed"])): study.lost_classes(run)
        for _, run in study.runs.iterrows()
    }


def _handles(study: Study) -> list[Line2D]:
    handles = [
        Line2D([], [], color=BLACK, linewidth=1.9, label="median of the seeds"),
        Line2D([], [], color=BLACK, linewidth=0.6, label="one seed"),
        Line2D([], [], color=BLACK, marker="x", linestyle="", label="collapsed or diverged"),
    ]
    if study.reference_loss in study.losses:
        name = f"{readable(study.reference_loss)}, the reference"
        handles.append(Line2D([], [], color=GREY, linewidth=1.1, label=name))
    return handles


def _style(label: str) -> str:
    return "--" if label.startswith("published_") else "-"


def _draw_loss(
    axis: Axes,
    rows: pd.DataFrame,
    label: str,
    name: str,
    colour: str,
    lost: dict[tuple[str, float, int], set[str]],
) -> None:
    for (rate, seed), run in rows.groupby(["learning_rate", "seed"]):
        run = run.sort_values("step")
        axis.plot(run["step"], run["value"], color=colour, linewidth=0.6, alpha=0.55)
        if name in lost.get((label, float(rate), int(seed)), ()):
            axis.plot(
                run["step"].iloc[-1], run["value"].iloc[-1], marker="x", color=colour,
                markersize=6, markeredgewidth=1.6, clip_on=False, zorder=5,
            )  # fmt: skip
    _median(axis, rows, colour, _style(label), 1.9)


def _median(axis: Axes, rows: pd.DataFrame, colour: str, line: str, width: float) -> None:
    middle = rows.groupby("step")["value"].median()
    axis.plot(middle.index, middle.to_numpy(), color=colour, linestyle=line, linewidth=width)


def _legend(axis: Axes, group: Sequence[str]) -> None:
    for label, colour in zip(group, LINE_COLOURS, strict=False):
        axis.plot([], [], color=colour, linestyle=_style(label), linewidth=1.9,
                  label=_broken(readable(label)))  # fmt: skip
    axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), handlelength=1.8, fontsize=8)


def _broken(name: str, width: int = 27) -> str:
    """A name on two lines where one is too long for the margin."""
    if len(name) <= width:
        return name
    cut = name.rfind(" ", 0, width)
    return f"{name[:cut]}\n  {name[cut + 1 :]}" if cut > 0 else name
