"""Rankings of losses and how firm they are, as pure functions on plain arrays.

A higher score is better and rank 1 is the best; equal scores share the mean of their ranks.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

AGGREGATIONS = ("classes_then_cases", "cases_then_classes", "median")
"""Rules of ``aggregate``; ``pooled_dice`` is the fourth."""
EMPTY_RULES = ("left_out", "one_if_empty", "zero")
"""What a case without the class scores: nothing; 1 if nothing is predicted, else 0; 0."""


class Friedman(NamedTuple):
    """Friedman's test, the mean rank of each loss and Nemenyi's critical difference of two."""

    statistic: float
    p: float
    mean_ranks: np.ndarray
    critical_difference: float


def ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks along the last axis, 1 for the highest score."""
    return stats.rankdata(-np.asarray(scores, dtype=float), axis=-1)


def friedman(scores: np.ndarray, confidence: float = 0.95) -> Friedman:
    """Friedman's test over (cases, losses); the cases must be independent of each other.

    Two losses differ by Nemenyi's test if their mean ranks are further apart than
    q / sqrt(2) * sqrt(k (k + 1) / (6 N)), with q the studentised range of k losses and N cases.
    Unknown (NaN) for fewer than three losses or two cases.

    Demsar 2006, Statistical comparisons of classifiers over multiple data sets, JMLR 7.
    """
    cases, losses = scores.shape
    if losses < 3 or cases < 2:
        return Friedman(math.nan, math.nan, np.full(losses, math.nan), math.nan)
    mean_ranks = ranks(scores).mean(axis=0)
    if (scores == scores[:, :1]).all():  # ties only: nothing speaks for a difference
        statistic, p = 0.0, 1.0
    else:
        statistic, p = map(float, stats.friedmanchisquare(*scores.T))
    quantile = stats.studentized_range.ppf(confidence, losses, math.inf)
    critical = quantile / math.sqrt(2) * math.sqrt(losses * (losses + 1) / (6 * cases))
    return Friedman(statistic, p, mean_ranks, float(critical))


def bootstrap_ranks(
    scores: np.ndarray, resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """Ranks (resamples, losses) of the mean scores, seeds and cases each drawn with replacement.

    ``scores``: (seeds, cases, losses). All losses see the same draw, as their runs are paired.
    The spread describes the ranking; it is no confidence interval (see ``crossed_mean``).
    """
    seeds, cases, _ = scores.shape
    # how often each seed and each case was drawn
    drawn_seeds = generator.multinomial(seeds, np.full(seeds, 1 / seeds), resamples)
    drawn_cases = generator.multinomial(cases, np.full(cases, 1 / cases), resamples)
    means = np.einsum("bs,scl,bc->bl", drawn_seeds, scores, drawn_cases, optimize=True)
    # equal losses must tie, whatever the order of summation rounds to
    return ranks(np.round(means / (seeds * cases), 12))


def kendall(first: np.ndarray, second: np.ndarray) -> float:
    """Kendall's tau-b of two scorings of the same losses; NaN if one of them is constant.

    Losses that either does not score (NaN) are left out.
    """
    known = ~np.isnan(first) & ~np.isnan(second)
    if known.sum() < 2:
        return math.nan
    return float(stats.kendalltau(first[known], second[known]).statistic)


def kendall_p(first: np.ndarray, second: np.ndarray) -> float:
    """p of Kendall's test that two scorings of the losses have nothing in common.

    The losses are what is drawn here: with few of them even a tau of .4 may be chance.
    """
    return float(stats.kendalltau(first, second).pvalue)


def fill_absent(dice: np.ndarray, predicted_voxels: np.ndarray, rule: str) -> np.ndarray:
    """Dice in which a class that a case does not have (NaN) scores by an empty rule.

    ``predicted_voxels`` is NaN where there is no run; there the score stays NaN.
    """
    if rule == "left_out":
        return dice
    if rule not in EMPTY_RULES:
        raise ValueError(f"rule must be one of {', '.join(EMPTY_RULES)}, not '{rule}'")
    empty = (predicted_voxels == 0) & (rule == "one_if_empty")
    absent = np.isnan(dice) & ~np.isnan(predicted_voxels)
    return np.where(absent, empty.astype(float), dice)


def aggregate(scores: np.ndarray, rule: str) -> np.ndarray:
    """One score from (..., cases, classes) whose absent classes are NaN.

    ``classes_then_cases``: each case weighs the same; ``cases_then_classes``: each class weighs
    the same; ``median``: of the cases' means over classes.
    """
    if rule not in AGGREGATIONS:
        raise ValueError(f"rule must be one of {', '.join(AGGREGATIONS)}, not '{rule}'")
    if rule == "cases_then_classes":
        return mean_known(mean_known(scores, axis=-2), axis=-1)
    by_case = mean_known(scores, axis=-1)
    if rule == "classes_then_cases":
        return mean_known(by_case, axis=-1)
    known = ~np.isnan(by_case).all(axis=-1)
    median = np.full(by_case.shape[:-1], math.nan)
    median[known] = np.nanmedian(by_case[known], axis=-1)
    return median


def pooled_dice(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> np.ndarray:
    """Dice of all voxels of all cases, then the mean over classes; (..., cases, classes).

    Large structures decide, and false positives count in cases without the class as well.
    """
    tp, fp, fn = (np.asarray(counts, dtype=float) for counts in (tp, fp, fn))
    present = (tp + fn).sum(axis=-2) > 0
    whole = (2 * tp + fp + fn).sum(axis=-2)
    dice = np.where(present, 2 * tp.sum(axis=-2) / np.where(present, whole, 1), math.nan)
    return mean_known(dice, axis=-1)


def mean_known(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of what is not NaN; NaN where nothing is known."""
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), math.nan)
