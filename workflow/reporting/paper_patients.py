"""What the project's paper tells of real patients, from the studies and tables of the reference."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from workflow import files
from workflow.reporting import across, paper_text, text
from workflow.reporting.study_tables import Study, read_study
from workflow.reporting.wording import count, estimate, interval, listing, number, readable

# what the paper calls the studies
STUDIES = {"acdc": "ACDC", "hippocampus": "Hippocampus"}
OWN = "phantom"
LONGER = "{}_long"
WRITTEN, GRAPH = "published_generalized_dice_written", "published_generalized_dice_graph"
ACROSS = "across"
"""Folder of ``compare`` over the paper's study and those of patients."""
ENDPOINTS = {"mean_dice": "mean Dice", "rarest_dice": "the Dice of the rarest class"}


@dataclass(frozen=True)
class Patients:
    """The studies of real patients, the same with more steps, and how alike all studies rank."""

    studies: dict[str, Study] = field(default_factory=dict)
    longer: dict[str, Study] = field(default_factory=dict)
    stability: pd.DataFrame = field(default_factory=pd.DataFrame)


def read(folder: Path) -> Patients:
    """Those that have tables in ``folder``."""
    names = {name: name for name in STUDIES} | {LONGER.format(name): name for name in STUDIES}
    found = {
        name: read_study(folder / name)
        for name in names
        if (folder / name / "tables" / "summary.csv").is_file()
    }
    return Patients(
        {name: study for name, study in found.items() if name in STUDIES},
        {names[name]: study for name, study in found.items() if name not in STUDIES},
        files.read_table(folder / ACROSS / "tables" / "stability.csv"),
    )


def statements(patients: Patients, study: Study) -> dict[str, object]:
    """The part of the paper's statements that speaks of patients; ``study``: the paper's own."""
    return {
        "real": [
            {
                "name": STUDIES[name],
                "data": paper_text.data(its),
                "said": told(its) + longer(its, patients.longer.get(name)),
                "size": text.ranking_notes(its),
                "rarest": its.rarest,
            }
            for name, its in patients.studies.items()
        ],
        "real_rows": rows(patients.studies),
        "real_alike": alike(patients, study.name),
        "real_headline": headline(patients, study),
        "breadth": paper_text.breadth(
            [study.dataset_name, *(STUDIES[name] for name in patients.studies)]
        ),
    }


def beside(patients: Patients, study: Study) -> dict[str, Study]:
    """The paper's own study and those of patients, as the paper calls them."""
    return {OWN: study} | {STUDIES[name]: its for name, its in patients.studies.items()}


def headline(patients: Patients, study: Study) -> str:
    """What the abstract says of patients."""
    studies = beside(patients, study)
    if len(studies) < 2:
        return ""
    taus = [number(row["kendall_tau"]) for row in _pairs(patients, "mean_dice", study.name)]
    agree = f" Kendall's tau with the order on the phantom is {listing(taus)}." if taus else ""
    title = across.title(studies)
    return (
        f"With {listing([*studies][1:])}, data of patients, {title[0].lower()}{title[1:]}.{agree}"
    )


def told(study: Study) -> list[str]:
    """What a study of patients found."""
    steps = (study.config.get("training") or {}).get("steps")
    budget = [f"Each run has {steps:,} steps."] if steps else []
    return [
        *budget,
        paper_text.fate(study),
        paper_text.leaders(study),
        paper_text.generalized(study),
        *paper_text.corrections(study),
        presence(study),
    ]


def presence(study: Study) -> str:
    """What became of the published Generalized Dice where no case lacks a class."""
    written, graph = study.row(WRITTEN), study.row(GRAPH)
    sizes = study.class_sizes("train")
    if written is None or sizes.empty or (sizes["prevalence"] < 1).any():
        return ""
    fate = (
        "Every case has every class, so that the defect of Generalized Dice as written, the weight "
        f"of a class that is absent, has little to act on: it {_fate(written)}."
        if not _lost(written)
        else f"Every case has every class, and Generalized Dice as written still {_fate(written)}."
    )
    return fate if graph is None else f"{fate} What the graph executes {_fate(graph)}."


def _lost(row: pd.Series) -> int:
    """Runs that collapsed, diverged ones among them, or failed."""
    return int(row["collapsed"] + row["failed"])


def _fate(row: pd.Series) -> str:
    lost, runs = _lost(row), count(int(row["runs"]), "run")
    return (
        f"lost a class or broke down in {lost} of {runs}" if lost else f"kept every class in {runs}"
    )


def longer(study: Study, other: Study | None) -> list[str]:
    """What more steps do to the losses that both studies have."""
    if other is None:
        return []
    parts = []
    for label in other.losses:
        before, after = study.row(label), other.row(label)
        if before is None or after is None:
            continue
        caveat = f"; it {_fate(after)}" if _lost(after) else ""
        before_that = number(before["mean_dice"])
        parts.append(f"{readable(label)} reaches {_score(after)} (before: {before_that}{caveat})")
    steps = (other.config.get("training") or {}).get("steps")
    return [f"With {steps:,} steps {listing(parts)}."] if parts and steps else []


def _pairs(patients: Patients, endpoint: str, own: str = "") -> list[dict[str, Any]]:
    """The pairs of studies that can be compared by an endpoint; with ``own``, those of that one."""
    return [
        row
        for row in patients.stability.to_dict("records")
        if row["endpoint"] == endpoint
        and math.isfinite(row["kendall_tau"])
        and own in (row["study"], row["other"], "")
    ]


def alike(patients: Patients, own: str) -> list[str]:
    """Whether the order of the losses on the paper's own data holds on patients."""
    names = {own: f"the {OWN}"} | STUDIES
    found = []
    for endpoint, words in ENDPOINTS.items():
        parts = [
            f"{number(row['kendall_tau'])} {interval(row['low'], row['high'])} between "
            f"{names[row['study']]} and {names[row['other']]} "
            f"({count(int(row['losses']), 'loss', 'losses')})"
            for row in _pairs(patients, endpoint)
            if {row["study"], row["other"]} <= set(names)
        ]
        if parts:
            found.append(f"Kendall's tau by {words} is {listing(parts)}.")
    return [*found, _verdict(_pairs(patients, "mean_dice", own))] if found else []


def _verdict(pairs: list[dict[str, Any]]) -> str:
    """Does the order of the paper's own data hold, by Kendall's tau with each of the others?"""
    if not pairs:
        return ""
    above = sum(row["low"] > 0 for row in pairs)
    if above == len(pairs):
        return (
            "So the order of the phantom holds in part: every interval with it lies above zero, "
            "and none of the orders is the same."
            if all(row["kendall_tau"] < 1 for row in pairs)
            else "So the order of the phantom holds: every interval with it lies above zero."
        )
    if below := sum(row["high"] < 0 for row in pairs):
        return f"So the order of the phantom is turned round in {below} of {len(pairs)}."
    return (
        f"So the order of the phantom is not shown to hold: {len(pairs) - above} of {len(pairs)} "
        "intervals with it include zero."
    )


def rows(studies: dict[str, Study]) -> list[list[str]]:
    """A row a loss: its name and, for each study, mean Dice, rarest class and lost runs."""
    labels = list(dict.fromkeys(label for study in studies.values() for label in study.losses))
    table = []
    for label in labels:
        cells = [readable(label)]
        for study in studies.values():
            row = study.row(label)
            cells += ["–", "–", "–"] if row is None else [
                _score(row), _score(row, "rarest_dice"),
                f"{_lost(row)}/{int(row['runs'])}",
            ]  # fmt: skip
        table.append(cells)
    return table


def _score(row: pd.Series, name: str = "mean_dice") -> str:
    return estimate(*(row[f"{name}{end}"] for end in ("", "_low", "_high")))
