"""Sentences say what the tables say, in every case that tables can be in."""

import math

import pandas as pd
import pytest

from workflow.reporting import text, wording
from workflow.reporting.study_tables import FLOOR, Study


def summary(*rows: dict) -> pd.DataFrame:
    """A summary with defaults for everything that a test does not speak of."""
    usual = {
        "checkpoint": "best", "name": "", "family": "x", "published": False, "twin": "", "runs": 3,
        "ok": 3, "diverged": 0, "failed": 0, "collapsed": 0, "total": 0, "tier": "best",
        "mean_dice": 0.6, "rarest_dice": 0.5,
    }  # fmt: skip
    table = pd.DataFrame([{**usual, "name": row["loss"], **row} for row in rows])
    table["mean_dice_low"], table["mean_dice_high"] = table["mean_dice"] - 0.1, 0.9
    table["collapse_rate"] = table["collapsed"] / table["runs"]
    return table


def contrast(
    published: str, fix: str, difference: float, p_holm: float, half: float = 0.1
) -> dict[str, object]:
    return {
        "checkpoint": "best", "contrast": "correction", "loss": fix, "against": published,
        "endpoint": "mean_dice", "difference": difference, "low": difference - half,
        "high": difference + half, "p_holm": p_holm, "reason": "",
    }  # fmt: skip


def study(table: pd.DataFrame, *contrasts: dict) -> Study:
    return Study("s", {"dataset": {"name": "D"}}, summary=table,
                 comparisons=pd.DataFrame(contrasts))  # fmt: skip


GDL = "published_generalized_dice_graph"
PAIR = (
    {"loss": "generalized_dice", "mean_dice": 0.6},
    {"loss": GDL, "mean_dice": 0.1, "published": True, "twin": "generalized_dice"},
)


def test_verdict_is_two_sentences() -> None:
    told = text.verdict(study(summary(*PAIR), contrast(GDL, "generalized_dice", 0.5, 0.01)))
    assert len(told) == 2
    assert all(sentence.endswith(".") for sentence in told)


def test_collapse_is_told_first_and_with_its_runs() -> None:
    table = summary(
        {"loss": "dice", "mean_dice": 0.7},
        {"loss": "focal", "mean_dice": 0.3, "collapsed": 1, "tier": "separable"},
        {"loss": "combo", "mean_dice": 0.0, "collapsed": 3, "total": 3, "tier": "collapsed"},
    )
    told = text.verdict(study(table))[0]
    assert told.startswith(
        "On D, of 3 losses, 1 lost every class (Combo in every run) "
        "and 1 lost some class (Focal in 1 of 3 runs);"
    )
    assert "Dice stands alone in the best tier with a mean Dice of 0.70 [0.60, 0.90]" in told


def test_best_tier_without_collapse() -> None:
    table = summary(
        {"loss": "dice", "mean_dice": 0.7},
        {"loss": "dice_ce", "mean_dice": 0.69},
        {"loss": "focal", "mean_dice": 0.3, "tier": "separable"},
    )
    told = text.verdict(study(table))[0]
    assert "none of the 3 losses collapsed" in told
    assert (
        "1 other cannot be separated from the highest mean Dice of those that hold, "
        "0.70 [0.60, 0.90] with Dice: Dice CE (down to 0.69)" in told
    )


def test_divergence_is_not_called_a_lost_class() -> None:
    table = summary(
        {"loss": "dice"},
        {"loss": "combo", "collapsed": 3, "diverged": 3, "ok": 0, "tier": "collapsed"},
    )
    told = text.verdict(study(table))[0]
    assert "of 2 losses, 1 diverged (Combo in every run);" in told
    assert "lost" not in told


def test_nothing_separable_is_said() -> None:
    table = summary({"loss": "dice", "mean_dice": 0.7}, {"loss": "dice_ce", "mean_dice": 0.6})
    assert "no loss can be separated from the highest" in text.verdict(study(table))[0]


def test_all_collapsed_has_no_best_tier() -> None:
    table = summary(
        {"loss": "dice", "collapsed": 3, "tier": "collapsed"},
        {"loss": "focal", "collapsed": 3, "tier": "collapsed"},
    )
    assert "no loss reached the best tier" in text.verdict(study(table))[0]
    assert text.ranking_title(study(table)).startswith("No loss reaches the best tier")


def test_failed_runs_are_in_the_verdict() -> None:
    table = summary({"loss": "dice", "failed": 2, "ok": 1}, {"loss": "focal"})
    assert "and 2 runs failed" in text.verdict(study(table))[0]


def test_single_loss_is_not_ranked() -> None:
    told = text.verdict(study(summary({"loss": "dice"})))[0]
    assert "Dice, the only loss of the study, did not collapse in 3 runs" in told
    assert "nothing to rank" in told


@pytest.mark.parametrize("table", [pd.DataFrame(), summary({"loss": "a", "mean_dice": math.nan})])
def test_no_score_no_ranking(table: pd.DataFrame) -> None:
    assert "no loss has a held-out score" in text.verdict(study(table))[0]


def test_floor_is_neither_ranked_nor_counted() -> None:
    table = summary({"loss": "dice"}, {"loss": "focal"}, {"loss": FLOOR, "tier": "floor",
                                                        "collapsed": 3})  # fmt: skip
    assert "none of the 2 losses collapsed" in text.verdict(study(table))[0]


@pytest.mark.parametrize(
    ("difference", "p_holm", "wording"),
    [
        (0.5, 0.01, "gains over Generalized Dice graph (published) (+0.50 [+0.40, +0.60])"),
        (-0.5, 0.01, f"loses to Generalized Dice graph (published) ({wording.MINUS}0.50"),
        (0.5, 0.2, "is not separable after Holm's correction from Generalized Dice graph"),
        (0.05, 0.4, "is not separable from Generalized Dice graph (published) (+0.05"),
        (math.nan, math.nan, "cannot be compared with Generalized Dice graph (published)"),
    ],
)
def test_gain_of_the_corrected_generalized_dice(
    difference: float, p_holm: float, wording: str
) -> None:
    found = contrast(GDL, "generalized_dice", difference, p_holm)
    assert wording in text.verdict(study(summary(*PAIR), found))[1]


def test_gain_that_one_run_cannot_judge() -> None:
    found = contrast(GDL, "generalized_dice", 0.5, math.nan, math.nan)
    told = text.verdict(study(summary(*PAIR), found))[1]
    assert "differs, with too few runs to judge, from" in told
    assert "nan" not in told


def test_collapse_of_the_correction_itself_is_told() -> None:
    table = summary({**PAIR[0], "collapsed": 2}, PAIR[1])
    told = text.verdict(study(table, contrast(GDL, "generalized_dice", 0.5, 0.01)))[1]
    assert "but Generalized Dice, the correction, collapsed itself in 2 of 3 runs" in told


def test_corrections_without_generalized_dice_are_counted() -> None:
    table = summary({"loss": "dice"}, {"loss": "published_dice", "twin": "dice"})
    told = text.verdict(study(table, contrast("published_dice", "dice", 0.1, 0.001)))[1]
    assert "1 gained mean Dice by it, 0 lost, and 0 could not be separated" in told


def test_study_without_pairs_claims_nothing_of_defects() -> None:
    assert "No published loss was trained" in text.verdict(study(summary({"loss": "dice"})))[1]


def test_twin_outside_the_study_is_no_pair() -> None:
    assert study(summary({"loss": "published_dice", "twin": "dice"})).pairs() == []


def test_holm_decides_before_the_interval() -> None:
    clear = pd.Series(contrast("a", "b", 0.5, 0.2))
    assert text.separable(clear) is False
    assert text.separable(pd.Series(contrast("a", "b", 0.5, math.nan))) is True
    assert text.separable(None) is None


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("published_generalized_dice_graph", "Generalized Dice graph (published)"),
        ("dice_ce", "Dice CE"),
        ("cross_entropy", "Cross entropy"),
        ("lovasz_softmax", "Lovász softmax"),
        (FLOOR, "all background"),
        ("_", "_"),
    ],
)
def test_labels_are_readable(label: str, name: str) -> None:
    assert wording.readable(label) == name


def test_numbers() -> None:
    assert wording.number(-0.001) == "0.00"
    assert wording.number(-0.5) == f"{wording.MINUS}0.50"
    assert wording.number(math.nan) == wording.number(math.inf) == wording.DASH
    assert wording.signed(0.25, 1) == "+0.2"
    assert wording.signed(0.001) == "0.00"
    assert wording.interval(math.nan, 1) == ""
    assert wording.percent(0.00009) == "0.01 %"
    assert wording.percent(1.0) == "100 %"
    assert wording.p_value(0.0001) == "< 0.001"
    assert wording.listing(["a", "b", "c"]) == "a, b and c"
    assert wording.shortened(list("abcdefgh"), 3) == "a, b, c and 5 more"


def test_titles_of_an_empty_study_say_so() -> None:
    empty = Study("s")
    for title in (text.ranking_title, text.collapse_title, text.correction_title, text.cost_title,
                  text.heldout_title, text.curves_title, text.dataset_title):  # fmt: skip
        assert title(empty)


def test_a_collapsed_loss_with_the_highest_score_does_not_lead() -> None:
    table = summary(
        {"loss": "generalized_dice_ce", "mean_dice": 0.8, "collapsed": 3, "tier": "collapsed"},
        {"loss": "dice", "mean_dice": 0.7},
        {"loss": "dice_ce", "mean_dice": 0.6},
    )
    told = text.ranking_title(study(table))
    assert told.startswith("Dice has the highest mean Dice of the losses that hold (0.70)")


def test_one_seed_speaks_of_cases_only() -> None:
    runs = pd.DataFrame({"loss": ["dice"] * 2, "seed": [1, 1]})
    one = Study("s", {"dataset": {"name": "D"}}, runs=runs)
    many = Study("s", {"dataset": {"name": "D"}}, runs=runs.assign(seed=[1, 2]))
    assert (
        "one seed" in text.rules(one)["Intervals"] and "new seeds" in text.rules(many)["Intervals"]
    )
    assert "cases, for this one seed" in text.caption(one, "ranking")
    assert "seeds and cases" in text.caption(many, "ranking")
