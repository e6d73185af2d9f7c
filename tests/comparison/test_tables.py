"""The tables, from run folders whose scores are known."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from workflow import files
from workflow.comparison import contrasts, examples, tables
from workflow.evaluation.metrics import SCORES
from workflow.study import FLOOR, Loss, Study, StudyError
from workflow.training.train import Record

# names that pandas would take for a number or for nothing
CLASSES = ("background", "1", "NA")


class Case:
    def __init__(self, name, label):
        self.name = self.subject = name
        self.array = label
        self.spacing = (1.0, 1.0, 1.0)
        self.affine = tuple(map(tuple, np.diag([-1.0, 1.0, 1.0, 1.0])))
        self.dataset, self.image_sha256 = "d", name
        counts = np.bincount(label.ravel(), minlength=3)
        self.voxels = dict(zip(CLASSES, counts.tolist(), strict=True))


class Data:
    """Stands for ``Prepared``: eight cases, the last of which lacks the rare class."""

    name, classes, channels = "d", CLASSES, ("T1",)

    def __init__(self):
        self.cases = []
        for index in range(8):
            label = np.zeros((6, 6, 6), np.uint8)
            label[1:4, 1:4, 1:4] = 1
            if index < 7:
                label[2, 2, 1:3] = 2
            self.cases.append(Case(f"00{index}", label))

    def label(self, case):
        return case.array

    reference_label = label

    def image(self, case):
        return case.array[None].astype(np.float32)


SPLITS = pd.DataFrame(
    {
        "case": [f"00{i}" for i in range(8)],
        "subject": [f"00{i}" for i in range(8)],
        "split": ["train", "train", "validation"] + ["test"] * 5,
    }
)
STUDY = Study.model_validate(
    {
        "dataset": {"source": "folder", "name": "d", "root": "x"},
        "seeds": [1, 2],
        "losses": {
            "dice_ce": {},
            "generalized_dice": {},
            "published_generalized_dice_graph": {},
            "cross_entropy": {},
            "weighted_cross_entropy": {"weight": "inverse_frequency"},
        },
    }
)
RELIABILITY = [
    {"checkpoint": "best", "class": name, "bin": 14, "voxels": 8, "confidence": 1, "accuracy": 1}
    for name in ("", "NA")
]
LEVEL = {
    "dice_ce": 0.8,
    "generalized_dice": 0.5,
    "published_generalized_dice_graph": 0.0,
    "weighted_cross_entropy": 0.3,
}


def rows(level):
    generator = np.random.default_rng(round(level * 1000))
    for checkpoint in ("last", "best"):
        for case in Data().cases[3:]:
            for name in CLASSES[1:]:
                present = case.voxels[name] > 0
                score = (
                    float(np.clip(level + generator.normal(0, 0.01), 0, 1)) if present else math.nan
                )
                yield {
                    "checkpoint": checkpoint,
                    "test_set": "d",
                    "case": case.name,
                    "subject": case.subject,
                    "class": name,
                    "voxel_mm3": 2.0,
                    "reference_voxels": case.voxels[name],
                    "predicted_voxels": 5,
                    "tp": 1,
                    "fp": 1,
                    "fn": 1,
                    "presence_log_odds": float(present),
                    "ece": 0.1,
                    "nll": 0.3,
                } | dict.fromkeys(SCORES, score)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    runs = {}
    for loss in STUDY.losses:
        for seed in STUDY.seeds:
            failed = loss == "cross_entropy"
            diverged = loss == "generalized_dice" and seed == 2
            record = Record(
                status={
                    "status": "failed" if failed else "diverged" if diverged else "ok",
                    "reason": "no reason" if failed else "",
                    "steps": 5,
                    "seconds": 36.0,
                    "seconds_per_step": 0.1,
                },
                curve=[(0, "validation", "loss", "", 1.0)],
                cases=[] if failed else list(rows(LEVEL[loss])),
                reliability=[] if failed else RELIABILITY,
                predictions={} if failed else {c.name: c.array for c in Data().cases[3:]},
            )
            runs[loss, seed] = folder / loss / str(seed)
            key = {"dataset": "d", "loss": loss, "learning_rate": 0.003, "seed": seed}
            record.write(runs[loss, seed], key)
    tables.write_all(STUDY, Data(), SPLITS, runs.values(), folder / "tables")
    examples.write(STUDY, Data(), runs, folder / "tables")
    return folder / "tables"


@pytest.fixture(scope="module")
def summary(out):
    table = files.read_table(out / "summary.csv")
    return table[table["checkpoint"] == "best"].set_index("loss")


def test_every_loss_and_the_floor_have_a_row_best_first(summary):
    assert list(summary.index) == [
        "dice_ce", "generalized_dice", "weighted_cross_entropy",
        "published_generalized_dice_graph", FLOOR, "cross_entropy",
    ]  # fmt: skip
    assert summary.loc[FLOOR, "mean_dice"] == 0
    assert math.isnan(summary.loc["cross_entropy", "mean_dice"])
    assert summary.loc["cross_entropy", "failed"] == 2


def test_means_and_intervals_are_those_of_the_runs(summary):
    row = summary.loc["dice_ce"]
    assert row["mean_dice"] == pytest.approx(0.8, abs=0.01)
    assert row["mean_dice_low"] < row["mean_dice"] < row["mean_dice_high"]
    assert row["dice_NA"] == row["rarest_dice"]


def test_scores_without_collapsed_runs_stand_beside_those_with_them(summary):
    whole = summary.loc["dice_ce"]
    assert whole["standing"] == 2
    assert whole["standing_mean_dice"] == whole["mean_dice"]
    one = summary.loc["generalized_dice"]  # its second seed diverged
    assert one["standing"] == 1
    gone = summary.loc["published_generalized_dice_graph"]
    assert gone["standing"] == 0
    assert math.isnan(gone["standing_mean_dice"])


def test_collapse_counts_divergence_and_missed_classes(summary, out):
    assert summary.loc["published_generalized_dice_graph", "total"] == 2
    assert summary.loc["generalized_dice", "collapsed"] == 1
    assert summary.loc["dice_ce", "collapsed"] == 0
    runs = files.read_table(out / "runs.csv").set_index(["loss", "seed"])
    assert runs.loc[("generalized_dice", 2), "collapse"] == "partial"
    assert runs.loc[("published_generalized_dice_graph", 1), "collapsed_classes"] == "1;NA"


def test_tiers(summary):
    assert list(summary["tier"]) == [
        "best",
        "separable",
        "separable",
        "collapsed",
        "floor",
        "failed",
    ]


def test_the_correction_is_compared_with_what_was_published(out):
    comparisons = files.read_table(out / "comparisons.csv")
    chosen = comparisons[
        (comparisons["contrast"] == "correction")
        & (comparisons["checkpoint"] == "best")
        & (comparisons["endpoint"] == "mean_dice")
    ]
    assert list(chosen["loss"]) == ["generalized_dice"]
    assert list(chosen["against"]) == ["published_generalized_dice_graph"]
    assert chosen["difference"].item() == pytest.approx(0.5, abs=0.02)
    assert chosen["reason"].str.len().item() > 20
    assert (chosen["seeds"].item(), chosen["cases"].item()) == (2, 5)


def test_holm_never_lowers_a_p_value(out):
    comparisons = files.read_table(out / "comparisons.csv").dropna(subset=["p"])
    # the floor is no loss that anybody chooses, so it takes no part in the correction
    assert comparisons.loc[comparisons["loss"] == FLOOR, "p_holm"].isna().all()
    comparisons = comparisons[comparisons["loss"] != FLOOR]
    assert (comparisons["p_holm"] >= comparisons["p"] - 1e-12).all()


def test_each_difference_states_what_the_study_could_have_found(out):
    comparisons = files.read_table(out / "comparisons.csv").set_index(
        ["checkpoint", "contrast", "endpoint", "loss"]
    )
    row = comparisons.loc[("best", "reference", "mean_dice", "generalized_dice")]
    half = row["high"] - row["difference"]
    assert half < row["minimum_detectable_difference"] < 4 * half
    assert abs(row["difference"]) > row["minimum_detectable_difference"]
    # both seeds were made up alike
    assert row["seed_sd"] == row["residual_sd"] == 0
    assert 0.003 < row["case_sd"] < 0.05
    assert 0 < row["p_these_seeds"] <= row["p_these_seeds_holm"] < 0.3


def test_the_probability_of_improvement_stands_beside_each_difference(out):
    improvement = files.read_table(out / "improvement.csv")
    keys = ["checkpoint", "contrast", "loss", "against", "endpoint"]
    assert improvement[keys].equals(files.read_table(out / "comparisons.csv")[keys])
    better = improvement[improvement["contrast"] == "correction"]
    assert (better["probability"] == 1).all()
    assert (better["low"] < 1).all()


def test_equivalence_is_judged_for_every_pair_at_the_margin_of_the_study(out):
    equivalence = files.read_table(out / "equivalence.csv")
    assert len(equivalence) == 2 * 2 * math.comb(len(STUDY.losses), 2)
    assert (equivalence["margin"] == STUDY.comparison.margin).all()
    unknown = equivalence["loss"].eq("cross_entropy") | equivalence["against"].eq("cross_entropy")
    assert (equivalence.loc[unknown, "verdict"] == "").all()
    known = equivalence[~unknown]
    told = known["verdict"] == "equivalent"
    assert not told.any()  # the levels are far apart
    small = known["margin"] < known["smallest_margin"]
    assert (small == (known["verdict"] == "margin too small")).all()


def test_ranks_are_those_of_the_losses_with_every_run(out):
    ranks = files.read_table(out / "ranks.csv")
    chosen = ranks[(ranks["checkpoint"] == "best") & (ranks["endpoint"] == "mean_dice")]
    assert list(chosen["loss"]) == [
        "dice_ce", "generalized_dice", "weighted_cross_entropy", "published_generalized_dice_graph",
    ]  # fmt: skip
    for column in ("rank", "mean_rank", "low", "median", "high"):
        assert list(chosen[column]) == [1, 2, 3, 4], column
    assert list(chosen["first"]) == [1, 0, 0, 0]
    friedman = files.read_table(out / "friedman.csv").iloc[0]
    assert (friedman["losses"], friedman["cases"], friedman["seeds"]) == (4, 5, 2)
    assert friedman["p"] < 0.01


def test_rankings_know_which_metrics_are_better_when_lower(out):
    """The made-up runs have the same number in every column of scores."""
    stability = files.read_table(out / "stability.csv").set_index(["checkpoint", "rule", "against"])
    assert stability.loc[("best", "dice", "iou"), "kendall_tau"] == 1
    assert stability.loc[("best", "dice", "hd95"), "kendall_tau"] == -1
    assert stability.loc[("best", "dice", "volume_error"), "kendall_tau"] == -1
    assert not stability.loc[("best", "dice", "hd95"), "same_first"]
    assert set(stability["aspect"]) == {"metric", "aggregation", "empty_rule"}
    # every run predicts the class where it is not, so the two rules that punish it agree
    assert stability.loc[("best", "one_if_empty", "zero"), "kendall_tau"] == 1
    # cross-entropy has no run
    assert (stability["losses"] == 4).all()


def test_the_rankings_hold_the_scores_of_the_summary(out, summary):
    rankings = files.read_table(out / "rankings.csv")
    rankings = rankings[rankings["checkpoint"] == "best"]
    for aspect, rule, column in (
        ("metric", "dice", "mean_dice"),
        ("metric", "rarest_dice", "rarest_dice"),
        ("aggregation", "classes_then_cases", "mean_dice"),
        ("empty_rule", "left_out", "mean_dice"),
    ):
        rows = rankings[(rankings["aspect"] == aspect) & (rankings["rule"] == rule)]
        scores = rows.set_index("loss")["score"]
        assert scores.to_dict() == pytest.approx(summary.loc[scores.index, column].to_dict())
        assert list(rows["rank"]) == [1, 2, 3, 4]


def test_the_best_was_picked_by_looking_so_all_pairs_count():
    """Eight cases, three losses whose distance from the best has p = .012 each."""
    signs = np.array([[1, -1] * 4, [1, 1, -1, -1] * 2, [1] * 4 + [-1] * 4])

    def separable(gap):
        scores = {"best": np.full(8, 0.5 + 0.01 * gap)}
        scores |= {f"other {i}": 0.5 + 0.01 * sign for i, sign in enumerate(signs)}
        cases = pd.DataFrame(
            [
                {
                    "loss": loss,
                    "seed": 1,
                    "subject": f"{i}",
                    "case": f"{i}",
                    "class": "1",
                    "dice": d,
                }
                for loss, values in scores.items()
                for i, d in enumerate(values)
            ]
        )
        return contrasts.separable_from_best(cases, list(scores), "best", "1", 0.95)

    assert separable(1.27) == set()  # 3 * .012 < .05 < 6 * .012
    assert separable(1.7) == {"other 0", "other 1", "other 2"}


def test_runs_of_other_settings_are_refused_by_name(tmp_path):
    longer = STUDY.model_copy(
        update={"training": STUDY.training.model_copy(update={"steps": STUDY.training.steps + 1})}
    )
    for study in (STUDY, longer):
        status = {"status": "ok", "settings_sha256": study.run_settings("dice_ce").sha256()}
        Record(status=status).write(tmp_path, {"loss": "dice_ce", "seed": 1})
        if study is STUDY:
            assert tables.read_status(STUDY, [tmp_path])["status"].tolist() == ["ok"]
    with pytest.raises(StudyError, match=rf"^{tmp_path}: made with other settings.*remove"):
        tables.read_status(STUDY, [tmp_path])


@pytest.mark.parametrize("labels", [["dice_ce"], ["dice_ce", "dice"]])
@pytest.mark.parametrize("failed", [True, False])
def test_a_study_with_next_to_nothing_has_all_its_tables(tmp_path, out, labels, failed):
    study = STUDY.model_copy(update={
        "losses": {label: Loss(name=label) for label in labels}, "seeds": (1,)
    })  # fmt: skip
    for label in labels:
        status = {"status": "failed" if failed else "ok", "reason": "", "steps": 5, "seconds": 1.0}
        record = Record(
            status=status | {"seconds_per_step": 0.1},
            curve=[(0, "validation", "loss", "", 1.0)],
            cases=[] if failed else list(rows(0.8)),
        )
        key = {"dataset": "d", "loss": label, "learning_rate": 0.003, "seed": 1}
        record.write(tmp_path / label, key)
    runs = [tmp_path / label for label in labels]
    tables.write_all(study, Data(), SPLITS, runs, tmp_path / "tables")
    written = {path.name for path in (tmp_path / "tables").glob("*.csv")}
    assert written == {path.name for path in out.glob("*.csv")} - {"slices.csv", "volumes.csv"}
    verdicts = list(files.read_table(tmp_path / "tables" / "equivalence.csv")["verdict"])
    # the two losses were made up alike
    expected = [] if len(labels) == 1 else [""] * 4 if failed else ["equivalent"] * 4
    assert verdicts == expected


def test_absent_classes_are_an_endpoint_of_their_own(out):
    absent = files.read_table(out / "absent.csv").set_index(["loss", "checkpoint"])
    assert absent.loc[(FLOOR, "best"), "false_positive_rate"] == 0
    assert absent.loc[("dice_ce", "best"), "cases"] == 2
    row = absent.loc[("dice_ce", "best")]
    assert row["false_positive_rate"] == 1
    # 5 voxels of 2 mm^3 pass for a structure, the smallest of which has 2 voxels of 1 mm^3
    assert (row["false_structure_rate"], row["false_positive_mm3"]) == (1, 10)
    assert absent.loc[(FLOOR, "best"), "false_structure_rate"] == 0


def test_a_false_positive_smaller_than_every_true_structure_is_not_taken_for_one():
    dataset = pd.DataFrame({"split": "train", "class": ["a"], "smallest_mm3": [10.0]})
    cases = pd.DataFrame(
        {"class": "a", "seed": 1, "reference_voxels": [0, 0, 0, 7], "voxel_mm3": 2.0,
         "predicted_voxels": [0, 4, 5, 9], "presence_log_odds": [-1.0, 0.0, 2.0, 1.0]}
    )  # fmt: skip
    row = tables._where_absent(cases, dataset).loc["a"]
    assert row["cases"] == 3
    assert row["false_positive_rate"] == pytest.approx(2 / 3)
    assert row["false_structure_rate"] == pytest.approx(1 / 3)
    assert row["false_positive_mm3"] == pytest.approx(6)
    assert row["presence_auc"] == pytest.approx(2 / 3)


def test_presence_is_told_by_runs_and_not_by_the_floor(out, summary):
    absent = files.read_table(out / "absent.csv").set_index(["loss", "checkpoint"])
    assert absent.loc[("dice_ce", "best"), "presence_auc"] == 1
    assert absent.loc[(FLOOR, "best"), "presence_auc"] == 0.5
    assert summary.loc["dice_ce", "presence_auc"] == 1
    assert summary.loc["dice_ce", ["ece", "nll"]].tolist() == [0.1, 0.3]
    assert math.isnan(summary.loc[FLOOR, "ece"])


def test_a_study_in_which_no_class_is_absent_has_an_empty_table_with_its_columns(out):
    cases = files.read_table(out / "cases.csv")
    dataset = files.read_table(out / "dataset.csv")
    table = tables._absent(cases[cases["reference_voxels"] > 0], dataset)
    assert table.empty
    assert list(table) == list(files.read_table(out / "absent.csv"))


def test_divergence_has_a_rate_of_its_own(summary):
    columns = ["divergence_rate", "divergence_rate_low", "divergence_rate_high"]
    rate, low, high = summary.loc["generalized_dice", columns]
    assert (rate, low < 0.5 < high) == (0.5, True)
    assert summary.loc["dice_ce", "divergence_rate"] == 0
    assert math.isnan(summary.loc["cross_entropy", "divergence_rate"])


def test_the_collapse_table_names_the_classes(out):
    table = files.read_table(out / "collapse.csv").set_index(["loss", "class"])
    lost = table[table["collapsed"] > 0]
    assert set(lost.index) == {
        (loss, name) for loss in ("published_generalized_dice_graph", FLOOR) for name in CLASSES[1:]
    }
    assert table.loc[("dice_ce", "NA"), ["runs", "collapsed", "rate"]].tolist() == [2, 0, 0]
    assert not any(table.index.get_level_values("loss") == "cross_entropy")


def test_reliability_of_every_run_is_kept(out):
    table = files.read_table(out / "reliability.csv")
    assert set(table["class"]) == {"", "NA"}
    assert table.groupby(["loss", "seed"]).size().eq(2).all()


def test_the_data_set_table_counts_voxels_and_presence(out):
    dataset = files.read_table(out / "dataset.csv").set_index(["split", "class"])
    assert dataset.loc[("all", "NA"), "prevalence"] == 7 / 8
    assert dataset.loc[("train", "1"), "voxel_fraction"] == pytest.approx(25 / 216)
    assert dataset.loc[("test", "1"), "cases"] == 5
    assert dataset.loc[("train", "NA"), "smallest_mm3"] == 2


def test_cost_is_that_of_the_runs_and_nothing_for_the_floor(out):
    cost = files.read_table(out / "cost.csv").set_index("loss")
    assert cost.loc["dice_ce", "core_hours"] == pytest.approx(2 * 36 / 3600)
    assert cost.loc[FLOOR, "core_hours"] == 0


def test_the_floor_stands_in_every_table_of_losses(out):
    with_floor = ("curves", "cases", "summary", "comparisons", "improvement", "absent", "cost")
    for name in ("runs", *with_floor):
        assert FLOOR in set(files.read_table(out / f"{name}.csv")["loss"]), name


def test_a_loss_that_diverged_without_a_score_has_collapsed_and_not_failed():
    table = pd.DataFrame({"loss": ["x"], "collapse_rate": [1.0], "mean_dice": [math.nan]})
    assert tables._tiers(table, pd.DataFrame(), "1", 0.95) == ["collapsed"]


def test_slices_show_the_median_and_the_worst_case_for_every_loss_that_finished(out):
    slices = files.read_table(out / "slices.csv")
    with np.load(out / "slices.npz") as arrays:
        assert set(slices["key"]) == set(arrays)
    for kind in ("median", "worst"):
        roles = list(slices.loc[slices["kind"] == kind, "role"])
        assert roles == [
            "image", "reference", "dice_ce", "generalized_dice",
            "published_generalized_dice_graph", "weighted_cross_entropy",
        ]  # fmt: skip
    assert set(slices["kind"]) == {"dataset", "median", "worst"}


def test_volumes_are_the_whole_of_the_cases_that_the_slices_show(out):
    slices, volumes = (files.read_table(out / f"{name}.csv") for name in ("slices", "volumes"))
    with np.load(out / "volumes.npz") as stored, np.load(out / "slices.npz") as flat:
        arrays = {key: stored[key] for key in stored}
        for kind in ("median", "worst"):
            here = volumes[volumes["kind"] == kind].set_index("role")
            shown = slices[slices["kind"] == kind].set_index("role")
            assert list(here.index) == ["affine", *shown.index]
            assert set(here["case"]) == set(shown["case"])
            np.testing.assert_array_equal(arrays[here.at["affine", "key"]], np.diag([-1, 1, 1, 1]))
            for role in shown.index[1:]:
                whole, index = arrays[here.at[role, "key"]], shown.at[role, "index"]
                assert whole.dtype == np.uint8 and whole.shape == (6, 6, 6)
                np.testing.assert_array_equal(whole[:, :, index], flat[shown.at[role, "key"]])
            assert here.at["dice_ce", "dice"] == shown.at["dice_ce", "dice"]
    assert set(volumes["key"]) == set(arrays)


def test_large_volumes_are_thinned_and_stay_where_they_are(out, tmp_path, monkeypatch):
    monkeypatch.setattr(examples, "SIDE", 3)
    runs = {(loss, seed): out.parent / loss / str(seed) for loss in STUDY.losses for seed in (1, 2)}
    examples.write(STUDY, Data(), runs, _with_cases(out, tmp_path))
    volumes = files.read_table(tmp_path / "volumes.csv").set_index(["kind", "role"])
    with np.load(tmp_path / "volumes.npz") as arrays:
        reference = arrays[volumes.at[("worst", "reference"), "key"]]
        affine = arrays[volumes.at[("worst", "affine"), "key"]]
    case = next(c for c in Data().cases if c.name == volumes.at[("worst", "reference"), "case"])
    np.testing.assert_array_equal(reference, case.array[::2, ::2, ::2])
    np.testing.assert_array_equal(affine, np.diag([-2, 2, 2, 1]))


def _with_cases(out, folder):
    (folder / "cases.csv").write_bytes((out / "cases.csv").read_bytes())
    return folder


def test_cards_are_json_with_the_options_used(out):
    cards = json.loads((out / "cards.json").read_text())
    assert [card["label"] for card in cards] == list(STUDY.losses)
    assert all(card["formula"] for card in cards)
