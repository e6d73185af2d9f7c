"""Where the files of a study lie: the layout that rules and commands share."""

from __future__ import annotations

import re
from pathlib import Path

from workflow.study import Data, Study


def results(name: str) -> Path:
    """The folder of a study."""
    return Path("results") / name


def arm(name: str) -> str:
    """What a study's folder is followed by to give that of an arm; a plain study has none."""
    return f"/arms/{name}" if name else ""


def run(study: Study, loss: str, seed: int) -> Path:
    """A run's folder below ``results/<study>/runs``."""
    return Path(study.dataset.name) / loss / f"lr-{study.rate(loss)}" / f"seed-{seed}"


def resources(data: Data) -> Path:
    """Everything made from the data set; studies with the same preparation share it."""
    return Path("resources") / f"{data.dataset.name}-{data.fingerprint()}"


def written(data: Data) -> Path:
    """The file that says that a data set was written or downloaded.

    Snakemake deletes what it is about to make again, so it must be no file of a user's folder.
    """
    phantom = data.dataset.source == "phantom"
    return raw(data) / "dataset.json" if phantom else resources(data) / "downloaded.json"


def raw(data: Data) -> Path:
    """The data set as NIfTI files: its ``root``, or where the phantom is written."""
    dataset = data.dataset
    if dataset.source == "phantom":
        return resources(data) / "phantom"
    assert dataset.root is not None  # the model refuses any other source without it
    if dataset.source == "decathlon":
        assert dataset.task is not None  # the same
        return Path(dataset.root) / dataset.task
    return Path(dataset.root)


def misread(data: Data) -> list[str]:
    """A line for each raw file whose path Snakemake would take for another one."""
    if data.dataset.source != "folder":
        return []
    faults = []
    for file in map(str, sorted(raw(data).glob("**/*"))):
        if re.search(r"\{\s*\w+\s*[,}]", file):
            faults.append(f"{file!r}: Snakemake fills in what stands in braces, rename it")
        elif not file.isprintable():
            faults.append(f"{file!r}: the name cannot be printed in one line, rename it")
    return faults
