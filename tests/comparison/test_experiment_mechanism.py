"""Why Generalized Dice collapses: identities on tables small enough to compute by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from synthetic_experiment import raw_tables

from workflow import study as studies
from workflow.comparison import experiment, signals, statistics
from workflow.comparison import experiment_mechanism as mechanism
from workflow.comparison.signals import EVERY
from workflow.evaluation.calibration import presence_auc

ROOT = Path(__file__).parents[2]
CLASSES = ("background", "edema", "rim")
LOSSES = [
    "dice", "published_generalized_dice_graph", "generalized_dice", "dice_ce",
    "generalized_dice_ce",
]  # fmt: skip


def shard(**overrides):
    path = ROOT / "config" / "mechanism.yaml"
    known = yaml.safe_load(path.read_text())["losses"]
    keys = {"rates": dict.fromkeys(known, 0.003), "losses": LOSSES, "seeds": [1, 2, 3]}
    return studies.load(path, keys | overrides)


def found(arm, loss, name):
    """Generalized Dice loses the rim unless it has both helpers."""
    helped = loss.endswith("_ce") and arm == "families+bias"
    return 0.5 if "dice" in (loss, loss.removesuffix("_ce")) or helped or name == "edema" else 0.0


@pytest.fixture(scope="module")
def shown():
    study = shard()
    raw = raw_tables(study, found)
    return study, raw, experiment.answers(study, raw)


def batch(step, images, inside, outside=0.0, *, seed=1, p=0.5, voxels=None):
    """Rows of one batch of two images: for each class, images that have it and its gradient."""
    voxels = voxels or [100 * n for n in images]
    return [
        {
            "arm": "tuned", "loss": "dice", "seed": seed, "step": step, "class": name,
            "images": n, "voxels": v, "probability": p if n else np.nan,
            "slope": p * (1 - p) if n else np.nan, "gradient_inside": g,
            "gradient_outside": outside, "weight": 1 / 3,
        }
        for name, n, v, g in zip(CLASSES, images, voxels, inside, strict=True)
    ]  # fmt: skip


def table(*rows):
    return signals.batches(pd.DataFrame([row for part in rows for row in part]))


def test_batches_are_told_by_the_images_that_have_each_class():
    rows = table(
        batch(0, (2, 2, 2), (1, 1, 1)), batch(10, (2, 2, 1), (1, 1, 1)),
        batch(190, (2, 1, 0), (1, 1, 0)), batch(200, (2, 2, 2), (1, 1, 1)),
    )  # fmt: skip
    steps = rows.drop_duplicates("step").set_index("step")
    assert steps["phase"].to_dict() == {0: "start", 10: "first", 190: "first", 200: "later"}
    assert steps["batch"].to_dict() == {
        0: "complete", 10: "mixed", 190: "incomplete", 200: "complete",
    }  # fmt: skip
    assert list(rows.loc[rows["step"] == 190, "present"]) == [True, True, False]


def test_gradients_are_medians_over_batches_of_a_kind():
    rows = table(
        batch(10, (2, 2, 2), (1, 2, 3)), batch(20, (2, 2, 2), (1, 4, 9), 2.0),
        batch(30, (2, 2, 0), (7, 7, 0)),
    )  # fmt: skip
    gradients = signals.gradients(rows).set_index(["batch", "class"])
    assert gradients.at[("complete", "rim"), "gradient_inside"] == 6
    assert gradients.at[("complete", "rim"), "gradient_outside"] == 1
    assert gradients.at[("complete", "rim"), "batches"] == 2
    assert gradients.at[("incomplete", "rim"), "voxels"] == 0
    assert not gradients.at[("incomplete", "rim"), "present"]


def test_an_update_counts_if_its_gradient_is_a_hundredth_of_the_usual():
    rows = table(
        batch(0, (2, 2, 2), (1, 1, 2)), batch(10, (2, 2, 2), (1, 1, 4)),  # usual rim: 3
        batch(20, (2, 2, 1), (1, 1, 0.031)), batch(30, (2, 2, 1), (1, 1, 0.029)),
        batch(40, (2, 2, 0), (1e-9, 1e-9, 0), 1e-9), batch(200, (2, 2, 2), (1, 1, 0.001)),
    )  # fmt: skip
    updates = signals.updates(rows).set_index(["phase", "class"])
    rim = updates.loc[("first", "rim")]
    assert (rim["batches"], rim["usual"]) == (5, 3)
    assert rim["holding"] == 4 / 5
    assert rim["complete"] == 2 / 5
    assert rim["effective"] == 3 / 5
    assert rim["incomplete"] == 0
    every = updates.loc[("first", EVERY)]
    assert (every["usual"], every["effective"], every["holding"]) == (5, 4 / 5, 4 / 5)
    assert every["incomplete"] == pytest.approx(5e-9 / 5)
    assert updates.at[("later", "rim"), "effective"] == 0
    assert updates.at[("later", EVERY), "effective"] == 1


def test_effective_shares_of_single_seeds_and_of_no_complete_batch():
    rows = table(
        batch(0, (2, 2, 2), (1, 1, 1)), batch(10, (2, 2, 0), (0, 0, 0)),
        batch(0, (2, 2, 2), (1, 1, 1), seed=2), batch(10, (2, 2, 2), (1, 1, 1), seed=2),
    )  # fmt: skip
    every = signals.updates(rows).set_index("class").loc[EVERY]
    assert (every["lowest"], every["effective"], every["highest"]) == (0.5, 0.75, 1)
    none = signals.updates(table(batch(0, (2, 2, 1), (1, 1, 1))))
    assert none["effective"].isna().all()


def test_saturation_is_judged_where_the_class_is_least_probable():
    def run(*probabilities):
        parts = [
            batch(50 * i + 10 * j, (2, 2, 2), (1, 1, 1), 4.0, p=p)
            for i, p in enumerate(probabilities)
            for j in range(5)
        ]
        return signals.early(table(*parts)).set_index("class").loc["rim"]

    low = run(0.4, 0.01, 0.3, 0.99)
    assert low["start_probability"] == 0.4
    assert low["lowest_probability"] == pytest.approx(0.01)
    assert low["lowest_slope"] == pytest.approx(0.01 * 0.99)  # not that of .99
    assert low["ratio"] == 0.25
    assert low["saturated"]
    # a tenth of (1 - 1/3)/3 is .0222
    assert not run(0.4, 0.024, 0.3, 0.3)["saturated"]
    assert not run(0.995, 0.995, 0.995, 0.995)["saturated"]
    assert not run(0.4, 0.4, 0.4, 0.4, 0.001)["saturated"]  # after step 200


def test_a_class_is_learnt_if_the_run_ended_well_and_did_not_lose_it():
    runs = pd.DataFrame({
        "arm": "tuned", "loss": "dice", "learning_rate": 0.1, "seed": [1, 2, 3, 4],
        "status": ["ok", "ok", "diverged", "failed"], "collapsed_classes": ["", "rim", "", np.nan],
    })  # fmt: skip
    learnt = mechanism.learnt_classes(runs, CLASSES[1:])
    assert learnt.groupby("class")["learnt"].sum().to_dict() == {"edema": 2, "rim": 1, EVERY: 1}
    assert sorted(learnt["seed"].unique()) == [1, 2, 3]


def test_rules_count_seeds_and_repeat_the_scores_of_the_summary(shown):
    study, _, answers = shown
    rules = answers["rules"].set_index(["arm", "loss", "class"])
    rim = rules.loc[("tuned", "generalized_dice", "enhancing rim")]
    assert (rim["learnt"], rim["seeds"], rim["ok"]) == (0, 3, 3)
    assert (rim["low"], rim["high"]) == statistics.wilson(0, 3)
    edema = rules.loc[("rate=0.01", "generalized_dice", "edema")]
    assert (edema["learnt"], edema["learning_rate"]) == (3, 0.01)
    summary = answers["summary"].set_index(["arm", "loss"])
    assert edema["dice"] == summary.at[("rate=0.01", "generalized_dice"), "dice_edema"]
    whole = rules.loc[("families+bias", "generalized_dice_ce", EVERY)]
    assert (
        whole["dice_low"] == summary.at[("families+bias", "generalized_dice_ce"), "mean_dice_low"]
    )
    assert list(answers["rules"]["arm"].unique()) == list(study.variants)


def test_the_verdict_asks_for_every_class_in_most_seeds(shown):
    verdict = shown[2]["verdict"].set_index(["arm", "loss"])
    assert verdict.at[("tuned", "dice"), "works"]
    assert not verdict.at[("tuned", "dice"), "generalized"]
    plain = verdict.loc[("tuned", "generalized_dice")]
    assert plain["generalized"] and not plain["works"]
    assert (plain["learnt_edema"], plain["learnt_every"], plain["fixed_runs"]) == (3, 0, 9)
    assert verdict.at[("families+bias", "generalized_dice_ce"), "works"]
    assert not verdict.at[("families", "generalized_dice_ce"), "works"]
    assert ("families", "generalized_dice") not in verdict.index  # the runs of "tuned" again


def test_graph_mode_is_one_minus_the_mean_probability_of_the_true_class():
    """With the class volumes of a batch; the twin, which weighs, is another loss."""
    study = shard(losses=["dice", "published_generalized_dice_graph", "generalized_dice"])
    raw = raw_tables(study, found)
    sizes = raw["signals"]["class"].map({"background": 5000, "edema": 300}).fillna(20)
    there = raw["signals"]["voxels"] > 0
    raw["signals"]["voxels"] = (sizes * there).astype(int)
    exact = experiment.answers(study, raw)["identity"].query("shown == 'exact'").set_index("loss")
    graph = exact.loc["published_generalized_dice_graph"]
    assert graph["compared"] == 20
    assert graph["largest_difference"] < 1e-12
    assert exact.at["generalized_dice", "median_difference"] > 0.01


def test_identity_along_training_compares_the_mean_loss_with_the_batches_recorded():
    study = shard(arms=["tuned"], seeds=[1])
    raw = raw_tables(study, found)
    loss = "published_generalized_dice_graph"
    rows = raw["signals"].query("loss == @loss")
    right = (rows["voxels"] * rows["probability"].fillna(0)).groupby(rows["step"]).sum()
    wrong = 1 - right / rows.groupby("step")["voxels"].sum()
    means = wrong.groupby(wrong.index // 100).mean()
    curve = pd.DataFrame({
        "arm": "tuned", "loss": loss, "learning_rate": 0.003, "seed": 1,
        "step": 100 * (means.index + 1), "split": "train", "quantity": "loss", "class": "",
        "value": means.to_numpy(),
    })  # fmt: skip

    def told(value):
        added = raw | {"curves": pd.concat([raw["curves"], curve.assign(value=value)])}
        table = experiment.answers(study, added)["identity"].query("shown == 'training'")
        return table.set_index("loss").loc[loss]

    same = told(means.to_numpy())
    assert same["compared"] == 8
    assert same["largest_difference"] < 1e-12
    assert same["within_sampling"] == 1
    away = told(means.to_numpy() + 0.5)
    assert away["median_difference"] == pytest.approx(0.5)
    assert away["within_sampling"] == 0


def test_separation_is_the_area_under_the_curve():
    rng = np.random.default_rng(1)
    values, lost = rng.integers(0, 6, 60).astype(float), rng.random(60) < 0.4
    groups = rng.integers(0, 8, 60)
    told = mechanism.separation(values, lost, groups, within=False, confidence=0.95)
    assert told["auc"] == pytest.approx(presence_auc(-values, lost))
    assert told["low"] < told["auc"] < told["high"]
    few = mechanism.separation(values, lost, groups % 3, within=False, confidence=0.95)
    assert few["auc"] == told["auc"]
    assert np.isnan(few["low"])


def test_separation_within_groups_ignores_what_groups_differ_in():
    values = np.array([1, 2, 11, 12, 3.0])
    lost = np.array([True, True, True, False, False])
    groups = np.array([0, 0, 1, 1, 2])
    told = mechanism.separation(values, lost, groups, within=False, confidence=0.95)
    assert told["auc"] == 5 / 6
    told = mechanism.separation(values, lost, groups, within=True, confidence=0.95)
    assert (told["auc"], told["groups"]) == (1, 1)  # 11 < 12, the only pair of one group
    none = mechanism.separation(values, np.zeros(5, bool), groups, within=False, confidence=0.95)
    assert np.isnan(none["auc"])


def test_prediction_counts_a_run_of_two_arms_once_and_keeps_biased_starts_apart():
    rows = [
        {"arm": arm, "output_bias": bias, "loss": f"loss{n}", "learning_rate": 0.1, "seed": 1,
         "class": "rim", "lowest_slope": 0.1 * n, "ratio": 1 - 0.1 * n, "learnt": n > 3}
        for arm, bias in (("tuned", False), ("families", False), ("families+bias", True))
        for n in range(7)
    ]  # fmt: skip
    told = mechanism.predicted(pd.DataFrame(rows), 0.95)
    told = told[told["compared"] == "all runs"].set_index(["output_bias", "predictor"])
    slope = told.loc[(False, "lowest_slope")]
    assert (slope["lost"], slope["learnt"], slope["auc"], slope["low"]) == (4, 3, 1, 1)
    assert told.at[(False, "ratio"), "auc"] == 0
    assert told.at[(True, "lowest_slope"), "lost"] == 4


def test_early_tells_when_a_class_was_found_last(shown):
    early = shown[2]["early"].set_index(["arm", "loss", "class"])
    assert (early.loc[("tuned", "dice", "edema"), "last_found"] == 800).all()
    lost = early.loc[("tuned", "generalized_dice", "enhancing rim")]
    assert lost["last_found"].isna().all()
    assert not lost["learnt"].any()
    saturation = shown[2]["saturation"].set_index(["arm", "loss", "class"])
    assert saturation.at[("tuned", "dice", "edema"), "found"] == 3
    assert saturation.at[("families+bias", "dice", "edema"), "output_bias"]


def test_rescue_is_the_paired_difference_from_the_plain_loss(shown):
    _, raw, answers = shown
    rescue = answers["rescue"].set_index(["family", "treatment", "class"])
    both = rescue.loc[("generalized_dice", "CE and bias", "enhancing rim")]
    dice = raw["cases"].query("`class` == 'enhancing rim'").groupby(["arm", "loss"])["dice"].mean()
    expected = dice["families+bias", "generalized_dice_ce"] - dice["families", "generalized_dice"]
    assert both["difference"] == pytest.approx(expected)
    assert (both["learnt_plain"], both["learnt"], both["runs"]) == (0, 3, 3)
    assert both["low"] > 0.3
    assert rescue.at[("generalized_dice", "CE", "enhancing rim"), "difference"] == 0
    assert set(answers["rescue"]["family"]) == {"dice", "generalized_dice"}
    assert (answers["rescue"]["p_holm"].fillna(1) >= answers["rescue"]["p"].fillna(0)).all()


@pytest.mark.parametrize("arms", [["tuned"], ["rate=0.001"], ["families"], ["families+bias"]])
def test_a_shard_of_one_arm_has_every_table(shown, arms):
    study = shard(arms=arms, seeds=[1])
    answers = experiment.answers(study, raw_tables(study, found))
    assert set(answers) == set(shown[2])
    for name, table in answers.items():
        assert len(table.columns), name


def test_without_signals_there_is_no_mechanism():
    study = shard(arms=["tuned"], seeds=[1], training={"signals_every": 0})
    with pytest.raises(studies.StudyError, match="signals_every"):
        experiment.answers(study, raw_tables(study, found))


def test_runs_that_failed_or_diverged_early_are_told_apart():
    study = shard(arms=["tuned"], losses=["dice", "generalized_dice"])
    raw = raw_tables(study, lambda arm, loss, name: 0.5)
    runs = raw["runs"]
    runs.loc[(runs["loss"] == "dice") & (runs["seed"] == 1), "status"] = "failed"
    runs.loc[(runs["loss"] == "dice") & (runs["seed"] == 2), "status"] = "diverged"
    for name in ("cases", "curves", "signals"):
        rows = raw[name]
        gone = (rows["loss"] == "dice") & (rows["seed"] == 1)
        if name == "signals":
            gone |= (rows["loss"] == "dice") & (rows["seed"] == 2) & (rows["step"] > 30)
        raw[name] = rows[~gone]
    answers = experiment.answers(study, raw)
    dice = answers["rules"].set_index(["loss", "class"]).loc[("dice", EVERY)]
    assert (dice["learnt"], dice["seeds"]) == (1, 2)
    assert (dice["ok"], dice["diverged"], dice["failed"]) == (1, 1, 1)
    early = answers["early"].query("loss == 'dice'")
    assert sorted(early["seed"].unique()) == [2, 3]
