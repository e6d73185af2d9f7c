"""What a loss does when the rarest class is absent from most training cases.

The prediction, made from the patches alone: a step teaches only if it holds a *complete set*, a
set with every class over which the loss takes its value. That set is the image for a loss whose
value is the mean over images, so that a step needs one complete image, and the batch for a loss
that pools it. If the score grows in proportion to the steps that teach, it is

    predicted = score where all subjects have the class x
                steps that teach here / steps that teach there

Learning saturates, so a loss that learns nothing from incomplete sets may still score above the
line; one that falls below it is harmed by them. Two checks tell a follower of the line from a loss
that merely saw fewer examples of the class: the share of steps with an effective gradient, and the
score of the other classes, which have as many examples in all arms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

import losses
from workflow.comparison import collapse, contrasts, statistics, sweeps
from workflow.study import TRAINING_SET_WORDS, Loss, Study, StudyError

EFFECTIVE = 0.01
"""A step is effective if its gradient is at least this share of the median over complete batches
of the same loss."""

TOLERANCE = 0.1
"""Mean absolute error, as a share of the whole, up to which a prediction is called right."""

DIALS = ("arm", "prevalence", "batch", "steps")
PREDICTED = (
    *DIALS, "training_prevalence", "loss", "endpoint", "measured", "low", "high", "predicted",
    "deviation", "deviation_low", "deviation_high", "whole",
)  # fmt: skip
VERDICTS = (
    "loss", "endpoint", "points", "error", "error_unaffected", "mean_deviation", "tolerance",
    "verdict",
)  # fmt: skip
BATCHES = ("loss", "prevalence", "budget", "amount", "batch", "against_batch", *sweeps.DIFFERENCE)


def answers(
    study: Study, raw: Mapping[str, pd.DataFrame], generic: Mapping[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """``absence``, ``predicted``, ``verdicts`` and ``batches``.

    ``absence``: a row for each arm and loss: those of ``sweeps.points`` with the
    ``reduction_set``, the measured share of ``complete_batches``, the ``predicted_updates`` (share
    of steps with a complete set) and the ``effective_updates``, whose gradient is at least
    ``effective_from`` times the usual one. ``predicted``: measured against predicted, a row for
    each arm, loss and endpoint: ``updates``, ``rarest`` (Dice of the rarest class) and ``others``
    (mean Dice of the others); ``whole`` is what both are shares of. ``verdicts``: a row for each
    loss and endpoint, see ``verdict``. ``batches``: larger batches against the smallest at equal
    steps and at equal samples (batch x steps), Dice of the rarest class, paired; Holm's correction
    over all rows of one budget.

    Raises ``StudyError`` without an external test set: arms have no case in common then.
    """
    if study.external is None:
        raise StudyError("experiment 'absence' needs the key external: a test set for all arms")
    confidence = study.comparison.confidence
    dials = _dials(study, sweeps.rarest_class(raw["dataset"]))
    summary = generic["summary"].query("test_set == @study.test_set")
    cases = raw["cases"].query("test_set == @study.test_set")
    table = sweeps.points(dials, raw, summary, confidence)
    sets = {label: reduction_set(entry, raw) for label, entry in study.losses.items()}
    table["reduction_set"] = table["loss"].map(sets)
    table["complete_batches"] = table["arm"].map(complete_batches(raw["signals"]))
    table["predicted_updates"] = _predicted_updates(table)
    effective = effective_updates(raw["signals"])
    keys = pd.MultiIndex.from_frame(table[["arm", "loss"]])
    table["effective_updates"] = effective.reindex(keys).to_numpy()
    table["effective_from"] = EFFECTIVE
    rarest = sweeps.rarest_class(raw["dataset"])
    predicted = _predicted(table, cases, rarest, confidence)
    return {
        "absence": table.drop(columns="test_set"),
        "predicted": predicted,
        "verdicts": _verdicts(predicted, dials["prevalence"].max()),
        "batches": _batches(table, cases[cases["class"] == rarest], confidence),
    }


def _dials(study: Study, rarest: str) -> pd.DataFrame:
    rows = [
        (
            name,
            arm.dataset.phantom.prevalence[rarest],
            arm.training.batch_size,
            arm.training.steps,
        )
        for name, arm in study.variants.items()
    ]
    return pd.DataFrame(rows, columns=DIALS)


def reduction_set(loss: Loss, raw: Mapping[str, pd.DataFrame]) -> str:
    """``image`` if the loss of two images is the mean of the losses of each, else ``batch``.

    Found by trying, because a loss of the user's own has no card. Both images hold every class, in
    different volumes, so that it does not matter what the loss does with an absent one.
    """
    classes = raw["dataset"]["class"].nunique()
    options = dict(loss.options)
    for name, word in TRAINING_SET_WORDS.items():
        if options.get(name) == word:
            options[name] = [float(index + 1) for index in range(classes)]
    criterion = losses.create(loss.name, **options)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((2, classes, 8, 8, 8), generator=generator, dtype=torch.float64)
    voxels = torch.arange(8**3).reshape(8, 8, 8)
    labels = torch.stack([voxels % classes, (voxels % (2 * classes)).clamp(max=classes - 1)])
    with torch.no_grad():
        both = criterion(logits, labels)
        first, second = (criterion(logits[[i]], labels[[i]]) for i in range(2))
    return "image" if torch.isclose(both, (first + second) / 2, rtol=1e-3) else "batch"


def complete_batches(signals: pd.DataFrame) -> pd.Series:
    """Share of the recorded batches of each arm that hold every class, averaged over seeds.

    The patches do not depend on the loss, so each batch counts once.
    """
    complete = _complete(signals).groupby(["arm", "seed", "step"]).first()
    return complete.groupby(["arm", "seed"]).mean().groupby("arm").mean()


def effective_updates(signals: pd.DataFrame) -> pd.Series:
    """Share of the recorded steps of each arm and loss that are ``EFFECTIVE``, averaged over seeds.

    The gradient of a step is the sum over classes of the absolute gradients by their logits, inside
    and outside. NaN for a loss that met no complete batch: it has nothing to be compared with.
    """
    step = ["arm", "loss", "seed", "step"]
    size = (signals["gradient_inside"] + signals["gradient_outside"]).groupby(
        [signals[key] for key in step]
    )
    gradient = size.sum(min_count=1)
    usual = gradient[_complete(signals)].groupby("loss").median()
    threshold = EFFECTIVE * gradient.index.get_level_values("loss").map(usual)
    effective = (gradient >= threshold).astype(float).where(~np.isnan(threshold))
    return effective.groupby(["arm", "loss", "seed"]).mean().groupby(["arm", "loss"]).mean()


def _complete(signals: pd.DataFrame) -> pd.Series:
    """Whether the batch of each (arm, loss, seed, step) holds every class."""
    return signals.groupby(["arm", "loss", "seed", "step"])["images"].min() > 0


def _predicted_updates(table: pd.DataFrame) -> pd.Series:
    """Share of steps with a complete set; the images of a batch are drawn independently."""
    single = table[table["batch"] == 1].drop_duplicates("arm")
    image = table["prevalence"].map(single.groupby("prevalence")["complete_batches"].mean())
    by_image = 1 - (1 - image) ** table["batch"]
    return table["complete_batches"].where(table["reduction_set"] == "batch", by_image)


def _predicted(
    table: pd.DataFrame, cases: pd.DataFrame, rarest: str, confidence: float
) -> pd.DataFrame:
    rows = []
    full = table["prevalence"].max()
    is_rarest = cases["class"] == rarest
    for row in table.itertuples():
        key = {name: getattr(row, name) for name in (*DIALS, "training_prevalence", "loss")}
        deviation = row.effective_updates - row.predicted_updates
        rows.append(
            key
            | {"endpoint": "updates", "measured": row.effective_updates}
            | {"predicted": row.predicted_updates, "deviation": deviation, "whole": 1.0}
        )
        alike = table[
            (table["loss"] == row.loss)
            & (table["prevalence"] == full)
            & (table["batch"] == row.batch)
            & (table["steps"] == row.steps)
        ]
        of_loss = cases["loss"] == row.loss
        for endpoint, chosen in (("rarest", is_rarest), ("others", ~is_rarest)):
            rows.append(
                key
                | {"endpoint": endpoint}
                | _against_prediction(row, alike, cases[of_loss & chosen], confidence)
            )
    return pd.DataFrame(rows, columns=PREDICTED)


def _against_prediction(
    row: Any, alike: pd.DataFrame, cases: pd.DataFrame, confidence: float
) -> dict[str, float]:
    """Score of an arm, and the one predicted from the arm ``alike`` in which all have the class."""
    found = _mean(cases, row.arm, confidence)
    if alike.empty or not alike["predicted_updates"].iloc[0] > 0:
        return found
    reference = alike["arm"].iloc[0]
    if reference == row.arm:  # what all predictions start from
        return found | {"whole": found["measured"], "predicted": found["measured"]}
    share = row.predicted_updates / alike["predicted_updates"].iloc[0]
    whole = _mean(cases, reference, confidence)["measured"]
    off = sweeps.difference(cases, row.arm, reference, confidence, share)
    return found | {
        "whole": whole,
        "predicted": share * whole,
        "deviation": off["difference"],
        "deviation_low": off["low"],
        "deviation_high": off["high"],
    }


def _mean(cases: pd.DataFrame, arm: str, confidence: float) -> dict[str, float]:
    estimate = contrasts.mean_score(sweeps.arm_scores(cases, [arm]), confidence)
    return dict(zip(("measured", "low", "high"), estimate[:3], strict=True))


def _verdicts(predicted: pd.DataFrame, full: float) -> pd.DataFrame:
    """A row for each loss and endpoint; a score is its own prediction where all have the class.

    Shares of a score that is none there either say nothing: the verdict is ``nothing to lose``.
    """
    told = predicted[(predicted["endpoint"] == "updates") | (predicted["prevalence"] < full)]
    rows = []
    for loss, endpoint in predicted[["loss", "endpoint"]].drop_duplicates().itertuples(index=False):
        its = told[(told["loss"] == loss) & (told["endpoint"] == endpoint)]
        there = its[its["whole"] >= collapse.DICE_BELOW] if endpoint != "updates" else its
        found = verdict(there["measured"] / there["whole"], there["predicted"] / there["whole"])
        if there.empty and its["whole"].notna().any():
            found["verdict"] = "nothing to lose"
        rows.append({"loss": loss, "endpoint": endpoint, "tolerance": TOLERANCE} | found)
    return pd.DataFrame(rows, columns=VERDICTS)


def verdict(measured: Sequence[float], predicted: Sequence[float]) -> dict[str, object]:
    """Which of two predictions is right: ``predicted``, or that absence costs nothing (all 1).

    ``error`` and ``error_unaffected`` are their mean absolute errors over the points,
    ``mean_deviation`` is that of measured - predicted. ``verdict``: ``follows`` or ``unaffected``
    if only that prediction is right to within ``TOLERANCE``, ``cannot tell`` if both are; else
    ``above`` or ``below`` the prediction on average; ``not measured`` without points.
    """
    both = np.array([measured, predicted], dtype=float)
    seen, expected = both[:, ~np.isnan(both).any(axis=0)]
    if not len(seen):
        return {"points": 0, "verdict": "not measured"}
    deviation = seen - expected
    error, unaffected = np.abs(deviation).mean(), np.abs(seen - 1).mean()
    right = {"follows": error <= TOLERANCE, "unaffected": unaffected <= TOLERANCE}
    names = [name for name, holds in right.items() if holds]
    if not names:
        names = ["above" if deviation.mean() > 0 else "below"]
    return {
        "points": len(seen),
        "error": error,
        "error_unaffected": unaffected,
        "mean_deviation": deviation.mean(),
        "verdict": names[0] if len(names) == 1 else "cannot tell",
    }


def _batches(table: pd.DataFrame, cases: pd.DataFrame, confidence: float) -> pd.DataFrame:
    rows = []
    arms = table.assign(samples=table["batch"] * table["steps"])
    for budget in ("steps", "samples"):
        for (loss, prevalence, amount), alike in arms.groupby(["loss", "prevalence", budget]):
            its = cases[cases["loss"] == loss]
            smallest, *larger = alike.sort_values("batch").itertuples()
            for arm in larger:
                rows.append(
                    {"loss": loss, "prevalence": prevalence, "budget": budget, "amount": amount}
                    | {"batch": arm.batch, "against_batch": smallest.batch}
                    | sweeps.difference(its, arm.arm, smallest.arm, confidence)
                )
    found = pd.DataFrame(rows, columns=BATCHES)
    found["p_holm"] = found.groupby("budget")["p"].transform(statistics.holm)
    return found
