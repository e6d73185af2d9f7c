"""A study so short that a run takes a second."""

from pathlib import Path

import pytest

from tests.faults.killing import EVERY, STEPS, Job
from tests.tiny_study import TINY, TRAINING, prepare
from workflow import check, files
from workflow.study import Study

# draws from the generator at every step, and has a state of its own
NOISY = """
import torch
class Noisy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
    def forward(self, logits, labels):
        value = torch.nn.functional.cross_entropy(logits + torch.randn(()), labels)
        if torch.is_grad_enabled():
            self.mean.mul_(0.9).add_(value.detach(), alpha=0.1)
        return value * torch.rand(()) + self.mean * logits.square().mean()
"""
STUDIES = {
    "adamw": {"optimizer": "adamw", "schedule": "one_cycle"},
    "sgd": {"optimizer": "sgd", "schedule": "polynomial"},
}


@pytest.fixture(scope="session")
def make_job(tmp_path_factory):
    """A job of the short study with this optimiser and loss, and a folder to work in."""
    folder = tmp_path_factory.mktemp("short")
    (folder / "noisy.py").write_text(NOISY)
    losses = {"dice_ce": {}, "boundary": {}, "noisy": {"name": f"{folder}/noisy.py:Noisy"}}
    training = TRAINING | {"steps": STEPS, "validate_every": EVERY, "signals_every": 2}
    studies = {
        name: Study.model_validate(TINY | {"losses": losses, "training": training | options})
        for name, options in STUDIES.items()
    }
    study = studies["adamw"]
    prepared = prepare(study, folder)
    files.write_table(folder / "splits.csv", check.split(study.splits, prepared))

    def make(study: str, loss: str, out: Path) -> Job:
        settings = studies[study].run_settings(loss).model_dump_json()
        return Job(settings, folder / "prepared", folder / "splits.csv", loss, 1, out)

    return make
