"""The rows of the ranking table, and the same losses at one learning rate for all."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from workflow.reporting.study_tables import FLOOR, Study
from workflow.reporting.text import trained
from workflow.reporting.wording import count, listing, number, readable

RATES = ("rates", "tuning")  # keys in which a tuned and a fixed-rate study may differ
BESIDE = ("dataset", "splits", "seeds")  # keys in which they may not


def rows(study: Study, fixed: Study | None) -> list[dict[str, Any]]:
    """A row for each loss, best first: scores, kind, cost, and its score at one rate."""
    fixes = {fix for _, fix in study.pairs()}
    cost = study.cost.set_index("loss")["seconds_per_step"] if len(study.cost) else pd.Series()
    places = _places(study)
    theirs = _places(fixed) if fixed else {}
    found = []
    for _, row in study.ranked.iterrows():
        label = row["loss"]
        other = fixed.row(label) if fixed else None
        found.append({
            **row,
            "kind": _kind(row, fixes),
            "step": cost.get(label, math.nan),
            "place": places.get(label),
            "fixed": None if other is None else {**other, "place": theirs.get(label)},
        })  # fmt: skip
    return found


def _kind(row: pd.Series, fixes: set[str]) -> str:
    if row["loss"] == FLOOR:
        return "floor"
    if str(row["published"]) == "True":
        return "published"
    return "corrected" if row["loss"] in fixes else "other"


def _places(study: Study) -> dict[str, int]:
    """The place of each loss by mean Dice, from 1; losses without a score have none."""
    table = trained(study)
    scored = table[table["mean_dice"].notna()] if len(table) else table
    return {label: place for place, label in enumerate(scored.get("loss", ()), start=1)}


def at_one_rate(study: Study, other: Study) -> bool:
    """Whether ``other`` holds the same losses on the same cases at one learning rate for all."""
    if study.runs.empty or other.runs.empty or other.runs["learning_rate"].nunique() != 1:
        return False
    same = all(study.config.get(key) == other.config.get(key) for key in BESIDE)
    tuned = study.runs["learning_rate"].nunique() > 1
    return same and tuned and bool(set(study.losses) & set(other.losses))


def fixed_notes(study: Study, fixed: Study) -> list[str]:
    """How the two rankings agree, and in what the studies differ beside the learning rate."""
    rate = fixed.runs["learning_rate"].iloc[0]
    told = [
        f"“At one rate” is another study of the same data and splits in which every loss had a "
        f"peak learning rate of {rate:g}; here each has its own."
    ]
    agreement = study.agreement
    if len(agreement):
        parts = [
            f"{number(row['kendall_tau'])} [{number(row['low'])}, {number(row['high'])}] by "
            f"{'mean Dice' if row['endpoint'] == 'mean_dice' else 'the rarest class'}"
            for _, row in agreement.iterrows()
        ]
        losses = count(int(agreement["losses"].iloc[0]), "loss", "losses")
        told.append(f"Kendall's tau of the two rankings of {losses} is {listing(parts)}.")
    moved = _moved(study, fixed)
    if moved:
        told.append(moved)
    differ = sorted(
        key for key in set(study.config) | set(fixed.config)
        if key not in RATES and study.config.get(key) != fixed.config.get(key)
    )  # fmt: skip
    if differ:
        told.append(f"Their settings of {listing(differ)} are not recorded alike.")
    if study.environment.get("commit") != fixed.environment.get("commit"):
        told.append("They were run at different commits.")
    return told


def _moved(study: Study, fixed: Study) -> str:
    """The loss whose mean Dice gained most by a rate of its own."""
    ours, theirs = (trained(x).set_index("loss")["mean_dice"] for x in (study, fixed))
    gains = (ours - theirs).dropna()
    if gains.empty or gains.max() <= 0:
        return ""
    label = gains.idxmax()
    return (
        f"{readable(str(label))} gains most by a rate of its own: {number(theirs[label])} becomes "
        f"{number(ours[label])}."
    )
