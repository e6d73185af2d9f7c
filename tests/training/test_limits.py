"""A run ends in time, says when memory is short, and copes with validation that lacks a class."""

import json
import math
import signal
import time

import pandas as pd
import pytest
import torch

import losses
from workflow import check, files
from workflow.study import Study, StudyError
from workflow.training import train as module
from workflow.training import tuning
from workflow.training.limits import TimeOver, is_out_of_memory, time_limit
from workflow.training.train import Run, train


class Endless(torch.nn.Module):
    """Never comes back from its third step, in which time is over, and hears no ``Exception``."""

    calls = 0

    def forward(self, logits, labels):
        self.calls += torch.is_grad_enabled()
        if self.calls == 3:
            assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        while self.calls > 2:
            try:
                sum(range(1000))
            except Exception:
                continue
        return torch.nn.functional.cross_entropy(logits, labels)


def test_a_loss_that_never_ends_is_a_row_with_the_time_limit(
    study, prepared, splits, tmp_path, monkeypatch
):
    monkeypatch.setattr(losses, "create", lambda name, **options: Endless())
    limit = 1e6
    settings = study.run_settings("dice_ce")
    status = train(settings, prepared, splits, Run("dice_ce", 3e-3, 1), tmp_path, limit=limit)
    found = json.loads((tmp_path / "status.json").read_text())
    assert status == found["status"] == "failed"
    assert found["reason"] == "not finished within the study's time limit of 16666.7 minutes"
    assert found["steps"] == 2
    assert files.read_table(tmp_path / "cases.csv").empty
    assert not list(tmp_path.glob("checkpoint*"))


def interrupted(monkeypatch, name, method, call):
    """A run in which this method of its checkpoints, put in place of theirs, ends it at last."""
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(module.Checkpoints, name, method)
        train(*call)


def test_the_time_limit_counts_what_earlier_calls_took(
    study, prepared, splits, tmp_path, monkeypatch
):
    save = module.Checkpoints.save

    def slow(self, state):
        save(self, state | {"spent": {"seconds": 1e6, "peak_memory_mib": 1.0}})
        raise KeyboardInterrupt

    call = study.run_settings("dice_ce"), prepared, splits, Run("dice_ce", 3e-3, 1), tmp_path
    interrupted(monkeypatch, "save", slow, call)
    assert train(*call, limit=9e5) == "failed"
    found = json.loads((tmp_path / "status.json").read_text())
    assert found["seconds"] > 1e6


def test_a_clock_that_is_set_during_a_run_takes_none_of_its_time(
    study, prepared, splits, tmp_path, monkeypatch
):
    real, save = time.time, module.Checkpoints.save

    def set_clock(self, state):
        monkeypatch.setattr(time, "time", lambda: real() + 1e6)
        save(self, state)
        if state["step"] == study.training.steps:
            raise KeyboardInterrupt

    call = study.run_settings("dice_ce"), prepared, splits, Run("dice_ce", 3e-3, 1), tmp_path
    interrupted(monkeypatch, "save", set_clock, call)
    monkeypatch.setattr(time, "time", real)
    assert train(*call, limit=9e5) == "ok"
    assert 0 < json.loads((tmp_path / "status.json").read_text())["seconds"] < 9e5


def test_the_time_limit_counts_what_was_scored_before_a_kill(
    study, prepared, splits, tmp_path, monkeypatch
):
    keep = module.Checkpoints.keep

    def slow(self, key, part):
        keep(self, key, part | {"spent": {"seconds": 1e6, "peak_memory_mib": 1.0}})
        raise KeyboardInterrupt

    call = study.run_settings("dice_ce"), prepared, splits, Run("dice_ce", 3e-3, 1), tmp_path
    interrupted(monkeypatch, "keep", slow, call)
    assert train(*call, limit=9e5) == "failed"
    found = json.loads((tmp_path / "status.json").read_text())
    assert found["steps"] == study.training.steps
    assert found["seconds"] > 1e6


def test_a_loss_that_never_ends_is_told_before_the_first_run(tmp_path):
    (tmp_path / "endless.py").write_text(
        "import torch\n"
        "class Endless(torch.nn.Module):\n"
        "    def forward(self, logits, labels):\n"
        "        while True: pass\n"
    )
    study = Study.model_validate(
        {
            "dataset": {"source": "phantom", "name": "tiny"},
            "losses": {
                "endless": {"name": f"{tmp_path}/endless.py:Endless"},
                "short": {"name": "dice", "weight": [1.0, 2.0]},
            },
            "comparison": {"reference_loss": "short"},
            "time_limit": 0.01,
        }
    )
    with pytest.raises(StudyError) as caught:
        check.losses_work(study)
    first, second = str(caught.value).splitlines()
    assert first.startswith("losses.endless: ")
    assert first.endswith("not finished within the study's time limit of 0.01 minutes")
    assert second.startswith("losses.short: ")


def test_a_time_limit_that_is_kept_leaves_nothing_behind():
    with time_limit(60):
        pass
    with pytest.raises(TimeOver), time_limit(1e-3):
        while True:
            pass
    with time_limit(None) as spend:
        spend(1)
    with pytest.raises(TimeOver), time_limit(1e6) as spend:
        spend(9e5)
        assert signal.getitimer(signal.ITIMER_REAL)[0] == pytest.approx(1e5, abs=1e3)
        spend(2e5)
        while True:
            pass


def test_out_of_memory_is_known_by_what_pytorch_says():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**50, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError())
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("DefaultCPUAllocator"))


def test_a_loss_that_wants_more_memory_than_there_is_stops_the_run_with_a_remedy(
    study, prepared, splits, tmp_path, monkeypatch
):
    monkeypatch.setattr(losses, "create", lambda name, **options: lambda x, y: torch.empty(2**50))
    settings = study.run_settings("dice_ce")
    with pytest.raises(MemoryError, match=r"dice_ce seed 1: out of memory.*training\.patch_size"):
        train(settings, prepared, splits, Run("dice_ce", 3e-3, 1), tmp_path)
    assert not (tmp_path / "status.json").exists()


@pytest.mark.parametrize("gone", [(3,), (1, 2, 3)], ids=["one class", "every class"])
def test_a_class_that_no_validation_case_has_is_no_number_and_no_end(
    study, prepared, splits, tmp_path, monkeypatch, gone
):
    labels = type(prepared).label
    split = splits.set_index("case")["split"]

    def without(self, case):
        label = labels(self, case).copy()
        if split[case.name] == "validation":
            label[pd.Series(label.ravel()).isin(gone).to_numpy().reshape(label.shape)] = 0
        return label

    monkeypatch.setattr(type(prepared), "label", without)
    settings = study.run_settings("dice_ce")
    status = train(settings, prepared, splits, Run("dice_ce", 3e-3, 1), tmp_path)
    assert status == "ok"
    curve = files.read_table(tmp_path / "curve.csv")
    validation = curve[curve["split"] == "validation"]
    dice = validation[validation["quantity"] == "dice"]
    names = [prepared.classes[c] for c in gone]
    assert set(dice["class"]) == set(prepared.classes[1:]) - set(names)
    assert set(names) <= set(validation[validation["quantity"] == "predicted_fraction"]["class"])
    assert validation["value"].notna().all()
    # without any evidence the last weights are as good as others
    best = json.loads((tmp_path / "status.json").read_text())["best_step"]
    if len(gone) == 3:
        assert best == study.training.steps
        assert tuning.score(curve, "best") == 0
    assert math.isfinite(tuning.score(curve, "best"))
