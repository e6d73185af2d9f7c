"""A changed key redoes what depends on it and nothing else, as `config/README.md` says.

What a step depends on is what the rules give it: the settings that the models sum up for it, and
what it depends on of the steps before. `tests/faults/test_redone_workflow.py` holds Snakemake to
the same table.
"""

import dataclasses
import re
from functools import cache
from pathlib import Path

import pytest
from pydantic import BaseModel

from workflow import paths
from workflow.study import Study
from workflow.study.keys import merge

README = Path(__file__).parent.parent / "config" / "README.md"
STEPS = ("data set", "splits", "trials", "runs")

PLACE = {"root": "here", "task": "Task04_Hippocampus"}
FIXED = {
    "dataset": {"source": "phantom", "name": "p", **PLACE},
    "external": {"source": "folder", "name": "q", **PLACE},
    "losses": {"dice_ce": {}, "dice": {}},
    "seeds": [1, 2],
}
TUNED = FIXED | {"tuning": {}}
RATED = FIXED | {"rates": {"dice_ce": 0.1, "dice": 0.2}}
ARMS = FIXED | {"arms": {"base": {}, "short": {"training": {"steps": 10}}}}

SOURCE = {
    "name": "other", "root": "elsewhere", "task": "Task02_Heart", "subject": ".",
    "labels": {"lesion": [1]}, "phantom.subjects": 30, "phantom.shape": [48, 48, 48],
    "phantom.spacing": 3.0, "phantom.seed": 1,
    "phantom.prevalence": {"edema": 0.5, "necrotic core": 0.5, "enhancing rim": 0.5},
    "phantom.lesions": [2, 3], "phantom.lesion_volume": 60.0, "phantom.lesion_spread": 0.3,
    "phantom.core_share": 0.3, "phantom.rim_thickness": 5.0, "phantom.irregularity": 0.4,
    "phantom.contrast": 0.9, "phantom.contrast_spread": 0.2, "phantom.texture": 0.05,
    "phantom.distractors": 2.0, "phantom.noise": 0.05, "phantom.bias": 0.1,
    "phantom.deformation": 3.0,
}  # fmt: skip
CHANGES = {
    "title": "Another", "experiment": "sgd", "time_limit": 5.0, "seeds": [1, 2, 3],
    "rates": {"dice": 0.3}, "losses": {"dice": {"batch": True}},
    "arms": {"wide": {"dataset": {"phantom": {"subjects": 30}}}},
    "dataset.source": "folder", "external.source": "decathlon",
    **{f"{name}.{key}": value for name in ("dataset", "external") for key, value in SOURCE.items()},
    "preparation.spacing": [2.0, 2.0, 2.0], "preparation.crop": "nonzero",
    "preparation.normalisation": "zscore", "preparation.patch_voxels": 4096,
    "splits.train": 0.4, "splits.validation": 0.15, "splits.test": 0.4, "splits.seed": 1,
    "network.channels": [8, 8, 8, 8], "network.strides": [2, 2, 1], "network.num_res_units": 0,
    "network.norm": "instance",
    "training.steps": 100, "training.batch_size": 1, "training.patch_size": [16, 32, 32],
    "training.foreground_share": 0.5, "training.flips": False, "training.intensity_jitter": 0.0,
    "training.optimizer": "sgd", "training.momentum": 0.9, "training.learning_rate": 0.01,
    "training.schedule": "polynomial", "training.weight_decay": 0.0,
    "training.output_bias": "class_frequencies", "training.validate_every": 50,
    "training.signals_every": 10, "training.accelerator": "cpu",
    "evaluation.window": [16, 32, 32], "evaluation.overlap": 0.5, "evaluation.nsd_tolerance": 1.0,
    "comparison.checkpoint": "last", "comparison.reference_loss": "dice",
    "comparison.confidence": 0.9, "comparison.margin": 0.05,
    "tuning.grid": [1e-3, 3e-3, 2e-2], "tuning.seed": 7, "tuning.steps": 40,
}  # fmt: skip
# the three fractions have the sum 1
ALONG = {
    "splits.train": ("splits.validation", 0.15),
    "splits.validation": ("splits.train", 0.4),
    "splits.test": ("splits.train", 0.5),
}
# studies in which a key is there, or decides; a study that tunes has all steps
WHERE = {"rates": RATED, "arms": ARMS, "training.learning_rate": FIXED}


def keys(section, prefix=""):
    """Every key below a section that is there."""
    fields = getattr(type(section), "model_fields", None)
    for name in fields or [field.name for field in dataclasses.fields(section)]:
        value = getattr(section, name)
        if isinstance(value, BaseModel) or dataclasses.is_dataclass(value):
            yield from keys(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def replaced(base, key, value):
    for name in reversed(key.split(".")):
        value = {name: value}
    return merge(base, value)


def changed(base, key):
    """The study with another value of this key."""
    study = replaced(base, key, CHANGES[key])
    return replaced(study, *ALONG[key]) if key in ALONG else study


def jobs(study):
    """For each step its jobs, as (what it is, what it depends on)."""
    found = {step: set() for step in STEPS}
    for name, arm in study.variants.items():
        data = [str(paths.resources(d)) for d in arm.data_sets()]
        found["data set"] |= {(folder, "") for folder in data}
        split = f"{data} {arm.splits.model_dump_json()}"
        found["splits"].add((name, split))
        for label in arm.losses:
            tried = ""
            if arm.tuning:
                trial = f"{arm.trial_settings(label).model_dump_json()} {arm.tuning.seed} {split}"
                found["trials"] |= {((label, rate), trial) for rate in arm.tuning.grid}
                tried = f"{trial} {arm.tuning.model_dump_json()}"
            run = f"{arm.run_settings(label).model_dump_json()} {split} {tried}"
            home = study.home(name, label)
            found["runs"] |= {
                ((home, label, seed), f"{paths.run(arm, label, seed)} {run}") for seed in arm.seeds
            }
    return found


def redone(base, other):
    """For each step the jobs of the other study that the first has not done, and all jobs."""
    before, after = (jobs(Study.model_validate(study)) for study in (base, other))
    return {step: (after[step] - before[step], after[step]) for step in STEPS}


def how_many(new, everything):
    return "none" if not new else "all" if new == everything else "some"


def documented(key):
    """What the table of the docs says of a key or of its section: for each step none, all, some."""
    names = key.split(".")
    sections = [".".join(names[:length]) for length in range(len(names), 0, -1)]
    table = _table()
    return next(table[section] for section in sections if section in table)


@cache
def _table():
    text = README.read_text().partition("## What a change redoes")[2]
    rows = [line[1:-1].split("|") for line in text.splitlines() if line.startswith("| `")]
    return {
        key: dict(zip(STEPS, map(_amount, cells), strict=True))
        for names, *cells in rows
        for key in re.findall(r"`([\w.]+)`", names)
    }


def _amount(cell):
    return "none" if not cell.strip() else "all" if cell.split()[0].startswith("all") else "some"


def test_the_changes_are_of_every_key_there_is():
    assert set(keys(Study.model_validate(TUNED))) == set(CHANGES)


@pytest.mark.parametrize("key", CHANGES)
def test_a_key_redoes_what_the_docs_say(key):
    base = WHERE.get(key, TUNED)
    other = changed(base, key)
    found = {step: how_many(*jobs) for step, jobs in redone(base, other).items()}
    assert found == documented(key)
    old, new = (Study.model_validate(study).as_yaml() for study in (base, other))
    assert old != new  # tables, figures and report are made from it


@pytest.mark.parametrize("base", [TUNED, RATED], ids=["tuned", "rated"])
def test_the_common_rate_redoes_nothing_where_each_loss_has_its_own(base):
    steps = redone(base, replaced(base, "training.learning_rate", 0.01))
    assert not any(new for new, _ in steps.values())


def test_a_study_that_begins_to_tune_repeats_no_split():
    steps = redone(FIXED, TUNED)
    assert {step: how_many(*jobs) for step, jobs in steps.items()} == {
        "data set": "none", "splits": "none", "trials": "all", "runs": "all",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("base", "key", "value", "trained"),
    [
        (FIXED, "losses", {"dice": {"batch": True}}, {("", "dice", 1), ("", "dice", 2)}),
        (FIXED, "losses", {"focal": {}}, {("", "focal", 1), ("", "focal", 2)}),
        (FIXED, "seeds", [2, 5], {("", "dice_ce", 5), ("", "dice", 5)}),
        (FIXED, "seeds", [2], set()),
        (RATED, "rates", {"dice": 0.3}, {("", "dice", 1), ("", "dice", 2)}),
        (ARMS, "training.steps", 20, {("base", x, s) for x in ("dice_ce", "dice") for s in (1, 2)}),
        (ARMS, "arms.short.training.steps", 20,
         {("short", x, s) for x in ("dice_ce", "dice") for s in (1, 2)}),
        (ARMS, "arms.short.seeds", [2, 3], {("short", "dice_ce", 3), ("short", "dice", 3)}),
        (ARMS, "arms.twin", {"losses": ["dice"], "comparison": {"reference_loss": "dice"}}, set()),
    ],
)  # fmt: skip
def test_exactly_the_runs_that_are_affected(base, key, value, trained):
    new, _ = redone(base, replaced(base, key, value))["runs"]
    assert {run for run, _ in new} == trained
