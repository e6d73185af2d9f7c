"""One run: what it leaves behind, what it shares with other runs, and how it ends badly."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

import losses
from workflow import check, files
from workflow.data import phantom
from workflow.data.faults import DataError
from workflow.data.prepare import prepare
from workflow.data.splits import check_splits
from workflow.study import Dataset, Loss, StudyError, Training
from workflow.training import optimisation, signals
from workflow.training import train as module
from workflow.training.objective import LONGEST_REASON
from workflow.training.train import Run, train


def run(study, prepared, splits, out, loss="dice_ce", seed=1):
    settings = study.run_settings(loss)
    status = train(settings, prepared, splits, Run(loss, 3e-3, seed), out)
    found = json.loads((out / "status.json").read_text())
    assert found["status"] == status
    return found, pd.read_csv(out / "curve.csv"), pd.read_csv(out / "cases.csv")


def with_loss(study, monkeypatch, loss):
    """The study with its losses replaced by one that a user might have written."""
    monkeypatch.setattr(losses, "create", lambda name, **options: loss)
    return study


class Broken(torch.nn.Module):
    def __init__(self, after, what):
        super().__init__()
        self.calls, self.after, self.what = 0, after, what

    def forward(self, logits, labels):
        value = torch.nn.functional.cross_entropy(logits, labels)
        self.calls += torch.is_grad_enabled()
        return self.what(value) if self.calls > self.after else value


def raises(value):
    raise RuntimeError("out of\n ideas")


def test_a_run_leaves_whole_tables(study, prepared, splits, tmp_path):
    status, curve, cases = run(study, prepared, splits, tmp_path)
    assert status["status"] == "ok"
    assert status["settings_sha256"] == study.run_settings("dice_ce").sha256()
    assert status["steps"] == 6
    validation = curve[curve["split"] == "validation"]
    assert sorted(validation["step"].unique()) == [0, 3, 6]
    for quantity in ("loss", "cross_entropy", "dice", "predicted_fraction"):
        assert set(validation[validation["quantity"] == quantity]["step"]) == {0, 3, 6}
    fractions = validation[validation["quantity"] == "predicted_fraction"]
    assert fractions.groupby("step")["value"].sum().to_numpy() == pytest.approx(1)
    test = set(splits.loc[splits["split"] == "test", "case"])
    assert set(cases["case"]) == test
    assert set(cases["checkpoint"]) == {"best", "last"}
    assert len(cases) == 2 * len(test) * 3
    assert (cases["tp"] + cases["fn"] == cases["reference_voxels"]).all()
    # what is of the case and not of the class stands in each of its rows
    assert (cases.groupby(["checkpoint", "case"])[["ece", "nll"]].nunique() == 1).all().all()
    assert cases[["presence_log_odds", "voxel_mm3"]].notna().all().all()
    with np.load(tmp_path / "predictions.npz") as predictions:
        assert set(predictions) == test


def test_reliability_of_the_top_label_and_of_each_class_covers_the_same_voxels(
    study, prepared, splits, tmp_path
):
    *_, cases = run(study, prepared, splits, tmp_path)
    table = files.read_table(tmp_path / "reliability.csv")
    assert set(table["class"]) == {"", *prepared.classes[1:]}
    voxels = table.groupby(["checkpoint", "class"])["voxels"].sum()
    assert voxels.nunique() == 1
    for column in ("confidence", "accuracy"):
        assert table[column].between(0, 1).all()
    # the share of a class in the boxes is that of its reference voxels
    edema = table[(table["checkpoint"] == "best") & (table["class"] == "edema")]
    chosen = cases[(cases["checkpoint"] == "best") & (cases["class"] == "edema")]
    found = (edema["voxels"] * edema["accuracy"]).sum()
    assert found == pytest.approx(chosen["reference_voxels"].sum())


def test_the_same_seed_gives_the_same_tables(study, prepared, splits, tmp_path):
    first = run(study, prepared, splits, tmp_path / "a")
    second = run(study, prepared, splits, tmp_path / "b")
    for one, other in zip(first[1:], second[1:], strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_every_loss_of_a_seed_sees_the_same_weights_and_patches(study, prepared, splits, tmp_path):
    def hashes(loss, seed):
        status, *_ = run(study, prepared, splits, tmp_path / f"{loss}{seed}", loss, seed)
        return status["initial_weights_sha256"], status["patch_order_sha256"]

    assert hashes("dice_ce", 1) == hashes("dice", 1) == hashes("weighted", 1)
    weights, order = hashes("dice", 2)
    assert weights != hashes("dice", 1)[0]
    assert order != hashes("dice", 1)[1]


def test_the_seeds_of_weights_order_and_augmentation_are_three_and_recorded(
    study, prepared, splits, tmp_path
):
    status, *_ = run(study, prepared, splits, tmp_path)
    recorded = {w: status[f"{w}_seed"] for w in ("initialisation", "order", "augmentation")}
    assert recorded == Run("dice", 0.003, 1).seeds()
    seeds = [seed for n in range(200) for seed in Run("dice", 0.003, n).seeds().values()]
    assert len(set(seeds)) == 600


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_loss_that_becomes_non_finite_is_diverged_and_still_scored(
    study, prepared, splits, tmp_path, monkeypatch, number
):
    study = with_loss(study, monkeypatch, Broken(4, lambda value: value * number))
    status, curve, cases = run(study, prepared, splits, tmp_path)
    assert status["status"] == "diverged"
    assert status["reason"] == f"the loss is {number} at step 5"
    assert status["steps"] == 4
    assert len(cases)
    assert curve["step"].max() == 4


def test_a_run_that_diverges_before_its_first_validation_is_scored_as_both_checkpoints(
    study, prepared, splits, tmp_path, monkeypatch
):
    study = with_loss(study, monkeypatch, Broken(1, lambda value: value * math.nan))
    status, _, cases = run(study, prepared, splits, tmp_path)
    assert (status["status"], status["steps"], status["best_step"]) == ("diverged", 1, 0)
    best, last = (
        cases[cases["checkpoint"] == c].drop(columns="checkpoint") for c in ("best", "last")
    )
    assert len(best)
    pd.testing.assert_frame_equal(best.reset_index(drop=True), last.reset_index(drop=True))


def leaves(value):
    raise SystemExit(3)


def cannot_be_written(value):
    raise ValueError("a\ud800b" + "c" * 10**6)


class Mute(Exception):
    def __str__(self):
        raise AttributeError("no words")


def cannot_be_read(value):
    raise Mute


@pytest.mark.parametrize(
    ("after", "what", "reason"),
    [
        (2, cannot_be_read, "Mute: what it says cannot be read"),
        (2, leaves, "SystemExit: 3"),
        (2, cannot_be_written, r"ValueError: a\ud800bccc"),
        (2, lambda value: value * 1j, "ValueError: the loss must be a real number, it is"),
        (6, raises, "RuntimeError: out of ideas"),  # while it is timed
    ],
    ids=["cannot be read", "leaves", "cannot be written", "complex", "late"],
)
def test_however_a_loss_fails_it_is_a_row(
    study, prepared, splits, tmp_path, monkeypatch, caplog, after, what, reason
):
    study = with_loss(study, monkeypatch, Broken(after, what))
    status, *_ = run(study, prepared, splits, tmp_path)
    assert status["status"] == "failed"
    assert status["reason"].startswith(reason)
    assert len(status["reason"]) <= LONGEST_REASON
    assert status["steps"] == after
    caplog.text.encode()  # what the log says can be written as well


@pytest.mark.parametrize("error", [OSError("no space left"), MemoryError("no room")])
def test_what_is_not_the_fault_of_the_loss_is_no_row_against_it(
    study, prepared, splits, tmp_path, monkeypatch, error
):
    def full(*args, **options):
        raise error

    monkeypatch.setattr(module, "score", full)
    with pytest.raises(type(error), match=str(error)):
        run(study, prepared, splits, tmp_path)
    assert not (tmp_path / "status.json").exists()


def test_a_loss_that_runs_out_of_memory_is_no_failed_loss(
    study, prepared, splits, tmp_path, monkeypatch
):
    def out_of_memory(value):
        raise MemoryError("no room")

    study = with_loss(study, monkeypatch, Broken(2, out_of_memory))
    with pytest.raises(MemoryError):
        run(study, prepared, splits, tmp_path)


def test_a_gradient_that_becomes_non_finite_is_diverged_before_the_weights_are(
    study, prepared, splits, tmp_path, monkeypatch
):
    def infinite_slope(value):
        return value * 0 + torch.sqrt((value - value.detach()).abs())

    study = with_loss(study, monkeypatch, Broken(2, infinite_slope))
    status, _, cases = run(study, prepared, splits, tmp_path)
    assert status["status"] == "diverged"
    assert "gradient norm" in status["reason"]
    assert len(cases)


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        (Broken(3, raises), "RuntimeError: out of ideas"),
        (Broken(0, lambda value: value[None]), "the loss must be a scalar, its shape is (1,)"),
    ],
)
def test_a_loss_that_raises_is_a_row_with_its_reason(
    study, prepared, splits, tmp_path, monkeypatch, loss, reason
):
    study = with_loss(study, monkeypatch, loss)
    status, curve, cases = run(study, prepared, splits, tmp_path)
    assert status["status"] == "failed"
    assert reason in status["reason"]
    assert "\n" not in status["reason"]
    assert list(cases.columns)[:4] == ["dataset", "loss", "learning_rate", "seed"]
    assert cases.empty
    assert not curve.empty


def test_best_is_the_latest_of_the_best_validations(study, prepared, splits, tmp_path):
    status, curve, _ = run(study, prepared, splits, tmp_path)
    dice = curve[(curve["split"] == "validation") & (curve["quantity"] == "dice")]
    by_step = dice.groupby("step")["value"].mean().drop(0)
    best = by_step[by_step >= by_step.max() - 1e-12].index.max()
    assert status["best_step"] == best


def test_a_device_that_is_not_there_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(StudyError, match=r"training\.accelerator: this machine has no 'cuda'"):
        module.networks.accelerator("cuda")


def test_timing_the_loss_changes_nothing_of_what_is_scored(
    study, prepared, splits, tmp_path, monkeypatch
):
    monkeypatch.setattr(losses, "create", lambda name, **options: Broken(4, lambda v: v * math.nan))
    _, _, timed = run(study, prepared, splits, tmp_path / "timed")
    monkeypatch.setattr(module.Trainer, "_loss_seconds", lambda *_: 0.0)
    _, _, untimed = run(study, prepared, splits, tmp_path / "untimed")
    pd.testing.assert_frame_equal(timed, untimed, check_exact=True)


def with_training(study, **changes):
    return study.model_copy(update={"training": study.training.model_copy(update=changes)})


def test_signals_tell_every_class_and_change_no_number(study, prepared, splits, tmp_path):
    _, *plain = run(study, prepared, splits, tmp_path / "plain", "dice")
    watched = with_training(study, signals_every=4)
    status, *seen = run(watched, prepared, splits, tmp_path / "seen", "dice")
    for one, other in zip(plain, seen, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert not (tmp_path / "plain" / "signals.csv").exists()
    table = files.read_table(tmp_path / "seen" / "signals.csv")
    assert list(table) == ["dataset", "loss", "learning_rate", "seed", *signals.COLUMNS]
    assert sorted(table["step"].unique()) == [0, 4]
    per_step = table.groupby("step")
    assert (per_step["class"].apply(list) == [list(prepared.classes)] * 2).all()
    patches = study.training.batch_size * math.prod(study.training.patch_size)
    assert (per_step["voxels"].sum() == patches).all()
    assert (table["gradient_inside"] + table["gradient_outside"] > 0).all()
    assert status["status"] == "ok"


def test_signals_are_a_table_also_where_the_loss_cannot_be_made(
    study, prepared, splits, tmp_path, monkeypatch
):
    def refuse(name, **options):
        raise ValueError("no weights for these classes")

    monkeypatch.setattr(losses, "create", refuse)
    status, *_ = run(with_training(study, signals_every=1), prepared, splits, tmp_path)
    assert status["status"] == "failed"
    assert list(files.read_table(tmp_path / "signals.csv"))[4:] == list(signals.COLUMNS)


def test_a_trial_leaves_its_curve_and_status(study, prepared, splits, tmp_path):
    settings = with_training(study, signals_every=1).run_settings("dice")
    train(settings, prepared, splits, Run("dice", 3e-3, 1), tmp_path, trial=True)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["checkpoint.bin", "curve.csv", "status.json"]


def test_sgd_steps_against_the_gradient_with_nesterov_momentum():
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    network = torch.nn.Module()
    network.register_parameter("w", weight)
    training = Training(optimizer="sgd", momentum=0.9, weight_decay=0.5)
    optimizer = optimisation.optimizer(network, training, rate=0.1)
    w, velocity = 2.0, 0.0
    for slope in (3.0, -1.0, 0.5):
        weight.grad = torch.tensor([slope])
        optimizer.step()
        gradient = slope + 0.5 * w
        velocity = 0.9 * velocity + gradient
        w -= 0.1 * (gradient + 0.9 * velocity)
        assert weight.item() == pytest.approx(w)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_study_trains_with_sgd(study, prepared, splits, tmp_path, momentum):
    options = {"schedule": "polynomial", "optimizer": "sgd", "momentum": momentum}
    status, curve, _ = run(with_training(study, **options), prepared, splits, tmp_path)
    plain, other, _ = run(study, prepared, splits, tmp_path / "adamw")
    assert status["status"] == "ok"
    # the same start and patches, another path
    for digest in ("initial_weights_sha256", "patch_order_sha256"):
        assert status[digest] == plain[digest]
    loss = [c[(c["split"] == "train") & (c["quantity"] == "loss")]["value"] for c in (curve, other)]
    assert not np.allclose(*loss)
    rates = curve[curve["quantity"] == "learning_rate"].set_index("step")["value"]
    assert rates.to_dict() == pytest.approx({3: 3e-3 * (1 - 3 / 6) ** 0.9, 6: 0})


def test_an_output_bias_at_the_class_frequencies_predicts_background_first(
    study, prepared, splits, tmp_path
):
    def first(**changes):
        status, curve, _ = run(with_training(study, **changes), prepared, splits, tmp_path)
        start = curve[(curve["step"] == 0) & (curve["class"] == "background")]
        return status["initial_weights_sha256"], status["patch_order_sha256"], start["value"].item()

    random, shifted = first(), first(output_bias="class_frequencies")
    assert random[0] != shifted[0]
    assert random[1] == shifted[1]
    assert shifted[2] > 0.999 > random[2]


@pytest.fixture(scope="module")
def external(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("external")
    options = {"subjects": 2, "shape": [24, 24, 24], "spacing": 8.0, "seed": 5}
    dataset = Dataset(source="phantom", name="other", phantom=options)
    phantom.write(dataset.phantom, folder / "raw")
    data = check.read_dataset(dataset, folder / "raw")
    return prepare(data, folder / "prepared", *check.classes_of(dataset, data))


@pytest.mark.parametrize("test", [0.25, 0.0])
def test_an_external_test_set_is_scored_under_its_name(
    study, prepared, splits, external, tmp_path, test
):
    shares = {"train": 0.5, "validation": 0.5 - test, "test": test}
    table = check.split(study.splits.model_copy(update=shares), prepared, external)
    joined = prepared.joined(external)
    check_splits(table, joined)
    _, _, cases = run(study, joined, table, tmp_path)
    sets = cases.groupby("test_set")["case"].unique()
    assert sorted(sets["other"]) == ["other.phantom_001", "other.phantom_002"]
    assert set(sets.index) == ({"tiny", "other"} if test else {"other"})
    if test:
        # what is trained and how its own cases are scored do not depend on it
        _, _, alone = run(study, prepared, splits, tmp_path / "alone")
        own = cases[cases["test_set"] == "tiny"].reset_index(drop=True)
        pd.testing.assert_frame_equal(own, alone, check_exact=True)


def test_an_external_case_can_be_given_to_no_other_split(study, prepared, external):
    joined = prepared.joined(external)
    table = check.split(study.splits, prepared, external)
    assert set(table[table["case"].str.startswith("other.")]["split"]) == {"external"}
    for case, split in ((joined.cases[-1].name, "train"), (joined.cases[0].name, "external")):
        edited = table.copy()
        edited.loc[edited["case"] == case, "split"] = split
        with pytest.raises(DataError, match=f"'{case}' is of the data set .*split '{split}'"):
            check_splits(edited, joined)


def test_losses_work_on_volumes_of_the_training_set(study, prepared, splits, tmp_path):
    loss = Loss(name="generalized_dice", options={"volumes": "training_set"})
    study = study.model_copy(update={"losses": {"g": loss}})
    status, *_ = run(study, prepared, splits, tmp_path, "g")
    assert status["status"] == "ok"
