"""Studies of several arms, or with a question of their own: from runs to raw tables to answers.

Raw tables are compact and complete: whatever is said of an experiment is computed from them, and
those of several shards are merged by :func:`merge`. Answers are small tables for people.

Arms are paired by seed: where neither data nor batches differ, equal seeds mean equal weights and
patches. Cases of two arms are the same only in an ``external`` test set, or where the ``sha256`` of
their splits in ``dataset`` agree; equal names alone do not make them so.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from workflow import files
from workflow.comparison import collapse, contrasts, tables
from workflow.data.prepare import Prepared
from workflow.study import FLOOR, Study, StudyError

Table = dict[str, pd.DataFrame]

RUN = ("arm", "loss", "seed")
CASES = (
    "arm", "test_set", "loss", "learning_rate", "seed", "case", "subject", "class", "voxel_mm3",
    "reference_voxels", "predicted_voxels", "dice", "sensitivity", "precision", "nsd",
)  # fmt: skip
CURVES = ("validation dice", "validation predicted_fraction", "train loss", "train gradient_norm")
STATUS = ("ok", "diverged", "failed", "missing")
SETTINGS = {"dataset", "external", "splits", "network", "training", "evaluation"}
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
    raw = {name: _concat(parts) for name, parts in found.items()}
    return {"arms": arm_table(study)} | {name: _rounded(table) for name, table in raw.items()}


def _raw(arm: Arm) -> Table:
    cases = _read(arm.runs, "cases")
    cases = cases[cases["checkpoint"] == arm.study.comparison.checkpoint]
    cases = cases[cases["class"] != arm.prepared.classes[0]]
    status = tables.read_status(arm.study, arm.runs)
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
    return _concat([files.read_table(run / f"{name}.csv") for run in runs])


def _concat(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables below each other; one without a row (of a run that failed) has no types to pass on."""
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Floats to so many digits that no statement changes and the file is a third as large.

    Whole numbers stay: a column of counts that lacks one is a column of floats.
    """
    table = table.copy()
    for column in table.select_dtypes("float"):
        table[column] = [
            value if math.isnan(value) or value.is_integer() else float(f"{value:.{DIGITS}g}")
            for value in table[column]
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
    settings = study.model_dump(mode="json", include=SETTINGS)
    # the rate of every loss, or what each has of its own
    settings["rates"] = "own" if study.rates else "one"
    return settings


def _dotted(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


class Shard(NamedTuple):
    """The raw tables of a part of a study, and that part as its runs were configured."""

    name: str
    study: Study
    raw: Table


def merge(study: Study, shards: Sequence[Shard]) -> Table:
    """The raw tables of a study from those of its shards: what one :func:`collect` would give.

    Raises ``StudyError`` when a run stands in two shards or is none of the study, when it was made
    with other settings than the study's, or when shards differ in the data or splits of an arm or
    in what the losses of one seed started from and saw: shards of versions of the code whose seeds
    mean something else would be compared in pairs that are none.
    """
    faults = [fault for shard in shards for fault in _faults(study, shard)]
    if faults:
        raise StudyError("\n".join(faults))
    names = dict.fromkeys(name for shard in shards for name in shard.raw)
    raw = {name: _concat([s.raw[name] for s in shards if name in s.raw]) for name in names}
    raw["dataset"] = raw["dataset"].drop_duplicates(ignore_index=True)
    for arm, rows in raw["dataset"].groupby("arm"):
        if rows.duplicated(["split", "class"]).any():
            raise StudyError(f"arm '{arm}': the shards have different data or splits")
    runs = raw["runs"]
    twice = runs[runs.duplicated(list(RUN))]
    if len(twice):
        raise StudyError(
            f"{_named(next(twice.itertuples()))}: this run stands in two shards ({len(twice)} such)"
        )
    _check_pairs(runs)
    return {"arms": arm_table(study)} | {
        name: _in_order(table, study) for name, table in raw.items() if name != "arms"
    }


def _check_pairs(runs: pd.DataFrame) -> None:
    for column, what, rows in (
        ("initial_weights_sha256", "started from other weights", runs),
        ("patch_order_sha256", "saw other patches", runs[runs["status"] == "ok"]),
    ):
        for (arm, seed), its in rows.dropna(subset=[column]).groupby(["arm", "seed"]):
            first = its.iloc[0]
            other = its[its[column] != first[column]]
            if len(other):
                raise StudyError(
                    f"arm '{arm}', seed {seed}: {other['loss'].iloc[0]} {what} than "
                    f"{first['loss']}; were the shards made by different versions of the code?"
                )


def _faults(study: Study, shard: Shard) -> Iterator[str]:
    """Why runs of the shard are no runs of the study."""
    for name, part in shard.study.variants.items():
        where = f"{shard.name}: arm '{name}'" if name else shard.name
        if name not in study.variants:
            yield f"{where}: the study has no such arm"
            continue
        arm = study.variants[name]
        ours, theirs = _decisive(arm), _decisive(part)
        for key in dict.fromkeys([*ours, *theirs]):
            if ours.get(key) != theirs.get(key):
                yield f"{where}: {key} was {theirs.get(key)}, the study has {ours.get(key)}"
        for label, loss in part.losses.items():
            if label not in arm.losses:
                yield f"{where}: losses.{label}: the study does not have it in this arm"
            elif arm.losses[label] != loss:
                yield f"{where}: losses.{label} was {loss}, the study has {arm.losses[label]}"
            elif arm.rate(label) != part.rate(label):
                rates = f"{part.rate(label)}, the study has {arm.rate(label)}"
                yield f"{where}: the learning rate of {label} was {rates}"
        if more := sorted(set(part.seeds) - set(arm.seeds)):
            yield f"{where}: seeds {more} are none of the study's"
    planned = {tuple(run) for run in _planned(shard.study)}
    for run in shard.raw["runs"].itertuples():
        if (run.arm, run.loss, run.seed) not in planned:
            yield f"{shard.name}: {_named(run)}: not a run of its config.yaml"


def _decisive(study: Study) -> dict[str, Any]:
    """What the results of an arm depend on; where data lie and what computes differ by machine."""
    settings = dict(_dotted(study.model_dump(mode="json", include=SETTINGS)))
    settings["comparison.checkpoint"] = study.comparison.checkpoint
    elsewhere = ("dataset.root", "external.root", "training.accelerator", "training.learning_rate")
    return {key: value for key, value in settings.items() if key not in elsewhere}


def _planned(study: Study) -> Iterator[tuple[str, str, int]]:
    """Arm, loss and seed of every run, in the order of :func:`collect`."""
    for name, arm in study.variants.items():
        for loss in arm.losses:
            for seed in arm.seeds:
                yield name, loss, seed


def _named(run: Any) -> str:
    return f"arm '{run.arm}', loss '{run.loss}', seed {run.seed}"


def _in_order(table: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Rows in the order of the study's runs, whatever the order of the shards."""
    place = {run: index for index, run in enumerate(_planned(study))}
    arms = {name: index for index, name in enumerate(study.variants)}
    if "seed" in table:
        runs = zip(table["arm"], table["loss"], table["seed"], strict=True)
        order = [place[run] for run in runs]
    else:
        order = [arms[arm] for arm in table["arm"]]
    return table.iloc[np.argsort(order, kind="stable")].reset_index(drop=True)


def outcomes(study: Study, runs: pd.DataFrame) -> pd.DataFrame:
    """A row an arm: its planned runs, how many are ``missing``, and what became of the others."""
    planned = pd.DataFrame(_planned(study), columns=RUN)
    found = planned.merge(runs[[*RUN, "status"]], how="left").fillna({"status": "missing"})
    counts = found.groupby("arm", sort=False)["status"].value_counts().unstack(fill_value=0)
    counts = counts.reindex(list(study.variants), columns=STATUS, fill_value=0).astype(int)
    counts.insert(0, "runs", counts.sum(axis=1))
    return counts.rename_axis(index="arm", columns=None).reset_index()


def answers(study: Study, raw: Table) -> Table:
    """What the experiment shows, from the runs that there are.

    ``outcomes``: see :func:`outcomes`. ``summary`` and ``comparisons`` of every arm that ran and
    each of its test sets; Holm's correction is over the comparisons of one arm, test set and
    endpoint. And the tables of the experiment's own module.
    """
    summaries, comparisons = [], []
    for name, arm in study.variants.items():
        runs = _of_arm(raw["runs"], name)
        if runs.empty:
            continue
        cases, dataset = _of_arm(raw["cases"], name), _of_arm(raw["dataset"], name)
        # an arm in which every run failed has no case, and is told all the same
        for test_set in dict.fromkeys([*cases["test_set"], arm.test_set]):
            of_set = cases[cases["test_set"] == test_set]
            place = {"arm": name, "test_set": test_set}
            summaries.append(_summary(arm, of_set, runs, dataset).assign(**place))
            scored = of_set.assign(checkpoint=arm.comparison.checkpoint)
            found = contrasts.tables(arm, scored, tables.rarest_class(dataset))["comparisons"]
            comparisons.append(found[found["loss"] != FLOOR].assign(**place))
    if not summaries:
        raise StudyError("the raw tables hold no run of this study")
    generic = {
        "outcomes": outcomes(study, raw["runs"]),
        "summary": _first(_concat(summaries)),
        "comparisons": _first(_concat(comparisons)),
    }
    if study.experiment is None:
        return generic
    module = importlib.import_module(f"workflow.comparison.experiment_{study.experiment}")
    own = module.answers(study, raw, generic)
    if twice := generic.keys() & own.keys():
        raise RuntimeError(f"experiment_{study.experiment} overwrites {', '.join(twice)}")
    return generic | own


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
        found = (absent["predicted_voxels"] > 0).groupby(absent["class"]).mean()
        rows.append(
            {"loss": label, "seeds": its_runs["seed"].nunique()}
            | tables.outcomes(its_runs, confidence)
            | {f"lost_{name}": lost["collapsed"].get(name, 0) for name in classes}
            | tables.scores(label, its_cases, classes, rarest, confidence)
            | {"rarest": rarest}
            # classes weigh the same, as in the summary of a plain study
            | {"absent_false_positive_rate": found.mean()}
        )
    return pd.DataFrame(rows)


def read(folder: Path) -> Table:
    """The raw tables that lie in a folder, e.g. ``results/mechanism/tables``.

    Raises ``StudyError`` where some are not there.
    """
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
