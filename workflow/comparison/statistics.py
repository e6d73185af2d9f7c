"""Statistics as pure functions on plain arrays; nothing here knows of losses or files.

Scores of one loss form a matrix (seeds, cases). Seeds and cases are crossed random factors: the
same cases are scored for every seed, so seeds x cases values are never counted as independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint


class Estimate(NamedTuple):
    """A mean with its confidence interval, its degrees of freedom and p of "the mean is 0"."""

    mean: float
    low: float
    high: float
    degrees_of_freedom: float
    p: float


UNKNOWN = Estimate(math.nan, math.nan, math.nan, math.nan, math.nan)


def crossed_mean(scores: np.ndarray, confidence: float = 0.95) -> Estimate:
    """Mean of a (seeds, cases) matrix under a crossed random-effects model.

    With mean squares MS of seeds (S levels), cases (C levels) and residual, the variance of the
    grand mean is (MS_seed + MS_case - MS_residual) / (S C), not below either factor's own part;
    its degrees of freedom are Satterthwaite's. With one seed (or one case) the interval covers
    the other factor only, with neither it is unknown (NaN). NaN scores are refused.

    Satterthwaite 1946, doi:10.2307/3002019.
    """
    scores = np.asarray(scores, dtype=float)
    if scores.ndim != 2:
        raise ValueError(f"scores must be (seeds, cases), their shape is {scores.shape}")
    if np.isnan(scores).any():
        raise ValueError("scores hold NaN; drop cases without the class before")
    if scores.size == 0:
        return UNKNOWN
    seeds, cases = scores.shape
    mean = float(scores.mean())
    if seeds == 1 and cases == 1:
        return UNKNOWN._replace(mean=mean)
    if seeds == 1 or cases == 1:
        return _student(mean, scores.var(ddof=1) / scores.size, scores.size - 1, confidence)
    by_seed, by_case = scores.mean(axis=1), scores.mean(axis=0)
    ms_seed, df_seed = cases * by_seed.var(ddof=1), seeds - 1
    ms_case, df_case = seeds * by_case.var(ddof=1), cases - 1
    residual = scores - by_seed[:, None] - by_case[None, :] + mean
    df_residual = df_seed * df_case
    ms_residual = (residual**2).sum() / df_residual
    # a factor whose mean square is below the residual's has an estimated variance of 0: drop it
    terms = [(ms_seed, df_seed), (ms_case, df_case), (-ms_residual, df_residual)]
    if ms_seed <= ms_residual or ms_case <= ms_residual:
        terms = [max(terms[0], terms[1])]
    total = sum(ms for ms, _ in terms)
    freedom = total**2 / sum(ms**2 / df for ms, df in terms) if total else math.nan
    return _student(mean, total / scores.size, freedom, confidence)


def _student(mean: float, variance: float, freedom: float, confidence: float) -> Estimate:
    error = math.sqrt(variance)
    if error == 0:
        return Estimate(mean, mean, mean, freedom, 1.0 if mean == 0 else 0.0)
    half = stats.t.ppf((1 + confidence) / 2, freedom) * error
    p = 2 * stats.t.sf(abs(mean) / error, freedom)
    return Estimate(mean, mean - half, mean + half, freedom, float(p))


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a proportion; NaN without trials."""
    if trials == 0:
        return math.nan, math.nan
    low, high = proportion_confint(successes, trials, alpha=1 - confidence, method="wilson")
    # exactly 0 and 1 at the ends, where rounding would leave 1e-17
    return float(low) if successes else 0.0, float(high) if successes < trials else 1.0


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's step-down adjustment; NaN stays NaN and does not count."""
    p = np.asarray(p, dtype=float)
    adjusted = np.full(p.shape, math.nan)
    known = ~np.isnan(p)
    if known.any():
        adjusted[known] = multipletests(p[known], method="holm")[1]
    return adjusted
