"""Rankings against scipy, published tables and cases worked by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from workflow.comparison.ranking import (
    AGGREGATIONS,
    EMPTY_RULES,
    aggregate,
    bootstrap_ranks,
    fill_absent,
    friedman,
    kendall,
    pooled_dice,
    ranks,
)

NAN = math.nan


def test_rank_one_is_the_highest_score_and_ties_share():
    assert list(ranks([0.5, 0.9, 0.5])) == [2.5, 1, 2.5]


def test_friedman_is_scipys_with_the_mean_ranks():
    scores = np.random.default_rng(0).normal(0, 1, (20, 5)) + np.arange(5)
    found = friedman(scores)
    assert (found.statistic, found.p) == stats.friedmanchisquare(*scores.T)
    assert found.mean_ranks == pytest.approx(stats.rankdata(-scores, axis=1).mean(0))


@pytest.mark.parametrize(("losses", "quantile"), [(3, 2.343), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_is_that_of_the_published_table(losses, quantile):
    """q / sqrt(2) of Demsar 2006, table 5, at 5 %."""
    scores = np.random.default_rng(1).normal(0, 1, (14, losses))
    expected = quantile * math.sqrt(losses * (losses + 1) / (6 * 14))
    assert friedman(scores).critical_difference == pytest.approx(expected, abs=1e-3)


def test_twenty_losses_on_four_tasks_need_half_the_table_to_differ():
    """Loss Odyssey's design: only the extremes can separate."""
    scores = np.random.default_rng(2).normal(0, 1, (4, 20))
    assert friedman(scores).critical_difference == pytest.approx(14.8, abs=0.05)


def test_friedman_finds_a_difference_between_equal_losses_in_five_percent():
    generator = np.random.default_rng(3)
    claims = [friedman(generator.normal(0, 1, (30, 6))).p < 0.05 for _ in range(400)]
    assert np.mean(claims) == pytest.approx(0.05, abs=3.5 * math.sqrt(0.05 * 0.95 / 400))


def test_friedman_without_a_question_has_no_answer():
    assert math.isnan(friedman(np.zeros((10, 2))).p)
    assert math.isnan(friedman(np.zeros((1, 4))).critical_difference)
    assert friedman(np.zeros((10, 4))).p == 1


def test_bootstrap_ranks_are_sure_of_what_is_sure_and_even_where_losses_are_equal():
    generator = np.random.default_rng(4)
    scores = generator.normal(0, 0.05, (200, 5, 40, 2))
    shift = np.array([10.0, 0.0, 0.0])
    share = []
    for study in scores:
        three = np.concatenate([np.zeros((5, 40, 1)), study], axis=2) + shift
        spread = bootstrap_ranks(three, 100, generator)
        assert (spread[:, 0] == 1).all()
        assert (spread.sum(axis=1) == 6).all()
        share.append((spread[:, 1] == 2).mean())
    assert np.mean(share) == pytest.approx(0.5, abs=0.1)


def test_bootstrap_ranks_spread_as_the_mean_does():
    """Two losses: the share of resamples won is that of the bootstrapped mean difference."""
    generator = np.random.default_rng(5)
    scores = np.zeros((1, 400, 2))
    scores[0, :, 0] = generator.normal(0.05, 1, 400)
    won = (bootstrap_ranks(scores, 4000, generator)[:, 0] == 1).mean()
    difference = scores[0, :, 0]
    expected = stats.norm.cdf(difference.mean() / (difference.std() / math.sqrt(400)))
    assert won == pytest.approx(expected, abs=0.03)


def test_bootstrap_draws_seeds_as_well_as_cases():
    """Two losses that differ by seed alone: whose seeds are drawn wins."""
    scores = np.zeros((3, 30, 2))
    scores[:, :, 0] = np.array([0.3, -0.1, -0.1])[:, None]
    won = (bootstrap_ranks(scores, 20_000, np.random.default_rng(6))[:, 0] == 1).mean()
    # the seed of +.3 at least once among three draws
    assert won == pytest.approx(1 - (2 / 3) ** 3, abs=0.02)


def test_equal_losses_tie_in_every_resample():
    scores = np.repeat(np.random.default_rng(7).random((3, 7, 1)), 2, axis=2)
    assert (bootstrap_ranks(scores, 50, np.random.default_rng(8)) == 1.5).all()


def test_kendall_leaves_out_what_is_not_scored():
    first = np.array([1.0, 2, 3, NAN, 5])
    second = np.array([1.0, 3, 2, 4, 9])
    known = ~np.isnan(first)
    assert kendall(first, second) == stats.kendalltau(first[known], second[known]).statistic
    assert kendall(first, -first) == -1
    assert math.isnan(kendall(first, np.full(5, NAN)))
    assert math.isnan(kendall(np.ones(5), second))


SCORES = np.array([[0.9, 0.3], [0.8, NAN], [0.4, 0.1]])  # cases, classes


def test_aggregation_rules_differ_as_they_say():
    assert aggregate(SCORES, "classes_then_cases") == pytest.approx((0.6 + 0.8 + 0.25) / 3)
    assert aggregate(SCORES, "cases_then_classes") == pytest.approx((2.1 / 3 + 0.4 / 2) / 2)
    assert aggregate(SCORES, "median") == pytest.approx(0.6)


@pytest.mark.parametrize("rule", AGGREGATIONS)
def test_a_run_without_scores_has_no_score(rule):
    both = aggregate(np.stack([SCORES, np.full((3, 2), NAN)]), rule)
    assert both[0] == aggregate(SCORES, rule)
    assert math.isnan(both[1])


def test_empty_rules_differ_as_they_say():
    predicted = np.array([[9, 9], [9, 0], [9, 9]])
    assert np.array_equal(fill_absent(SCORES, predicted, "left_out"), SCORES, equal_nan=True)
    assert fill_absent(SCORES, predicted, "one_if_empty")[1, 1] == 1
    assert fill_absent(SCORES, predicted + 1, "one_if_empty")[1, 1] == 0
    assert fill_absent(SCORES, predicted, "zero")[1, 1] == 0
    for rule in EMPTY_RULES:
        missing = fill_absent(SCORES * NAN, predicted * NAN, rule)
        assert np.isnan(missing).all()


def test_pooled_voxels_weigh_cases_by_size_and_count_false_positives_where_the_class_is_not():
    tp = np.array([[90, 0], [0, 0]])
    fp = np.array([[10, 0], [0, 5]])
    fn = np.array([[10, 0], [10, 0]])
    # the second class is in no case: it has no Dice
    assert pooled_dice(tp, fp, fn) == pytest.approx(180 / 210)
    missed = fn + np.array([[0, 5], [0, 0]])
    assert pooled_dice(tp, fp, missed) == pytest.approx((180 / 210 + 0) / 2)
    assert math.isnan(pooled_dice(tp * NAN, fp * NAN, fn * NAN))


def test_unknown_rules_are_refused():
    with pytest.raises(ValueError, match="one_if_empty"):
        fill_absent(SCORES, SCORES, "one")
    with pytest.raises(ValueError, match="median"):
        aggregate(SCORES, "mean")
