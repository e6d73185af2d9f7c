"""What went wrong and what is missing: runs that failed, diverged, collapsed or were not made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from workflow.reporting.study_tables import FLOOR, Study
from workflow.reporting.wording import count, listing, readable

ORDER = ("failed", "diverged", "total", "partial")
LOGGED = ("failed", "diverged")
LINES, CHARACTERS = 20, 4000  # of a log, from its end
DIGITS = 1e-3  # relative: tables of experiments keep four digits of a rate, names of logs all

Logs = Callable[[str, str], Path]
"""Arm and loss -> folder of the logs of its runs."""


@dataclass(frozen=True)
class Missing:
    """Seeds of a loss for which the study has no run yet."""

    loss: str
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Gap:
    """In each of these arms, these seeds of each of these losses have no run."""

    arms: tuple[str, ...]
    losses: tuple[str, ...]
    seeds: tuple[int, ...]
    all_losses: bool
    """Whether the arms have no other loss."""

    @property
    def runs(self) -> int:
        return len(self.arms) * len(self.losses) * len(self.seeds)


def gaps(config: Mapping[str, Any], runs: pd.DataFrame) -> list[Gap]:
    """The runs that an experiment's resolved study plans and its tables do not have.

    Losses of an arm that lack the same seeds stand together, and so do arms with the same gap.
    """
    known = set(zip(runs["arm"], runs["loss"], runs["seed"].astype(int), strict=True))
    found: dict[tuple, list[str]] = {}
    for arm, (losses, seeds) in _plan(config).items():
        lacking: dict[tuple[int, ...], list[str]] = {}
        for loss in losses:
            without = tuple(seed for seed in seeds if (arm, loss, seed) not in known)
            if without:
                lacking.setdefault(without, []).append(loss)
        for without, of_losses in lacking.items():
            gap = (tuple(of_losses), without, len(of_losses) == len(losses))
            found.setdefault(gap, []).append(arm)
    return [Gap(tuple(arms), *gap) for gap, arms in found.items()]


def _plan(config: Mapping[str, Any]) -> dict[str, tuple[list[str], list[int]]]:
    """Losses and seeds of every arm: of a study without arms, of the only one."""
    plan = {}
    for arm, changes in (config["arms"] or {"": {}}).items():
        own = changes.get("losses", {})
        # a list chooses from the study's losses, a mapping changes some or adds others
        losses = own if isinstance(own, list) else dict.fromkeys([*config["losses"], *own])
        seeds = changes.get("seeds", config["seeds"])
        plan[arm] = [str(loss) for loss in losses], [int(seed) for seed in seeds]
    return plan


def missing(study: Study) -> list[Missing]:
    """The runs that the configuration asks for and the tables do not have."""
    runs = study.runs
    known = set(zip(runs["loss"], runs["seed"].astype(int), strict=True)) if len(runs) else set()
    seeds = [int(seed) for seed in study.config.get("seeds") or ()]
    losses = [label for label in study.config.get("losses") or () if label != FLOOR]
    gaps = [
        Missing(label, tuple(seed for seed in seeds if (label, seed) not in known))
        for label in losses
    ]
    return [gap for gap in gaps if gap.seeds]


def warnings(study: Study, gaps: list[Missing]) -> list[str]:
    """What a reader must know before trusting the page, one sentence each."""
    told = []
    if gaps:
        runs = sum(len(gap.seeds) for gap in gaps)
        known = set(study.runs["loss"]) if len(study.runs) else set()
        whole = [gap for gap in gaps if gap.loss not in known]
        among = count(len(gaps), "loss", "losses")
        of_all = f"; {len(whole)} of these lack every run" if whole else ""
        told.append(f"{count(runs, 'run')} of the study, of {among}, left no result yet{of_all}.")
    for outcome in LOGGED:
        rows = study.runs[study.runs["status"] == outcome] if len(study.runs) else study.runs
        if len(rows):
            names = listing(readable(label) for label in dict.fromkeys(rows["loss"]))
            told.append(f"{count(len(rows), 'run')} {outcome}: {names}.")
    return told + _unequal(study)


def _unequal(study: Study) -> list[str]:
    """Losses that did not start from the same weights, or did not see the same patches.

    A run that stopped early saw fewer patches, so only runs that finished are compared.
    """
    told: list[str] = []
    if study.runs.empty:
        return told
    finished = study.runs[study.runs["status"] == "ok"]
    for column, what in (
        ("initial_weights_sha256", "start from the same weights"),
        ("patch_order_sha256", "see the same patches"),
    ):
        if column not in finished:
            continue
        rows = finished[finished[column].notna() & (finished[column] != "")]
        seeds = rows.groupby("seed")[column].nunique()
        odd = [str(seed) for seed in seeds.index[seeds > 1]]
        if odd:
            which = f"{'seed' if len(odd) == 1 else 'seeds'} {listing(odd)}"
            told.append(f"Not every loss did {what}: {which}.")
    return told


def troubled(study: Study, logs: Path) -> list[dict[str, Any]]:
    """Runs that failed, diverged or collapsed, the worst first, with the end of their log."""
    rows = [{**run, "outcome": study.outcome(run)} for _, run in study.runs.iterrows()]
    rows = [row for row in rows if row["outcome"] in ORDER]
    for row in rows:
        row["excerpt"] = excerpt(logs, row) if row["outcome"] in LOGGED else ""
    return sorted(rows, key=lambda row: (ORDER.index(row["outcome"]), row["loss"], row["seed"]))


def stopped(runs: pd.DataFrame, logs: Logs | None) -> list[dict[str, Any]]:
    """Runs of an experiment that failed or diverged, failed ones first, with the end of their log.

    Without ``logs``, or where they do not lie, an excerpt is empty.
    """
    found = runs[runs["status"].isin(LOGGED)].to_dict("records")
    for row in found:
        row["excerpt"] = excerpt(logs(row["arm"], row["loss"]), row) if logs else ""
    return sorted(found, key=lambda row: LOGGED.index(row["status"]))


def excerpt(logs: Path, run: dict[str, Any] | pd.Series) -> str:
    """The last lines of a run's log; empty where the folder of the logs has none of it."""
    logs = logs / "train" / str(run["dataset"])
    start, end = f"{run['loss']}-lr-", f"-seed-{run['seed']}.log"
    for file in sorted(logs.iterdir()) if logs.is_dir() else ():
        if not (file.name.startswith(start) and file.name.endswith(end)):
            continue
        rate = file.name[len(start) : len(file.name) - len(end)]
        if math.isclose(_number(rate), run["learning_rate"], rel_tol=DIGITS):
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            return "\n".join(lines[-LINES:])[-CHARACTERS:].strip()
    return ""


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan
