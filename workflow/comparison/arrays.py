"""From the long table of scores to the arrays that the statistics work on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from workflow.study import FLOOR

ENDPOINTS = ("mean_dice", "rarest_dice")


def case_scores(cases: pd.DataFrame, endpoint: str, rarest: str) -> pd.DataFrame:
    """Score of each loss, seed and subject in the ``cases`` rows of one checkpoint: a long table.

    ``mean_dice``: mean Dice over the foreground classes present in the case; ``rarest_dice``:
    Dice of the rarest class, over the cases that have it. Cases without either are dropped.
    Cases of one subject are no independent cases, so they are averaged.
    """
    if endpoint == "rarest_dice":
        cases = cases[cases["class"] == rarest]
    present = cases.dropna(subset=["dice"])
    by_case = present.groupby(["loss", "seed", "subject", "case"])["dice"].mean()
    return by_case.groupby(["loss", "seed", "subject"]).mean().reset_index()


def score_array(
    cases: pd.DataFrame, endpoint: str, rarest: str, losses: Sequence[str]
) -> np.ndarray:
    """``case_scores`` as (seeds, cases, losses), losses in the order given; NaN where none.

    The floor has no seed of its own: it scores 0 wherever another loss has a score.
    """
    table = case_scores(cases, endpoint, rarest)
    array = _spread(table, ["seed", "subject", "loss"], "dice", {"loss": losses})
    if FLOOR in losses:
        scored = ~np.isnan(array).all(axis=2)
        array[:, :, list(losses).index(FLOOR)] = np.where(scored, 0.0, np.nan)
    return array


def class_arrays(
    cases: pd.DataFrame, columns: Sequence[str], losses: Sequence[str]
) -> dict[str, np.ndarray]:
    """Each of the ``columns`` as (losses, seeds, cases, classes); NaN where there is no run."""
    cases = cases[cases["loss"] != FLOOR]
    axes = ["loss", "seed", "case", "class"]
    return {name: _spread(cases, axes, name, {"loss": losses}) for name in columns}


def _spread(
    table: pd.DataFrame, axes: Sequence[str], column: str, order: dict[str, Sequence[str]]
) -> np.ndarray:
    """A column as an array with one axis for each of ``axes``, in ``order`` or sorted."""
    levels = [list(order.get(axis, sorted(table[axis].unique()))) for axis in axes]
    array = np.full([len(level) for level in levels], np.nan)
    places = [
        pd.Index(level).get_indexer(table[axis]) for axis, level in zip(axes, levels, strict=True)
    ]
    known = np.all([place >= 0 for place in places], axis=0)
    array[tuple(place[known] for place in places)] = table[column].to_numpy(float)[known]
    return array
