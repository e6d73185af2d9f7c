"""Imbalance: where a class is lost as it shrinks, and what centred patches change."""

from pathlib import Path

import numpy as np
import pytest

from tests.synthetic_experiment import FRACTIONS, raw_tables
from workflow.comparison import experiment, statistics, sweeps
from workflow.data.phantom import PhantomSettings
from workflow.study import load

FILE = Path(__file__).parents[2] / "config" / "imbalance.yaml"
VOLUMES = (300.0, 30.0, 3.0)
ARMS = [f"volume={v:g},centred={share}" for v in VOLUMES for share in ("0", "2of3")]
LOSSES = ("dice_ce", "dice", "tversky", "focal")


def part(arms=ARMS, losses=LOSSES, seeds=(1, 2, 3)):
    return load(FILE, {"arms": list(arms), "losses": list(losses), "seeds": list(seeds)})


def level(arm, loss, name):
    """Without centred patches Dice loses the core at 30 ml only, Tversky from there, focal always.

    Centring rescues all but focal.
    """
    volume, _, centred = arm.removeprefix("volume=").partition(",centred=")
    if name != "necrotic core" or loss == "dice_ce":
        return 0.6
    lost = {"dice": ("30",), "tversky": ("30", "3"), "focal": ("300", "30", "3")}[loss]
    if volume in lost and (centred == "0" or loss == "focal"):
        return 0.0
    return 0.5 if centred == "0" else 0.7


@pytest.fixture(scope="module")
def told():
    study = part()
    raw = raw_tables(study, level, cases=6, spread=0.01)
    # in the study's own cases Dice + CE loses the core of the smallest lesions
    own = (raw["cases"]["test_set"] == "phantom") & raw["cases"]["arm"].str.startswith("volume=3,")
    own &= (raw["cases"]["loss"] == "dice_ce") & (raw["cases"]["class"] == "necrotic core")
    raw["cases"].loc[own, "dice"] = 0.0
    return raw, experiment.answers(study, raw)


def test_points_hold_the_dials_the_fraction_and_the_scores_of_both_test_sets(told):
    raw, found = told
    table = found["imbalance"].set_index(["arm", "test_set", "loss"])
    assert len(table) == len(ARMS) * 2 * len(LOSSES)
    row = table.loc[("volume=3,centred=2of3", "middle", "dice")]
    assert row["volume"] == 3.0
    assert row["centred"] == 0.6667
    assert row["class"] == "necrotic core"
    assert row["fraction"] == pytest.approx(FRACTIONS[2] * 3 / PhantomSettings().lesion_volume)
    scores = raw["cases"].query(
        "arm == 'volume=3,centred=2of3' and test_set == 'middle' and loss == 'dice'"
    )
    core = scores[scores["class"] == "necrotic core"]["dice"]
    assert row["dice"] == pytest.approx(core.mean())
    lost = table.loc[("volume=3,centred=0", "middle", "tversky")]
    assert (lost["lost"], lost["runs"], lost["collapsed"]) == (3, 3, True)
    assert (lost["lost_low"], lost["lost_high"]) == statistics.wilson(3, 3)
    # the arm is judged on each test set by itself
    place = ("volume=3,centred=0", "{}", "dice_ce")
    judged = [table.loc[(place[0], name, place[2]), "lost"] for name in ("middle", "phantom")]
    assert judged == [0, 3]


def test_a_run_that_failed_neither_lost_nor_held_the_class():
    study = part(arms=ARMS[:1], losses=["dice_ce", "dice"])
    raw = raw_tables(study, level, cases=4)
    for seed in (1, 2, 3):
        gone = (raw["runs"]["loss"] == "dice") & (raw["runs"]["seed"] == seed)
        raw["runs"].loc[gone, ["status", "collapse", "collapsed"]] = ["failed", "", False]
    raw["cases"] = raw["cases"][raw["cases"]["loss"] != "dice"]
    found = experiment.answers(study, raw)
    row = found["imbalance"].query("loss == 'dice' and test_set == 'middle'").iloc[0]
    assert (row["runs"], row["failed"], row["collapsed"]) == (0, 3, False)
    assert np.isnan(row["lost_share"])
    verdicts = found["collapse"].query("test_set == 'middle'").set_index("loss")["verdict"]
    assert verdicts.to_dict() == {"dice_ce": "holds", "dice": "not measured"}


def test_collapse_names_the_first_volume_at_which_the_class_is_lost(told):
    _, found = told
    table = found["collapse"].query("test_set == 'middle'").set_index(["centred", "loss"])
    bare, centred = table.loc[0.0], table.loc[0.6667]
    assert bare["verdict"].to_dict() == {
        "dice_ce": "holds", "dice": "in places", "tversky": "from", "focal": "everywhere",
    }  # fmt: skip
    assert bare.loc["tversky", "volume"] == 30.0
    fraction = FRACTIONS[2] / PhantomSettings().lesion_volume
    assert bare.loc["tversky", "fraction"] == pytest.approx(30 * fraction)
    assert bare.loc["tversky", "least_held"] == pytest.approx(300 * fraction)
    assert bare.loc["dice", "least_held"] == pytest.approx(3 * fraction)
    assert list(bare["collapsed_arms"]) == [0, 1, 2, 3]
    assert set(centred.drop("focal")["verdict"]) == {"holds"}
    assert centred.loc["focal", "verdict"] == "everywhere"
    own = found["collapse"].query("test_set == 'phantom' and loss == 'dice_ce'")
    assert list(own["volume"]) == [3.0, 3.0]


def test_centring_is_paired_by_seed_and_case_and_corrected_within_a_test_set(told):
    raw, found = told
    table = found["centring"]
    assert len(table) == 2 * len(LOSSES) * len(VOLUMES)
    row = table.query("test_set == 'middle' and loss == 'tversky' and volume == 300").iloc[0]
    core = raw["cases"].query("`class` == 'necrotic core' and loss == 'tversky'")
    core = core[core["test_set"] == "middle"]
    scores = core.pivot(index=["seed", "case"], columns="arm", values="dice")
    values = (scores["volume=300,centred=2of3"] - scores["volume=300,centred=0"]).unstack("case")
    estimate = statistics.crossed_mean(values.to_numpy(), 0.95)
    assert (row["difference"], row["low"], row["high"]) == pytest.approx(estimate[:3])
    assert (row["seeds"], row["cases"]) == (3, 6)
    # focal loses the class with and without; of the study's own cases Dice + CE at 3 ml, too
    both = table["loss"] == "focal"
    both |= table.eval("test_set == 'phantom' and loss == 'dice_ce' and volume == 3")
    assert table["p"].notna().all() and list(table["p_holm"].isna()) == list(both)
    for _, its in table[~both].groupby("test_set"):
        assert list(its["p_holm"]) == pytest.approx(list(statistics.holm(its["p"])))


def test_arms_without_a_seed_in_common_have_no_difference(told):
    raw, _ = told
    core = raw["cases"].query("`class` == 'necrotic core' and loss == 'dice'")
    core = core[core["test_set"] == "middle"]
    apart = core[(core["arm"] == ARMS[0]) & (core["seed"] == 1)
                 | (core["arm"] == ARMS[1]) & (core["seed"] == 2)]  # fmt: skip
    found = sweeps.difference(apart, ARMS[0], ARMS[1], 0.95)
    assert (found["seeds"], np.isnan(found["difference"])) == (0, True)


def test_the_rarest_class_is_one_for_all_arms(told):
    raw, _ = told
    dataset = raw["dataset"].copy()
    swap = (dataset["arm"] == ARMS[0]) & (dataset["class"] == "enhancing rim")
    dataset.loc[swap, "voxel_fraction"] = 1e-9
    assert sweeps.rarest_class(dataset) == "necrotic core"


def test_a_shard_of_one_arm_and_one_seed_is_answered():
    study = part(arms=ARMS[-1:], losses=["dice_ce"], seeds=[2])
    found = experiment.answers(study, raw_tables(study, level, cases=4))
    assert found["centring"].empty
    assert list(found["collapse"]["verdict"]) == ["holds", "holds"]
