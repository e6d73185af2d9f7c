"""What the project's paper tells of real patients, from the studies and tables of the reference."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from workflow import files
from workflow.reporting import across, paper_text, text
from workflow.reporting.study_tables import Study, read_study
from workflow.reporting.wording import (
    count,
    estimate,
    interval,
    listing,
    number,
    p_value,
    percent,
    readable,
)

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
    """Those that have tables in ``folder``; the paper's own study may have a longer one as well."""
    names = {name: name for name in STUDIES}
    names |= {LONGER.format(name): name for name in (paper_text.PROJECT, *STUDIES)}
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
        "real_alike": [*presence(patients.studies), *alike(patients, study)],
        "real_headline": headline(patients, study),
        "real_limits": limits(patients, study),
        "longer": longer(study, patients.longer.get(study.name)),
        "rescued": rescued(patients, study),
        "breadth": paper_text.breadth(
            [study.dataset_name, *(STUDIES[name] for name in patients.studies)]
        ),
    }


def beside(patients: Patients, study: Study) -> dict[str, Study]:
    """The paper's own study and those of patients, as the paper calls them."""
    return {OWN: study} | {STUDIES[name]: its for name, its in patients.studies.items()}


def headline(patients: Patients, study: Study) -> str:
    """What the abstract says of patients."""
    if not patients.studies:
        return ""
    forms = {STUDIES[name]: paper_text.forms(its) for name, its in patients.studies.items()}
    amounts = [f"{lost or 'none'} of {whole} on {name}" for name, (lost, whole) in forms.items()]
    lost = listing(amounts) if any(lost for lost, _ in forms.values()) else "none"
    where = ", where every case has every class," if _complete(patients.studies.values()) else ""
    both = beside(patients, study)
    told = (
        f"On data of patients ({listing(forms)}){where} {lost} of the forms of Generalized Dice "
        "lost a class in most runs."
        if all(whole for _, whole in forms.values())
        else f"{across.title(both, across.safe_in(both))}."
    )
    return f"{told} {verdict(patients, study)}".strip()


def verdict(patients: Patients, study: Study) -> str:
    """Does the order of the paper's own data hold on patients? "" where none can be compared."""
    return _verdict(_pairs(patients, "mean_dice", study.name), study)


def limits(patients: Patients, study: Study) -> str:
    """What the data of patients cannot show: their classes are larger, and none is missing."""
    studies = patients.studies
    if not studies:
        return ""
    shares = sorted(
        float(sizes.loc[sizes["class"] == its.rarest, "voxel_fraction"].iloc[0])
        for its in studies.values()
        if len(sizes := its.class_sizes("train"))
    )
    told = []
    if shares:
        low, high = (percent(share, 1) for share in (shares[0], shares[-1]))
        size = low if low == high else f"{low} to {high}"
        own = study.class_sizes("train")
        rare = own.loc[own["class"] == study.rarest, "voxel_fraction"] if len(own) else own
        here = f" ({percent(rare.iloc[0], 2)} on the {OWN})" if len(rare) else ""
        whole = _complete(studies.values())
        missing = ", and no case lacks it, so that absence is not tested there" if whole else ""
        told.append(f"On patients the rarest class fills {size} of the voxels{here}{missing}.")
    shared = sum(label in study.losses for label in across.shared(studies))
    if shared < len(study.losses):
        told.append(
            f"Of the {len(study.losses)} losses {shared} were trained there: beside the common "
            "ones, the forms of Generalized Dice, on which the question turned; the others were "
            "left out for the budget."
        )
    return " ".join(told)


def _complete(studies: Iterable[Study]) -> bool:
    """Whether every training case of all of them has every class."""
    sizes = [study.class_sizes("train") for study in studies]
    return all(len(table) and (table["prevalence"] == 1).all() for table in sizes)


def told(study: Study) -> list[str]:
    """What a study of patients found."""
    trials = (study.config.get("tuning") or {}).get("steps")
    budget = f"Each run has {study.steps:,} steps" if study.steps else ""
    if study.steps and trials:
        budget += f", its learning rate chosen in trials of {trials:,}"
    sentences = [
        f"{budget}." if budget else "",
        paper_text.rising(study),
        paper_text.fate(study),
        paper_text.leaders(study),
        *paper_text.corrections(study),
    ]
    return [sentence for sentence in sentences if sentence]


def presence(studies: Mapping[str, Study]) -> list[str]:
    """What became of the published Generalized Dice where no case lacks a class."""
    whole = {STUDIES[name]: its for name, its in studies.items() if _complete([its])}
    told = []
    for label, words in (
        (WRITTEN, "Generalized Dice as written, whose defect is the weight of an absent class,"),
        (GRAPH, "what the graph executes"),
    ):
        fates: dict[str, list[str]] = {}
        for name, its in whole.items():
            if (row := its.row(label)) is not None:
                fates.setdefault(_fate(row), []).append(name)
        if fates:
            found = [
                f"{fate}{' each' if len(names) > 1 else ''} ({listing(names)})"
                for fate, names in fates.items()
            ]
            told.append(f"{words} {listing(found)}")
    return [f"Where every case has every class, {'; '.join(told)}."] if told else []


def _lost(row: pd.Series) -> int:
    """Runs that collapsed, diverged ones among them, or failed."""
    return int(row["collapsed"] + row["failed"])


def _fate(row: pd.Series) -> str:
    lost, runs = _lost(row), count(int(row["runs"]), "run")
    return f"lost a class in {lost} of {runs}" if lost else f"kept every class in {runs}"


def longer(study: Study, other: Study | None) -> list[str]:
    """What more steps do to the losses that both studies have: lost classes and mean Dice."""
    if other is None:
        return []
    pairs = [
        (readable(label), before, after)
        for label in other.losses
        if (before := study.row(label)) is not None and (after := other.row(label)) is not None
    ]
    if not pairs or not other.steps:
        return []
    lost = [
        f"{name} ({_lost(after)} of {count(int(after['runs']), 'run')})"
        for name, _, after in pairs
        if _lost(after)
    ]
    amount = f"{len(lost) or 'none'} of {count(len(pairs), 'loss', 'losses')}"
    once = sum(_lost(before) > 0 for _, before, _ in pairs) or "none"
    scores = [
        f"{name} {_score(after)} (before: {number(before['mean_dice'])})"
        for name, before, after in pairs
    ]
    return [
        f"With {other.steps:,} steps {amount} lost a class in some run (before: {once})"
        f"{f': {listing(lost)}' if lost else ''}.",
        f"Mean Dice is then: {listing(scores)}.",
    ]


def rescued(patients: Patients, study: Study) -> str:
    """Losses that lost a class in some run and in none of those with more steps."""
    studies = {study.name: (OWN, study)}
    studies |= {name: (STUDIES[name], its) for name, its in patients.studies.items()}
    told = []
    for key, other in patients.longer.items():
        if key not in studies:
            continue
        name, its = studies[key]
        kept = [
            readable(label)
            for label in other.losses
            if (before := its.row(label)) is not None and _lost(before)
            and (after := other.row(label)) is not None and not _lost(after)
        ]  # fmt: skip
        if kept and other.steps:
            told.append(f"{listing(kept)} on {name} ({other.steps:,} steps)")
    return f"That was so for {listing(told)}." if told else ""


def _pairs(patients: Patients, endpoint: str, own: str = "") -> list[dict[str, Any]]:
    """The pairs of studies that can be compared by an endpoint; with ``own``, those of that one."""
    return [
        row
        for row in patients.stability.to_dict("records")
        if row["endpoint"] == endpoint
        and math.isfinite(row["kendall_tau"])
        and own in (row["study"], row["other"], "")
    ]


def alike(patients: Patients, study: Study) -> list[str]:
    """Whether the order of the losses on the paper's own data holds on patients."""
    own = study.name
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
    return [*found, _verdict(_pairs(patients, "mean_dice", own), study)] if found else []


def _verdict(pairs: list[dict[str, Any]], study: Study) -> str:
    """Does the order of the paper's own data hold, by Kendall's test with each of the others?"""
    if not pairs:
        return ""
    firm = [row for row in pairs if row["p"] < 1 - study.confidence]
    taus = listing(number(row["kendall_tau"]) for row in pairs)
    tested = f"Kendall's tau {taus}, p {listing(p_value(row['p']) for row in pairs)}"
    if turned := sum(row["kendall_tau"] < 0 for row in firm):
        return f"The order of the phantom is turned round in {turned} of {len(pairs)} ({tested})."
    if len(firm) < len(pairs):
        where = " on each of them" if firm else ""
        return f"The order of the phantom is not shown to hold{where} ({tested})."
    same = all(row["kendall_tau"] == 1 for row in pairs)
    return f"The order of the phantom holds{'' if same else ' in part'} ({tested})."


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
