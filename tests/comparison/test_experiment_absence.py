"""Absence: the prediction from patches, effective steps, verdicts and batch sizes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.synthetic_experiment import raw_tables
from workflow.comparison import experiment, statistics
from workflow.comparison.experiment_absence import (
    TOLERANCE,
    answers,
    complete_batches,
    effective_updates,
    reduction_set,
    verdict,
)
from workflow.study import Loss, StudyError, load

FILE = Path(__file__).parents[2] / "config" / "absence.yaml"
POOLED = "published_generalized_dice_written"
ARMS = (
    "core=0.25,batch=1", "core=0.25,batch=4", "core=1,batch=1", "core=1,batch=4",
    "core=1,batch=1,steps=800", "core=1,batch=4,steps=200",
)  # fmt: skip


def part(arms=ARMS, losses=("dice_ce", "dice", POOLED), seeds=(1, 2, 3)):
    return load(FILE, {"arms": list(arms), "losses": list(losses), "seeds": list(seeds)})


def told(study, level, **options):
    raw = raw_tables(study, level, cases=5, **{"spread": 0.01} | options)
    return raw, experiment.answers(study, raw)


def constant(arm, loss, name):
    return 0.6


@pytest.fixture(scope="module")
def level_everywhere():
    return told(part(), constant)


def signals(rows):
    """(arm, loss, seed, step, images of each class, gradient)."""
    return pd.DataFrame(
        {
            "arm": arm, "loss": loss, "seed": seed, "step": step, "class": str(index),
            "images": count, "gradient_inside": gradient / 2, "gradient_outside": gradient / 2,
        }
        for arm, loss, seed, step, images, gradient in rows
        for index, count in enumerate(images)
    )  # fmt: skip


def test_a_batch_is_complete_if_it_holds_every_class_and_counts_once_for_all_losses():
    table = signals(
        [("a", loss, 1, step, images, 1.0) for loss in ("x", "y") for step, images in
         enumerate([(2, 1), (2, 0), (2, 2), (2, 0)])]
        + [("a", "x", 2, step, (2, 1), 1.0) for step in range(2)]
        + [("b", "y", 1, 0, (1, 0), 1.0)]
    )  # fmt: skip
    assert complete_batches(table).to_dict() == {"a": (0.5 + 1) / 2, "b": 0.0}


def test_a_step_is_effective_beside_the_complete_batches_of_its_loss():
    sizes = [100.0, 1.2, 0.8, 300.0, np.nan]
    complete = [(1, 1), (1, 0), (1, 0), (1, 1), (1, 0)]
    table = signals(
        [("a", "x", 1, s, c, g) for s, (c, g) in enumerate(zip(complete, sizes, strict=True))]
        + [("b", "x", 1, 0, (1, 0), 2.1), ("b", "y", 1, 0, (1, 0), 1.0)]
    )
    # two classes double a gradient; the usual one of x is the median of 200 and 600
    found = effective_updates(table)
    assert found["a", "x"] == pytest.approx(2 / 5)
    assert found["b", "x"] == 1.0
    assert np.isnan(found["b", "y"])


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("dice", {}, "image"),
        ("dice", {"batch": True}, "batch"),
        ("dice_ce", {}, "image"),
        ("focal", {}, "image"),
        ("generalized_dice", {"absent": "zero"}, "image"),
        ("generalized_dice", {"absent": "skip"}, "image"),
        (POOLED, {}, "batch"),
        ("weighted_cross_entropy", {"weight": "inverse_frequency"}, "batch"),
    ],
)
def test_the_set_of_a_loss_is_found_by_trying(name, options, expected):
    raw = {"dataset": pd.DataFrame({"class": ["b", "x", "y", "z"]})}
    assert reduction_set(Loss(name=name, options=options), raw) == expected


def test_an_image_wise_loss_needs_one_complete_image_and_a_pooled_one_a_complete_batch(
    level_everywhere,
):
    raw, found = level_everywhere
    table = found["absence"].set_index(["arm", "loss"])
    complete = complete_batches(raw["signals"])
    assert set(table["reduction_set"].xs(POOLED, level="loss")) == {"batch"}
    for arm in ARMS:
        assert table.loc[(arm, POOLED), "predicted_updates"] == complete[arm]
    single = complete["core=0.25,batch=1"]
    assert 0 < single < 1
    assert table.loc[("core=0.25,batch=1", "dice"), "predicted_updates"] == pytest.approx(single)
    assert table.loc[("core=0.25,batch=4", "dice"), "predicted_updates"] == pytest.approx(
        1 - (1 - single) ** 4
    )
    # all runs with a batch of 1 tell of the same patches
    both = complete[["core=1,batch=1", "core=1,batch=1,steps=800"]].mean()
    assert table.loc[("core=1,batch=1", "dice"), "predicted_updates"] == pytest.approx(both)


def test_the_predicted_score_is_that_of_full_prevalence_times_the_steps(level_everywhere):
    raw, found = level_everywhere
    share = complete_batches(raw["signals"])
    few, full = "core=0.25,batch=4", "core=1,batch=4"
    rows = found["predicted"].set_index(["arm", "loss", "endpoint"])
    row = rows.loc[(few, POOLED, "rarest")]
    core = raw["cases"].query("loss == @POOLED and `class` == 'necrotic core'")
    scores = core.pivot(index=["seed", "case"], columns="arm", values="dice")
    ratio = share[few] / share[full]
    assert row["measured"] == pytest.approx(scores[few].mean())
    assert row["predicted"] == pytest.approx(ratio * scores[full].mean())
    difference = (scores[few] - ratio * scores[full]).unstack("case").to_numpy()
    estimate = statistics.crossed_mean(difference, 0.95)
    assert tuple(row[["deviation", "deviation_low", "deviation_high"]]) == pytest.approx(
        estimate[:3]
    )
    others = raw["cases"].query("loss == @POOLED and `class` != 'necrotic core' and arm == @few")
    assert rows.loc[(few, POOLED, "others"), "measured"] == pytest.approx(others["dice"].mean())
    start = rows.loc[(full, POOLED, "rarest")]
    assert start["predicted"] == start["measured"] == start["whole"]


@pytest.mark.parametrize(
    ("measured", "predicted", "expected"),
    [
        ([0.2, 0.5], [0.25, 0.45], "follows"),
        ([0.98, 1.0], [0.25, 0.45], "unaffected"),
        ([0.6, 0.7], [0.25, 0.45], "above"),
        ([0.0, 0.2], [0.25, 0.45], "below"),
        ([0.97, 0.96], [0.95, 0.98], "cannot tell"),
        ([np.nan, 0.5], [0.2, np.nan], "not measured"),
    ],
)
def test_verdicts(measured, predicted, expected):
    assert verdict(measured, predicted)["verdict"] == expected


def test_verdict_counts_its_points_and_errors():
    found = verdict([0.2, 0.9, np.nan], [0.3, 0.5, 0.1])
    assert found["points"] == 2
    assert found["error"] == pytest.approx(0.25)
    assert found["error_unaffected"] == pytest.approx(0.45)
    assert found["mean_deviation"] == pytest.approx(0.15)
    assert TOLERANCE < 0.25


def proportional(arm, loss, name):
    """The pooled loss falls with its complete batches (7 in 10 patches), Dice keeps its score."""
    few, batch = "core=0.25" in arm, 4 if "batch=4" in arm else 1
    if loss == "dice_ce" and name == "necrotic core":
        return 0.0
    if loss != POOLED:
        return 0.6
    share = {(True, 1): 0.12, (True, 4): 0.53, (False, 1): 0.49, (False, 4): 0.98}[few, batch]
    return 0.6 * share


def test_a_follower_an_unaffected_loss_and_one_that_never_learns_are_told_apart():
    study = part()
    raw = raw_tables(study, proportional, cases=5, spread=0.01)
    step = ["arm", "loss", "seed", "step"]
    incomplete = raw["signals"].groupby(step)["images"].transform("min") == 0
    discarded = incomplete & (raw["signals"]["loss"] == POOLED)
    raw["signals"].loc[discarded, ["gradient_inside", "gradient_outside"]] *= 1e-6
    verdicts = experiment.answers(study, raw)["verdicts"]
    found = verdicts.set_index(["loss", "endpoint"])["verdict"]
    assert list(found[POOLED]) == ["follows"] * 3
    assert list(found["dice"]) == ["unaffected"] * 3
    assert found["dice_ce", "rarest"] == "nothing to lose"
    assert found["dice_ce", "others"] == "unaffected"


def test_batches_are_compared_at_equal_steps_and_at_equal_samples():
    def level(arm, loss, name):
        return {"core=1,batch=1,steps=800": 0.7, "core=1,batch=4": 0.8}.get(arm, 0.5)

    _, found = told(part(), level)
    rows = found["batches"].query("loss == 'dice' and prevalence == 1")
    differences = rows.set_index(["budget", "amount", "batch", "against_batch"])["difference"]
    assert differences.to_dict() == {
        ("steps", 400, 4, 1): pytest.approx(0.3, abs=0.03),
        ("samples", 800, 4, 1): pytest.approx(-0.2, abs=0.03),  # 4 x 200 against 1 x 800
    }


def test_a_shard_without_the_reference_arm_or_batch_has_no_prediction():
    study = part(arms=["core=0.25,batch=4"], losses=["dice_ce", POOLED], seeds=[1])
    _, found = told(study, constant)
    rows = found["predicted"].set_index(["loss", "endpoint"])
    assert rows.loc[(POOLED, "updates"), "predicted"] > 0
    assert np.isnan(rows.loc[("dice_ce", "updates"), "predicted"])
    assert rows.loc[("dice_ce", "rarest"), "measured"] == pytest.approx(0.6, abs=0.05)
    assert found["batches"].empty


def test_without_a_common_test_set_nothing_is_compared():
    study = load(FILE, {"external": None, "splits": {"train": 0.5, "validation": 0.2, "test": 0.3}})
    with pytest.raises(StudyError, match="external"):
        answers(study, {}, {})
