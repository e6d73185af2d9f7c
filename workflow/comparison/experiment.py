"""Studies of several arms, or with a question of their own: from runs to raw tables to answers.

Raw tables are compact and complete: whatever is said of an experiment is computed from them, and
those of several shards are merged by :func:`merge`. Answers are small tables for people.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow import files
from workflow.comparison import collapse, contrasts, tables
from workflow.data.prepare import Prepared
from workflow.study import Study, StudyError

Table = dict[str, pd.DataFrame]

RUN = ("arm", "loss", "seed")
CASES = (
    "arm", "test_set", "loss", "learning_rate", "seed", "case", "subject", "class", "voxel_mm3",
    "reference_voxels", "predicted_voxels", "dice", "sensitivity", "precision", "nsd",
)  # fmt: skip
CURVES = ("validation dice", "validation predicted_fraction", "train loss", "train gradient_norm")
DIGITS = 4


@dataclass(frozen=True)
class Arm:
    """A variant of the study and where its data and runs are."""

    study: Study
    prepared: Prepared
    splits: pd.DataFrame
    runs: Sequence[Path]


def collect(study: Study, arms: Mapping[str, Arm]) -> Table:
    """The raw tables of the runs of all arms, each with a column ``arm``.

    ``arms``: the keys in which arms differ, a column each. ``dataset``: classes and splits.
    ``runs``: a row a run. ``cases``: scores at the reported checkpoint, a row for each foreground
    class of a test case. ``curves``, and ``signals`` where they were recorded. Numbers keep
    four digits.
    """
    found: dict[str, list[pd.DataFrame]] = {}
    for name, arm in arms.items():
        for table, content in _raw(arm).items():
            content.insert(0, "arm", name)
            found.setdefault(table, []).append(content)
    raw = {name: pd.concat(parts, ignore_index=True) for name, parts in found.items()}
    return {"arms": arm_table(study)} | {name: _rounded(table) for name, table in raw.items()}


def _raw(arm: Arm) -> Table:
    cases = _read(arm.runs, "cases")
    cases = cases[(cases["checkpoint"] == arm.study.comparison.checkpoint)]
    cases = cases[cases["class"] != arm.prepared.classes[0]]
    status = pd.DataFrame([files.read_json(run / "status.json") for run in arm.runs])
    curves = _read(arm.runs, "curve")
    wanted = (curves["split"] + " " + curves["quantity"]).isin(CURVES)
    found = {
        "dataset": tables.class_table(arm.prepared, arm.splits),
        "runs": tables.graded(status, cases[cases["test_set"] == arm.study.test_set]),
        "cases": cases[[c for c in CASES if c != "arm"]].copy(),
        "curves": curves[wanted].drop(columns="dataset"),
    }
    if arm.study.training.signals_every:
        found["signals"] = _read(arm.runs, "signals").drop(columns="dataset")
    return found


def _read(runs: Sequence[Path], name: str) -> pd.DataFrame:
    found = (files.read_table(run / f"{name}.csv") for run in runs)
    return pd.concat([table for table in found if len(table)], ignore_index=True)


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Floats to so many digits that no statement changes and the file is a third as large."""
    table = table.copy()
    for column in table.select_dtypes("float"):
        table[column] = [
            value if math.isnan(value) else float(f"{value:.{DIGITS}g}") for value in table[column]
        ]
    return table


def arm_table(study: Study) -> pd.DataFrame:
    """A row an arm; a column for each key (dotted) in which arms differ, losses and seeds aside."""
    rows = {name: dict(_dotted(_settings(arm))) for name, arm in study.variants.items()}
    keys = list(dict.fromkeys(key for row in rows.values() for key in row))
    differing = [key for key in keys if len({str(row.get(key)) for row in rows.values()}) > 1]
    return pd.DataFrame(
        [{"arm": name} | {key: row.get(key) for key in differing} for name, row in rows.items()]
    )


def _settings(study: Study) -> dict[str, Any]:
    kept = {"dataset", "external", "splits", "network", "training", "evaluation"}
    settings = study.model_dump(mode="json", include=kept)
    # the rate of every loss, or what each has of its own
    settings["rates"] = "own" if study.rates else "one"
    return settings


def _dotted(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def merge(shards: Sequence[Table]) -> Table:
    """The raw tables of several shards as one.

    Raises ``StudyError`` when an arm differs between shards or a run stands in two of them.
    """
    merged = {}
    for name in dict.fromkeys(name for shard in shards for name in shard):
        parts = [shard[name] for shard in shards if name in shard]
        table = pd.concat(parts, ignore_index=True)
        if name == "dataset":
            table = table.drop_duplicates(ignore_index=True)
        merged[name] = table
    merged["arms"] = _merged_arms([shard["arms"] for shard in shards])
    for arm, rows in merged["dataset"].groupby("arm"):
        if rows.duplicated(["split", "class"]).any():
            raise StudyError(f"arm '{arm}': the shards have different data or splits")
    runs = merged["runs"]
    twice = runs[runs.duplicated(list(RUN))]
    if len(twice):
        row = twice.iloc[0]
        raise StudyError(
            f"arm '{row['arm']}', loss '{row['loss']}', seed {row['seed']}: this run stands in two "
            f"shards ({len(twice)} such runs)"
        )
    return merged


def _merged_arms(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Arms of all shards; a shard with fewer arms has fewer keys in which they differ."""
    rows: dict[str, dict[str, Any]] = {}
    for part in parts:
        for row in part.to_dict("records"):
            known = rows.setdefault(row["arm"], {})
            for key, value in row.items():
                if str(known.setdefault(key, value)) != str(value):
                    raise StudyError(
                        f"arm '{row['arm']}': {key} is {known[key]} in one shard and {value} in "
                        "another"
                    )
    return pd.DataFrame(list(rows.values()))


def answers(study: Study, raw: Table) -> Table:
    """What the experiment shows: ``summary`` and ``comparisons`` of every arm and test set, and
    the tables of the experiment's own module."""
    summaries, comparisons = [], []
    for name, arm in study.variants.items():
        for test_set, cases in _of_arm(raw["cases"], name).groupby("test_set", sort=False):
            place = {"arm": name, "test_set": test_set}
            runs = _of_arm(raw["runs"], name)
            dataset = _of_arm(raw["dataset"], name)
            summary = _summary(arm, cases, runs, dataset)
            summaries.append(summary.assign(**place))
            scored = cases.assign(checkpoint=arm.comparison.checkpoint)
            found = contrasts.tables(arm, scored, tables.rarest_class(dataset))
            comparisons.append(found["comparisons"].assign(**place))
    generic = {
        "summary": _first(pd.concat(summaries, ignore_index=True)),
        "comparisons": _first(pd.concat(comparisons, ignore_index=True)),
    }
    if study.experiment is None:
        return generic
    module = importlib.import_module(f"workflow.comparison.experiment_{study.experiment}")
    return generic | module.answers(study, raw, generic)


def _of_arm(table: pd.DataFrame, name: str) -> pd.DataFrame:
    return table[table["arm"] == name]


def _first(table: pd.DataFrame) -> pd.DataFrame:
    place = ["arm", "test_set"]
    return table[place + [column for column in table if column not in place]]


def _summary(
    study: Study, cases: pd.DataFrame, runs: pd.DataFrame, dataset: pd.DataFrame
) -> pd.DataFrame:
    """One row a loss; collapse is judged on this test set."""
    confidence, rarest = study.comparison.confidence, tables.rarest_class(dataset)
    classes = list(dataset.sort_values("class_index")["class"].unique()[1:])
    judged = tables.graded(runs, cases)
    rows = []
    for label in study.losses:
        its_runs, its_cases = judged[judged["loss"] == label], cases[cases["loss"] == label]
        if its_runs.empty:
            continue
        lost = collapse.class_rates(
            its_cases.assign(dataset=study.dataset.name), confidence
        ).set_index("class")
        absent = its_cases[its_cases["reference_voxels"] == 0]
        rows.append(
            {"loss": label, "seeds": its_runs["seed"].nunique()}
            | tables.outcomes(its_runs, confidence)
            | {f"lost_{name}": lost["collapsed"].get(name, 0) for name in classes}
            | tables.scores(label, its_cases, classes, rarest, confidence)
            | {"rarest": rarest}
            | {
                "absent_false_positive_rate": (absent["predicted_voxels"] > 0).mean()
                if len(absent)
                else np.nan
            }
        )
    return pd.DataFrame(rows)


def read(folder: Path) -> Table:
    """The raw tables that lie in a folder, e.g. ``results/mechanism/tables``."""
    found = {
        path.name.removesuffix(".csv.gz"): files.read_table(path)
        for path in sorted(Path(folder).glob("*.csv.gz"))
    }
    if missing := [name for name in ("arms", "dataset", "runs", "cases") if name not in found]:
        raise StudyError(f"{folder}: no {', '.join(f'{name}.csv.gz' for name in missing)} here")
    return found


def write(found: Table, folder: Path, suffix: str) -> None:
    """Writes tables, with the suffix ``.csv`` or ``.csv.gz``."""
    for name, table in found.items():
        files.write_table(Path(folder) / f"{name}{suffix}", table)
