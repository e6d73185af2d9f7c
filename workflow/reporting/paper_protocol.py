"""What the paper says of how a study was run: network, training, learning rates, provenance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from workflow import files
from workflow.reporting.study_tables import Study
from workflow.reporting.wording import count, listing, number, percent

TOLD = ("python", "torch", "monai", "numpy", "scipy", "snakemake")
OPTIMISERS = {"adamw": "AdamW", "sgd": "stochastic gradient descent"}
SCHEDULES = {"one_cycle": "a one-cycle schedule", "polynomial": "a polynomial decay"}
CLIPPED = "percentiles"
"""The normalisation that clips, and that of a study that names none."""


def methods(study: Study) -> list[str]:
    """Network and training, only what the tables and settings hold."""
    training, network, evaluation = (
        study.config.get(key) or {} for key in ("training", "network", "evaluation")
    )
    told = [_network(network), _images(study), _run(study, training), *_patches(training)]
    if "optimizer" in training:
        name = OPTIMISERS.get(training["optimizer"], training["optimizer"])
        decay = f" with a weight decay of {training['weight_decay']:g}"
        schedule = SCHEDULES.get(training["schedule"], training["schedule"])
        told.append(f"The optimiser is {name}{decay} under {schedule}.")
    if "validate_every" in training:
        every = f"Validation cases are predicted every {training['validate_every']} steps"
        tolerance = evaluation.get("nsd_tolerance")
        surface = f"; surface Dice has a tolerance of {tolerance:g} mm" if tolerance else ""
        told.append(f"{every}{surface}.")
    return [sentence for sentence in told if sentence]


def _network(network: dict[str, Any]) -> str:
    if "channels" not in network:
        return ""
    parts = [f"{listing(map(str, network['channels']))} channels"]
    if units := network.get("num_res_units"):
        parts.append(f"{count(units, 'residual unit')} a level")
    if "norm" in network:
        parts.append(f"{network['norm']} normalisation")
    return f"Every loss trains the same U-Net ({', '.join(parts)})."


def _images(study: Study) -> str:
    """Size and spacing of the images that are drawn; those of a folder have many."""
    dataset = study.config.get("dataset") or {}
    drawn = dataset.get("phantom") or {}
    if dataset.get("source") != "phantom" or not {"shape", "spacing"} <= set(drawn):
        return ""
    clipped = clips(study.config)
    return (
        f"Images have {_size(drawn['shape'])} voxels of {drawn['spacing']:g} mm and are "
        f"standardised{' after clipping' if clipped else ' without clipping'}."
    )


def clips(config: dict[str, Any]) -> bool:
    """Whether a study or an arm clips extreme intensities."""
    return (config.get("preparation") or {}).get("normalisation", CLIPPED) == CLIPPED


def _run(study: Study, training: dict[str, Any]) -> str:
    if "steps" not in training:
        return ""
    batch = f" of {count(training['batch_size'], 'patch', 'patches')}" if "batch_size" in training \
        else ""  # fmt: skip
    size = training.get("patch_size")
    voxels = f" of {_size(size)} voxels" if batch and isinstance(size, list) else ""
    rates = study.runs["learning_rate"].dropna() if len(study.runs) else pd.Series(dtype=float)
    rate = ""
    if rates.nunique() == 1:
        rate = f" at a peak learning rate of {rates.iloc[0]:g}"
    elif len(rates):
        rate = " at the peak learning rate of its loss"
    return f"A run takes {training['steps']:,} steps{batch}{voxels}{rate}."


def _patches(training: dict[str, Any]) -> list[str]:
    told = []
    if "foreground_share" in training:
        told.append(f"of the patches {percent(training['foreground_share'])} are centred on "
                    "foreground")  # fmt: skip
    changes = ["flipped at random"] if training.get("flips") else []
    if jitter := training.get("intensity_jitter"):
        changes.append(f"scaled and shifted in intensity by up to {percent(jitter)}")
    if changes:
        told.append(f"all are {listing(changes)}" if told else f"patches are {listing(changes)}")
    sentence = "; ".join(told)
    return [f"{sentence[0].upper()}{sentence[1:]}."] if sentence else []


def _size(shape: Sequence[int]) -> str:
    return " × ".join(str(length) for length in shape)


# Learning rates


def tuning(study: Study, trials: pd.DataFrame) -> list[str]:
    """The grid, the trials and what they chose; ``trials``: of the study's losses, and others."""
    rows = trials[trials["loss"].isin(study.losses)] if len(trials) else trials
    if rows.empty:
        return []
    widened, chosen = (rows[name].astype(bool) for name in ("widened", "chosen"))
    grid = listing(f"{rate:g}" for rate in sorted(rows.loc[~widened, "learning_rate"].unique()))
    losses = rows["loss"].nunique()
    further = rows.loc[widened, "loss"].nunique()
    wider = f", widened by one step where the best was at an end ({further} of {losses} losses)"
    picked = rows.loc[chosen, "learning_rate"]
    told = [
        f"The rates are from the grid {grid}{wider if further else ''}; chosen were "
        f"{picked.min():g} to {picked.max():g}."
    ]
    seeds = sorted(rows["seed"].unique())
    fresh = not set(seeds) & (set(study.runs["seed"]) if len(study.runs) else set())
    told.append(
        f"A trial has {int(rows['steps'].max()):,} steps and "
        f"{count(len(seeds), 'seed')} ({listing(map(str, seeds))}"
        f"{', which no reported run uses' if fresh else ''})."
    )
    return told


def noisy(study: Study, trials: pd.DataFrame) -> str:
    """The caveat of rates that were chosen by one run each."""
    rows = trials[trials["loss"].isin(study.losses)] if len(trials) else trials
    if rows.empty or rows["seed"].nunique() > 1:
        return ""
    return "Each rate was tried with one seed: which of two near ones is chosen may be chance."


# Provenance


def provenance(study: Study) -> list[str]:
    """Versions, machine and commits behind the tables."""
    found = study.environment
    told = []
    versions = [f"{name} {found[name]}" for name in TOLD if found.get(name)]
    if versions:
        machine = f" on {found['processor']}" if found.get("processor") else ""
        told.append(f"The tables of this study were written with {listing(versions)}{machine}.")
    if made := commits(study.runs):
        noun = "commit" if len(made) == 1 else "commits"
        told.append(f"Its runs were made at {noun} {listing(made)}.")
    hours = study.cost["core_hours"].sum() if len(study.cost) else 0
    if hours > 0:
        told.append(f"They took {number(hours, 1)} core hours.")
    if found.get("written"):
        told.append(f"The tables were last computed on {str(found['written'])[:10]}.")
    return told


def commits(runs: pd.DataFrame) -> list[str]:
    """The commits that made the runs, cut to what people write."""
    known = set(runs["commit"].dropna()) - {""} if "commit" in runs else set()
    return sorted(str(commit)[:10] for commit in known)


def elsewhere(study: Study, folder: Path | None) -> str:
    """That the runs at one rate were made by other code than those of the study, if they were."""
    runs = files.read_table(folder / "fixed_rate" / "tables" / "runs.csv") if folder else study.runs
    other = set(commits(runs)) - set(commits(study.runs))
    if not other:
        return ""
    return (
        f"The runs at one rate were made at another commit ({listing(sorted(other))}), so that "
        "what the code changed in between is part of the comparison."
    )


def licence(citation: Path) -> str:
    """The licence that the project's entry for citations names; "" without one."""
    if not citation.is_file():
        return ""
    return str(yaml.safe_load(citation.read_text(encoding="utf-8")).get("license") or "")
