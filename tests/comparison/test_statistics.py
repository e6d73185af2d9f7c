"""Statistics against scipy, statsmodels and simulations whose truth is known."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from workflow.comparison.statistics import (
    UNKNOWN,
    Estimate,
    complete,
    components,
    crossed_mean,
    detectable_difference,
    equivalence,
    holm,
    improvement,
    wilcoxon_on_averages,
    wilson,
)

STUDIES = 2000
CASES = 50
SEED_SDS = (0, 0.005, 0.01, 0.02, 0.03)


def studies(seeds, seed_sd, number=STUDIES, case_sd=0.06, residual_sd=0.06, cases=CASES, key=3):
    """(number, seeds, cases) of studies of a true mean of 0."""
    generator = np.random.default_rng([key, seeds, round(1000 * seed_sd)])
    return (
        generator.normal(0, seed_sd, (number, seeds, 1))
        + generator.normal(0, case_sd, (number, 1, cases))
        + generator.normal(0, residual_sd, (number, seeds, cases))
    )


def one_seed(values):
    """The estimate of cases seen by one seed, which is a plain t-test."""
    return crossed_mean(np.asarray(values)[None])


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


@pytest.mark.parametrize("seeds", [3, 4, 5, 7, 10])
@pytest.mark.parametrize("seed_sd", SEED_SDS)
def test_intervals_cover_and_claims_are_false_as_often_as_they_say(seeds, seed_sd):
    """2,000 studies whose truth is known: 93 to 97 % coverage, so 3 to 7 % false claims."""
    estimate = crossed_mean(studies(seeds, seed_sd))
    covered = ((estimate.low <= 0) & (estimate.high >= 0)).mean()
    assert 0.93 <= covered <= 0.97
    assert (estimate.p < 0.05).mean() == pytest.approx(1 - covered)


def test_satterthwaites_weights_would_cover_too_little_with_three_seeds():
    """Why the degrees of freedom are not Satterthwaite's; the same studies, 20,000 of them."""
    scores = studies(3, 0.03, number=20_000)
    seeds, cases = scores.shape[1:]
    ours = crossed_mean(scores)
    ms_seed = cases * scores.mean(2).var(1, ddof=1)
    ms_case = seeds * scores.mean(1).var(1, ddof=1)
    residual = scores - scores.mean(2, keepdims=True) - scores.mean(1, keepdims=True)
    df = (seeds - 1) * (cases - 1)
    ms_residual = ((residual + scores.mean((1, 2), keepdims=True)) ** 2).sum((1, 2)) / df
    variance = np.maximum(ms_seed + ms_case - ms_residual, np.maximum(ms_seed, ms_case))
    theirs = variance**2 / (
        ms_seed**2 / (seeds - 1) + ms_case**2 / (cases - 1) + ms_residual**2 / df
    )
    half = stats.t.ppf(0.975, theirs) * np.sqrt(variance / (seeds * cases))
    assert (np.abs(ours.mean) <= half).mean() < 0.933
    assert ((ours.low <= 0) & (ours.high >= 0)).mean() == pytest.approx(0.94, abs=0.006)


@pytest.mark.parametrize("seed_sd", [0.02, 0.03])
def test_wilcoxon_on_averages_speaks_of_these_seeds_only(seed_sd):
    """With 3 seeds a fifth or more of its claims about further seeds are false."""
    scores = studies(3, seed_sd, number=400)
    claims = np.mean([wilcoxon_on_averages(study) < 0.05 for study in scores])
    assert claims > 0.15
    # without an effect of the seeds there is nothing that it overlooks
    claims = np.mean([wilcoxon_on_averages(study) < 0.05 for study in studies(3, 0, number=400)])
    assert claims == pytest.approx(0.05, abs=3.5 * math.sqrt(0.05 * 0.95 / 400))


def test_wilcoxon_is_scipys_on_the_averages_and_knows_no_difference():
    scores = studies(3, 0.01, number=1)[0]
    assert wilcoxon_on_averages(scores) == stats.wilcoxon(scores.mean(0)).pvalue
    assert wilcoxon_on_averages(np.zeros((3, 5))) == 1
    assert math.isnan(wilcoxon_on_averages(np.empty((0, 0))))


def test_holm_keeps_a_family_of_equal_losses_at_five_percent_with_five_seeds():
    """1,000 studies of nine losses that share a reference."""
    scores = studies(5, 0.02, number=10_000, key=4).reshape(1000, 10, 5, CASES) / math.sqrt(2)
    p = crossed_mean(scores[:, 1:] - scores[:, :1]).p
    assert np.mean([holm(family).min() < 0.05 for family in p]) < 0.07


def test_components_are_those_that_made_the_study():
    scores = studies(40, 0.03, number=1, case_sd=0.06, residual_sd=0.02, cases=200)[0]
    assert components(scores) == pytest.approx((0.03, 0.06, 0.02), rel=0.25)
    assert components(np.repeat(scores[:1], 3, axis=0)).seed == pytest.approx(0)
    assert all(math.isnan(sd) for sd in components(scores[:1]))


@pytest.mark.parametrize("cases", [3, 10, 50, 200])
def test_the_detectable_difference_is_that_of_a_t_test(cases):
    values = np.random.default_rng(5).normal(0, 0.04, cases)
    size = TTestPower().solve_power(nobs=cases, alpha=0.05, power=0.8)
    assert detectable_difference(one_seed(values)) == pytest.approx(
        size * values.std(ddof=1), rel=1e-4
    )


def test_a_study_finds_its_detectable_difference_in_four_of_five_repetitions():
    scores = studies(10, 0.01, number=4000)
    differences = [detectable_difference(crossed_mean(study)) for study in scores[:200]]
    found = crossed_mean(scores + np.median(differences)).p < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.03)


def test_equivalence_is_two_one_sided_t_tests():
    values = np.random.default_rng(6).normal(0.004, 0.04, 50)
    found = equivalence(one_seed(values), 0.02)
    assert found.p == pytest.approx(ttost_paired(values, np.zeros(50), -0.02, 0.02)[0])
    low, high = stats.t.interval(0.9, 49, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))


@pytest.mark.parametrize(("seeds", "seed_sd"), [(3, 0.0), (3, 0.02), (5, 0.01), (10, 0.03)])
def test_losses_that_differ_by_the_margin_are_called_equivalent_in_five_percent(seeds, seed_sd):
    margin = 0.06
    scores = studies(seeds, seed_sd, key=7) + margin
    claims = [equivalence(crossed_mean(study), margin).p < 0.05 for study in scores]
    assert np.mean(claims) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / STUDIES)


def test_the_smallest_margin_is_shown_in_four_of_five_studies_of_equal_losses():
    scores = studies(1, 0, number=4000, case_sd=0.04, residual_sd=0)
    true = Estimate(0, 0, 0, CASES - 1, 1, 0.04 / math.sqrt(CASES))
    margin = equivalence(true, 1).smallest_margin
    claims = [equivalence(crossed_mean(study), margin).p < 0.05 for study in scores]
    assert np.mean(claims) == pytest.approx(0.8, abs=0.03)


def test_no_equivalence_is_claimed_below_the_smallest_margin():
    estimate = Estimate(0.0, 0, 0, 49, 1, 0.01)
    found = equivalence(estimate, 0.02)
    # both tests reject, but only because the two losses happen to agree so well
    assert found.p < 0.05
    assert found.smallest_margin > 0.02
    assert found.verdict(0.02, 0.05) == "margin too small"
    assert equivalence(estimate, 0.04).verdict(0.04, 0.05) == "equivalent"
    apart = equivalence(estimate._replace(mean=0.035), 0.04)
    assert apart.verdict(0.04, 0.05) == "not shown"
    assert equivalence(UNKNOWN, 0.04).verdict(0.04, 0.05) == ""


def test_equal_losses_are_equivalent_and_apart_ones_are_not():
    assert equivalence(crossed_mean(np.zeros((3, 5))), 0.02).verdict(0.02, 0.05) == "equivalent"
    assert equivalence(crossed_mean(np.ones((3, 5))), 0.02).verdict(0.02, 0.05) == "not shown"


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("seed_sd", [0, 0.01, 0.03])
@pytest.mark.parametrize("truth", [0.5, 0.8, 0.95])
def test_the_probability_of_improvement_is_covered(seeds, seed_sd, truth):
    """500 studies; the truth is that of a further seed and a further case."""
    shift = stats.norm.ppf(truth) * math.sqrt(seed_sd**2 + 2 * 0.06**2)
    scores = studies(seeds, seed_sd, number=500, key=8) + shift
    found = [improvement(study) for study in scores]
    assert np.mean([f.mean for f in found]) == pytest.approx(truth, abs=0.02)
    covered = np.mean([f.low <= truth <= f.high for f in found])
    assert 0.93 - 2 * math.sqrt(0.07 * 0.93 / 500) <= covered <= 0.99


def test_improvement_counts_ties_half_and_stays_within_zero_and_one():
    assert improvement(np.zeros((3, 5))).mean == 0.5
    assert improvement(np.array([[1.0, 0, -1, 2]])).mean == (2 + 0.5) / 4
    always = improvement(np.ones((3, 20)))
    assert always.mean == 1
    assert always.low < 0.9 and always.high == pytest.approx(1)
    assert math.isnan(improvement(np.empty((0, 0))).mean)
    assert math.isnan(improvement(np.ones((1, 1))).mean)


def test_a_gap_is_left_out_explicitly_and_most_runs_are_kept():
    scores = np.zeros((3, 4, 5))
    scores[1, :, 0] = np.nan  # a run is missing
    scores[:, 2, 3] = np.nan  # a case has no score
    scores[:, :, 4] = np.nan  # a loss never ran
    seeds, cases, losses = complete(scores)
    assert list(losses) == [1, 2, 3]
    assert list(seeds) == [0, 1, 2]
    assert list(cases) == [0, 1, 3]
    # four losses with one seed and one with three: four runs are more than three
    few = np.full((3, 4, 5), np.nan)
    few[0], few[:, :, 0] = 0, 0
    assert [list(part) for part in complete(few)] == [[0], [0, 1, 2, 3], [0, 1, 2, 3, 4]]
    assert [len(part) for part in complete(np.full((2, 3, 4), np.nan))] == [0, 0, 0]
    assert [len(part) for part in complete(np.empty((0, 0, 4)))] == [0, 0, 0]


def test_many_matrices_at_once_are_the_same_as_one_by_one():
    scores = studies(3, 0.01, number=4)
    together = crossed_mean(scores)
    for index, study in enumerate(scores):
        alone = crossed_mean(study)
        assert [values[index] for values in together] == pytest.approx(list(alone))


def test_degenerate_matrices_have_an_answer():
    assert crossed_mean(np.zeros((3, 5)))[:3] == (0, 0, 0)
    assert crossed_mean(np.zeros((3, 5))).p == 1
    assert crossed_mean(np.ones((3, 5))).p == 0
    assert math.isnan(crossed_mean(np.ones((1, 1))).low)
    assert math.isnan(crossed_mean(np.empty((0, 5))).mean)


def test_an_interval_ends_where_the_mean_cannot_go_on():
    """Two seeds that disagree: the plain interval leaves what a Dice can be, the cut one touches
    the ends; mean, p and standard error stay, and what is inside is not cut."""
    plain = crossed_mean(np.array([[0.1, 0.2], [0.9, 0.8]]))
    assert plain.low < 0 and plain.high > 1
    cut = plain.within(0, 1)
    assert cut == plain._replace(low=0.0, high=1.0)
    assert plain.within(-10, 10) == plain
    assert math.isnan(crossed_mean(np.ones((1, 1))).within(0, 1).low)


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


def test_holm_is_that_of_statsmodels():
    p = np.random.default_rng(9).random(30) ** 3
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_holm_ignores_what_is_unknown():
    assert holm([0.01, math.nan, 0.04, 0.03]) == pytest.approx(
        [0.03, math.nan, 0.06, 0.06], nan_ok=True
    )
    assert holm([]).size == 0
