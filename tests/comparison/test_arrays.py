"""From the long table to arrays: what is paired, what is averaged, what is missing."""

import math

import numpy as np
import pandas as pd
import pytest

from workflow.comparison.arrays import case_scores, class_arrays, score_array
from workflow.study import FLOOR

ROWS = [
    # loss, seed, subject, case, class, dice
    ("a", 1, "p", "p1", "big", 0.8),
    ("a", 1, "p", "p1", "small", 0.4),
    ("a", 1, "p", "p2", "big", 0.2),
    ("a", 1, "p", "p2", "small", math.nan),
    ("a", 1, "q", "q1", "big", 0.5),
    ("a", 1, "q", "q1", "small", math.nan),
    ("b", 2, "q", "q1", "big", 0.7),
    (FLOOR, 0, "q", "q1", "big", 0.0),
]
CASES = pd.DataFrame(ROWS, columns=["loss", "seed", "subject", "case", "class", "dice"])


def test_cases_of_one_subject_are_one_independent_case():
    scores = case_scores(CASES[CASES["loss"] == "a"], "mean_dice", "small")
    assert scores["dice"].tolist() == pytest.approx([(0.6 + 0.2) / 2, 0.5])
    rarest = case_scores(CASES[CASES["loss"] == "a"], "rarest_dice", "small")
    assert rarest["dice"].tolist() == [0.4]
    assert rarest["subject"].tolist() == ["p"]


def test_losses_stand_in_the_order_asked_for_and_a_run_that_is_not_there_is_missing():
    array = score_array(CASES, "mean_dice", "small", ["b", "a", FLOOR])
    assert array.shape == (3, 2, 3)  # seeds 0, 1, 2; subjects p, q
    assert np.isnan(array[:2, :, 0]).all()
    assert array[2, 1, 0] == 0.7
    assert array[1, :, 1] == pytest.approx([0.4, 0.5])


def test_the_floor_scores_nothing_wherever_a_loss_has_a_score():
    floor = score_array(CASES, "mean_dice", "small", ["b", "a", FLOOR])[:, :, 2]
    assert floor[1].tolist() == [0, 0]
    assert floor[2, 1] == 0
    assert math.isnan(floor[2, 0])


def test_class_arrays_keep_cases_and_classes_apart():
    dice = class_arrays(CASES, ["dice"], ["a", "b"])["dice"]
    assert dice.shape == (2, 2, 3, 2)  # losses, seeds, cases, classes
    assert dice[0, 0, 0].tolist() == [0.8, 0.4]
    assert dice[1, 1, 2, 0] == 0.7
    assert np.isnan(dice[1, 0]).all()
