"""What a study of this size can tell, in words: detection, equivalence, ranks, calibration, rates.

As in ``text``, each sentence holds for whatever the tables contain; what they cannot tell has a
wording of its own.
"""

from __future__ import annotations

import math

import pandas as pd

from workflow.reporting.study_tables import Study
from workflow.reporting.wording import count, listing, number, p_value, percent, readable, shortened

FEW_SEEDS = 3
RULES = {
    "dice": "Dice",
    "iou": "IoU",
    "nsd": "NSD",
    "hd95": "HD95",
    "ece": "ECE",
    "nll": "NLL",
    "sensitivity": "sensitivity",
    "precision": "precision",
    "volume_error": "volume error, absolute",
    "rarest_dice": "Dice of the rarest class",
    "classes_then_cases": "mean of cases",
    "cases_then_classes": "mean of classes",
    "median": "median of cases",
    "pooled_voxels": "all voxels pooled",
    "left_out": "left out",
    "one_if_empty": "1 if nothing is predicted",
    "zero": "0",
}
ASPECTS = {
    "metric": "metric",
    "aggregation": "aggregation of Dice",
    "empty_rule": "Dice of an absent class",
}


def rule_name(rule: str) -> str:
    """A rule of `rankings.csv` as people write it."""
    return RULES.get(rule, rule)


# What the contrasts can find


def detectable(study: Study) -> str:
    """Which differences from the reference loss this study finds, and which it misses."""
    rows = study.against_reference()
    rows = rows[rows["loss"].isin(study.standing)] if len(rows) else rows
    found = rows["minimum_detectable_difference"].dropna() if len(rows) else rows
    if len(found) == 0:
        return "Which differences this study could find cannot be computed from its runs."
    least = number(found.median(), 3)
    if len(found) > 1:
        least = (
            f"at least {least} (median over the losses; {number(found.min(), 3)} to "
            f"{number(found.max(), 3)})"
        )
    else:
        least = f"at least {least}"
    told = (
        f"A loss that holds is told from {readable(study.reference_loss)} with a power of 80 % if "
        f"their true difference in mean Dice is {least}, each contrast alone; a smaller one mostly "
        "stays open."
    )
    return f"{told} {few_seeds(study)}".strip()


def few_seeds(study: Study) -> str:
    """The warning that so few seeds call for; empty if there are enough."""
    if study.seeds == 1:
        return "With one seed this speaks of these very starts: another may reverse the order."
    if study.seeds <= FEW_SEEDS:
        return (
            f"{study.seeds} seeds can resemble each other by chance, so that more claims are false "
            "than their level promises: read separable and equivalent as leads, not as proof."
        )
    return ""


# Equivalence


def standing_pairs(study: Study) -> pd.DataFrame:
    """Rows of `equivalence.csv` (mean Dice) of pairs whose losses both hold and can be judged."""
    rows = study.endpoint(study.equivalence)
    if rows.empty:
        return rows
    both = rows["loss"].isin(study.standing) & rows["against"].isin(study.standing)
    return rows[both & (rows["verdict"] != "")]


def equivalence_title(study: Study) -> str:
    rows = standing_pairs(study)
    if rows.empty:
        return "No two losses can be tested for equivalence"
    within = f"within ±{rows['margin'].iloc[0]:g} mean Dice"
    same, small = (int((rows["verdict"] == v).sum()) for v in ("equivalent", "margin too small"))
    if small == len(rows):
        which = f"any of {small} pairs of losses agrees" if small > 1 else "its one pair agrees"
        return f"This study is too small to show that {which} {within}"
    if len(rows) == 1:
        return f"The one pair of losses {'agrees' if same else 'is not shown to agree'} {within}"
    verb = "is" if same == 1 else "are"
    told = f"{same or 'None'} of {len(rows)} pairs of losses {verb} equivalent {within}"
    return f"{told}; for {small} the study is too small to tell" if small else told


def equivalence_notes(study: Study) -> str:
    """The smallest margin that this study could show, below which it claims nothing."""
    rows = standing_pairs(study)
    if rows.empty:
        return "At least two losses that hold are needed, with more than one seed or case each."
    least = rows["smallest_margin"]
    told = (
        f"The smallest margin that this study could show is {number(least.min(), 3)} for the "
        f"pair that varies least, {number(least.median(), 3)} at the median and "
        f"{number(least.max(), 3)} for the pair that varies most; below a pair's own margin "
        "nothing is claimed, and not shown is not the same as different."
    )
    same = rows[rows["verdict"] == "equivalent"]
    if len(same):
        kept = int((same["p_holm"] < 1 - study.confidence).sum())
        told += (
            f" Each verdict is about its pair alone; corrected over all pairs (Holm), "
            f"{kept or 'none'} of {len(same)} {'is' if kept == 1 else 'are'} still equivalent."
        )
    return f"{told} {few_seeds(study)}".strip()


# Ranks


def against_primary(study: Study) -> pd.DataFrame:
    """Rows of `stability.csv` of each rule against the first of its aspect: the one reported."""
    rows = study.chosen(study.stability)
    if rows.empty:
        return rows
    first = rows.groupby("aspect", sort=False)["rule"].transform("first")
    return rows[(rows["rule"] == first) & rows["kendall_tau"].notna()]


def stability_title(study: Study) -> str:
    ranks = study.endpoint(study.ranks)
    if ranks.empty:
        return "No ranks can be resampled"
    top = ranks.sort_values(["rank", "first"], ascending=[True, False]).iloc[0]
    told = (
        f"{readable(top['loss'])} comes first in {percent(top['first'])} of the resampled studies"
    )
    rules = against_primary(study)
    if rules.empty:
        return told
    least = rules.loc[rules["kendall_tau"].idxmin()]
    if least["kendall_tau"] == 1:
        return f"{told}; {count(len(rules), 'other rule')} rank the losses in the same order"
    return (
        f"{told}; of {count(len(rules), 'other rule')}, the ranking changes most with another "
        f"{ASPECTS.get(least['aspect'], least['aspect'])}: {rule_name(least['against'])} "
        f"(Kendall's tau {number(least['kendall_tau'])})"
    )


def stability_notes(study: Study) -> str:
    """Friedman's test and the losses that have no rank."""
    told = []
    tests = study.endpoint(study.friedman)
    if len(tests) and math.isfinite(tests["p"].iloc[0]):
        test = tests.iloc[0]
        told.append(
            f"Friedman's test over {count(int(test['cases']), 'case')} and "
            f"{count(int(test['losses']), 'loss', 'losses')}: p {_equals(test['p'])}; two mean "
            f"ranks differ if they are {number(test['critical_difference'])} apart (Nemenyi). Both "
            "speak of these seeds only."
        )
    ranked = set(study.endpoint(study.ranks)["loss"]) if len(study.ranks) else set()
    absent = [readable(label) for label in study.losses if label not in ranked]
    if absent:
        told.append(f"Without a rank, as runs are missing: {shortened(absent)}.")
    return " ".join(told)


def _equals(p: float) -> str:
    shown = p_value(p)
    return shown if shown.startswith("<") else f"= {shown}"


# Absent classes and calibration


def absent_title(study: Study) -> str:
    rows = _standing(study, "presence_auc")
    if len(rows) == 0:
        return "Presence of a class cannot be judged: no loss that holds has cases of both kinds"
    low, high = number(rows.iloc[0]), number(rows.iloc[-1])
    if low == high:
        return f"Presence of a class is told with an AUC of {low} (chance: 0.50)"
    return (
        f"Of the losses that hold, {readable(rows.index[-1])} tells best whether a class is there "
        f"(AUC {high}) and {readable(rows.index[0])} worst ({low}; chance: 0.50)"
    )


def false_structures(study: Study) -> str:
    """How often losses that hold see a whole structure that is not there."""
    rows = _standing(study, "absent_false_structure_rate")
    if len(rows) == 0:
        return ""
    low, high = percent(rows.iloc[0]), percent(rows.iloc[-1])
    told = "In cases without a class they draw a false structure of it in"
    if low == high:
        return f"{told} {low} of these cases."
    return (
        f"{told} {low} ({readable(rows.index[0])}) to {high} ({readable(rows.index[-1])}) of them."
    )


def calibration_title(study: Study) -> str:
    rows = _standing(study, "ece")
    if len(rows) == 0:
        return "No loss that holds has recorded probabilities"
    bold = overconfident(study)
    losses = count(len(rows), "loss that holds", "losses that hold")
    told = f"{len(bold) or 'None'} of {losses} {'is' if len(bold) == 1 else 'are'} overconfident"
    low, high = number(rows.iloc[0], 3), number(rows.iloc[-1], 3)
    if low == high:
        return f"{told} in the foreground box; the calibration error is {low}"
    return (
        f"{told} in the foreground box; the calibration error runs from {low} "
        f"({readable(rows.index[0])}) to {high} ({readable(rows.index[-1])})"
    )


def overconfident(study: Study) -> list[str]:
    """Losses that hold whose mean confidence in the top label is above its accuracy."""
    found = []
    for label in study.standing:
        bins = pooled_bins(study, label, "")
        if len(bins) and (bins["voxels"] * (bins["confidence"] - bins["accuracy"])).sum() > 0:
            found.append(label)
    return found


def pooled_bins(study: Study, loss: str, name: str) -> pd.DataFrame:
    """A loss's bins of one class (empty name: top label) with all its runs put together.

    Confidence and accuracy are means over voxels: a run with more voxels in a bin weighs more.
    """
    rows = study.chosen(study.reliability)
    if rows.empty:
        return rows
    rows = rows[(rows["loss"] == loss) & (rows["class"] == name)]
    sums = pd.DataFrame({
        "bin": rows["bin"],
        "voxels": rows["voxels"],
        "confidence": rows["voxels"] * rows["confidence"],
        "accuracy": rows["voxels"] * rows["accuracy"],
    }).groupby("bin", as_index=False).sum()  # fmt: skip
    for column in ("confidence", "accuracy"):
        sums[column] = sums[column] / sums["voxels"]
    return sums


def _standing(study: Study, column: str) -> pd.Series:
    """A column of the summary for the losses that hold, lowest first."""
    if study.ranked.empty:
        return pd.Series(dtype=float)
    rows = study.ranked[study.ranked["loss"].isin(study.standing)]
    return rows.set_index("loss")[column].dropna().sort_values(kind="stable")


# Learning rates


def rates_title(study: Study) -> str:
    chosen = study.trials[study.trials["chosen"]] if len(study.trials) else study.trials
    if chosen.empty:
        return "This study tuned no learning rate"
    low, high = chosen["learning_rate"].min(), chosen["learning_rate"].max()
    told = f"{count(len(chosen), 'loss', 'losses')} chose a learning rate of {low:g}"
    told = told if low == high else f"{told} to {high:g}"
    edge = int(chosen["on_edge"].sum())
    return f"{told}; for {edge} the best is still at an end of what was tried" if edge else told


def rates_notes(study: Study) -> str:
    """Which losses were tried beyond the grid, and for which the best may lie further out."""
    trials = study.trials
    if trials.empty:
        return ""
    told = []
    for column, words in (
        ("widened", "Tried a step beyond the grid, because the best was at its end"),
        ("on_edge", "Still best at an end, so that a better rate may lie beyond"),
    ):
        labels = [x for x in study.losses if trials.loc[trials["loss"] == x, column].any()]
        told.append(f"{words}: {listing(map(readable, labels)) or 'none'}.")
    return " ".join(told)
