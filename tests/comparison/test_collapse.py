"""The definition of collapse, fixed beforehand."""

import pandas as pd
import pytest

from workflow.comparison import statistics
from workflow.comparison.collapse import class_rates, collapsed_classes, grade


def cases(**dices):
    return pd.DataFrame(
        [(c, d) for c, values in dices.items() for d in values], columns=["class", "dice"]
    ).astype({"dice": float})


def test_more_than_half_of_the_present_cases_below_the_threshold():
    assert collapsed_classes(cases(a=[0.0, 0.04, 0.9], b=[0.04, 0.9])) == ["a"]


def test_cases_without_the_class_do_not_count():
    assert collapsed_classes(cases(a=[0.0, None, None, None], b=[None, None])) == ["a"]


def test_a_dice_at_the_threshold_or_in_just_half_of_the_cases_is_no_collapse():
    assert collapsed_classes(cases(a=[0.05, 0.05], b=[0.0, 0.05], c=[0.0, 0.0, 0.9])) == ["c"]


def test_nothing_but_background_is_a_total_collapse():
    lost = collapsed_classes(cases(a=[0.0, 0.0], b=[0.0, None], never=[None, None]))
    # the class that no case has is neither lost nor kept
    assert lost == ["a", "b"]
    assert grade(lost, 2, "ok") == "total"


def test_without_any_case_to_judge_only_divergence_counts():
    assert collapsed_classes(cases(a=[None])) == []
    assert grade([], 0, "ok") == "none"
    assert grade([], 0, "diverged") == "partial"


def test_classes_have_rates_over_runs_with_wilson_intervals():
    runs = [
        cases(a=[0.9, 0.9], b=[0.0, 0.9, 0.0], never=[None]),
        cases(a=[0.9, 0.0], b=[0.0, 0.9, 0.9], never=[None]),
        cases(a=[0.9, 0.9], b=[0.0, 0.0, 0.0], never=[None]),
    ]
    table = pd.concat([run.assign(dataset="d", loss="x", seed=s) for s, run in enumerate(runs)])
    rates = class_rates(table, 0.9).set_index("class")
    assert list(rates.index) == ["a", "b"]
    assert rates[["runs", "collapsed"]].values.tolist() == [[3, 0], [3, 2]]
    assert rates.loc["b", "rate"] == pytest.approx(2 / 3)
    assert tuple(rates.loc["b", ["rate_low", "rate_high"]]) == statistics.wilson(2, 3, 0.9)
    nothing = class_rates(table[table["class"] == "never"], 0.9)
    assert nothing.empty
    assert set(nothing) == set(rates.reset_index())


@pytest.mark.parametrize(
    ("collapsed", "status", "expected"),
    [
        ([], "ok", "none"),
        (["a"], "ok", "partial"),
        (["a", "b", "c"], "ok", "total"),
        ([], "diverged", "partial"),
        (["a", "b", "c"], "diverged", "total"),
    ],
)
def test_grades(collapsed, status, expected):
    assert grade(collapsed, 3, status) == expected
