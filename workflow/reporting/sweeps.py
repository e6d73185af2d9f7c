"""Curves and sentences that the experiments share which turn one dial of the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from workflow.reporting.style import BLACK
from workflow.reporting.wording import count, listing, readable

FEW_SEEDS = 3
LOST = Line2D([], [], color=BLACK, marker="X", linestyle="", markersize=7,
              label="class lost in most runs")  # fmt: skip


def curve(axis: Axes, rows: pd.DataFrame, x: str, y: str, colour: str, marker: str,
          dodge: float = 0.0) -> None:  # fmt: skip
    """Points with intervals (``low``, ``high``) joined by a line; a cross where ``collapsed``.

    ``dodge`` moves them along x (on a log axis: in decades), lest intervals hide each other.
    """
    rows = rows.dropna(subset=[y]).sort_values(x)
    place = rows[x] * 10**dodge if axis.get_xscale() == "log" else rows[x] + dodge
    error = [(rows[y] - rows["low"]).clip(0), (rows["high"] - rows[y]).clip(0)]
    axis.errorbar(place, rows[y], yerr=error, color=colour, marker=marker, markersize=3.8,
                  linewidth=1.3, elinewidth=0.7, alpha=0.9)  # fmt: skip
    lost = rows["collapsed"].astype(bool)
    axis.plot(place[lost], rows[y][lost], "X", color=colour, markeredgecolor=BLACK,
              markeredgewidth=0.6, markersize=7, zorder=5)  # fmt: skip


def names(labels: Iterable[str]) -> str:
    """Losses within a sentence."""
    return listing([readable(label) for label in labels])


def by_verdict(verdicts: pd.DataFrame, phrases: Mapping[str, tuple[str, str]]) -> str:
    """`A falls; B and C rise`: the losses of each verdict, in the order of the phrases.

    ``verdicts``: columns ``loss`` and ``verdict``; ``phrases``: verdict -> what one loss does, and
    what several do.
    """
    return "; ".join(
        f"{names(its)} {phrases[word][len(its) > 1]}" for word, its in _losses(verdicts, phrases)
    )


def counted(verdicts: pd.DataFrame, phrases: Mapping[str, tuple[str, str]]) -> str:
    """`1 of 3 losses falls, 2 rise`: how many losses have each verdict."""
    clauses: list[str] = []
    for word, its in _losses(verdicts, phrases):
        of = "" if clauses else f" of {count(verdicts['loss'].nunique(), 'loss', 'losses')}"
        clauses.append(f"{len(its)}{of} {phrases[word][len(its) > 1]}")
    return listing(clauses)


def _losses(
    verdicts: pd.DataFrame, phrases: Mapping[str, tuple[str, str]]
) -> list[tuple[str, list[str]]]:
    found = [(word, list(verdicts.loc[verdicts["verdict"] == word, "loss"])) for word in phrases]
    return [(word, its) for word, its in found if its]


def separable(tested: pd.DataFrame, confidence: float) -> str:
    """`3 of 14 differences are separable from 0 after Holm's correction`."""
    told = tested.dropna(subset=["p_holm"])
    if told.empty:
        return "none of the differences can be tested"
    sure = int((told["p_holm"] < 1 - confidence).sum())
    differences = f"{count(len(told), 'difference')} {'is' if sure == 1 else 'are'}"
    return f"{sure} of {differences} separable from 0 after Holm's correction"


def few_seeds(seeds: pd.Series) -> list[str]:
    """A caveat where the runs are too few for their intervals."""
    fewest = int(seeds.min())
    if fewest >= FEW_SEEDS:
        return []
    which = "All" if seeds.max() == fewest else "Some"
    return [
        f"{which} combinations have {count(fewest, 'seed')} only: their intervals are wide or hold "
        "for these seeds alone, and a collapse in most runs is a collapse in all of them."
    ]
