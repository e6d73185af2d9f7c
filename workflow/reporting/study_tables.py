"""Read a study's folder once, and answer the questions every figure and text asks of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from workflow import files

FLOOR = "all_background"
TABLES = (
    "dataset",
    "runs",
    "curves",
    "cases",
    "summary",
    "comparisons",
    "improvement",
    "equivalence",
    "ranks",
    "friedman",
    "stability",
    "absent",
    "collapse",
    "reliability",
    "trials",
    "cost",
    "slices",
    "agreement",
)


@dataclass
class Study:
    """One study's results, as the reporting room reads them.

    Tables keep the columns they were written with; a table that does not exist is empty.
    """

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    reproduction: dict[str, Any] = field(default_factory=dict)
    preparation: dict[str, Any] = field(default_factory=dict)
    cards: list[dict[str, Any]] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    dataset: pd.DataFrame = field(default_factory=pd.DataFrame)
    runs: pd.DataFrame = field(default_factory=pd.DataFrame)
    curves: pd.DataFrame = field(default_factory=pd.DataFrame)
    cases: pd.DataFrame = field(default_factory=pd.DataFrame)
    summary: pd.DataFrame = field(default_factory=pd.DataFrame)
    comparisons: pd.DataFrame = field(default_factory=pd.DataFrame)
    improvement: pd.DataFrame = field(default_factory=pd.DataFrame)
    equivalence: pd.DataFrame = field(default_factory=pd.DataFrame)
    ranks: pd.DataFrame = field(default_factory=pd.DataFrame)
    friedman: pd.DataFrame = field(default_factory=pd.DataFrame)
    stability: pd.DataFrame = field(default_factory=pd.DataFrame)
    absent: pd.DataFrame = field(default_factory=pd.DataFrame)
    collapse: pd.DataFrame = field(default_factory=pd.DataFrame)
    reliability: pd.DataFrame = field(default_factory=pd.DataFrame)
    trials: pd.DataFrame = field(default_factory=pd.DataFrame)
    cost: pd.DataFrame = field(default_factory=pd.DataFrame)
    slices: pd.DataFrame = field(default_factory=pd.DataFrame)
    agreement: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def title(self) -> str:
        return str(self.config.get("title") or self.name)

    @property
    def steps(self) -> int:
        """Of a run; 0 if its study does not say."""
        return int((self.config.get("training") or {}).get("steps") or 0)

    @property
    def dataset_name(self) -> str:
        return str((self.config.get("dataset") or {}).get("name") or "")

    @property
    def checkpoint(self) -> str:
        """The checkpoint that the study reports first."""
        return str(self._comparison.get("checkpoint") or "best")

    @property
    def confidence(self) -> float:
        return float(self._comparison.get("confidence") or 0.95)

    @property
    def reference_loss(self) -> str:
        return str(self._comparison.get("reference_loss") or "")

    @property
    def _comparison(self) -> dict[str, Any]:
        return self.config.get("comparison") or {}

    @property
    def seeds(self) -> int:
        """How many seeds the runs have."""
        return int(self.runs["seed"].nunique()) if len(self.runs) else 0

    def chosen(self, table: pd.DataFrame) -> pd.DataFrame:
        """Rows of the reported checkpoint; the floor, which has none of its own, stays once."""
        if "checkpoint" not in table.columns:
            return table
        rows = table[table["checkpoint"] == self.checkpoint]
        if "loss" in table.columns and FLOOR not in set(rows["loss"]):
            floor = table[table["loss"] == FLOOR]
            first = (
                floor[floor["checkpoint"] == floor["checkpoint"].iloc[0]] if len(floor) else floor
            )
            rows = pd.concat([rows, first]) if len(first) else rows
        return rows

    @cached_property
    def ranked(self) -> pd.DataFrame:
        """Summary of the reported checkpoint, best mean Dice first, the floor last."""
        rows = self.chosen(self.summary)
        if rows.empty:
            return rows
        rows = rows.assign(floor=rows["loss"] == FLOOR).sort_values(
            ["floor", "mean_dice", "loss"], ascending=[True, False, True], na_position="last"
        )
        return rows.drop(columns="floor").reset_index(drop=True)

    @cached_property
    def losses(self) -> list[str]:
        """Labels of the trained losses, best first: the one order of every figure."""
        ranked = [] if self.ranked.empty else list(self.ranked["loss"])
        others = [] if self.runs.empty else sorted(set(self.runs["loss"]) - set(ranked))
        return [label for label in [*ranked, *others] if label != FLOOR]

    @cached_property
    def standing(self) -> list[str]:
        """The trained losses that have scores and did not collapse in most runs, best first."""
        if self.ranked.empty:
            return []
        return list(self.ranked.loc[self.ranked["tier"].isin(("best", "separable")), "loss"])

    @cached_property
    def classes(self) -> list[str]:
        """Foreground classes in the order of their index."""
        scored = [] if self.cases.empty else list(dict.fromkeys(self.cases["class"]))
        if not scored:
            ends = ("_low", "_high")
            columns = [c for c in self.summary.columns if c.startswith("dice_")]
            scored = [c.removeprefix("dice_") for c in columns if not c.endswith(ends)]
        index = {}
        if not self.dataset.empty:
            index = dict(zip(self.dataset["class"], self.dataset["class_index"], strict=True))
        return sorted(scored, key=lambda name: (index.get(name, np.inf), scored.index(name)))

    @cached_property
    def rarest(self) -> str:
        """The foreground class that rarest_dice speaks of."""
        if self.dataset.empty:
            return ""
        return next(iter(self.dataset.loc[self.dataset["rarest"].astype(bool), "class"]), "")

    def class_sizes(self, split: str = "all") -> pd.DataFrame:
        """Voxel fraction and prevalence of each class in one split (any, if it is missing)."""
        if self.dataset.empty:
            return self.dataset
        rows = self.dataset[self.dataset["split"] == split]
        return rows if len(rows) else self.dataset.drop_duplicates("class")

    def pairs(self) -> list[tuple[str, str]]:
        """(published, corrected) labels, both in this study, in the order of the ranking."""
        if self.ranked.empty or "twin" not in self.ranked.columns:
            return []
        rows = self.ranked[self.ranked["twin"].isin(self.losses)]
        pairs = list(zip(rows["loss"], rows["twin"], strict=True))
        return sorted(pairs, key=lambda pair: self.losses.index(pair[1]))

    def row(self, label: str) -> pd.Series | None:
        """The summary row of a loss, or None."""
        rows = self.ranked[self.ranked["loss"] == label] if len(self.ranked) else self.ranked
        return rows.iloc[0] if len(rows) else None

    def contrast(self, kind: str, loss: str, against: str, endpoint: str) -> pd.Series | None:
        """One paired difference of comparisons.csv (loss - against), or None."""
        table = self.chosen(self.comparisons)
        if table.empty:
            return None
        rows = table[
            (table["contrast"] == kind)
            & (table["loss"] == loss)
            & (table["against"] == against)
            & (table["endpoint"] == endpoint)
        ]
        return rows.iloc[0] if len(rows) else None

    def endpoint(self, table: pd.DataFrame, name: str = "mean_dice") -> pd.DataFrame:
        """Rows of the reported checkpoint that speak of one endpoint."""
        rows = self.chosen(table)
        return rows[rows["endpoint"] == name] if len(rows) else rows

    def against_reference(self, endpoint: str = "mean_dice") -> pd.DataFrame:
        """Contrasts of the trained losses with the reference loss, in the order of the ranking."""
        rows = self.endpoint(self.comparisons, endpoint)
        if rows.empty:
            return rows
        rows = rows[(rows["contrast"] == "reference") & rows["loss"].isin(self.losses)]
        return rows.sort_values("loss", key=lambda labels: labels.map(self.losses.index))

    def runs_of(self, loss: str) -> pd.DataFrame:
        """The runs of a loss; none where no run has been recorded."""
        return self.runs[self.runs["loss"] == loss] if len(self.runs) else self.runs

    def outcome(self, run: pd.Series) -> str:
        """What became of a run: failed, diverged, or its degree of collapse."""
        if run["status"] in ("failed", "diverged"):
            return str(run["status"])
        degree = str(run.get("collapse") or "")
        return degree if degree in ("partial", "total") else "none"

    def lost_classes(self, run: pd.Series) -> set[str]:
        """The classes that a run lost: those that collapsed, or all if it diverged or failed."""
        named = {name for name in str(run.get("collapsed_classes") or "").split(";") if name}
        outcome = self.outcome(run)
        everything = outcome in ("diverged", "failed") or (outcome != "none" and not named)
        return set(self.classes) if everything else named


def read_study(study_dir: Path) -> Study:
    """Everything that the reporting room needs from `results/<study>/`."""
    study_dir = Path(study_dir)
    tables = study_dir / "tables"
    study = Study(
        name=study_dir.resolve().name,
        config=_load(study_dir / "config.yaml", yaml.safe_load, {}),
        environment=_load(study_dir / "environment.json", json.loads, {}),
        reproduction=_load(study_dir / "reproduction.json", json.loads, {}),
        preparation=_load(study_dir / "preparation.json", json.loads, {}),
        cards=_load(tables / "cards.json", json.loads, []),
        **{name: files.read_table(tables / f"{name}.csv") for name in TABLES},
    )
    if len(study.runs):  # the floor is no run: nothing was trained
        study.runs = study.runs[study.runs["loss"] != FLOOR].reset_index(drop=True)
    if (tables / "slices.npz").is_file():
        with np.load(tables / "slices.npz") as archive:
            study.arrays = {key: archive[key] for key in archive.files}
    return study


def _load(path: Path, parse: Any, default: Any) -> Any:
    return (parse(path.read_text(encoding="utf-8")) or default) if path.is_file() else default
