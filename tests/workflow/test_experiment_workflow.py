"""A study with arms as a user meets it: whole, in shards, and changed."""

import shutil

import pandas as pd
import pytest
from conftest import Project, copy

from workflow import files

STUDY = """
extends: tiny.yaml
title: A tiny experiment
external:
  source: phantom
  name: other
  phantom: {subjects: 2, shape: [24, 24, 24], spacing: 8.0, seed: 4}
splits: {train: 0.5, validation: 0.5, test: 0}
training: {signals_every: 3}
losses:
  dice: {}
  generalized_dice: {}
  raises: {name: "mine.py:Raises"}
arms:
  "batch=1,few": {training: {batch_size: 1}, losses: [dice, generalized_dice]}
  broken: {losses: [raises], comparison: {reference_loss: raises}}
"""
TABLES = ("arms", "dataset", "runs", "cases", "curves", "signals")
SHARDS = (["losses=[dice]", "seeds=[1]"], ["losses=[generalized_dice,raises]"])


def experiment(root):
    project = Project(root)
    project.study = root / "arms.yaml"
    project.results = root / "results" / "arms"
    return project


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A copy of the project whose experiment has run to its report."""
    project = experiment(copy(tmp_path_factory.mktemp("experiment") / "project").root)
    project.study.write_text(STUDY)
    project.first = project.run()
    return project


@pytest.fixture
def changed(whole, tmp_path):
    shutil.copytree(whole.root, tmp_path / "project", symlinks=True)
    return experiment(tmp_path / "project")


def table(folder, name):
    return files.read_table(folder / "tables" / f"{name}.csv.gz")


def test_one_command_makes_raw_tables_answers_and_a_report(whole):
    assert whole.first.returncode == 0, whole.first.stdout
    assert "report: results/arms/report.html" in whole.first.stdout
    runs, cases = table(whole.results, "runs"), table(whole.results, "cases")
    assert list(runs["arm"]) == ["batch=1,few", "batch=1,few", "broken"]
    assert list(runs["status"]) == ["ok", "ok", "failed"]
    assert set(cases["test_set"]) == {"other"}
    assert set(cases["case"]) == {"other.phantom_001", "other.phantom_002"}
    assert set(table(whole.results, "signals")["step"]) == {0, 3}
    summary = pd.read_csv(whole.results / "tables" / "answers" / "summary.csv")
    assert list(summary["loss"]) == ["dice", "generalized_dice", "raises"]
    page = (whole.results / "report.html").read_text()
    assert "1 of 3 runs failed" in page
    assert "no such idea" in page
    assert "End of its log" in page
    plans = files.read_json(whole.results / "preparation.json")
    assert list(plans) == ["batch=1,few", "broken"]
    assert plans["broken"]["chosen"]["patch_size"]
    assert '<section id="preparation">' in page
    # arms with the same data and splits share their digest
    dataset = table(whole.results, "dataset")
    assert (dataset.groupby(["split", "class"])["sha256"].nunique() == 1).all()


def test_a_second_call_does_nothing_and_a_changed_loss_retrains_its_runs(changed):
    assert changed.planned() == {}
    file = changed.root / "mine.py"
    file.write_text(file.read_text().replace("idea", "plan"))
    jobs = changed.planned()
    assert jobs["train"] == {"raises"}
    assert set(jobs) == {"train", "collect", "analyse", "experiment_report", "all"}


def test_a_committed_experiment_is_told_without_data_or_runs(changed):
    reference = changed.root / "results" / "reference" / "arms"
    missing = changed.snakemake("reference_report")
    assert missing.returncode != 0
    assert "arms: no reference results are committed for this study" in missing.stdout
    shutil.copytree(changed.results / "tables", reference / "tables")
    shutil.copy2(changed.results / "config.yaml", reference)
    assert changed.workflow("seal").returncode == 0
    shutil.rmtree(changed.results)
    shutil.rmtree(changed.root / "resources")
    assert set(changed.planned("--cores", "1", "reference_report")) == {"reference_report"}
    done = changed.snakemake("reference_report")
    assert done.returncode == 0, done.stdout
    told = changed.root / "results" / "reference-report" / "arms"
    assert "no such idea" in (told / "report.html").read_text()
    assert sorted(path.name for path in reference.iterdir()) == [
        "SHA256SUMS", "config.yaml", "tables",
    ]  # fmt: skip


def test_shards_train_nothing_anew_and_merge_to_the_whole(changed):
    tables = {name: (changed.results / "tables" / f"{name}.csv.gz") for name in TABLES}
    before = {name: path.read_bytes() for name, path in tables.items()}
    plans = files.read_json(changed.results / "preparation.json")
    shards = []
    for index, settings in enumerate(SHARDS):
        done = changed.snakemake("results/arms/tables/cases.csv.gz", "--config", *settings)
        assert done.returncode == 0, done.stdout
        assert "rule: train" not in done.stdout.lower()
        shards.append(f"shards/{index}")
        shutil.copytree(changed.results, changed.root / shards[-1])
    assert list(table(changed.root / "shards/0", "runs")["loss"]) == ["dice"]
    assert list(table(changed.root / "shards/1", "runs")["loss"]) == ["generalized_dice", "raises"]
    merge = ("merge", "arms.yaml", "--out", "results/merged")
    done = changed.workflow(*merge, *reversed(shards))
    assert done.returncode == 0, done.stdout
    merged = changed.root / "results" / "merged"
    for name in TABLES:
        assert (merged / "tables" / f"{name}.csv.gz").read_bytes() == before[name], name
    assert "1 of 3 runs failed" in (merged / "report.html").read_text()
    assert files.read_json(merged / "preparation.json") == plans
