"""Statistics against scipy, statsmodels and simulations whose truth is known."""

import math

import numpy as np
import pytest
from scipy import stats

from workflow.comparison.statistics import crossed_mean, holm, wilson


def test_one_seed_gives_the_t_interval_over_cases():
    scores = np.random.default_rng(0).normal(0.6, 0.1, (1, 20))
    estimate = crossed_mean(scores)
    low, high = stats.t.interval(0.95, 19, scores.mean(), stats.sem(scores[0]))
    assert (estimate.low, estimate.high) == pytest.approx((low, high))
    assert estimate.p == pytest.approx(stats.ttest_1samp(scores[0], 0).pvalue)


def test_equal_seeds_give_the_t_interval_over_cases():
    """Repeating the same scores adds no information, so it must not narrow the interval."""
    scores = np.random.default_rng(1).normal(0.6, 0.1, (1, 20))
    once, thrice = crossed_mean(scores), crossed_mean(np.repeat(scores, 3, axis=0))
    assert thrice[:4] == pytest.approx(once[:4])


def test_the_variance_is_that_of_the_expected_mean_squares():
    """Against the two-way table of statsmodels."""
    import pandas as pd
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    generator = np.random.default_rng(2)
    scores = (
        generator.normal(0, 0.05, (4, 1))
        + generator.normal(0, 0.1, (1, 12))
        + generator.normal(0.5, 0.02, (4, 12))
    )
    table = pd.DataFrame(
        [(s, c, scores[s, c]) for s in range(4) for c in range(12)], columns=["s", "c", "y"]
    )
    squares = anova_lm(ols("y ~ C(s) + C(c)", table).fit())["mean_sq"]
    variance = (squares["C(s)"] + squares["C(c)"] - squares["Residual"]) / scores.size
    estimate = crossed_mean(scores)
    half = stats.t.ppf(0.975, estimate.degrees_of_freedom) * math.sqrt(variance)
    assert estimate.high - estimate.mean == pytest.approx(half)


@pytest.mark.parametrize(("seeds", "seed_sd"), [(3, 0.0), (3, 0.03), (5, 0.02)])
def test_coverage_is_nominal_where_wilcoxon_on_averages_would_not_be(seeds, seed_sd):
    """600 simulated studies: 95 % coverage within four standard errors of simulation."""
    generator = np.random.default_rng(3)
    hits = 0
    for _ in range(600):
        scores = (
            generator.normal(0, seed_sd, (seeds, 1))
            + generator.normal(0, 0.06, (1, 50))
            + generator.normal(0, 0.06, (seeds, 50))
        )
        estimate = crossed_mean(scores)
        hits += estimate.low <= 0 <= estimate.high
    assert hits / 600 == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 600))


def test_degenerate_matrices_have_an_answer():
    assert crossed_mean(np.zeros((3, 5)))[:3] == (0, 0, 0)
    assert crossed_mean(np.zeros((3, 5))).p == 1
    assert crossed_mean(np.ones((3, 5))).p == 0
    assert math.isnan(crossed_mean(np.ones((1, 1))).low)
    assert math.isnan(crossed_mean(np.empty((0, 5))).mean)


def test_nan_and_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        crossed_mean(np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match=r"\(seeds, cases\)"):
        crossed_mean(np.zeros(4))


def test_wilson_never_leaves_zero_to_one_and_knows_no_trials():
    low, high = wilson(0, 3)
    assert low == 0
    assert wilson(3, 3)[1] == 1
    assert high == pytest.approx(0.5615, abs=1e-4)
    assert all(math.isnan(bound) for bound in wilson(0, 0))


def test_holm_ignores_what_is_unknown():
    assert holm([0.01, math.nan, 0.04, 0.03]) == pytest.approx(
        [0.03, math.nan, 0.06, 0.06], nan_ok=True
    )
    assert holm([]).size == 0
