"""The definition of collapse, fixed beforehand."""

import pandas as pd
import pytest

from workflow.comparison.collapse import collapsed_classes, grade


def cases(**dices):
    return pd.DataFrame(
        [(c, d) for c, values in dices.items() for d in values], columns=["class", "dice"]
    )


def test_more_than_half_of_the_present_cases_below_the_threshold():
    assert collapsed_classes(cases(a=[0.0, 0.04, 0.9], b=[0.04, 0.9])) == ["a"]


def test_cases_without_the_class_do_not_count():
    assert collapsed_classes(cases(a=[0.0, None, None, None], b=[None, None])) == ["a"]


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
