"""The factorial: levels from options, effects and push against hand computation."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.synthetic_experiment import raw_tables
from workflow.comparison import statistics
from workflow.comparison.experiment_factorial import (
    answers,
    contrasts,
    factor_levels,
    push,
)
from workflow.study import Loss, StudyError, load

FILE = Path(__file__).parents[2] / "config" / "factorial.yaml"
SEEDS = {"seeds": [1, 2, 3]}
STUDY = load(FILE, SEEDS)
LEVELS = factor_levels(STUDY)
MAIN = {
    ("reduction", "batch vs image"): 6,
    ("smoothing", "1 vs 1e-5"): 4,
    ("smoothing", "100 vs 1e-5"): 4,
    ("background", "out vs in"): 6,
}


def shard(*labels):
    keys = {"losses": list(labels), "comparison": {"reference_loss": labels[0]}}
    return load(FILE, SEEDS | keys)


def summary(study):
    return {"summary": pd.DataFrame({"loss": list(study.losses), "runs": 3, "collapsed": 0})}


def told(dice, study=STUDY, *, false=lambda row: 0, **options):
    """Answers to scores and false-positive voxels that are functions of a cell's levels."""
    levels = factor_levels(study)
    raw = raw_tables(study, lambda arm, loss, name: dice(levels.loc[loss]), **options)
    cases = raw["cases"]
    cases["predicted_voxels"] = [
        false(levels.loc[row.loss]) if row.reference_voxels == 0 else row.predicted_voxels
        for row in cases.itertuples()
    ]
    return answers(study, raw, summary(study)), raw


def effects(found, endpoint, kind):
    table = found["effects"]
    return table[(table["endpoint"] == endpoint) & (table["kind"] == kind)].set_index(
        ["aspect", "contrast"]
    )


def test_levels_are_read_from_options_and_their_defaults():
    assert len(LEVELS) == 12 and not LEVELS.duplicated().any()
    study = shard("image_1_background", "batch_100_foreground")
    # a label says nothing: the two losses under each other's names
    names, entries = list(study.losses), list(study.losses.values())
    swapped = dict(zip(names, entries[::-1], strict=True))
    study = study.model_copy(update={"losses": swapped})
    assert factor_levels(study).loc["image_1_background"].tolist() == ["batch", 100.0, "out"]
    plain = study.model_copy(update={"losses": {"x": Loss(name="dice")}})
    assert factor_levels(plain).loc["x"].tolist() == ["image", 1e-5, "in"]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"x": Loss(name="cross_entropy")}, "losses.x: a factorial needs the option 'smooth_nr'"),
        ({"x": Loss(name="dice", options={"smooth_nr": 1.0})}, "smooth_nr and smooth_dr differ"),
        ({"x": Loss(name="dice"), "y": Loss(name="dice")}, "losses.y: another loss has the same"),
    ],
)
def test_what_is_no_factorial_is_refused(entries, message):
    with pytest.raises(StudyError, match=message):
        factor_levels(STUDY.model_copy(update={"losses": entries}))


def test_contrasts_weigh_each_side_to_one():
    found = list(contrasts(LEVELS))
    assert {(e.aspect, e.contrast): e.settings for e in found if e.kind == "main"} == MAIN
    assert sum(e.kind == "interaction" for e in found) == 5
    for effect in found:
        weights = np.array(list(effect.weights.values()))
        sides = 1 if effect.kind == "main" else 2
        assert weights[weights > 0].sum() == pytest.approx(sides)
        assert weights[weights < 0].sum() == pytest.approx(-sides)


def test_additive_scores_are_taken_apart_and_leave_no_interaction():
    steps = {1e-5: 0.0, 1.0: 0.03, 100.0: -0.2}
    found, _ = told(
        lambda row: (
            0.6
            + 0.1 * (row["reduction"] == "batch")
            + steps[row["smoothing"]]
            - 0.05 * (row["background"] == "out")
        ),
        spread=0.0,
    )
    main = effects(found, "mean_dice", "main")["difference"]
    assert main.tolist() == pytest.approx([0.1, 0.03, -0.2, -0.05])
    assert list(main.index) == list(MAIN)
    pairs = effects(found, "rarest_dice", "interaction")["difference"]
    assert pairs.tolist() == pytest.approx([0] * 5, abs=1e-12)


def test_an_interaction_is_a_difference_of_differences():
    found, _ = told(
        lambda row: 0.6 + 0.1 * (row["reduction"] == "batch" and row["smoothing"] == 100),
        spread=0.0,
    )
    pairs = effects(found, "mean_dice", "interaction")["difference"]
    assert pairs["reduction x smoothing", "batch vs image, 100 vs 1e-5"] == pytest.approx(0.1)
    assert pairs["reduction x smoothing", "batch vs image, 1 vs 1e-5"] == pytest.approx(0)
    # a main effect is the mean over the settings: a third of it
    main = effects(found, "mean_dice", "main")["difference"]
    assert main["reduction", "batch vs image"] == pytest.approx(0.1 / 3)


def test_the_interval_is_that_of_averages_taken_case_by_case():
    found, raw = told(lambda row: 0.6, cases=9)
    by_case = raw["cases"].groupby(["loss", "seed", "case"])["dice"].mean()
    side = {
        name: by_case[list(LEVELS.index[LEVELS["background"] == name])]
        .groupby(["seed", "case"])
        .mean()
        .unstack()
        for name in ("in", "out")
    }
    wanted = statistics.crossed_mean((side["out"] - side["in"]).to_numpy())
    row = effects(found, "mean_dice", "main").loc[("background", "out vs in")]
    assert row[["difference", "low", "high", "p"]].tolist() == pytest.approx(
        [*wanted[:3], wanted.p]
    )
    assert (row["seeds"], row["cases"]) == (3, 9)
    family = found["effects"][found["effects"]["endpoint"] == "mean_dice"]
    assert family["p_holm"].tolist() == pytest.approx(list(statistics.holm(family["p"])))


def test_a_setting_without_both_levels_is_left_out():
    labels = [label for label in STUDY.losses if label != "batch_100_foreground"]
    found, _ = told(
        lambda row: 0.5 + 0.1 * (row["reduction"] == "batch"),
        shard(*labels),
        spread=0.0,
    )
    main = effects(found, "mean_dice", "main")
    assert main.loc[("reduction", "batch vs image"), "settings"] == 5
    assert main.loc[("smoothing", "1 vs 1e-5"), "settings"] == 4
    assert main.loc[("reduction", "batch vs image"), "difference"] == pytest.approx(0.1)


def test_one_loss_is_a_cell_and_no_effect():
    study = shard("image_1e-5_background")
    found, _ = told(lambda row: 0.7, study, spread=0.0)
    assert found["cells"]["mean_dice"].tolist() == pytest.approx([0.7])
    assert found["effects"].empty


def test_false_positives_are_counted_where_the_class_is_absent():
    _, raw = told(lambda row: 0.7, absent=0.5, false=lambda row: 10, cases=8)
    cases = raw["cases"]
    absent = (cases["loss"] == LEVELS.index[0]) & (cases["reference_voxels"] == 0)
    # in one run of three, and there in one case of four, nothing is predicted
    one = cases.index[absent & (cases["seed"] == 1)][0]
    cases.loc[one, "predicted_voxels"] = 0
    cells = answers(STUDY, raw, summary(STUDY))["cells"]
    cell = cells.iloc[0]
    assert cell["absent_rate"] == pytest.approx(11 / 12)
    assert cell["absent_ml"] == pytest.approx(11 / 12 * 10 * 64 / 1000)
    assert cells.iloc[1]["absent_rate"] == 1


def test_two_absent_classes_of_a_case_are_one_case():
    _, raw = told(lambda row: 0.7, absent=0.5, false=lambda row: 10, cases=8)
    cases = raw["cases"]
    first = cases["case"] == "phantom.000"
    cases.loc[first & (cases["class"] == "enhancing rim"), "reference_voxels"] = 0
    cases.loc[first & (cases["class"] == "enhancing rim"), "predicted_voxels"] = 0
    cell = answers(STUDY, raw, summary(STUDY))["cells"].iloc[0]
    assert cell["absent_rate"] == pytest.approx((3 + 0.5) / 4)


def test_a_run_that_lost_a_class_tells_nothing_of_false_positives():
    voxels = {1e-5: 10, 1.0: 20, 100.0: 0}
    found, raw = told(
        lambda row: 0.7 * (row["smoothing"] < 100),
        absent=0.5,
        false=lambda row: voxels[row["smoothing"]],
    )
    cells = found["cells"].set_index("smoothing")
    assert cells.loc[100.0, ["absent_rate", "absent_ml", "absent_median_ml"]].isna().all(axis=None)
    assert cells.loc[1.0, "absent_median_ml"].tolist() == pytest.approx([20 * 64 / 1000] * 4)
    main = effects(found, "absent_ml", "main")
    assert ("smoothing", "100 vs 1e-5") not in main.index
    assert main.loc[("smoothing", "1 vs 1e-5"), "difference"] == pytest.approx(0.64)
    # of the reductions the four settings in which both levels have runs that count
    assert main.loc[("reduction", "batch vs image"), "settings"] == 4
    assert effects(found, "mean_dice", "main").loc[("reduction", "batch vs image")].settings == 6
    assert set(found["prediction"]["cells"]) == {8}
    # one run of a cell lost a class: the others speak for it
    first = (raw["runs"]["loss"] == LEVELS.index[0]) & (raw["runs"]["seed"] == 1)
    raw["runs"].loc[first, "collapse"] = "partial"
    its = (raw["cases"]["loss"] == LEVELS.index[0]) & (raw["cases"]["reference_voxels"] == 0)
    raw["cases"].loc[its & (raw["cases"]["seed"] == 1), "predicted_voxels"] = 0
    assert answers(STUDY, raw, summary(STUDY))["cells"]["absent_rate"][0] == 1


def test_a_class_over_the_background_is_counted_in_every_run():
    _, raw = told(lambda row: 0.7, absent=0.5, cases=8)
    cases = raw["cases"]
    largest = cases.loc[cases["class"] == "necrotic core", "reference_voxels"].max()
    lacking = (cases["loss"] == LEVELS.index[3]) & (cases["reference_voxels"] == 0)
    cases.loc[lacking & (cases["seed"] == 2), "predicted_voxels"] = largest + 1
    cases.loc[lacking & (cases["seed"] == 3), "predicted_voxels"] = largest
    raw["runs"].loc[raw["runs"]["seed"] == 2, "collapse"] = "partial"
    table = answers(STUDY, raw, summary(STUDY))["cells"].set_index("loss")
    assert table["flooded"].to_dict() == dict.fromkeys(LEVELS.index, 0) | {LEVELS.index[3]: 1}
    assert table.at[LEVELS.index[3], "flooded_ml"] == pytest.approx((largest + 1) * 64 / 1000)


def test_the_push_is_what_algebra_gives():
    voxels, structure, p, smooth = 32**3, 150, 0.9, 100.0
    false = p * structure
    # derivative of 1 - (2 tp + s) / (sum p + sum g + s), through the softmax, of 3 x 2 terms
    alone = p * (1 - p) * smooth / (false + smooth) ** 2 / 6
    options = {"smooth_nr": smooth, "smooth_dr": smooth, "include_background": False}
    got = push(Loss(name="dice", options=options), 4, 2, voxels, structure)
    assert got == pytest.approx(alone, rel=1e-6)
    # pooled with an image that has the class, and finds it as well; 3 terms
    together = p * (1 - p) * (2 * false + smooth) / (2 * false + structure + smooth) ** 2 / 3
    got = push(Loss(name="dice", options=options | {"batch": True}), 4, 2, voxels, structure)
    assert got == pytest.approx(together, rel=1e-6)


def test_the_prediction_is_tau_of_push_and_false_positives():
    study = shard(*(n for n in STUDY.losses if n.endswith("foreground")))
    pushes = told(lambda row: 0.7, study, absent=0.5)[0]["cells"].set_index("loss")["push"]
    assert (pushes > 0).all() and pushes.nunique() == 6
    rank = dict(zip(map(tuple, factor_levels(study).to_numpy()), pushes.rank(), strict=True))
    found, _ = told(lambda row: 0.7, study, absent=0.5, false=lambda row: 50 + rank[tuple(row)])
    taus = found["prediction"].set_index("endpoint")["kendall_tau"]
    assert taus["absent_ml"] == pytest.approx(1)
    assert np.isnan(taus["absent_rate"])  # all 1: no order
    p = found["prediction"].set_index("endpoint")["p"]
    assert p["absent_ml"] == pytest.approx(2 / 720)  # 1 of 6! orders, and its reverse
    found, _ = told(lambda row: 0.7, study, absent=0.5, false=lambda row: 50 - rank[tuple(row)])
    assert found["prediction"].set_index("endpoint").at[
        "absent_ml", "kendall_tau"
    ] == pytest.approx(-1)


def test_the_contrast_multiplies_the_push_by_what_the_cells_say():
    found, _ = told(lambda row: 0.7, absent=0.5)
    cells = found["cells"].assign(log=np.log(found["cells"]["push"]))
    means = cells.groupby("reduction")["log"].mean()
    row = effects(found, "absent_rate", "main").loc[("reduction", "batch vs image")]
    assert row["push_ratio"] == pytest.approx(np.exp(means["batch"] - means["image"]))
    assert effects(found, "mean_dice", "main")["push_ratio"].isna().all()


def test_without_an_absent_class_there_is_no_such_endpoint():
    found, _ = told(lambda row: 0.7, absent=0.0)
    assert set(found["effects"]["endpoint"]) == {"mean_dice", "rarest_dice"}
    assert found["prediction"].empty
