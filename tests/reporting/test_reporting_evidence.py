"""Sentences about what a study can tell, from tables that hold the cases that matter."""

import math

import pandas as pd
import pytest
from synthetic_study import LARGE, write_study

from workflow.reporting import evidence
from workflow.reporting.study_tables import Study, read_study

LOSSES = ("dice_ce", "dice", "focal", "combo")


def study(seeds: int = 5, **tables: pd.DataFrame) -> Study:
    """Three losses that hold and one, combo, that does not."""
    summary = pd.DataFrame({
        "checkpoint": "best", "loss": LOSSES, "mean_dice": [0.7, 0.69, 0.6, 0.8],
        "tier": ["best", "best", "separable", "collapsed"],
        "ece": [0.02, 0.05, 0.04, 0.5], "presence_auc": [0.8, 0.9, 0.7, 0.1],
    })  # fmt: skip
    runs = pd.DataFrame([{"loss": x, "seed": s} for x in LOSSES for s in range(seeds)])
    config = {"comparison": {"reference_loss": "dice_ce"}}
    return Study("s", config, summary=summary, runs=runs, **tables)


def contrasts(*detectable: float) -> pd.DataFrame:
    return pd.DataFrame({
        "checkpoint": "best", "contrast": "reference", "loss": LOSSES[1 : 1 + len(detectable)],
        "against": "dice_ce", "endpoint": "mean_dice",
        "minimum_detectable_difference": detectable,
    })  # fmt: skip


def pairs(*rows: tuple[str, str, str, float]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["loss", "against", "verdict", "smallest_margin"])
    return table.assign(checkpoint="best", endpoint="mean_dice", margin=0.02, p_holm=0.2, p=0.01)


def test_detectable_difference_is_the_median_of_the_losses_that_hold() -> None:
    told = evidence.detectable(study(comparisons=contrasts(0.02, 0.06, 0.9)))
    assert "from Dice CE with a power of 80 %" in told
    assert "at least 0.040 (median over the losses; 0.020 to 0.060)" in told
    assert "leads" not in told


@pytest.mark.parametrize(
    ("seeds", "warning"), [(1, "these very starts"), (2, "2 seeds"), (3, "3 seeds"), (4, "")]
)
def test_few_seeds_are_warned_of(seeds: int, warning: str) -> None:
    told = evidence.few_seeds(study(seeds))
    assert warning in told
    assert bool(told) == bool(warning)


@pytest.mark.parametrize("table", [pd.DataFrame(), contrasts(math.nan, math.nan)])
def test_detection_that_cannot_be_computed_is_not_claimed(table: pd.DataFrame) -> None:
    assert "cannot be computed" in evidence.detectable(study(comparisons=table))


def test_equivalence_leaves_collapsed_losses_out() -> None:
    table = pairs(
        ("dice_ce", "dice", "equivalent", 0.01),
        ("dice_ce", "focal", "margin too small", 0.05),
        ("dice_ce", "combo", "equivalent", 0.01),
    )
    known = study(equivalence=table)
    assert evidence.equivalence_title(known) == (
        "1 of 2 pairs of losses is equivalent within ±0.02 mean Dice; for 1 the study is too "
        "small to tell"
    )
    told = evidence.equivalence_notes(known)
    assert "0.010 for the pair that varies least, 0.030 at the median and 0.050" in told
    assert "corrected over all pairs (Holm), none of 1 are still equivalent" in told


@pytest.mark.parametrize(
    ("verdict", "title"),
    [
        (
            "margin too small",
            "This study is too small to show that its one pair agrees",
        ),
        ("not shown", "The one pair of losses is not shown to agree within ±0.02 mean Dice"),
        ("", "No two losses can be tested"),
    ],
)
def test_equivalence_is_not_claimed_without_the_verdict(verdict: str, title: str) -> None:
    known = study(equivalence=pairs(("dice_ce", "dice", verdict, 0.01)))
    assert evidence.equivalence_title(known).startswith(title)
    assert "still equivalent" not in evidence.equivalence_notes(known)


def test_bins_of_runs_are_put_together_by_their_voxels() -> None:
    rows = pd.DataFrame({
        "checkpoint": ["best", "best", "best", "last"], "loss": "dice",
        "class": ["", "", "core", ""], "bin": 14, "voxels": [300, 100, 7, 9],
        "confidence": [0.9, 0.98, 0.5, 0.1], "accuracy": [0.6, 1.0, 0.5, 0.1],
    })  # fmt: skip
    known = study(reliability=rows)
    pooled = evidence.pooled_bins(known, "dice", "")
    assert pooled.to_dict("records") == [
        {
            "bin": 14,
            "voxels": 400,
            "confidence": pytest.approx(0.92),
            "accuracy": pytest.approx(0.7),
        }
    ]
    assert evidence.overconfident(known) == ["dice"]
    assert evidence.calibration_title(known) == (
        "1 of 3 losses that hold is overconfident in the foreground box; the calibration error "
        "runs from 0.020 (Dice CE) to 0.050 (Dice)"
    )


def test_the_ranking_is_compared_with_the_rule_reported() -> None:
    table = pd.DataFrame(
        [
            ("metric", "dice", "iou", 0.9),
            ("metric", "dice", "hd95", 0.4),
            ("metric", "iou", "hd95", 0.1),
            ("empty_rule", "left_out", "zero", math.nan),
        ],
        columns=["aspect", "rule", "against", "kendall_tau"],
    ).assign(checkpoint="best", same_first=True)
    ranks = pd.DataFrame({
        "checkpoint": "best", "endpoint": "mean_dice", "loss": ["dice", "focal"],
        "rank": [1, 2], "first": [0.62, 0.38],
    })  # fmt: skip
    known = study(stability=table, ranks=ranks)
    assert evidence.stability_title(known) == (
        "Dice comes first in 62 % of the resampled studies; of 2 other rules, the ranking changes "
        "most with another metric: HD95 (Kendall's tau 0.40)"
    )
    assert "Without a rank, as runs are missing: Combo and Dice CE." in evidence.stability_notes(
        known
    )


def test_rules_that_all_agree_change_nothing() -> None:
    table = pd.DataFrame({
        "checkpoint": "best", "aspect": "metric", "rule": "dice", "against": ["iou", "nsd"],
        "kendall_tau": 1.0,
    })  # fmt: skip
    ranks = pd.DataFrame({
        "checkpoint": ["best"], "endpoint": "mean_dice", "loss": "dice", "rank": 1, "first": 1.0,
    })  # fmt: skip
    told = evidence.stability_title(study(stability=table, ranks=ranks))
    assert told.endswith("; 2 other rules rank the losses in the same order")


def test_absence_names_the_best_and_the_worst_that_hold() -> None:
    told = evidence.absent_title(study())
    assert "Dice tells best whether a class is there (AUC 0.90) and Focal worst (0.70" in told


def test_rates_name_the_losses_whose_best_is_at_an_end() -> None:
    trials = pd.DataFrame(
        [
            ("dice", 0.003, False, True, False),
            ("focal", 0.01, False, False, True),
            ("focal", 0.03, True, True, True),
        ],
        columns=["loss", "learning_rate", "widened", "chosen", "on_edge"],
    )
    known = study(trials=trials)
    assert evidence.rates_title(known) == (
        "2 losses chose a learning rate of 0.003 to 0.03; for 1 the best is still at an end of "
        "what was tried"
    )
    assert evidence.rates_notes(known).endswith("so that a better rate may lie beyond: Focal.")


def test_empty_tables_claim_nothing() -> None:
    empty = Study("s")
    titles = (evidence.equivalence_title, evidence.stability_title, evidence.absent_title,
              evidence.calibration_title, evidence.rates_title)  # fmt: skip
    for told in (*titles, evidence.detectable, evidence.equivalence_notes):
        assert told(empty)
        assert "nan" not in told(empty)
    assert evidence.stability_notes(empty) == evidence.rates_notes(empty) == ""


def test_every_rule_and_aspect_of_the_comparison_has_a_name(tmp_path) -> None:
    table = read_study(write_study(tmp_path / "study", losses=LARGE[:3])).stability
    assert {*table["rule"], *table["against"]} == set(evidence.RULES)
    assert set(table["aspect"]) == set(evidence.ASPECTS)
