"""bfloat16, in which CUDA trains and predicts, asked for on the CPU: it moves digits alone."""

from __future__ import annotations

import copy

import pandas as pd
import pytest
import torch

import losses
from workflow.training import network as networks
from workflow.training.train import Record, Run, Trainer


@pytest.fixture
def bfloat16(monkeypatch):
    monkeypatch.setattr(networks, "precision", lambda device: torch.bfloat16)


def trainer(study, prepared, splits):
    settings = study.run_settings("dice_ce")
    return Trainer(settings, prepared, splits, Run("dice_ce", 3e-3, 1), Record())


def run(study, prepared, splits):
    """A whole run: its tables, and the types that its layers gave and its loss took."""
    run = trainer(study, prepared, splits)
    layers, taken = set(), set()
    run.network.model[0].conv.register_forward_hook(
        lambda layer, _, given: layers.add((layer.training, given.dtype))
    )
    loss = run.loss

    def watched(logits, labels):
        taken.add((logits.dtype, torch.is_autocast_enabled("cpu")))
        return loss(logits, labels)

    run.loss = watched
    outcome = run.fit(lambda state: None, None)
    run.evaluate(lambda key, compute: compute())
    assert outcome["status"] == "ok"
    assert {p.dtype for p in run.network.parameters()} == {torch.float32}
    curve = pd.DataFrame(run.record.curve, columns=["step", "split", "quantity", "class", "value"])
    return curve, pd.DataFrame(run.record.cases), layers, taken


@pytest.fixture
def single(study, prepared, splits):
    return run(study, prepared, splits)


def test_training_validation_and_scores_in_bfloat16_are_those_of_float32_but_for_digits(
    study, prepared, splits, single, bfloat16
):
    curve, cases, layers, taken = single
    other_curve, other_cases, other_layers, other_taken = run(study, prepared, splits)
    assert layers == {(True, torch.float32), (False, torch.float32)}
    assert other_layers == {(True, torch.bfloat16), (False, torch.bfloat16)}
    assert taken == other_taken == {(torch.float32, False)}

    key = ["step", "split", "quantity", "class"]
    assert other_curve[key].equals(curve[key])
    assert other_curve["value"].notna().all()
    for table, other in ((curve, other_curve), (cases, other_cases)):
        assert not table.equals(other)
    errors = curve["quantity"].isin(["loss", "cross_entropy"])
    for column, one, other in (
        ("value", curve[errors], other_curve[errors]),
        *((score, cases, other_cases) for score in ("dice", "nll", "ece")),
    ):
        assert one[column].notna().any()
        assert other[column].to_numpy() == pytest.approx(
            one[column].to_numpy(), abs=0.004, nan_ok=True
        )


def test_a_run_in_bfloat16_goes_on_from_a_checkpoint_bit_for_bit(study, prepared, splits, bfloat16):
    whole, saved = trainer(study, prepared, splits), []
    whole.fit(lambda state: saved.append(copy.deepcopy(state)), None)
    resumed, again = trainer(study, prepared, splits), []
    resumed.fit(lambda state: again.append(copy.deepcopy(state)), saved[0])
    assert (len(saved), len(again)) == (2, 1)
    assert again[0]["step"] == study.training.steps
    for part in ("sampler", "curve", "step"):
        assert again[0][part] == saved[1][part]
    for part in ("network", "generators", "best"):
        torch.testing.assert_close(again[0][part], saved[1][part], rtol=0, atol=0)
    moments = [state["optimizer"]["state"] for state in (again[0], saved[1])]
    torch.testing.assert_close(*moments, rtol=0, atol=0)


def test_only_cuda_computes_in_bfloat16():
    assert networks.precision(torch.device("cuda")) == torch.bfloat16
    for device in map(torch.device, ("cpu", "mps")):
        assert networks.precision(device) == torch.float32
        with networks.autocast(device):
            assert not torch.is_autocast_enabled(device.type)


class Buffered(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.ones(4))

    def to(self, device):
        self.told = device
        return super().to(device)

    def forward(self, logits, labels):
        return torch.nn.functional.cross_entropy(logits, labels, self.weight)


def test_patches_and_buffers_of_a_loss_are_where_the_network_is(
    study, prepared, splits, monkeypatch
):
    monkeypatch.setattr(losses, "create", lambda name, **options: Buffered())
    run = trainer(study, prepared, splits)
    assert run.loss.told == run.device
    run.device = torch.device("meta")
    assert {tensor.device for tensor in next(run.sampler())} == {run.device}
