"""Whether two studies rank the losses alike."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from workflow.comparison.agreement import agreement

LOSSES = ("a", "b", "c", "d")


def table(means, seeds=(1, 2, 3), cases=20, noise=0.0, generator=None):
    """Dice of two classes for each loss, seed and case; the second class scores .1 less."""
    rows = [
        {
            "loss": loss, "seed": seed, "case": f"{case}", "subject": f"{case}", "class": name,
            "dice": mean - less + noise * (generator.standard_normal() if noise else 0),
        }
        for loss, mean in zip(LOSSES, means, strict=False)
        for seed in seeds
        for case in range(cases)
        for name, less in (("x", 0.0), ("y", 0.1))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_same_ranking_is_one_and_the_reverse_minus_one():
    first = table([0.5, 0.6, 0.7, 0.8])
    same = agreement(first, first, "y", 0.95, resamples=200).set_index("endpoint")
    assert list(same["kendall_tau"]) == [1, 1]
    assert same["same_first"].all()
    reverse = agreement(first, table([0.8, 0.7, 0.6, 0.5]), "y", 0.95, resamples=200)
    assert list(reverse["kendall_tau"]) == [-1, -1]
    assert list(reverse["low"]) == list(reverse["high"]) == [-1, -1]
    assert not reverse["same_first"].any()


def test_one_pair_of_six_that_swaps_costs_a_third():
    found = agreement(
        table([0.5, 0.6, 0.7, 0.8]), table([0.5, 0.6, 0.8, 0.7]), "y", 0.95, resamples=200
    )
    assert found.loc[0, "kendall_tau"] == pytest.approx(4 / 6)


def test_only_what_both_studies_have_is_compared():
    first = table([0.5, 0.6, 0.7, 0.8], seeds=(1, 2, 3), cases=20)
    second = table([0.5, 0.6, 0.7], seeds=(2, 3, 4), cases=15)
    found = agreement(first, second, "y", 0.95, resamples=200)
    assert list(found.loc[0, ["losses", "seeds", "cases"]]) == [3, 2, 15]
    assert found.loc[0, "kendall_tau"] == 1


def test_nothing_in_common_is_said_and_no_number_made_up():
    found = agreement(
        table([0.5, 0.6], seeds=(1,)), table([0.5, 0.6], seeds=(2,)), "y", 0.95, resamples=200
    )
    assert list(found["cases"]) == [0, 0]
    assert found["kendall_tau"].isna().all()


def test_equal_losses_agree_by_chance_only_and_the_spread_says_so():
    generator = np.random.default_rng(0)
    first = table([0.6] * 4, noise=0.1, generator=generator)
    second = table([0.6] * 4, noise=0.1, generator=generator)
    found = agreement(first, second, "y", 0.95, resamples=200)
    assert (found["low"] < 0.4).all()
    assert (found["high"] - found["low"] > 0.5).all()
