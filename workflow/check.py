"""Everything that can be known to be wrong before training: the study, its data, its splits."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from workflow import paths
from workflow.data import dataset as datasets
from workflow.data.dataset import DataSet
from workflow.data.phantom import CLASSES
from workflow.data.phantom import write as write_phantom
from workflow.data.prepare import Prepared, prepare
from workflow.data.splits import make_splits
from workflow.study import Dataset, Splits, Study, StudyError, load
from workflow.training import objective
from workflow.training.network import accelerator


def check(path: Path, overrides: dict | None = None) -> Iterator[str]:
    """Yields what is right about a study; raises ``StudyError`` or ``DataError`` where not.

    The data set is read in full (a phantom is generated) into a temporary folder.
    """
    study = load(path, overrides)
    runs = len(study.losses) * len(study.seeds)
    yield f"{path}: {len(study.losses)} losses x {len(study.seeds)} seeds = {runs} runs"
    folder = paths.results(path.stem)
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        raise StudyError(f"{existing}: not writable, the study's folder {folder} is made there")
    accelerator(study.training.accelerator)
    root = paths.raw(study.data())
    if study.dataset.source == "decathlon" and not root.exists():
        yield f"{root}: not there yet, {study.dataset.task} will be downloaded and then checked"
        return
    with tempfile.TemporaryDirectory() as temporary:
        if study.dataset.source == "phantom" and not root.exists():
            root = Path(temporary) / "phantom"
            write_phantom(study.dataset.phantom, root)
        data = read_dataset(study.dataset, root)
        names, lookup = classes_of(study.dataset, data)
        yield f"{root}: {len(data.cases)} cases, classes {', '.join(names)}"
        prepared = prepare(
            data, Path(temporary) / "prepared", names, lookup, study.training.patch_size
        )
        yield from (f"warning: {warning}" for warning in prepared.warnings)
        splits = split(study.splits, prepared)
        sizes = splits.drop_duplicates("subject")["split"].value_counts()
        yield "subjects: " + ", ".join(f"{sizes[name]} {name}" for name in sizes.index)
        losses_work(study)
        yield f"losses: all {len(study.losses)} have a value and a gradient on a trial batch"


def read_dataset(dataset: Dataset, root: Path) -> DataSet:
    """The data set of a study at ``root``, named as the study names it."""
    return dataclasses.replace(datasets.read(root, subject=dataset.subject), name=dataset.name)


def classes_of(dataset: Dataset, data: DataSet) -> tuple[tuple[str, ...], dict[int, int]]:
    """Class names and the class of each label value, merged as the study asks."""
    return datasets.merge_labels(data.labels, dataset.labels)


def losses_work(study: Study) -> None:
    """Tries every loss on a tiny batch, so that what would fail in every run fails now.

    Raises ``StudyError`` for the losses, ``DataError`` for a folder that cannot be read.
    """
    root = paths.raw(study.data())
    classes = 1 + len(CLASSES)
    if study.dataset.source != "phantom" and not root.exists():
        return  # downloaded first, or told when it is read; linting a study needs no data
    if study.dataset.source != "phantom":
        classes = len(classes_of(study.dataset, read_dataset(study.dataset, root))[0])
    objective.trial(study.losses, [1] * classes, study.training.patch_size)


def split(splits: Splits, prepared: Prepared) -> pd.DataFrame:
    """The split of each case; raises ``DataError`` when the study cannot be trained on it."""
    cases = [(case.name, case.subject, case.present) for case in prepared.cases]
    fractions = splits.model_dump(include={"train", "validation", "test"})
    return make_splits(cases, fractions, splits.seed, prepared.classes[1:])
