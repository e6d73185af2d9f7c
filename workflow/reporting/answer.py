"""The first screen: the question answered in plain words, and the table that shows it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from workflow.reporting import evidence, text
from workflow.reporting.failures import Missing
from workflow.reporting.study_tables import Study
from workflow.reporting.wording import count, estimate, readable, shortened

NAMED, BROKEN = 10, 4  # losses that a sentence names before it counts the rest


@dataclass(frozen=True)
class Answer:
    """What is answered, in two or three words, and the answer."""

    about: str
    told: str


def answers(study: Study, missing: Sequence[Missing]) -> list[Answer]:
    """What survived, what did not, what correcting gains, and how sure this is."""
    told = [
        Answer("Safe here", _safe(study)),
        Answer("Collapsed", _collapsed(study)),
        Answer("Correcting Generalized Dice", text.verdict(study)[1]),
        Answer("How sure", _sure(study)),
    ]
    if missing:
        runs = sum(len(entry.seeds) for entry in missing)
        told.insert(0, Answer("Preliminary", f"{count(runs, 'run')} of the study "
                                             f"{'is' if runs == 1 else 'are'} missing, and what "
                                             "follows may change with them."))  # fmt: skip
    return told


def safe(study: Study) -> list[str]:
    """Losses of which no recorded run lost a class, diverged or failed, best first."""
    if study.runs.empty:
        return []
    return [label for label in study.losses if _worst(study, label) == "none"]


def _worst(study: Study, label: str) -> str:
    """The worst outcome of a loss's runs; empty without a run."""
    rows = study.runs_of(label)
    found = {study.outcome(run) for _, run in rows.iterrows()}
    order = ("diverged", "total", "partial", "failed", "none")
    return next((outcome for outcome in order if outcome in found), "")


def _safe(study: Study) -> str:
    if study.runs.empty:
        return "No run has been recorded, so nothing can be said."
    labels = safe(study)
    losses = count(len(study.losses), "loss", "losses")
    where = f" on {study.dataset_name}" if study.dataset_name else ""
    if not labels:
        return f"None of the {losses} kept every class in every run{where}."
    told = (
        f"{len(labels)} of {losses} kept every class in every run{where}: "
        f"{shortened([readable(label) for label in labels], NAMED)}."
    )
    scores = [row for row in map(study.row, labels) if row is not None]
    scores = [row for row in scores if math.isfinite(row["mean_dice"])]
    if not scores:
        return told
    first, last = scores[0], scores[-1]
    best = estimate(first["mean_dice"], first["mean_dice_low"], first["mean_dice_high"])
    told += f" The highest mean Dice of them is {best} ({readable(first['loss'])})"
    if len(scores) > 1:
        told += f", the lowest {text.number(last['mean_dice'])} ({readable(last['loss'])})"
    return f"{told}."


def _collapsed(study: Study) -> str:
    """Losses by how often they broke down; those that do so in most runs by name."""
    mostly: list[str] = []
    whole: list[str] = []
    sometimes: list[str] = []
    for label in study.losses:
        runs = study.runs_of(label)
        outcomes = [study.outcome(run) for _, run in runs.iterrows()]
        outcomes = [outcome for outcome in outcomes if outcome != "failed"]
        everything = sum(outcome in ("total", "diverged") for outcome in outcomes)
        broken = sum(outcome != "none" for outcome in outcomes)
        if 2 * everything > len(outcomes):
            whole.append(readable(label))
        elif 2 * broken > len(outcomes):
            mostly.append(readable(label))
        elif broken:
            sometimes.append(readable(label))
    told = [
        f"{count(len(names), 'loss', 'losses')} {what}: {shortened(names, BROKEN)}."
        for names, what in (
            (whole, "learnt nothing (every class lost, or diverged) in most runs"),
            (mostly, "lost a class in most runs"),
            (sometimes, "lost a class in some runs"),
        )
        if names
    ]
    if told:
        return " ".join(told)
    return "No run lost a class." if len(study.runs) else "No run has been recorded."


def _sure(study: Study) -> str:
    return f"{text.status_line(study)} {text.ranking_notes(study)} {evidence.detectable(study)}"


def glance(study: Study) -> list[dict[str, Any]]:
    """A row for each loss: in how many of its scored runs each class was kept, and mean Dice."""
    rows = []
    for label in study.losses:
        runs = study.runs_of(label)
        lost = [study.lost_classes(run) for _, run in runs.iterrows() if run["status"] != "failed"]
        kept = {name: sum(name not in classes for classes in lost) for name in study.classes}
        rows.append({
            "loss": label, "runs": len(lost), "kept": kept,
            "tones": {name: _tone(amount, len(lost)) for name, amount in kept.items()},
            "score": _score(study.row(label)),
        })  # fmt: skip
    return rows


def _tone(kept: int, runs: int) -> str:
    if not runs:
        return "unknown"
    return "kept" if kept == runs else "lost" if kept == 0 else "mixed"


def _score(row: pd.Series | None) -> dict[str, Any]:
    names = ("mean_dice", "mean_dice_low", "mean_dice_high")
    if row is None:
        return {**dict.fromkeys(names, math.nan), "tier": "failed"}
    return {**{name: row[name] for name in names}, "tier": row["tier"]}


def glance_title(study: Study) -> str:
    """What the table of the first screen shows, as a sentence."""
    if study.runs.empty:
        return "No run has been recorded"
    return (
        f"{text.collapse_title(study)}; {len(safe(study)) or 'no'} of "
        f"{count(len(study.losses), 'loss', 'losses')} kept every class in every run"
    )
