"""The tables of a study: everything that figures, report and paper say is read from them."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import losses
from workflow import files
from workflow.comparison import collapse, contrasts, rankings, statistics
from workflow.comparison.arrays import score_array
from workflow.data.prepare import Prepared
from workflow.data.splits import EXTERNAL
from workflow.evaluation.calibration import CERTAINTY, presence_auc
from workflow.evaluation.metrics import score_case
from workflow.study import FLOOR, Study, StudyError

RUN_COLUMNS = (
    "dataset", "loss", "learning_rate", "seed", "status", "reason", "steps", "best_step",
    "seconds", "startup_seconds", "training_seconds", "validation_seconds", "evaluation_seconds",
    "seconds_per_step", "loss_share", "peak_memory_mib", "initial_weights_sha256",
    "patch_order_sha256", "collapsed", "collapse", "collapsed_classes", "commit", "torch",
)  # fmt: skip


def write_all(
    study: Study, prepared: Prepared, splits: pd.DataFrame, runs: Iterable[Path], out: Path
) -> None:
    """Reads the run folders and writes every table to ``out`` (columns: ``design`` contracts)."""
    folders = list(runs)
    cases = pd.concat(
        [_floor_cases(study, prepared, splits)]
        + [table for f in folders if len(table := files.read_table(f / "cases.csv"))],
        ignore_index=True,
    )
    status = pd.concat(
        [_floor_run(study, prepared), read_status(study, folders)], ignore_index=True
    )
    checkpoint = study.comparison.checkpoint
    every_case, cases = cases, cases[cases["test_set"] == study.test_set]
    reported = cases[cases["checkpoint"] == checkpoint]
    run_table = graded(status, reported)
    dataset = class_table(prepared, splits)
    summary = pd.concat(
        [_summary(study, run_table, cases, prepared, dataset, c) for c in ("best", "last")],
        ignore_index=True,
    )
    tables = {
        "dataset": dataset,
        "runs": run_table,
        "curves": pd.concat(
            [
                _floor_curves(prepared, splits),
                *(files.read_table(f / "curve.csv") for f in folders),
            ],
            ignore_index=True,
        ),
        "cases": every_case,
        "summary": summary,
        "absent": _absent(cases, dataset),
        "collapse": collapse.class_rates(reported, study.comparison.confidence),
        "reliability": pd.concat(
            [files.read_table(f / "reliability.csv") for f in folders], ignore_index=True
        ),
        "cost": _cost(run_table),
        **contrasts.tables(study, cases, rarest_class(dataset)),
        **rankings.tables(study, cases, rarest_class(dataset)),
    }
    for name, table in tables.items():
        files.write_table(out / f"{name}.csv", table)
    files.write_json(out / "cards.json", cards(study))


def cards(study: Study) -> list[dict]:
    """The formula card of each loss of the study, with the label and options used."""
    found = []
    for label, entry in study.losses.items():
        card = losses.card(entry.name)
        texts = {field.name: getattr(card, field.name) for field in dataclasses.fields(card)}
        # a required option has no default, and the study gives its value
        defaults = {k: v for k, v in card.defaults.items() if v is not losses.REQUIRED}
        texts |= {"published": card.published, "defaults": defaults}
        found.append({"label": label} | texts | {"options": texts["defaults"] | entry.options})
    return found


def rarest_class(dataset: pd.DataFrame) -> str:
    """The foreground class with the fewest voxels in the training cases."""
    return next(iter(dataset.loc[dataset["rarest"], "class"]))


def _floor_cases(study: Study, prepared: Prepared, splits: pd.DataFrame) -> pd.DataFrame:
    """Scores of predicting nothing: no training, the floor of every table."""
    held_out = set(splits.loc[splits["split"].isin(("test", EXTERNAL)), "case"])
    rows = []
    for case in prepared.cases:
        if case.name not in held_out:
            continue
        reference = np.array(prepared.reference_label(case))
        for row in score_case(
            np.zeros_like(reference),
            reference,
            classes=prepared.classes,
            spacing=case.spacing,
            nsd_tolerance=study.evaluation.nsd_tolerance,
        ):
            place = {"test_set": case.dataset, "case": case.name, "subject": case.subject}
            rows.append(place | row)
    # no probabilities, no certainty; the columns are there also when nothing else has run
    table = pd.DataFrame(rows).assign(**dict.fromkeys(CERTAINTY, math.nan))
    key = {"dataset": prepared.name, "loss": FLOOR, "learning_rate": math.nan, "seed": 0}
    both = [table.assign(checkpoint=c) for c in ("last", "best")]
    table = pd.concat(both, ignore_index=True).assign(**key)
    return table[[*key, "checkpoint", *(c for c in table if c not in key and c != "checkpoint")]]


def _floor_curves(prepared: Prepared, splits: pd.DataFrame) -> pd.DataFrame:
    """What predicting nothing scores on validation, at step 0."""
    validation = set(splits.loc[splits["split"] == "validation", "case"])
    key = {"dataset": prepared.name, "loss": FLOOR, "learning_rate": math.nan, "seed": 0}
    at = {"step": 0, "split": "validation"}
    rows = []
    for index, name in enumerate(prepared.classes):
        rows.append({"quantity": "predicted_fraction", "class": name, "value": float(index == 0)})
        if index and any(c.voxels[name] for c in prepared.cases if c.name in validation):
            rows.append({"quantity": "dice", "class": name, "value": 0.0})
    return pd.DataFrame([key | at | row for row in rows])


def _floor_run(study: Study, prepared: Prepared) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "dataset": prepared.name,
                "loss": FLOOR,
                "seed": 0,
                "status": "ok",
                "reason": "no training: predicts nothing",
                "steps": 0,
                "seconds": 0.0,
            }
        ]
    )


def read_status(study: Study, folders: Iterable[Path]) -> pd.DataFrame:
    """What each run says of itself.

    Raises :class:`StudyError` for one that was made with other settings than the study's, which
    Snakemake makes again unless it is told to look at times alone.
    """
    rows = []
    for folder in folders:
        row = files.read_json(folder / "status.json")
        # runs of earlier versions do not say it
        made_with = row.get("settings_sha256")
        if made_with and made_with != study.run_settings(row["loss"]).sha256():
            raise StudyError(
                f"{folder}: made with other settings than the study's; call Snakemake without "
                "--rerun-triggers, or remove the folder"
            )
        rows.append(row)
    return pd.DataFrame(rows)


def graded(status: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """The table of runs: what each run says of itself, and what its ``cases`` say of collapse."""
    table = status.copy()
    by_run = dict(list(cases.groupby(["loss", "seed"])))
    for index, row in table.iterrows():
        rows = by_run.get((row["loss"], row["seed"]))
        gone = collapse.collapsed_classes(rows) if rows is not None else []
        present = rows.dropna(subset=["dice"])["class"].nunique() if rows is not None else 0
        grade = collapse.grade(gone, present, row["status"]) if row["status"] != "failed" else ""
        table.loc[index, "collapse"] = grade
        table.loc[index, "collapsed_classes"] = ";".join(gone)
        table.loc[index, "collapsed"] = grade in ("partial", "total")
    return table.reindex(columns=RUN_COLUMNS)


def class_table(prepared: Prepared, splits: pd.DataFrame) -> pd.DataFrame:
    """Size and prevalence of each class in each split; ``all`` leaves external cases out.

    ``sha256`` identifies the split: the names of its cases and the digests of their images.
    """
    split_of = dict(zip(splits["case"], splits["split"], strict=True))
    rows = []
    for split in ("train", "validation", "test", EXTERNAL, "all"):
        chosen = [
            c
            for c in prepared.cases
            if split == split_of[c.name] or (split == "all" and split_of[c.name] != EXTERNAL)
        ]
        if not chosen:
            continue
        voxels = np.array([[c.voxels[name] for name in prepared.classes] for c in chosen])
        volumes = voxels * [[math.prod(c.spacing)] for c in chosen]
        names = sorted(f"{c.name} {c.image_sha256}\n" for c in chosen)
        digest = hashlib.sha256("".join(names).encode()).hexdigest()
        for index, name in enumerate(prepared.classes):
            rows.append(
                {
                    "dataset": chosen[0].dataset,
                    "split": split,
                    "class": name,
                    "class_index": index,
                    "cases": len(chosen),
                    "subjects": len({c.subject for c in chosen}),
                    "voxel_fraction": voxels[:, index].sum() / voxels.sum(),
                    "prevalence": (voxels[:, index] > 0).mean(),
                    "smallest_mm3": volumes[voxels[:, index] > 0, index].min(initial=math.inf),
                    "sha256": digest,
                }
            )
    table = pd.DataFrame(rows)
    train = table[(table["split"] == "train") & (table["class_index"] > 0)]
    rarest = train.loc[train["voxel_fraction"].idxmin(), "class"]
    return table.assign(rarest=table["class"] == rarest)


def _summary(
    study: Study,
    runs: pd.DataFrame,
    cases: pd.DataFrame,
    prepared: Prepared,
    dataset: pd.DataFrame,
    checkpoint: str,
) -> pd.DataFrame:
    """One row a loss, best mean Dice first."""
    confidence = study.comparison.confidence
    rarest = rarest_class(dataset)
    cases = cases[cases["checkpoint"] == checkpoint]
    rows = []
    for label in (*study.losses, FLOOR):
        of_loss, its_runs = cases[cases["loss"] == label], runs[runs["loss"] == label]
        rows.append(
            {"dataset": prepared.name, "loss": label, "checkpoint": checkpoint}
            | _identity(study, label)
            | outcomes(its_runs, confidence)
            | scores(label, of_loss, prepared.classes[1:], rarest, confidence)
            | _standing(label, of_loss, its_runs, rarest, confidence)
            | _overall(of_loss, dataset)
            | {"seconds_per_step": its_runs["seconds_per_step"].median()}
        )
    table = pd.DataFrame(rows)
    table["tier"] = _tiers(table, cases, rarest, confidence)
    return table.sort_values("mean_dice", ascending=False, kind="stable", na_position="last")


def _identity(study: Study, label: str) -> dict[str, object]:
    if label == FLOOR:
        return {"name": "", "family": "floor", "published": False, "twin": ""}
    card = losses.card(study.losses[label].name)
    return {
        "name": study.losses[label].name,
        "family": card.family,
        "published": card.published,
        "twin": contrasts.corrected_label(study, label) or "",
    }


def outcomes(runs: pd.DataFrame, confidence: float) -> dict[str, object]:
    """What became of the runs of a loss: columns of ``summary``."""
    finished = runs[runs["status"] != "failed"]
    collapsed = int(finished["collapsed"].astype(bool).sum())
    diverged = int((finished["status"] == "diverged").sum())
    low, high = statistics.wilson(collapsed, len(finished), confidence)
    diverged_low, diverged_high = statistics.wilson(diverged, len(finished), confidence)
    return {
        "runs": len(runs),
        **{
            status: int((runs["status"] == status).sum()) for status in ("ok", "diverged", "failed")
        },
        "collapsed": collapsed,
        "collapse_rate": collapsed / len(finished) if len(finished) else math.nan,
        "collapse_rate_low": low,
        "collapse_rate_high": high,
        "partial": int((finished["collapse"] == "partial").sum()),
        "total": int((finished["collapse"] == "total").sum()),
        "divergence_rate": diverged / len(finished) if len(finished) else math.nan,
        "divergence_rate_low": diverged_low,
        "divergence_rate_high": diverged_high,
    }


def scores(
    label: str, cases: pd.DataFrame, classes: Sequence[str], rarest: str, confidence: float
) -> dict[str, float]:
    """Dice of a loss with its intervals: columns of ``summary``."""
    row: dict[str, float] = {}

    def interval(name: str, endpoint: str, of_class: str) -> None:
        row.update(_interval(name, label, cases, endpoint, of_class, confidence))

    interval("mean_dice", "mean_dice", rarest)
    for name in classes:
        interval(f"dice_{name}", "rarest_dice", name)
    interval("rarest_dice", "rarest_dice", rarest)
    return row


def _standing(
    label: str, cases: pd.DataFrame, runs: pd.DataFrame, rarest: str, confidence: float
) -> dict[str, float]:
    """Mean Dice of the runs that did not collapse: what a collapse costs is the difference."""
    seeds = runs.loc[(runs["status"] == "ok") & (runs["collapse"] == "none"), "seed"]
    standing = cases[cases["seed"].isin(seeds)]
    name = "standing_mean_dice"
    interval = _interval(name, label, standing, "mean_dice", rarest, confidence)
    return {"standing": len(seeds)} | interval


def _interval(
    name: str, label: str, cases: pd.DataFrame, endpoint: str, of_class: str, confidence: float
) -> dict[str, float]:
    """Mean of a loss's scores and its interval over seeds and cases, as columns ``name*``."""
    scores = score_array(cases, endpoint, of_class, [label])
    estimate = contrasts.mean_score(scores, confidence)
    return dict(zip((name, f"{name}_low", f"{name}_high"), estimate[:3], strict=True))


def _overall(cases: pd.DataFrame, dataset: pd.DataFrame) -> dict[str, float]:
    """Means in which classes weigh the same whatever their number of cases."""
    present = cases[cases["reference_voxels"] > 0]
    # nothing predicted leaves precision undefined; leaving it out would reward a lost class
    present = present.fillna({"precision": 0.0})
    scores = ["iou", "nsd", "hd95", "sensitivity", "precision", "volume_error"]
    means = present.groupby("class")[scores].mean().mean()
    absent = _where_absent(cases, dataset).mean()
    # the rows of a case's classes hold the same value, so rows weigh as cases do
    return {
        **{f"mean_{name}": means[name] for name in ("nsd", "hd95", "iou")},
        **{name: means[name] for name in ("sensitivity", "precision", "volume_error")},
        "absent_false_positive_rate": absent["false_positive_rate"],
        "absent_false_structure_rate": absent["false_structure_rate"],
        "absent_false_positive_mm3": absent["false_positive_mm3"],
        "presence_auc": absent["presence_auc"],
        "ece": cases["ece"].mean(),
        "nll": cases["nll"].mean(),
    }


def _tiers(summary: pd.DataFrame, cases: pd.DataFrame, rarest: str, confidence: float) -> list[str]:
    """``collapsed``: in more than half of its runs; ``best``: not separable from the best mean."""
    standing = summary[(summary["loss"] != FLOOR) & ~(summary["collapse_rate"] > 0.5)]
    standing = standing.dropna(subset=["mean_dice"])
    separable: set[str] = set()
    if len(standing):
        best = standing.loc[standing["mean_dice"].idxmax(), "loss"]
        separable = contrasts.separable_from_best(
            cases, list(standing["loss"]), best, rarest, confidence
        )
    return [
        "floor" if label == FLOOR
        else "collapsed" if rate > 0.5
        else "failed" if math.isnan(mean)
        else "separable" if label in separable
        else "best"
        for label, mean, rate in zip(
            summary["loss"], summary["mean_dice"], summary["collapse_rate"], strict=True
        )
    ]  # fmt: skip


def _where_absent(cases: pd.DataFrame, dataset: pd.DataFrame) -> pd.DataFrame:
    """What one loss and checkpoint predicts where a class is not; a row for each such class.

    A *false structure* is a false positive at least as large as the class is in any training case
    that has it: it could pass for the class, which a stray voxel cannot. ``presence_auc`` is the
    mean over runs.
    """
    train = dataset[dataset["split"] == "train"].set_index("class")
    rows = {}
    for name, of_class in cases.groupby("class", sort=False):
        absent = of_class[of_class["reference_voxels"] == 0]
        if absent.empty:
            continue
        volume = absent["predicted_voxels"] * absent["voxel_mm3"]
        rows[name] = {
            "cases": len(absent),
            "false_positive_rate": (absent["predicted_voxels"] > 0).mean(),
            "false_structure_rate": (volume >= train.loc[name, "smallest_mm3"]).mean(),
            "false_positive_voxels": absent["predicted_voxels"].mean(),
            "false_positive_mm3": volume.mean(),
            "presence_auc": np.mean(
                [
                    presence_auc(run["presence_log_odds"], run["reference_voxels"] > 0)
                    for _, run in of_class.groupby("seed")
                ]
            ),
        }
    columns = (
        "cases", "false_positive_rate", "false_structure_rate", "false_positive_voxels",
        "false_positive_mm3", "presence_auc",
    )  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("class")


def _absent(cases: pd.DataFrame, dataset: pd.DataFrame) -> pd.DataFrame:
    """What was predicted where the class is not: an endpoint of its own."""
    key = ["dataset", "loss", "checkpoint"]
    by_loss = cases.groupby(key, sort=False)
    tables = {group: _where_absent(rows, dataset) for group, rows in by_loss}
    return pd.concat(tables, names=key).reset_index()


def _cost(runs: pd.DataFrame) -> pd.DataFrame:
    by_loss = runs.groupby(["dataset", "loss"], sort=False)
    return by_loss.agg(
        seconds_per_step=("seconds_per_step", "median"),
        loss_share=("loss_share", "median"),
        peak_memory_mib=("peak_memory_mib", "max"),
        seconds=("seconds", "median"),
        core_hours=("seconds", lambda seconds: seconds.sum() / 3600),
    ).reset_index()
