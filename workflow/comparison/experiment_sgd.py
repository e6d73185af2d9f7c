"""Generalized Dice under SGD and AdamW: outcomes, gradient norms, what the optimiser changes.

The optimiser differs between arms; all else but its rate and schedule is the same, so runs of two
arms are paired by seed and case as those of two losses are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

import losses
from workflow.comparison import collapse, statistics, tables
from workflow.comparison.agreement import agreement
from workflow.comparison.arrays import score_array
from workflow.comparison.contrasts import estimated, mean_difference, paired, sample_size
from workflow.study import Study

Table = Mapping[str, pd.DataFrame]

NOTHING, SOME, ALL = "learns nothing", "loses a class", "keeps every class"
"""Mean Dice below that of a collapsed class; a class collapsed in most runs; neither."""


def answers(study: Study, raw: Table, generic: Table) -> dict[str, pd.DataFrame]:
    """``verdicts``, ``gradients``, ``optimisers`` and ``agreement``.

    ``verdicts``: a row an arm and loss: mean Dice, the classes lost in most runs, the ``verdict``,
    and the difference from the reference loss. ``role``: ``published`` forms of Generalized Dice,
    its weight ``rule`` s, ``compound`` with cross-entropy, and ``control``.

    ``gradients``: how large the gradient is at the start, against the reference loss's of the same
    seed (``ratio``, the median over seeds): the norm over the weights, a mean over the steps
    before the first validation (of runs that did not diverge), and the sum of absolute values over
    the logits at the first step.

    ``optimisers``: mean Dice of each loss under SGD less that under AdamW, with intervals from the
    crossed model and Holm's correction over all rows. ``agreement``: Kendall's tau between the
    rankings of an SGD and an AdamW arm.
    """
    cases = raw["cases"][raw["cases"]["test_set"] == study.test_set]
    rarest = tables.rarest_class(raw["dataset"])
    pairs = [
        (first, second)
        for first, arm in study.variants.items()
        for second, other in study.variants.items()
        if (arm.training.optimizer, other.training.optimizer) == ("sgd", "adamw")
    ]
    return {
        "verdicts": _outcomes(study, generic),
        "gradients": _gradients(study, raw),
        "optimisers": _optimisers(study, cases, rarest, pairs),
        "agreement": _agreement(study, cases, rarest, pairs),
    }


def role(name: str) -> str:
    """What a loss of the catalogue stands for in this experiment."""
    if name == "generalized_dice":
        return "rule"
    if name == "generalized_dice_ce":
        return "compound"
    is_known = name in losses.available()
    return "published" if is_known and losses.card(name).twin == "generalized_dice" else "control"


def _outcomes(study: Study, generic: Table) -> pd.DataFrame:
    summary = generic["summary"]
    against = generic["comparisons"]
    against = against[
        (against["contrast"] == "reference")
        & (against["endpoint"] == "mean_dice")
        & (against["test_set"] == study.test_set)
    ].set_index(["arm", "loss"])
    rows = []
    for row in summary[summary["test_set"] == study.test_set].to_dict("records"):
        arm, label = study.variants[row["arm"]], row["loss"]
        lost = [
            name.removeprefix("lost_")
            for name, runs in row.items()
            if name.startswith("lost_") and runs > row["runs"] / 2
        ]
        key = (row["arm"], label)
        found = against.loc[key] if key in against.index else {}
        rows.append(
            {
                "arm": row["arm"],
                "optimizer": arm.training.optimizer,
                "learning_rate": float(arm.rate(label)),
                "loss": label,
                "name": arm.losses[label].name,
                "role": role(arm.losses[label].name),
                "runs": row["runs"],
                "mean_dice": row["mean_dice"],
                "mean_dice_low": row["mean_dice_low"],
                "mean_dice_high": row["mean_dice_high"],
                "collapse_rate": row["collapse_rate"],
                "collapsed_classes": ";".join(lost),
                "verdict": _verdict(row),
            }
            | {k: found.get(k, math.nan) for k in ("difference", "low", "high", "p_holm")}
        )
    return pd.DataFrame(rows)


def _verdict(row: Mapping[str, float]) -> str:
    if math.isnan(row["mean_dice"]):
        return ""
    if row["mean_dice"] < collapse.DICE_BELOW:
        return NOTHING
    return SOME if row["collapse_rate"] > 0.5 else ALL


def _gradients(study: Study, raw: Table) -> pd.DataFrame:
    curves, runs = raw["curves"], ["arm", "loss", "seed"]
    norms = curves[(curves["split"] == "train") & (curves["quantity"] == "gradient_norm")]
    first = {"norm": norms.sort_values("step").groupby(runs)["value"].first()}
    # the mean of a run on its way to infinity is no start
    status = raw["runs"].set_index(runs)["status"].reindex(first["norm"].index)
    first["norm"] = first["norm"][status != "diverged"]
    if "signals" in raw:
        signals = raw["signals"][raw["signals"]["step"] == 0]
        sums = signals.assign(total=signals["gradient_inside"] + signals["gradient_outside"])
        first["logits"] = sums.groupby(runs)["total"].sum()
    rows = []
    for arm, variant in study.variants.items():
        for label in variant.losses:
            row = {"arm": arm, "loss": label}
            for name, values in first.items():
                its = _by_seed(values, arm, label)
                ratio = its / _by_seed(values, arm, study.comparison.reference_loss)
                row |= {name: its.median(), f"{name}_ratio": ratio.median()}
            rows.append(row)
    return pd.DataFrame(rows)


def _by_seed(values: pd.Series, arm: str, loss: str) -> pd.Series:
    table = values.reset_index()
    table = table[(table["arm"] == arm) & (table["loss"] == loss)]
    return table.set_index("seed")[values.name]


def _optimisers(
    study: Study, cases: pd.DataFrame, rarest: str, pairs: list[tuple[str, str]]
) -> pd.DataFrame:
    confidence, arms = study.comparison.confidence, list(study.variants)
    rows = []
    for label in study.losses:
        its = cases[cases["loss"] == label]
        # to the arithmetic, arms of one loss are what losses of one arm are
        scores = score_array(its.assign(loss=its["arm"]), "mean_dice", rarest, arms)
        for arm, against in pairs:
            values = paired(scores, arms.index(arm), arms.index(against))
            found = mean_difference(values, confidence)
            rows.append(
                {"arm": arm, "against": against, "loss": label}
                | estimated(found)
                | sample_size(values)
            )
    table = pd.DataFrame(rows)
    return table.assign(p_holm=statistics.holm(table["p"])) if rows else table


def _agreement(
    study: Study, cases: pd.DataFrame, rarest: str, pairs: list[tuple[str, str]]
) -> pd.DataFrame:
    confidence = study.comparison.confidence
    found = [
        agreement(
            cases[cases["arm"] == arm], cases[cases["arm"] == against], rarest, confidence
        ).assign(arm=arm, against=against)
        for arm, against in pairs
    ]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()
