"""Raw tables of experiments: collected from runs, merged from shards, and what is said of them."""

import pandas as pd
import pytest
import yaml

from tests.synthetic_experiment import raw_tables
from workflow.comparison import experiment
from workflow.comparison.experiment import Shard, answers, merge, outcomes
from workflow.study import StudyError, load

BASE = {
    "dataset": {"source": "phantom", "name": "p"},
    "external": {"source": "phantom", "name": "e", "phantom": {"seed": 7}},
    "comparison": {"reference_loss": "dice"},
    "training": {"steps": 200, "signals_every": 100},
    "seeds": [1, 2, 3],
    "losses": {"dice": {}, "dice_ce": {}, "focal": {}},
    "arms": {
        "one": {"training": {"batch_size": 1}},
        "four": {"training": {"batch_size": 4}, "seeds": [1, 2]},
        "few": {"losses": ["dice", "focal"], "splits": {"seed": 3}},
    },
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "study.yaml"
    path.write_text(yaml.safe_dump(BASE, sort_keys=False))
    return path


def level(arm, loss, name):
    """Focal never finds the rarest class in arm four."""
    if (arm, loss, name) == ("four", "focal", "necrotic core"):
        return 0.0
    return {"dice": 0.7, "dice_ce": 0.75, "focal": 0.5}[loss]


@pytest.fixture(scope="module")
def whole(path):
    return raw_tables(load(path), level)


def shard(path, whole, name="shard", **overrides):
    """A part of the study and of its tables, as if only that part had run."""
    part = load(path, overrides)
    runs = set(experiment._planned(part))

    def kept(row):
        return (row.arm, row.loss, row.seed) in runs if "seed" in row else row.arm in part.variants

    raw = {
        table: rows[[kept(row) for _, row in rows.iterrows()]].reset_index(drop=True)
        for table, rows in whole.items()
        if table != "arms"
    }
    return Shard(name, part, {"arms": experiment.arm_table(part)} | raw)


def same(one, other):
    assert list(one) == list(other)
    for name in one:
        pd.testing.assert_frame_equal(one[name], other[name], check_exact=True)


@pytest.mark.parametrize(
    "parts",
    [
        [{"seeds": ["3"]}, {"seeds": ["1", "2"]}],
        [{"arms": ["few"]}, {"arms": ["four"]}, {"arms": ["one"]}],
        [{"losses": ["focal", "dice_ce"]}, {"losses": ["dice"]}],
        [{"losses": ["focal"], "seeds": [1]}, {"losses": ["focal"], "seeds": [2, 3]},
         {"losses": ["dice_ce", "dice"]}],
        [{}],
    ],
    ids=["seeds", "arms", "losses", "losses and seeds", "one"],
)  # fmt: skip
def test_shards_merge_to_the_tables_of_the_whole_in_whatever_order(path, whole, parts):
    study = load(path)
    shards = [shard(path, whole, str(part), **part) for part in parts]
    same(merge(study, shards), whole)
    same(merge(study, shards[::-1]), whole)


def test_an_arm_that_ran_alone_still_says_in_what_it_differs(path, whole):
    alone = shard(path, whole, arms=["four"])
    assert list(alone.raw["arms"]) == ["arm"]
    merged = merge(load(path), [alone])
    assert merged["arms"].set_index("arm")["training.batch_size"].to_dict() == {
        "one": 1, "four": 4, "few": 2,
    }  # fmt: skip


def test_what_is_in_no_shard_is_counted(path, whole):
    study = load(path)
    runs = merge(study, [shard(path, whole, seeds=[1]), shard(path, whole, seeds=[3])])["runs"]
    runs.loc[[0, 1], "status"] = ["failed", "diverged"]
    table = outcomes(study, runs).set_index("arm")
    assert table.loc["one"].to_dict() == {
        "runs": 9, "ok": 4, "diverged": 1, "failed": 1, "missing": 3
    }  # fmt: skip
    assert table.loc["four"].to_dict() == {
        "runs": 6, "ok": 3, "diverged": 0, "failed": 0, "missing": 3
    }  # fmt: skip
    assert outcomes(study, runs[runs["arm"] == "one"]).set_index("arm").loc["few", "missing"] == 6


def test_a_run_in_two_shards_is_named(path, whole):
    shards = [shard(path, whole, "a", seeds=[1, 2]), shard(path, whole, "b", seeds=[2, 3])]
    with pytest.raises(StudyError, match=r"arm 'one', loss 'dice', seed 2: .*two shards \(8 such"):
        merge(load(path), shards)


@pytest.mark.parametrize(
    ("column", "what"),
    [
        ("initial_weights_sha256", "started from other weights"),
        ("patch_order_sha256", "saw other patches"),
    ],
)
def test_losses_of_one_seed_that_did_not_start_alike_are_no_pairs(path, whole, column, what):
    first, second = (shard(path, whole, losses=[loss]) for loss in ("dice", "dice_ce"))
    runs = second.raw["runs"]
    runs[column] = runs[column] + " of another version"
    message = f"seed 1: .* {what} than .*versions of the code"
    with pytest.raises(StudyError, match=message):
        merge(load(path), [first, second])
    # a run that diverged has not seen all patches
    runs["status"] = "diverged"
    if column == "patch_order_sha256":
        merge(load(path), [first, second])


def test_shards_of_different_data_are_refused(path, whole):
    first, second = shard(path, whole, seeds=[1]), shard(path, whole, seeds=[2])
    its = second.raw["dataset"]
    its.loc[(its["arm"] == "four") & (its["split"] == "test"), "sha256"] = "another"
    with pytest.raises(StudyError, match="arm 'four': the shards have different data or splits"):
        merge(load(path), [first, second])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {"steps": 100}}, r"b: arm 'four': training.steps was 100, the study has 200"),
        ({"losses": {"focal": {"gamma": 3.0}}}, r"b: arm 'one': losses.focal was .*3.0"),
        ({"training": {"learning_rate": 0.1}}, r"learning rate of dice was 0.1, .* 0.003"),
        ({"comparison": {"checkpoint": "last"}}, r"comparison.checkpoint was last"),
        ({"external": {"phantom": {"seed": 8}}}, r"external.phantom.seed was 8, the study has 7"),
        ({"seeds": [2, 9]}, r"b: arm 'one': seeds \[9\] are none of the study's"),
        ({"arms": {"extra": {}}}, r"b: arm 'extra': the study has no such arm"),
        ({"losses": {"mcc": {}}}, r"losses.mcc: the study does not have it in this arm"),
    ],
)
def test_a_shard_with_other_settings_is_refused_by_key(path, whole, changes, message):
    first, second = shard(path, whole, "a", seeds=[1]), shard(path, whole, "b", seeds=[2])
    second = second._replace(study=load(path, {"seeds": [2]} | changes))
    with pytest.raises(StudyError, match=message):
        merge(load(path), [first, second])


@pytest.mark.parametrize(
    "changes",
    [{"title": "x"}, {"training": {"accelerator": "cpu"}}, {"comparison": {"confidence": 0.9}}],
)
def test_a_shard_may_differ_in_what_its_runs_do_not_depend_on(path, whole, changes):
    part = shard(path, whole)
    same(merge(load(path), [part._replace(study=load(path, changes))]), whole)


def test_a_run_that_the_shards_own_configuration_lacks_is_refused(path, whole):
    part = shard(path, whole, "a")._replace(study=load(path, {"seeds": [1]}))
    with pytest.raises(StudyError, match=r"a: arm 'one', loss 'dice', seed 2: not a run of its"):
        merge(load(path), [part])


def test_tables_survive_their_files(path, whole, tmp_path):
    experiment.write(whole, tmp_path, ".csv.gz")
    back = experiment.read(tmp_path)
    assert set(back) == set(whole)
    for name in ("runs", "cases", "signals"):
        pd.testing.assert_frame_equal(
            back[name].sort_index(axis=1), whole[name].sort_index(axis=1), check_dtype=False,
            rtol=1e-8,
        )  # fmt: skip
    # the same bytes again, so that a table can be compared by its digest
    experiment.write(whole, tmp_path / "again", ".csv.gz")
    for name in whole:
        file = f"{name}.csv.gz"
        assert (tmp_path / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    (tmp_path / "cases.csv.gz").unlink()
    with pytest.raises(StudyError, match=r"no cases\.csv\.gz here"):
        experiment.read(tmp_path)


def test_a_study_without_arms_is_one_arm_without_a_name(path, tmp_path):
    study = load(path, {"arms": None})
    table = experiment.arm_table(study)
    assert table.to_dict("list") == {"arm": [""]}
    experiment.write({"arms": table}, tmp_path, ".csv")
    pd.testing.assert_frame_equal(
        experiment.files.read_table(tmp_path / "arms.csv"), table, check_dtype=False
    )


def test_the_table_of_arms_has_the_keys_in_which_they_differ(path):
    table = experiment.arm_table(load(path)).set_index("arm")
    assert list(table) == ["splits.seed", "training.batch_size"]
    assert list(table["splits.seed"]) == [0, 0, 3]
    assert list(table["training.batch_size"]) == [1, 4, 2]


def test_rates_of_their_own_are_told_from_one_rate(path):
    own = {"dice": 0.1, "dice_ce": 0.2, "focal": 0.3}
    study = load(path, {"rates": own, "arms": {"one": {"rates": None}}})
    assert list(experiment.arm_table(study)["rates"]) == ["one", "own", "own"]


def test_rounding_keeps_four_digits_whole_numbers_and_gaps():
    table = pd.DataFrame(
        {"x": [0.123456, 123456.7, float("nan"), float("inf")], "n": [12345.0, 0, 3, float("nan")],
         "i": [123456, 1, 2, 3]}
    )  # fmt: skip
    rounded = experiment._rounded(table)
    assert rounded["x"].tolist()[:2] == [0.1235, 123500.0]
    assert pd.isna(rounded["x"][2])
    assert rounded["x"][3] == float("inf")
    assert rounded["n"].tolist()[:3] == [12345.0, 0, 3]
    assert rounded["i"].tolist() == [123456, 1, 2, 3]
    pd.testing.assert_frame_equal(experiment._rounded(rounded), rounded)


def test_answers_hold_each_arm_and_its_own_losses(path, whole):
    found = answers(load(path), whole)
    assert list(found) == ["outcomes", "summary", "comparisons"]
    summary = found["summary"].set_index(["arm", "test_set", "loss"])
    losses = {"one": set(BASE["losses"]), "four": set(BASE["losses"]), "few": {"dice", "focal"}}
    assert set(summary.index) == {
        (arm, test_set, loss)
        for arm, labels in losses.items()
        for test_set in ("p", "e")
        for loss in labels
    }
    assert summary.loc[("four", "e", "focal"), "lost_necrotic core"] == 2
    assert summary.loc[("four", "e", "focal"), "partial"] == 2
    assert summary.loc[("one", "e", "focal"), "lost_necrotic core"] == 0
    cases = whole["cases"]
    its = cases[(cases["arm"] == "one") & (cases["test_set"] == "e") & (cases["loss"] == "dice")]
    by_case = its.groupby(["seed", "case"])["dice"].mean()
    assert summary.loc[("one", "e", "dice"), "mean_dice"] == pytest.approx(by_case.mean())
    compared = found["comparisons"]
    assert set(compared["loss"]) == {"dice_ce", "focal"}
    few = compared[compared["arm"] == "few"]
    assert set(few["loss"]) == {"focal"}
    row = few[(few["test_set"] == "e") & (few["endpoint"] == "mean_dice")].iloc[0]
    means = summary["mean_dice"]
    assert row["difference"] == pytest.approx(
        means["few", "e", "focal"] - means["few", "e", "dice"]
    )


level_losses = ["dice", "dice_ce", "focal"]


def test_answers_of_a_shard_are_those_of_its_arms_in_the_whole(path, whole):
    found = answers(load(path), shard(path, whole, arms=["four"]).raw)
    ours = answers(load(path), whole)
    for name in ("summary", "comparisons"):
        of_arm = ours[name][ours[name]["arm"] == "four"].reset_index(drop=True)
        pd.testing.assert_frame_equal(found[name], of_arm)
    assert found["outcomes"].set_index("arm")["missing"].to_dict() == {
        "one": 9, "four": 0, "few": 6,
    }  # fmt: skip


def test_an_arm_in_which_every_run_failed_is_told_all_the_same(path, whole):
    broken = {name: table.copy() for name, table in whole.items()}
    gone = broken["runs"]["arm"] == "four"
    broken["runs"].loc[gone, ["status", "collapse", "collapsed"]] = ["failed", "", False]
    broken["cases"] = broken["cases"][broken["cases"]["arm"] != "four"]
    found = answers(load(path), broken)
    its = found["summary"][found["summary"]["arm"] == "four"]
    assert list(its["test_set"].unique()) == ["e"]
    assert list(its["failed"]) == [2, 2, 2]
    assert its["mean_dice"].isna().all()
    assert found["outcomes"].set_index("arm").loc["four", "failed"] == 6


def test_tables_without_a_run_of_the_study_are_refused(path, whole):
    empty = {name: table.iloc[:0] for name, table in whole.items()}
    with pytest.raises(StudyError, match="hold no run of this study"):
        answers(load(path), empty)


def test_where_a_class_is_absent_classes_weigh_the_same(path):
    study = load(path, {"arms": ["one"], "losses": ["dice"], "seeds": [1]})
    raw = raw_tables(study, level, cases=4, absent=0.25)
    cases = raw["cases"]
    edema = (cases["class"] == "edema") & cases["case"].isin(["e.001", "e.002", "e.003"])
    cases.loc[edema, ["reference_voxels", "predicted_voxels"]] = [0, 5]
    cases.loc[edema, "dice"] = float("nan")
    summary = answers(study, raw)["summary"].set_index("test_set")
    # edema is predicted in its three absent cases, the core is not in its one
    assert summary.loc["e", "absent_false_positive_rate"] == pytest.approx((1 + 0) / 2)
