"""Tables of pairs of losses: differences, improvement, equivalence, and which are separable."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

import losses
from workflow.comparison import statistics
from workflow.comparison.arrays import ENDPOINTS, score_array
from workflow.study import FLOOR, Study

KEYS = ("dataset", "checkpoint", "contrast", "loss", "against", "endpoint")
DIFFERENCE = (
    *KEYS, "difference", "low", "high", "p", "p_holm", "degrees_of_freedom",
    "minimum_detectable_difference", "seed_sd", "case_sd", "residual_sd", "p_these_seeds",
    "p_these_seeds_holm", "seeds", "cases", "reason",
)  # fmt: skip
IMPROVEMENT = (*KEYS, "probability", "low", "high", "p", "seeds", "cases")
EQUIVALENCE = (
    "dataset", "checkpoint", "loss", "against", "endpoint", "difference", "low", "high", "margin",
    "p", "p_holm", "smallest_margin", "verdict", "seeds", "cases",
)  # fmt: skip


def tables(study: Study, cases: pd.DataFrame, rarest: str) -> dict[str, pd.DataFrame]:
    """``comparisons``, ``improvement`` and ``equivalence``, for both checkpoints and endpoints.

    The first two hold every loss against the reference loss and every corrected loss against the
    published one; the third holds all pairs.
    """
    confidence, margin = study.comparison.confidence, study.comparison.margin
    labels = (*study.losses, FLOOR)
    differences, improvements, equivalences = [], [], []
    for checkpoint in sorted(cases["checkpoint"].unique()):
        chosen = cases[cases["checkpoint"] == checkpoint]
        scores = {name: score_array(chosen, name, rarest, labels) for name in ENDPOINTS}
        place = {"dataset": study.dataset.name, "checkpoint": checkpoint}
        for contrast, loss, against, reason in _contrasts(study):
            for endpoint in ENDPOINTS:
                key = place | {"contrast": contrast, "loss": loss, "against": against}
                key["endpoint"] = endpoint
                values = paired(scores[endpoint], labels.index(loss), labels.index(against))
                differences.append(key | _difference(values, confidence) | sample_size(values))
                differences[-1]["reason"] = reason
                found = statistics.improvement(values, confidence)
                improvements.append(
                    key
                    | {"probability": found.mean, "low": found.low, "high": found.high}
                    | {"p": found.p}
                    | sample_size(values)
                )
        for endpoint in ENDPOINTS:
            for loss, against in itertools.combinations(study.losses, 2):
                values = paired(scores[endpoint], labels.index(loss), labels.index(against))
                equivalences.append(
                    place
                    | {"loss": loss, "against": against, "endpoint": endpoint, "margin": margin}
                    | _equivalence(values, margin, confidence)
                    | sample_size(values)
                )
    comparisons = pd.DataFrame(differences, columns=DIFFERENCE)
    equivalence = pd.DataFrame(equivalences, columns=EQUIVALENCE)
    # the floor is no loss that anybody chooses
    trained = comparisons[comparisons["loss"] != FLOOR]
    by = ["checkpoint", "contrast", "endpoint"]
    for column in ("p", "p_these_seeds"):
        comparisons[f"{column}_holm"] = _holm_within(trained, by, column)
    equivalence["p_holm"] = _holm_within(equivalence, ["checkpoint", "endpoint"], "p")
    improvement = pd.DataFrame(improvements, columns=IMPROVEMENT)
    return {"comparisons": comparisons, "improvement": improvement, "equivalence": equivalence}


def paired(scores: np.ndarray, loss: int, against: int) -> np.ndarray:
    """Differences (seeds, cases) of two losses over the seeds and cases that both have."""
    difference = scores[:, :, loss] - scores[:, :, against]
    seeds, cases, _ = statistics.complete(difference[:, :, None])
    return difference[np.ix_(seeds, cases)]


def separable_from_best(
    cases: pd.DataFrame, standing: Sequence[str], best: str, rarest: str, confidence: float
) -> set[str]:
    """The ``standing`` losses whose mean Dice is told from that of the best of them.

    The best was picked by looking, so any pair could have been looked at: Holm's correction is
    over all pairs. Over the pairs with the best alone, 10 equal losses (5 seeds of SD 0 to .02)
    would be called separable in 11 to 14 % of the studies instead of 5 %.
    """
    scores = score_array(cases, "mean_dice", rarest, standing)
    pairs = list(itertools.combinations(range(len(standing)), 2))
    p = [statistics.crossed_mean(paired(scores, *pair), confidence).p for pair in pairs]
    told = [pair for pair, adjusted in zip(pairs, statistics.holm(p), strict=True)
            if adjusted < 1 - confidence]  # fmt: skip
    top = standing.index(best)
    return {standing[i if j == top else j] for i, j in told if top in (i, j)}


def corrected_label(study: Study, label: str) -> str | None:
    """The label of the corrected twin of a published or historic loss, if the study holds one."""
    card = losses.card(study.losses[label].name)
    if not isinstance(card.twin, str):
        return None
    twins = [other for other, entry in study.losses.items() if entry.name == card.twin]
    return card.twin if card.twin in twins else next(iter(twins), None)


def _contrasts(study: Study) -> list[tuple[str, str, str, str | None]]:
    """(kind, loss, against, reason)."""
    reference = study.comparison.reference_loss
    found: list[tuple[str, str, str, str | None]] = [
        ("reference", label, reference, "")
        for label in (*study.losses, FLOOR)
        if label != reference
    ]
    for label, entry in study.losses.items():
        if twin := corrected_label(study, label):
            found.append(("correction", twin, label, losses.card(entry.name).reason))
    return found


def estimated(estimate: statistics.Estimate) -> dict[str, float]:
    """The columns of a difference, its interval and p."""
    return {
        "difference": estimate.mean,
        "low": estimate.low,
        "high": estimate.high,
        "p": estimate.p,
    }


def mean_score(scores: np.ndarray, confidence: float) -> statistics.Estimate:
    """Mean Dice of one loss in the complete block of its scores (seeds, cases, 1)."""
    block = scores[np.ix_(*statistics.complete(scores))]
    return statistics.crossed_mean(block.reshape(block.shape[:2]), confidence).within(0, 1)


def mean_difference(values: np.ndarray, confidence: float) -> statistics.Estimate:
    """Mean of paired differences (seeds, cases) of two Dice, which lie between -1 and 1."""
    return statistics.crossed_mean(values, confidence).within(-1, 1)


def sample_size(values: np.ndarray) -> dict[str, int]:
    """The columns that say how many seeds and cases (seeds, cases) an estimate is from."""
    return {"seeds": values.shape[0], "cases": values.shape[1]}


def _difference(values: np.ndarray, confidence: float) -> dict[str, float]:
    estimate = mean_difference(values, confidence)
    seed, case, residual = statistics.components(values)
    return {
        **estimated(estimate),
        "degrees_of_freedom": estimate.degrees_of_freedom,
        "minimum_detectable_difference": statistics.detectable_difference(estimate, confidence),
        "seed_sd": seed,
        "case_sd": case,
        "residual_sd": residual,
        "p_these_seeds": statistics.wilcoxon_on_averages(values),
    }


def _equivalence(values: np.ndarray, margin: float, confidence: float) -> dict[str, object]:
    estimate = statistics.crossed_mean(values, confidence)
    found = statistics.equivalence(estimate, margin, confidence)
    verdict = found.verdict(margin, 1 - confidence)
    return {"difference": estimate.mean, "verdict": verdict} | found._asdict()


def _holm_within(table: pd.DataFrame, by: Sequence[str], column: str) -> pd.Series:
    """Holm's correction within each group; aligned with the table's index."""
    adjusted = pd.Series(math.nan, index=table.index)
    for _, family in table.groupby(by):
        adjusted[family.index] = statistics.holm(family[column])
    return adjusted
