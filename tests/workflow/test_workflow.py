"""The workflow as a user meets it: what it makes, what it repeats, and what it refuses."""

import gzip
import json
import shutil

import nibabel
import numpy as np
import pandas as pd
import pytest

AFTER_TRAINING = {"all", "compare", "figures", "report", "paper"}


def touch_everything(root):
    for part in ("workflow", "losses", "paper", "config"):
        for path in (root / part).rglob("*"):
            if path.is_file():
                path.touch()


def test_a_process_that_uses_the_network_would_end(fresh):
    done = fresh.python("-c", "import socket; socket.create_connection(('192.0.2.1', 80), 1)")
    assert done.returncode == 99
    assert "uses the network" in done.stdout


def test_a_call_runs_the_code_of_its_own_copy(fresh):
    (fresh.root / "workflow" / "__main__.py").write_text("import losses; print(losses.__file__)")
    done = fresh.workflow()
    assert done.returncode == 0, done.stdout
    assert done.stdout.strip() == str(fresh.root / "losses" / "__init__.py")


def test_one_command_makes_tables_figures_report_and_paper(finished):
    assert finished.returncode == 0, finished.printed
    assert "report: results/tiny/report.html" in finished.printed
    for name in ("report.html", "paper.pdf", "config.yaml", "environment.json", "splits.csv"):
        assert (finished.results / name).stat().st_size > 0
    for name in ("runs", "curves", "cases", "summary", "comparisons", "cost", "absent", "dataset"):
        assert len(pd.read_csv(finished.results / "tables" / f"{name}.csv")), name
    assert list((finished.results / "figures").glob("*.svg"))


def test_progress_is_visible_while_it_runs(finished):
    assert "dice seed 1: step 3/6  loss" in finished.printed
    assert "steps (100%) done" in finished.printed


def test_a_loss_that_raises_is_a_row_and_the_report_is_still_built(finished):
    runs = pd.read_csv(finished.results / "tables" / "runs.csv").set_index("loss")
    assert runs.loc["raises", "status"] == "failed"
    assert runs.loc["raises", "reason"] == "RuntimeError: no such idea"
    assert runs.loc["dice", "status"] == "ok"
    assert "no such idea" in (finished.results / "report.html").read_text()
    log = finished.results / "logs" / "train" / "tiny" / "raises-lr-0.003-seed-1.log"
    assert "Traceback" in log.read_text()


def test_the_floor_stands_in_the_tables(finished):
    for name in ("runs", "cases", "summary"):
        table = pd.read_csv(finished.results / "tables" / f"{name}.csv")
        assert "all_background" in set(table["loss"]), name


def test_every_loss_of_a_seed_saw_the_same_weights_and_patches(finished):
    runs = pd.read_csv(finished.results / "tables" / "runs.csv")
    trained = runs[(runs["steps"] == 6)]
    assert len(trained) == 5
    for column in ("initial_weights_sha256", "patch_order_sha256"):
        assert trained.groupby("seed")[column].nunique().eq(1).all()


def test_a_second_call_does_nothing_nor_does_one_after_touching_every_source(changed):
    assert changed.planned() == {}
    touch_everything(changed.root)
    assert changed.planned() == {}


def test_a_comment_in_a_loss_retrains_nothing(changed):
    file = changed.root / "losses" / "lovasz.py"
    file.write_text(file.read_text() + "\n# a remark\n")
    assert changed.planned() == {}


def test_editing_a_loss_retrains_the_losses_of_its_file_and_nothing_else(changed):
    file = changed.root / "losses" / "lovasz.py"
    file.write_text(file.read_text() + "\nEDITED = True\n")
    jobs = changed.planned()
    assert jobs["train"] == {"lovasz_softmax"}
    assert set(jobs) <= AFTER_TRAINING | {"train"}


def test_a_second_study_on_the_same_data_repeats_nothing_of_the_first(changed):
    other = changed.root / "other.yaml"
    other.write_text(changed.study.read_text().replace("A tiny study", "Another study"))
    done = changed.snakemake("results/other/splits.csv", study=other)
    assert done.returncode == 0, done.stdout
    assert "prepare" not in done.stdout
    assert changed.planned() == {}


def test_a_study_that_tunes_trains_at_the_rates_of_its_trials(changed):
    study = changed.root / "tuned.yaml"
    study.write_text(
        "extends: tiny.yaml\n"
        "tuning: {grid: [0.001, 0.003, 0.01], seed: 9, steps: 3}\n"
        "comparison: {reference_loss: dice}\n"
        "losses: {dice: , published_generalized_dice_graph: }\n"
    )
    results = changed.root / "results" / "tuned"
    tables = str((results / "tables" / "runs.csv").relative_to(changed.root))
    done = changed.snakemake(tables, study=study)
    assert done.returncode == 0, done.stdout
    rates = pd.read_csv(results / "rates.csv").set_index("loss")["learning_rate"]
    assert set(rates.index) == {"dice", "published_generalized_dice_graph"}
    runs = pd.read_csv(results / "tables" / "runs.csv").set_index("loss")
    for loss, rate in rates.items():
        assert runs.loc[loss, "learning_rate"] == rate
    assert set(pd.read_csv(results / "tables" / "trials.csv")["seed"]) == {9}
    # no trial has seen a test case
    assert not list((results / "tuning").rglob("cases.csv"))
    assert "Nothing to be done" in changed.snakemake(tables, study=study).stdout
    # and the rates serve another study
    (changed.root / "rates.csv").write_text((results / "rates.csv").read_text())
    other = changed.root / "other.yaml"
    other.write_text("extends: tuned.yaml\ntuning: null\nrates: rates.csv\n")
    plan = changed.snakemake("--dry-run", "--quiet", "host", study=other).stdout
    for loss, rate in rates.items():
        assert f"loss={loss}, rate={rate!r}" in plan


def test_a_loss_that_cannot_work_on_these_classes_stops_before_training(fresh):
    text = fresh.study.read_text().replace("{weight: inverse_frequency}", "{weight: [1, 2]}")
    fresh.study.write_text(text)
    for done in (fresh.workflow("check", "tiny.yaml"), fresh.snakemake()):
        assert done.returncode != 0
        assert "losses.weighted_cross_entropy: on a trial batch of 4 classes" in done.stdout
    assert not (fresh.results / "runs").exists()


def test_editing_a_loss_of_the_users_own_retrains_it(changed):
    file = changed.root / "mine.py"
    file.write_text(file.read_text().replace("idea", "plan"))
    assert changed.planned()["train"] == {"raises"}


@pytest.mark.parametrize(
    ("old", "new", "trained"),
    [
        ("A tiny study", "Another title", None),
        ("seeds: [1]", "seeds: [1]\ntime_limit: 60", None),
        ("  dice: {}", "  dice: {smooth_nr: 1.0}", {"dice"}),
        ("seeds: [1]", "seeds: [1, 2]", {"dice", "lovasz_softmax", "generalized_dice", "raises",
                                         "weighted_cross_entropy",
                                         "published_generalized_dice_graph"}),
        ("  lovasz_softmax: {}\n", "", None),
    ],
)  # fmt: skip
def test_a_changed_key_retrains_what_it_affects(changed, old, new, trained):
    changed.study.write_text(changed.study.read_text().replace(old, new))
    jobs = changed.planned()
    assert jobs.get("train") == trained
    assert "report" in jobs
    assert "prepare" not in jobs


def test_a_run_that_is_asked_for_again_equals_the_first(changed):
    folder = changed.results / "runs" / "tiny" / "dice" / "lr-0.003" / "seed-1"
    before = {name: (folder / name).read_bytes() for name in ("curve.csv", "cases.csv")}
    again = ("--forcerun", str((folder / "status.json").relative_to(changed.root)))
    assert changed.planned(*again)["train"] == {"dice"}
    done = changed.snakemake(*again, "--until", "train")
    assert done.returncode == 0, done.stdout
    assert "rule: train" in done.stdout.lower()
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_single_keys_are_replaced_on_the_command_line(fresh):
    jobs = fresh.planned("--config", "seeds=[5,6]", "training={steps: 4}")
    assert len(jobs["train"]) == 6
    done = fresh.snakemake("results/tiny/config.yaml", "--config", "training={steps: 4}")
    assert done.returncode == 0, done.stdout
    text = (fresh.results / "config.yaml").read_text()
    assert "steps: 4" in text
    assert "batch_size: 2" in text


def test_an_unknown_key_stops_before_anything_is_written(fresh):
    fresh.study.write_text(fresh.study.read_text().replace("seeds:", "sees:"))
    done = fresh.snakemake()
    assert done.returncode != 0
    assert "sees: unknown key; did you mean 'seeds'" in done.stdout
    assert not (fresh.root / "results").exists()


def test_check_tells_what_a_study_holds(fresh):
    done = fresh.workflow("check", "tiny.yaml")
    assert done.returncode == 0, done.stdout
    assert "6 losses x 1 seeds = 6 runs" in done.stdout
    assert "8 cases, classes background, edema" in done.stdout
    assert not (fresh.root / "results").exists()


def folder_study(finished, fresh):
    """The study on a copy of the phantom, as a user's own folder."""
    source = next((finished.root / "resources").glob("tiny-*/phantom"))
    shutil.copytree(source, fresh.root / "mydata")
    text = fresh.study.read_text()
    head, _, rest = text.partition("dataset:")
    rest = rest[rest.index("splits:") :]
    fresh.study.write_text(head + "dataset: {source: folder, name: mine, root: mydata}\n" + rest)
    return fresh.root / "mydata"


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def halve_a_label(path):
    image = nibabel.load(path)
    voxels = np.asarray(image.dataobj).astype(np.float32)
    voxels[voxels > 0] -= 0.5
    path.write_bytes(gzip.compress(nibabel.Nifti1Image(voxels, image.affine).to_bytes()))


@pytest.mark.parametrize(
    ("folder", "damage", "word"),
    [
        ("imagesTr", truncate, "phantom_002.nii.gz"),
        ("labelsTr", flip_a_bit, "phantom_002.nii.gz"),
        ("labelsTr", halve_a_label, "integer"),
    ],
)
def test_damaged_data_stop_the_workflow_before_training(finished, fresh, folder, damage, word):
    data = folder_study(finished, fresh)
    damage(data / folder / "phantom_002.nii.gz")
    checked = fresh.workflow("check", "tiny.yaml")
    assert checked.returncode == 1
    assert "phantom_002" in checked.stdout
    assert word in checked.stdout
    assert "Traceback" not in checked.stdout
    done = fresh.snakemake()
    assert done.returncode != 0
    assert "phantom_002" in done.stdout
    assert not (fresh.results / "runs").exists()
    # cases in order are kept for the next call, the data set is not there
    assert not list((fresh.root / "resources").rglob("prepared.json"))


@pytest.mark.parametrize("name", ["acdc", "default", "sgd"])
def test_the_studies_lint_clean_also_where_their_data_are_not(fresh, name):
    done = fresh.snakemake("--lint", study=fresh.root / "config" / f"{name}.yaml")
    assert done.returncode == 0, done.stdout
    assert "Congratulations" in done.stdout


def test_a_folder_that_is_no_data_set_is_told_at_once(finished, fresh):
    data = folder_study(finished, fresh)
    (data / "dataset.json").write_text("{")
    done = fresh.snakemake("--dry-run")
    assert done.returncode != 0
    assert "dataset.json" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_missing_folder_is_named(fresh):
    fresh.study.write_text(
        fresh.study.read_text().replace("source: phantom", "source: folder\n  root: nowhere")
    )
    for done in (fresh.workflow("check", "tiny.yaml"), fresh.snakemake()):
        assert done.returncode != 0
        assert "nowhere" in done.stdout
        assert "Traceback" not in done.stdout


def test_a_users_folder_is_prepared_split_by_patient_and_merged(finished, fresh):
    folder_study(finished, fresh)
    text = fresh.study.read_text().replace(
        "root: mydata}", "root: mydata, subject: '_(\\d+)$', labels: {lesion: [1, 3]}}"
    )
    fresh.study.write_text(text)
    done = fresh.snakemake("results/tiny/splits.csv")
    assert done.returncode == 0, done.stdout
    splits = pd.read_csv(fresh.results / "splits.csv", dtype=str)
    assert set(splits["subject"]) == {f"{i:03d}" for i in range(1, 9)}
    prepared = json.loads(next((fresh.root / "resources").rglob("prepared.json")).read_text())
    assert prepared["classes"] == ["background", "lesion"]


def test_a_task_that_is_there_already_is_used_and_never_touched(finished, fresh):
    source = next((finished.root / "resources").glob("tiny-*/phantom"))
    task = fresh.root / "tasks" / "Task04_Hippocampus"
    shutil.copytree(source, task)
    before = {path: path.stat().st_mtime_ns for path in task.rglob("*")}
    text = fresh.study.read_text()
    head, rest = text[: text.index("dataset:")], text[text.index("splits:") :]
    prepared = set()
    here = "dataset: {source: decathlon, name: t4, task: Task04_Hippocampus, root: tasks}\n"
    for patch in ("[16, 16, 16]", "[8, 8, 8]"):
        fresh.study.write_text(head + here + rest.replace("[16, 16, 16]", patch))
        done = fresh.snakemake("results/tiny/splits.csv", "--until", "prepare")
        assert done.returncode == 0, done.stdout
        prepared.add(frozenset((fresh.root / "resources").rglob("prepared.json")))
    assert {len(found) for found in prepared} == {1, 2}
    assert {path: path.stat().st_mtime_ns for path in task.rglob("*")} == before


def test_a_study_folder_that_is_not_writable_is_named(fresh, monkeypatch, tmp_path):
    (fresh.root / "results").write_text("a file where the folder should be")
    for done in (fresh.workflow("check", "tiny.yaml"), fresh.snakemake()):
        assert done.returncode != 0
        assert "results" in done.stdout
        assert "not writable" in done.stdout or "Not a directory" in done.stdout
