"""When a run counts as collapsed, decided before any run was looked at.

A foreground class has collapsed when its Dice is below 0.05 in more than half of the test cases
that have it; a class that no test case has cannot be judged and counts nowhere. A run is graded
``none``, ``partial`` (some classes) or ``total`` (all classes); a run that diverged is at least
``partial``.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from workflow.comparison import statistics

DICE_BELOW = 0.05
SHARE_ABOVE = 0.5


def collapsed_classes(cases: pd.DataFrame) -> list[str]:
    """Names of the collapsed classes in the ``cases`` rows of one run and checkpoint."""
    collapsed = _collapsed(cases, ["class"])
    return list(collapsed.index[collapsed])


def grade(collapsed: list[str], classes: int, status: str) -> str:
    """``none``, ``partial`` or ``total`` for a run with ``classes`` foreground classes present."""
    if collapsed and len(collapsed) == classes:
        return "total"
    return "partial" if collapsed or status == "diverged" else "none"


def class_rates(cases: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """In how many of a loss's runs each class collapsed, with Wilson's interval.

    ``cases``: rows of all runs at one checkpoint. One row a data set, loss and class.
    """
    key = ["dataset", "loss", "class"]
    runs = _collapsed(cases, [*key, "seed"])
    table = runs.groupby(key, sort=False).agg(runs="size", collapsed="sum").reset_index()
    table["rate"] = table["collapsed"] / table["runs"]
    intervals = [
        statistics.wilson(row.collapsed, row.runs, confidence) for row in table.itertuples()
    ]
    table["rate_low"] = [low for low, _ in intervals]
    table["rate_high"] = [high for _, high in intervals]
    return table


def _collapsed(cases: pd.DataFrame, key: Sequence[str]) -> pd.Series:
    present = cases.dropna(subset=["dice"])
    missed = (present["dice"] < DICE_BELOW).groupby([present[k] for k in key], sort=False).mean()
    return missed > SHARE_ABOVE
