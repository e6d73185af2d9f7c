"""Whether a reference is reproduced: each kind of claim, its errors, and what was tampered with."""

from __future__ import annotations

import gzip
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from workflow import files
from workflow.__main__ import main
from workflow.comparison import reproduction
from workflow.comparison.reproduction import (
    NOT_COMPARABLE,
    NOT_REPRODUCED,
    REPRODUCED,
    Tables,
    changed_files,
    claims,
    collapses,
    differing_settings,
    scores,
)
from workflow.comparison.statistics import moderated_variances

REFERENCE = Path(__file__).parent.parent.parent / "results" / "reference" / "default"
# of the runs of the default study: many losses are steady and a few are not
SPREADS = np.geomspace(0.003, 0.1, 22)


def table(values, names=None, seeds=(1, 2, 3)):
    """Run scores as ``scores`` takes them."""
    values = np.asarray(values, dtype=float)
    names = names or [f"loss_{number:02d}" for number in range(len(values))]
    return pd.DataFrame(values, index=names, columns=list(seeds)[: values.shape[1]])


def judged(reference, new, why=None):
    rows = scores(reference, new, 0.95, "mean_dice", why or {})
    return pd.DataFrame(rows).set_index("loss")


def test_variances_recover_the_prior_they_were_drawn_from():
    generator = np.random.default_rng(0)
    prior, freedom, own = 0.02**2, 6.0, 4
    true = prior * freedom / generator.chisquare(freedom, 20000)
    seen = true * generator.chisquare(own, 20000) / own
    found = moderated_variances(seen, np.full(20000, own))
    assert found.prior == pytest.approx(prior, rel=0.03)
    assert found.prior_degrees_of_freedom == pytest.approx(freedom, rel=0.1)
    d0, s0 = found.prior_degrees_of_freedom, found.prior
    assert found.values == pytest.approx((d0 * s0 + own * seen) / (d0 + own))
    assert found.degrees_of_freedom == pytest.approx(np.full(20000, d0 + own))


def test_equal_variances_are_pooled_and_a_zero_tells_nothing_of_the_others():
    found = moderated_variances([0.04, 0.04, 0.04], [2, 2, 2])
    assert found.degrees_of_freedom == pytest.approx([6, 6, 6])
    # the mean of log s^2 lies log(d / 2) - digamma(d / 2) below log sigma^2: Euler's for d = 2
    assert found.prior == pytest.approx(0.04 * np.exp(np.euler_gamma))
    with_zero = moderated_variances([0.04, 0.04, 0.04, 0.0], [2, 2, 2, 2])
    assert with_zero.prior == pytest.approx(found.prior)
    assert 0 < with_zero.values[3] < with_zero.values[0]


def test_a_single_group_keeps_its_variance_and_none_stays_unknown():
    found = moderated_variances([0.04, 0.0], [2, 0])
    assert found.values[0] == 0.04
    assert np.isnan(found.values[1])


def test_one_loss_alone_is_judged_by_students_t_test():
    before, now = [0.70, 0.72, 0.71], [0.73, 0.76, 0.74]
    row = judged(table([before]), table([now])).iloc[0]
    expected = stats.ttest_ind(now, before)
    assert row["p"] == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    assert row["largest_run_difference"] == pytest.approx(0.04)


def test_the_same_runs_are_reproduced_to_the_last_digit():
    runs = table(np.random.default_rng(1).normal(0.6, SPREADS[:, None], (22, 3)))
    rows = judged(runs, runs)
    assert (rows["verdict"] == REPRODUCED).all()
    assert (rows["largest_run_difference"] == 0).all()
    assert (rows["p"] == 1).all()


@pytest.mark.parametrize("seeds", [3, 1])
def test_false_alarms_are_as_rare_as_stated(seeds):
    generator = np.random.default_rng(2)
    families, alarms = 100, 0
    for _ in range(families):
        before, now = generator.normal(0.6, SPREADS[:, None], (2, 22, 3))
        rows = judged(table(before), table(now[:, :seeds]))
        alarms += (rows["verdict"] == NOT_REPRODUCED).any()
    assert alarms / families < 0.13  # .06 and three standard errors


def test_a_shift_of_a_tenth_is_found_and_blamed_on_its_loss():
    generator = np.random.default_rng(3)
    found = 0
    for _ in range(20):
        before, now = generator.normal(0.6, 0.02, (2, 22, 3))
        now[7] -= 0.1
        rows = judged(table(before), table(now))
        found += list(rows.index[rows["verdict"] == NOT_REPRODUCED]) == ["loss_07"]
    assert found > 16


def test_a_slice_is_compared_over_its_seeds_and_the_rest_is_named():
    generator = np.random.default_rng(4)
    before = table(generator.normal(0.6, 0.02, (5, 3)))
    now = before.loc[["loss_01", "loss_03"], [2]]
    rows = judged(before, now, dict.fromkeys(["loss_00", "loss_02", "loss_04"], "not run"))
    kept = rows.loc[["loss_01", "loss_03"]]
    assert (kept["seeds"] == 1).all() and (kept["difference"] == 0).all()
    assert kept["reference"].to_list() == before.loc[kept.index, 2].to_list()
    rest = rows.drop(index=kept.index)
    assert set(rest["reason"]) == {"not run"} and set(rest["verdict"]) == {NOT_COMPARABLE}


def test_a_loss_whose_new_runs_have_no_score_is_not_comparable():
    before = table(np.random.default_rng(5).normal(0.6, 0.02, (3, 3)))
    now = before.copy()
    now.loc["loss_01"] = np.nan
    row = judged(before, now).loc["loss_01"]
    assert (row["verdict"], row["reason"]) == (NOT_COMPARABLE, "no scores")


def fates(lost):
    """A table of runs: loss -> classes lost by each of its runs."""
    rows = [
        {"loss": loss, "seed": seed, "learning_rate": 0.01, "collapsed_classes": names,
         "status": "diverged" if names == "diverged" else "ok"}
        for loss, runs in lost.items()
        for seed, names in enumerate(runs, start=1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


STEADY = {f"loss_{number}": ["", "", ""] for number in range(8)}


def collapsed(before, now):
    return pd.DataFrame(collapses(fates(before), fates(now), 0.05, {})).set_index("loss")


def test_one_loss_that_turned_may_be_chance_and_three_are_not():
    one = collapsed(STEADY, STEADY | {"loss_0": ["rim"] * 3})
    assert one.loc["loss_0", "verdict"] == NOT_COMPARABLE
    assert one.loc["loss_0", "p"] == pytest.approx(0.1, abs=0.015)  # 2 of 20 ways to halve 6 runs
    assert (one.drop(index="loss_0")["verdict"] == REPRODUCED).all()
    three = collapsed(STEADY, STEADY | {f"loss_{n}": ["rim"] * 3 for n in range(3)})
    assert list(three.index[three["verdict"] == NOT_REPRODUCED]) == ["loss_0", "loss_1", "loss_2"]
    assert three.loc["loss_0", ["reference", "found"]].to_list() == ["none of 3", "rim 3/3"]


def test_a_minority_that_turned_is_reproduced_and_divergence_is_a_fate():
    rows = collapsed(
        {"a": ["rim", "rim", "rim"], "b": ["diverged", "diverged", ""]},
        {"a": ["rim", "", "rim"], "b": ["diverged", "diverged", "diverged"]},
    )
    assert (rows["verdict"] == REPRODUCED).all()
    assert rows.loc["b", ["reference", "found"]].to_list() == ["diverged 2/3", "diverged 3/3"]


def test_the_collapse_pattern_seldom_differs_when_nothing_changed(monkeypatch):
    monkeypatch.setattr(reproduction, "DRAWS", 499)
    generator = np.random.default_rng(6)
    chances = np.array([0] * 10 + [1] * 6 + [0.1, 0.3, 0.3, 0.5, 0.5, 0.7])
    alarms, studies = 0, 60
    for _ in range(studies):
        lost = [
            {f"loss_{n}": np.where(row, "rim", "").tolist() for n, row in enumerate(half)}
            for half in generator.random((2, len(chances), 3)) < chances[:, None]
        ]
        alarms += (collapsed(*lost)["verdict"] == NOT_REPRODUCED).any()
    assert alarms / studies < 0.15  # .05 and three standard errors


def study_tables(means, tiers=None, differences=None):
    """Tables of a small study of steady runs; ``means``: mean Dice of each loss."""
    generator = np.random.default_rng(7)
    cases = pd.DataFrame(
        [
            {"loss": loss, "seed": seed, "case": f"{case}", "subject": f"{case}", "class": name,
             "reference_voxels": 10 + case, "dice": mean + generator.normal(0, 0.01)}
            for loss, mean in means.items() for seed in (1, 2, 3)
            for case in range(6) for name in ("edema", "rim")
        ]
    )  # fmt: skip
    tiers = tiers or dict.fromkeys(means, "best")
    summary = pd.DataFrame(
        [{"loss": loss, "mean_dice": means[loss], "tier": tier} for loss, tier in tiers.items()]
    )
    comparisons = pd.DataFrame(
        [
            {"contrast": "correction", "loss": "fixed", "against": "old", "endpoint": endpoint,
             "difference": value, "low": value - 0.1, "high": value + 0.1, "p_holm": p, "seeds": 3}
            for endpoint, (value, p) in (differences or {}).items()
        ],
        columns=["contrast", "loss", "against", "endpoint", "difference", "low", "high", "p_holm",
                 "seeds"],
    )  # fmt: skip
    return Tables(fates({loss: ["", "", ""] for loss in means}), cases, summary, comparisons)


MEANS = {"fixed": 0.7, "old": 0.5, "third": 0.6}


def of_kind(kind, before, now, incomparable=None):
    rows = claims(before, now, "rim", 0.95, incomparable or {})
    return rows[rows["kind"] == kind]


def test_the_sign_of_a_correction_counts_where_the_reference_separates_it():
    before = study_tables(MEANS, differences={"mean_dice": (0.2, 0.001), "rarest_dice": (0.1, 0.3)})
    same = of_kind("correction", before, before)
    assert list(same["verdict"]) == [REPRODUCED, NOT_COMPARABLE]
    assert "does not separate" in same["reason"].iloc[1]
    turned = study_tables(
        MEANS, differences={"mean_dice": (-0.2, 0.001), "rarest_dice": (-0.1, 0.001)}
    )
    rows = of_kind("correction", before, turned)
    assert list(rows["verdict"]) == [NOT_REPRODUCED, NOT_COMPARABLE]
    assert rows["difference"].iloc[0] == pytest.approx(-0.4)


def test_a_tier_that_changed_counts_only_with_the_score_behind_it():
    tiers = {"fixed": "best", "old": "separable", "third": "separable"}
    before = study_tables(MEANS, tiers)
    border = study_tables(MEANS, tiers | {"third": "best"})
    row = of_kind("tier", before, border).set_index("loss").loc["third"]
    assert row["verdict"] == NOT_COMPARABLE and "border" in row["reason"]
    moved = study_tables(MEANS | {"third": 0.72}, tiers | {"third": "best"})
    rows = of_kind("tier", before, moved).set_index("loss")
    assert rows.loc["third", "verdict"] == NOT_REPRODUCED
    assert rows.loc["old", "verdict"] == REPRODUCED


def test_a_slice_has_no_tiers_to_compare():
    before = study_tables(MEANS)
    now = Tables(*(t[t["loss"] != "third"] if "loss" in t else t for t in before))
    rows = of_kind("tier", before, now).set_index("loss")
    assert set(rows["verdict"]) == {NOT_COMPARABLE}
    assert rows.loc["third", "reason"] == "not among the new runs"
    assert rows.loc["old", "reason"] == "tiers are those of all losses and seeds together"


@pytest.mark.parametrize("column, value, reason", [
    ("learning_rate", 0.03, "learning rate 0.03 instead of 0.01"),
    ("seed", 9, "no seed in common"),
])  # fmt: skip
def test_a_loss_run_otherwise_is_not_comparable(column, value, reason):
    before = study_tables(MEANS)
    now = before._replace(runs=before.runs.copy())
    now.runs.loc[now.runs["loss"] == "third", column] = value
    rows = claims(before, now, "rim", 0.95, {})
    third = rows[(rows["loss"] == "third") & (rows["kind"] != "tier")]
    assert set(third["reason"]) == {reason}
    assert set(rows.loc[rows["kind"] == "score", "verdict"]) == {REPRODUCED, NOT_COMPARABLE}


def test_other_held_out_cases_are_not_comparable_at_all():
    before = study_tables(MEANS)
    now = before._replace(cases=before.cases.copy())
    now.cases.loc[now.cases["case"] == "3", "reference_voxels"] += 1
    rows = claims(before, now, "rim", 0.95, {})
    assert set(rows["verdict"]) == {NOT_COMPARABLE}
    assert rows["reason"].iloc[0] == "1 held-out cases are not those of the reference"


def test_settings_tell_which_losses_differ_and_which_keys_are_unknown():
    study = {
        "dataset": {"name": "phantom"}, "splits": {"seed": 0}, "evaluation": {},
        "network": {"norm": "batch", "old": 1}, "losses": {"a": {"name": "a"}, "b": {"name": "b"}},
        "training": {"steps": 800, "accelerator": "cpu", "learning_rate": 0.003},
    }  # fmt: skip
    elsewhere = study | {
        "training": study["training"] | {"accelerator": "cuda", "learning_rate": 0.1},
        "network": {"norm": "batch"},
        "losses": {"a": {"name": "a"}, "b": {"name": "b", "absent": "zero"}, "c": {"name": "c"}},
    }
    found, unknown = differing_settings(study, elsewhere)
    assert found == {"b": "other settings: absent"}
    assert unknown == ["network.old"]
    found, _ = differing_settings(study, study | {"training": {"steps": 900}})
    assert found["a"] == "other settings: training.steps"


# The committed reference


@pytest.fixture
def reference(tmp_path):
    shutil.copytree(REFERENCE, tmp_path / "reference")
    return tmp_path / "reference"


COMMITTED = sorted(tables.parent.name for tables in REFERENCE.parent.glob("*/tables"))


@pytest.mark.parametrize("name", COMMITTED)
def test_every_committed_reference_is_as_its_list_says(name):
    assert changed_files(REFERENCE.parent / name) == []


def test_a_changed_a_missing_and_a_stray_table_are_told(reference):
    tables = reference / "tables"
    summary = tables / "summary.csv"
    # one digit of one number
    text = summary.read_text()
    place = text.index(",0.7") + 3
    summary.write_text(f"{text[:place]}8{text[place + 1 :]}")
    (tables / "ranks.csv").unlink()
    # it would be read in place of cases.csv.gz
    (tables / "cases.csv").write_bytes(gzip.decompress((tables / "cases.csv.gz").read_bytes()))
    assert changed_files(reference) == [
        "tables/ranks.csv: missing",
        "tables/summary.csv: changed",
        "tables/cases.csv: not listed",
    ]


def test_digests_are_of_the_study_and_of_tables_at_any_depth(tmp_path, caplog):
    caplog.set_level("INFO", logger="rareclass")
    folder = tmp_path / "mine"
    written = ("config.yaml", "rates.csv", "tables/runs.csv.gz", "tables/answers/summary.csv")
    for name in (*written, "environment.json", "figures/ranking.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("1\n")
    (tmp_path / "losses").mkdir()  # has no tables
    assert main(["seal", str(tmp_path)]) == 0
    assert not (tmp_path / "losses" / "SHA256SUMS").exists()
    listed = (folder / "SHA256SUMS").read_text().splitlines()
    assert sorted(line.split("  ")[1] for line in listed) == sorted(written)
    assert {line.split("  ")[0] for line in listed} == {hashlib.sha256(b"1\n").hexdigest()}
    assert changed_files(folder) == []
    (folder / "tables/answers/summary.csv").write_text("2\n")
    (folder / "tables/answers/stray.csv").write_text("")
    (folder / "splits.csv").write_text("")
    (folder / "rates.csv").unlink()
    changed = [
        "rates.csv: missing",
        "tables/answers/summary.csv: changed",
        "splits.csv: not listed",
        "tables/answers/stray.csv: not listed",
    ]
    assert changed_files(folder) == changed
    # whoever seals anew reads what that covers
    assert main(["seal", str(tmp_path)]) == 0
    assert all(f"{folder}/{line}" in caplog.messages for line in changed)
    assert changed_files(folder) == []
    assert main(["seal", str(folder)]) == 1
    assert "no folder with tables/ here" in caplog.text


def reproduce(reference, new, out):
    assert main(["reproduce", str(new / "config.yaml"), str(reference), str(out)]) == 0
    return files.read_json(out)


def test_tampering_with_a_reference_number_fails_before_anything_is_compared(
    reference, tmp_path, caplog
):
    runs = reference / "tables" / "comparisons.csv"
    text = runs.read_text()
    place = text.index(",-0.") + 4
    runs.write_text(f"{text[:place]}{9 - int(text[place])}{text[place + 1 :]}")
    found = reproduce(reference, REFERENCE, tmp_path / "reproduction.json")
    assert found["changed"] == ["tables/comparisons.csv: changed"]
    assert found["verdict"] == NOT_COMPARABLE and found["claims"] == []
    assert main(["certify", str(tmp_path / "reproduction.json")]) == 1
    assert "tables/comparisons.csv: changed" in caplog.text


def test_the_reference_reproduces_itself(tmp_path, caplog):
    found = reproduce(REFERENCE, REFERENCE, tmp_path / "reproduction.json")
    assert found["verdict"] == REPRODUCED
    assert found["counts"]["score"] == {REPRODUCED: 2 * len(found["losses"])}
    assert found["counts"]["collapse"] == found["counts"]["tier"] == {REPRODUCED: 22}
    assert "NaN" not in (tmp_path / "reproduction.json").read_text()
    assert main(["certify", str(tmp_path / "reproduction.json")]) == 0
    assert "22 of 22 losses have the very scores" in caplog.text


def test_a_loss_that_changed_is_caught_and_the_exit_says_so(reference, tmp_path, caplog):
    path = reference / "tables" / "cases.csv.gz"
    cases = files.read_table(path)
    cases.loc[cases["loss"] == "dice", "dice"] -= 0.1
    files.write_table(path, cases)
    found = reproduce(REFERENCE, reference, tmp_path / "reproduction.json")
    missed = [row for row in found["claims"] if row["verdict"] == NOT_REPRODUCED]
    assert {row["loss"] for row in missed} == {"dice"}
    assert missed[0]["difference"] == pytest.approx(-0.1)
    assert main(["certify", str(tmp_path / "reproduction.json")]) == 1
    claimed = missed[0]["reference"]
    told = f"mean Dice of Dice ({claimed - 0.1:.3f} instead of {claimed:.3f})"
    assert f"Not reproduced: {told}" in caplog.text


def test_a_slice_says_what_it_leaves_out(reference, tmp_path):
    for name in reproduction.Tables._fields:
        path = next((reference / "tables").glob(f"{name}.csv*"))
        rows = files.read_table(path)
        rows = rows[rows["loss"].isin(["dice", "dice_ce", "all_background"])]
        files.write_table(path, rows[rows["seed"].isin([0, 1])] if name == "cases" else rows)
    path = reference / "tables" / "runs.csv"
    runs = files.read_table(path)
    files.write_table(path, runs[runs["seed"].isin([0, 1])])
    found = reproduce(REFERENCE, reference, tmp_path / "reproduction.json")
    assert found["verdict"] == REPRODUCED
    assert found["losses"] == ["dice", "dice_ce"] and len(found["losses_left_out"]) == 20
    assert (found["seeds"], found["seeds_left_out"]) == ([1], [2, 3])
