"""Where the files of a study lie: the layout that rules and commands share."""

from __future__ import annotations

from pathlib import Path

from workflow.study import Study


def results(name: str) -> Path:
    """The folder of a study."""
    return Path("results") / name


def run(study: Study, loss: str, seed: int) -> Path:
    """A run's folder below ``results/<study>/runs``."""
    rate = f"lr-{study.training.learning_rate:g}"
    return Path(study.dataset.name) / loss / rate / f"seed-{seed}"


def resources(study: Study) -> Path:
    """Everything made from the data set; studies with the same preparation share it."""
    return Path("resources") / f"{study.dataset.name}-{study.data_fingerprint()}"


def raw(study: Study) -> Path:
    """The data set as NIfTI files: the study's ``root``, or where the phantom is written."""
    dataset = study.dataset
    if dataset.source == "phantom":
        return resources(study) / "phantom"
    if dataset.source == "decathlon":
        return Path(dataset.root) / dataset.task
    return Path(dataset.root)
