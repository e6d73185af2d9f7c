"""Everything that can be known to be wrong before training: the study, its data, its splits."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from workflow import paths
from workflow.data import dataset as datasets
from workflow.data import decathlon
from workflow.data.choices import Geometry
from workflow.data.dataset import DataSet
from workflow.data.phantom import CLASSES
from workflow.data.phantom import write as write_phantom
from workflow.data.prepare import Prepared, prepare
from workflow.data.splits import EXTERNAL, make_splits
from workflow.study import Data, Dataset, Splits, Study, StudyError, load
from workflow.training import objective
from workflow.training.limits import TimeOver, time_limit
from workflow.training.network import accelerator


def check(path: Path, overrides: dict | None = None) -> Iterator[str]:
    """Yields what is right about a study; raises ``StudyError`` or ``DataError`` where not.

    The data set is read in full (a phantom is generated) into a temporary folder.
    """
    study = load(path, overrides)
    yield f"{path}: {_size(study)}"
    resources = {paths.resources(d) for v in study.variants.values() for d in v.data_sets()}
    unfinished = (d for d in sorted(resources) if not (d / "prepared" / "prepared.json").is_file())
    unusable = map(_unusable, (paths.results(path.stem), *unfinished))
    if faults := dict.fromkeys(filter(None, unusable)):
        raise StudyError("\n".join(faults))
    accelerator(study.training.accelerator)
    with tempfile.TemporaryDirectory() as temporary:
        found: dict[str, Prepared | None] = {}
        for variant in study.variants.values():
            for data in variant.data_sets():
                if (name := paths.resources(data).name) not in found:
                    like = found[paths.resources(data.like).name] if data.like else None
                    if data.like and like is None:
                        continue  # told once that data which choose are not there yet
                    found[name] = yield from _prepared(data, Path(temporary) / name, like)
        ready = {name: prepared for name, prepared in found.items() if prepared is not None}
        if len(ready) < len(found):
            return
        for name, variant in study.variants.items():
            prepared = [ready[paths.resources(data).name] for data in variant.data_sets()]
            splits = split(variant.splits, *prepared)
            told = variant.run_settings(next(iter(variant.losses))).geometry(prepared[0])
            sizes = splits.drop_duplicates("subject")["split"].value_counts()
            where = f"{name}: " if name else ""
            yield f"{where}subjects: " + ", ".join(f"{sizes[n]} {n}" for n in sizes.index)
            yield f"{where}{_geometry(told, prepared[0])}"
        losses_work(study)
        yield f"losses: all {len(study.losses)} have a value and a gradient on a trial batch"


def _unusable(folder: Path) -> str:
    """Why a folder of the study cannot be made or written; empty if it can."""
    # a link that leads nowhere is there, and no folder can take its place
    existing = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if existing.is_dir() and os.access(existing, os.W_OK):
        return ""
    why = "not writable" if existing.is_dir() else "not writable, as it is no folder"
    return f"{existing}: {why}; {folder} is made there, correct it or work elsewhere"


def _geometry(geometry: Geometry, prepared: Prepared) -> str:
    def times(lengths: Iterable[object]) -> str:
        return " x ".join(map(str, lengths))

    choices = prepared.choices
    spacing = "as it is" if choices.spacing is None else f"{times(choices.spacing)} mm"
    steps = ", ".join(times(s) if isinstance(s, tuple) else str(s) for s in geometry.strides)
    return (
        f"preparation: spacing {spacing}, crop {choices.crop}, normalisation "
        f"{', '.join(choices.normalisation)}; patch {times(geometry.patch_size)}, strides {steps}"
    )


def _size(study: Study) -> str:
    if not study.arms:
        losses, seeds = len(study.losses), len(study.seeds)
        return f"{losses} losses x {seeds} seeds = {losses * seeds} runs"
    runs = sum(len(arm.losses) * len(arm.seeds) for arm in study.variants.values())
    return f"{len(study.arms)} arms, {runs} runs"


def _prepared(
    data: Data, folder: Path, like: Prepared | None
) -> Generator[str, None, Prepared | None]:
    """Yields what there is of a data set; the value of the generator is the prepared data set,
    None if it has yet to be downloaded."""
    root = paths.raw(data)
    if data.dataset.source == "decathlon":
        assert data.dataset.task is not None  # the model refuses a decathlon without it
        if not root.exists():
            yield f"{root}: not there yet, {data.dataset.task} will be downloaded and then checked"
            return None
        decathlon.fetch(data.dataset.task, root.parent)  # there already: held against its digests
    if data.dataset.source == "phantom" and not root.exists():
        root = folder / "phantom"
        write_phantom(data.dataset.phantom, root)
    read = read_dataset(data.dataset, root, incomplete=True)
    # names that only Snakemake minds are told with the other faults
    read = dataclasses.replace(read, faults=(*read.faults, *paths.misread(data)))
    names = classes_of(data.dataset, read)[0]
    yield f"{root}: {len(read.cases)} cases, classes {', '.join(names)}"
    prepared = prepare_data(
        data, read, folder / "prepared", like, jobs=os.cpu_count() or 1, write=False
    )
    yield from (f"warning: {warning}" for warning in prepared.warnings)
    return prepared


def read_dataset(dataset: Dataset, root: Path, incomplete: bool = False) -> DataSet:
    """The data set of a study at ``root``, named as the study names it.

    ``incomplete`` leaves the faults of single files to verification, which tells all of them.
    """
    found = datasets.read(root, subject=dataset.subject, incomplete=incomplete)
    return dataclasses.replace(found, name=dataset.name)


def classes_of(dataset: Dataset, data: DataSet) -> tuple[tuple[str, ...], dict[int, int]]:
    """Class names and the class of each label value, merged as the study asks."""
    return datasets.merge_labels(data.labels, dataset.labels)


def prepare_data(
    data: Data, read: DataSet, out: Path, like: Prepared | None = None, **options: Any
) -> Prepared:
    """Prepares a data set as its study asks; ``options`` are those of ``prepare``."""
    patch = None if data.patch_size == "auto" else data.patch_size
    names, lookup = classes_of(data.dataset, read)
    wishes = data.preparation.wishes()
    return prepare(read, out, names, lookup, patch, wishes, like, **options)


def losses_work(study: Study) -> None:
    """Tries every loss of every arm on a tiny batch: what would fail in every run fails now.

    Raises ``StudyError`` with one line for each loss, also for one that takes longer than the
    study's time limit, and ``DataError`` for a folder that cannot be read.
    """
    tried = set()
    limit = study.time_limit
    faults = []
    for arm in study.variants.values():
        root = paths.raw(arm.data())
        if arm.dataset.source != "phantom" and not root.exists():
            continue  # downloaded first, or told when it is read; linting a study needs no data
        classes = 1 + len(CLASSES)
        if arm.dataset.source != "phantom":
            classes = len(classes_of(arm.dataset, read_dataset(arm.dataset, root))[0])
        patch = arm.training.patch_size
        if patch == "auto":
            patch = (objective.TRIAL_SIDE,) * 3
        for label, loss in arm.losses.items():
            # arms share most of their losses
            if (key := (label, loss.model_dump_json(), classes, patch)) in tried:
                continue
            tried.add(key)
            try:
                with time_limit(limit and 60 * limit):
                    objective.trial({label: loss}, [1] * classes, patch)
            except TimeOver:
                faults.append(
                    f"losses.{label}: on a trial batch of {classes} classes: not finished within "
                    f"the study's time limit of {limit:g} minutes"
                )
            except StudyError as error:
                faults.append(str(error))
    if faults:
        raise StudyError("\n".join(faults))


def split(splits: Splits, prepared: Prepared, external: Prepared | None = None) -> pd.DataFrame:
    """The split of each case, those of an ``external`` test set last.

    Raises ``DataError`` when the study cannot be trained on it.
    """
    cases = [(case.name, case.subject, case.present) for case in prepared.cases]
    fractions = splits.model_dump(include={"train", "validation", "test"})
    table = make_splits(cases, fractions, splits.seed, prepared.classes[1:])
    if external is None:
        return table
    others = prepared.joined(external).cases[len(prepared.cases) :]
    rows = [(case.name, case.subject, EXTERNAL) for case in others]
    return pd.concat([table, pd.DataFrame(rows, columns=table.columns)], ignore_index=True)
