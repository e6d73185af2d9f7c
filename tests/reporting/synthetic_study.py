"""A plausible study folder, made up, in the format that the comparison writes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

FLOOR = "all_background"
REASON = "the class weights are constant, so that background alone is nearly optimal"


@dataclass(frozen=True)
class Loss:
    """A made-up loss: mean Dice of its largest class, and what becomes of its runs."""

    label: str
    family: str
    level: float
    name: str = ""
    twin: str = ""
    collapse: str = "none"
    diverges: tuple[int, ...] = ()
    fails: tuple[int, ...] = ()

    @property
    def published(self) -> bool:
        return self.label.startswith("published_")


SMALL = (
    Loss("dice_ce", "compound", 0.74),
    Loss("dice", "overlap", 0.72),
    Loss("cross_entropy", "distribution", 0.55, collapse="partial"),
    Loss("generalized_dice", "generalized dice", 0.60),
    Loss(
        "published_generalized_dice_graph",
        "generalized dice",
        0.0,
        twin="generalized_dice",
        collapse="total",
    ),
    Loss("published_combo", "compound", 0.4, twin="dice_ce", diverges=(1,), fails=(2,)),
)

LARGE = (
    *SMALL,
    Loss("published_generalized_dice_written", "generalized dice", 0.2,
         twin="generalized_dice", collapse="partial"),
    Loss("published_generalized_dice_answer", "generalized dice", 0.3,
         twin="generalized_dice", collapse="partial"),
    Loss("generalized_dice_ce", "generalized dice", 0.68),
    Loss("weighted_cross_entropy", "distribution", 0.66),
    Loss("focal", "distribution", 0.6),
    Loss("topk_cross_entropy", "distribution", 0.62),
    Loss("published_focal_mean_bce", "distribution", 0.5, twin="focal", collapse="partial"),
    Loss("published_focal_weight_inside", "distribution", 0.56, twin="focal"),
    Loss("dice_batch", "overlap", 0.73),
    Loss("dice_squared", "overlap", 0.71),
    Loss("published_dice_flat", "overlap", 0.69, twin="dice"),
    Loss("jaccard", "overlap", 0.7),
    Loss("published_iou", "overlap", 0.68, twin="jaccard"),
    Loss("tversky", "overlap", 0.73),
    Loss("published_tversky", "overlap", 0.71, twin="tversky"),
    Loss("focal_tversky", "overlap", 0.72),
    Loss("published_focal_tversky_exponent_2", "overlap", 0.6, twin="focal_tversky"),
    Loss("lovasz_softmax", "lovasz", 0.71),
    Loss("published_lovasz_hinge", "lovasz", 0.66, twin="lovasz_softmax"),
    Loss("combo", "compound", 0.72),
    Loss("dice_focal", "compound", 0.73),
)  # fmt: skip

CLASSES = ("edema", "necrotic core", "enhancing rim")


def write_study(
    folder: Path,
    losses: tuple[Loss, ...] = SMALL,
    classes: tuple[str, ...] = CLASSES,
    seeds: int = 2,
    cases: int = 8,
    case_name: str = "case_{:03d}",
    dataset: str = "phantom",
) -> Path:
    """Write `config.yaml`, `environment.json` and `tables/` and return the folder."""
    rng = np.random.default_rng(7)
    tables = folder / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    runs, curves, rows = [], [], []
    prevalence = [1.0, 0.84, 0.69, 0.6, 0.5][: len(classes)]
    names = [case_name.format(number) for number in range(cases)]
    present = rng.random((cases, len(classes))) < np.array(prevalence)
    present[:2] = True
    present[-1, -1] = False
    volumes = rng.lognormal(6, 0.8, present.shape).round() * present
    difficulty = rng.normal(0, 0.08, cases)
    for loss in losses:
        offset = rng.normal(0, 0.015, seeds)
        for seed in range(seeds):
            run = _run(loss, seed, dataset, classes, rng)
            runs.append(run)
            if run["status"] == "failed":
                continue
            curves += _curve(loss, run, dataset, classes, offset[seed], rng)
            if run["status"] == "diverged":
                continue
            for checkpoint, shift in (("best", 0.0), ("last", -0.01)):
                scores = _levels(loss, classes) + offset[seed] + shift
                noise = rng.normal(0, 0.05, present.shape)
                dice = np.clip(scores[None] + difficulty[:, None] + noise, 0, 0.97)
                dice[:, scores < 0.03] = 0
                rows += _cases(loss.label, seed, checkpoint, dataset, classes, names,
                               present, volumes, dice, rng)  # fmt: skip
    for checkpoint in ("best", "last"):
        rows += _cases(FLOOR, -1, checkpoint, dataset, classes, names, present, volumes,
                       np.zeros(present.shape), rng)  # fmt: skip
    runs.append({"dataset": dataset, "loss": FLOOR, "seed": 0, "status": "ok", "steps": 0,
                 "reason": "no training: predicts nothing", "collapsed": True,
                 "collapse": "total"})  # fmt: skip
    runs = pd.DataFrame(runs)
    scored = pd.DataFrame(rows)
    runs.to_csv(tables / "runs.csv", index=False)
    pd.DataFrame(curves).to_csv(tables / "curves.csv", index=False)
    scored.to_csv(tables / "cases.csv", index=False)
    summary = _summary(losses, runs, scored, classes)
    summary.to_csv(tables / "summary.csv", index=False)
    _comparisons(losses, summary, seeds, cases).to_csv(tables / "comparisons.csv", index=False)
    _absent(scored).to_csv(tables / "absent.csv", index=False)
    _cost(runs).to_csv(tables / "cost.csv", index=False)
    _dataset(dataset, classes, prevalence, cases).to_csv(tables / "dataset.csv", index=False)
    _slices(tables, losses, classes, names, dataset, rng)
    cards = [_card(loss, losses) for loss in losses]
    (tables / "cards.json").write_text(json.dumps(cards), encoding="utf-8")
    config = {
        "title": "Which segmentation loss survives class imbalance?",
        "dataset": {"name": dataset, "subjects": cases * 6},
        "splits": {"train": 0.6, "validation": 0.15, "test": 0.25},
        "network": {"channels": [8, 16, 32, 64], "norm": "batch"},
        "training": {"steps": 800, "learning_rate": 0.003, "batch_size": 2},
        "seeds": list(range(seeds)),
        "losses": {loss.label: {"name": loss.name or loss.label, "options": {}} for loss in losses},
        "comparison": {"reference_loss": "dice_ce", "checkpoint": "best", "confidence": 0.95},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    environment = {"python": "3.12.3", "torch": "2.13.0", "monai": "1.6.1", "commit": "0a1b2c3"}
    (folder / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    return folder


def _levels(loss: Loss, classes: tuple[str, ...]) -> np.ndarray:
    levels = loss.level * (1 - 0.16 * np.arange(len(classes)))
    if loss.collapse == "partial":
        levels[-1] = 0
    if loss.collapse == "total":
        levels[:] = 0
    return levels


def _run(loss: Loss, seed: int, dataset: str, classes: tuple[str, ...], rng) -> dict:
    status = "diverged" if seed in loss.diverges else "failed" if seed in loss.fails else "ok"
    reason = {"diverged": "the loss became nan at step 310", "failed": "MemoryError: killed"}
    lost = {"none": (), "partial": classes[-1:], "total": classes}[loss.collapse]
    if status != "ok":
        lost = ()
    seconds = 31 + rng.random() * 8
    return {
        "dataset": dataset, "loss": loss.label, "learning_rate": 0.003, "seed": seed,
        "status": status, "reason": reason.get(status, ""), "steps": 800, "best_step": 700,
        "seconds": seconds, "startup_seconds": 4.0, "training_seconds": seconds - 12,
        "validation_seconds": 5.0, "evaluation_seconds": 3.0,
        "seconds_per_step": (seconds - 12) / 800, "peak_memory_mib": 900 + 50 * rng.random(),
        "initial_weights_sha256": f"{seed:064x}", "patch_order_sha256": f"{seed + 9:064x}",
        "collapsed": bool(lost) or status == "diverged",
        "collapse": "total" if status == "diverged" else loss.collapse if status == "ok" else "",
        "collapsed_classes": ";".join(lost),
    }  # fmt: skip


def _curve(loss, run, dataset, classes, offset, rng) -> list[dict]:
    rows = []
    last = 300 if run["status"] == "diverged" else 800
    for step in range(100, last + 1, 100):
        share = 1 - np.exp(-step / 250)
        key = {"dataset": dataset, "loss": loss.label, "learning_rate": 0.003, "seed": run["seed"],
               "step": step, "split": "validation"}  # fmt: skip
        rows.append({**key, "quantity": "loss", "class": "", "value": 1 - share * loss.level})
        for name, level in zip(classes, _levels(loss, classes), strict=True):
            value = max(0, (level + offset) * share + rng.normal(0, 0.02)) if level else 0
            rows.append({**key, "quantity": "dice", "class": name, "value": value})
    return rows


def _cases(label, seed, checkpoint, dataset, classes, names, present, volumes, dice, rng):
    rows = []
    for i, case in enumerate(names):
        for j, name in enumerate(classes):
            score, there, volume = dice[i, j], bool(present[i, j]), int(volumes[i, j])
            tp = int(score * volume)
            alarm = 0 if label == FLOOR or there else int(40 * (rng.random() < 0.4))
            rows.append({
                "dataset": dataset, "loss": label, "learning_rate": 0.003, "seed": seed,
                "checkpoint": checkpoint, "case": case, "subject": case, "class": name,
                "reference_voxels": volume, "predicted_voxels": volume if there else alarm,
                "tp": tp, "fp": volume - tp if there else alarm, "fn": volume - tp,
                "dice": score if there else np.nan,
                "iou": score / (2 - score) if there else np.nan,
                "sensitivity": min(1, score + 0.05) if there else np.nan,
                "precision": max(0, score - 0.03) if there else np.nan,
                "nsd": min(1, score + 0.1) if there else np.nan,
                "hd95": 60 * (1 - score) if there else np.nan,
                "volume_error": (score - 1) / 4 if there else np.nan,
            })  # fmt: skip
    return rows


def _interval(values: np.ndarray) -> tuple[float, float, float]:
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return np.nan, np.nan, np.nan
    mean = values.mean()
    half = 2.5 * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return mean, mean - half, mean + half


def _summary(losses, runs, scored, classes) -> pd.DataFrame:
    rows = []
    runs = runs[runs["loss"] != FLOOR]
    kinds = {loss.label: loss for loss in losses}
    labels = [*kinds, FLOOR]
    for checkpoint in ("best", "last"):
        for label in labels:
            of_loss = scored[(scored["loss"] == label) & (scored["checkpoint"] == checkpoint)]
            mine = runs[runs["loss"] == label]
            kind = kinds.get(label)
            collapsed = int(mine["collapsed"].sum())
            row = {
                "dataset": scored["dataset"].iloc[0], "loss": label, "checkpoint": checkpoint,
                "name": (kind.name or label) if kind else label,
                "family": _family(kind) if kind else "floor",
                "published": bool(kind and kind.published), "twin": kind.twin if kind else "",
                "runs": len(mine), "ok": (mine["status"] == "ok").sum(),
                "diverged": (mine["status"] == "diverged").sum(),
                "failed": (mine["status"] == "failed").sum(), "collapsed": collapsed,
                "collapse_rate": collapsed / len(mine) if len(mine) else np.nan,
                "collapse_rate_low": 0.3 * collapsed / len(mine) if len(mine) else np.nan,
                "collapse_rate_high": (collapsed + 1) / (len(mine) + 1) if len(mine) else np.nan,
                "partial": (mine["collapse"] == "partial").sum(),
                "total": (mine["collapse"] == "total").sum(),
            }  # fmt: skip
            by_case = of_loss.groupby("case")["dice"].mean().to_numpy()
            for key, values in [("mean_dice", by_case)] + [
                (f"dice_{name}", of_loss.loc[of_loss["class"] == name, "dice"].to_numpy())
                for name in classes
            ]:
                row[key], row[f"{key}_low"], row[f"{key}_high"] = _interval(values)
            for end in ("", "_low", "_high"):
                row[f"rarest_dice{end}"] = row[f"dice_{classes[-1]}{end}"]
            for key in ("nsd", "hd95"):
                row[f"mean_{key}"] = of_loss[key].mean()
            for key in ("sensitivity", "precision", "volume_error"):
                row[key] = of_loss[key].mean()
            gone = of_loss[of_loss["reference_voxels"] == 0]
            row["absent_false_positive_rate"] = (gone["predicted_voxels"] > 0).mean()
            row["seconds_per_step"] = mine["seconds_per_step"].median()
            rows.append(row)
    table = pd.DataFrame(rows)
    top = table.loc[table["family"] != "floor", "mean_dice"].max()
    table["tier"] = np.where(
        table["family"] == "floor", "floor",
        np.where(table["mean_dice"].isna(), "failed",
        np.where(table["collapsed"] * 2 > table["runs"], "collapsed",
                 np.where(table["mean_dice"] > top - 0.05, "best", "separable"))),
    )  # fmt: skip
    return table


def _comparisons(losses, summary, seeds, cases) -> pd.DataFrame:
    rows = []
    for checkpoint in ("best", "last"):
        table = summary[summary["checkpoint"] == checkpoint].set_index("loss")
        wanted = [("reference", loss.label, losses[0].label, "") for loss in losses]
        wanted += [("correction", loss.twin, loss.label, REASON) for loss in losses if loss.twin]
        for contrast, label, against, reason in wanted:
            if label == against:
                continue
            for endpoint in ("mean_dice", "rarest_dice"):
                gap = table.loc[label, endpoint] - table.loc[against, endpoint]
                half = 0.06 if seeds > 1 else np.nan
                p = float(np.exp(-(abs(gap) / 0.02))) if seeds > 1 else np.nan
                rows.append({
                    "dataset": table["dataset"].iloc[0], "checkpoint": checkpoint,
                    "contrast": contrast, "loss": label, "against": against,
                    "endpoint": endpoint, "difference": gap, "low": gap - half,
                    "high": gap + half, "p": p, "p_holm": min(1, 5 * p), "seeds": seeds,
                    "cases": cases, "reason": reason,
                })  # fmt: skip
    return pd.DataFrame(rows)


def _absent(scored) -> pd.DataFrame:
    gone = scored[scored["reference_voxels"] == 0]
    keys = ["dataset", "loss", "checkpoint", "class"]
    groups = gone.groupby(keys)["predicted_voxels"]
    return groups.agg(
        cases="size",
        false_positive_rate=lambda voxels: (voxels > 0).mean(),
        false_positive_voxels="mean",
    ).reset_index()


def _cost(runs) -> pd.DataFrame:
    table = (
        runs[runs["loss"] != FLOOR]
        .groupby(["dataset", "loss"])
        .agg(
            seconds_per_step=("seconds_per_step", "median"),
            peak_memory_mib=("peak_memory_mib", "max"),
            seconds=("seconds", "median"),
            core_hours=("seconds", lambda seconds: seconds.sum() / 3600),
        )
    )
    table.insert(1, "loss_share", np.linspace(0.08, 0.4, len(table)))
    return table.reset_index()


def _dataset(dataset, classes, prevalence, cases) -> pd.DataFrame:
    rows = []
    fractions = [0.0087, 0.0019, 0.0009, 0.0008, 0.0007][: len(classes)]
    for split, share in (("train", 4), ("validation", 1), ("test", 1), ("all", 6)):
        for index, (name, fraction, prevalent) in enumerate(
            zip(("background", *classes), (1 - sum(fractions), *fractions), (1.0, *prevalence),
                strict=True)
        ):  # fmt: skip
            rows.append({"dataset": dataset, "split": split, "class": name, "class_index": index,
                         "cases": cases * share, "subjects": cases * share,
                         "voxel_fraction": fraction, "prevalence": prevalent,
                         "rarest": index == len(classes)})  # fmt: skip
    return pd.DataFrame(rows)


def _slices(tables, losses, classes, names, dataset, rng) -> None:
    rows, arrays = [], {}
    grid = np.mgrid[:56, :48]

    def add(kind, case, index, role, array, dice=np.nan, channel=0):
        key = f"slice_{len(rows):04d}"
        arrays[key] = array
        rows.append({"key": key, "kind": kind, "case": case, "subject": case, "axis": 2,
                     "index": index, "role": role, "channel": channel, "dice": dice,
                     "seed": 0})  # fmt: skip

    def scene(shift):
        radius = np.hypot(grid[0] - 30 - shift, grid[1] - 20 + shift)
        brain = np.hypot((grid[0] - 28) / 26, (grid[1] - 24) / 21) < 1
        label = np.zeros(radius.shape, np.uint8)
        for index in range(len(classes)):
            label[radius < 9 - 3 * index] = index + 1
        image = brain * (0.5 + 0.1 * np.sin(grid[0] / 3)) + rng.normal(0, 0.03, radius.shape)
        return (image + 0.2 * (label > 0)).astype(np.float32), label

    for number, case in enumerate(names[:4]):
        for index in (20, 26):
            image, label = scene(number + (index - 20) // 3)
            add("dataset", case, index, "image", image)
            add("dataset", case, index, "reference", label)
    for kind, case in (("median", names[0]), ("worst", names[1])):
        image, label = scene(0)
        add(kind, case, 24, "image", image)
        add(kind, case, 24, "reference", label)
        for loss in losses:
            if len(loss.diverges) or len(loss.fails):
                continue
            moved = np.roll(label, rng.integers(-3, 4, 2), axis=(0, 1))
            moved[moved > (0 if loss.collapse == "total" else len(classes))] = 0
            if loss.collapse == "partial":
                moved[moved == len(classes)] = 0
            add(kind, case, 24, loss.label, moved, float(_levels(loss, classes).mean()))
    pd.DataFrame(rows).to_csv(tables / "slices.csv", index=False)
    np.savez_compressed(tables / "slices.npz", **arrays)


def _card(loss: Loss, losses: tuple[Loss, ...]) -> dict:
    olds = [other.label for other in losses if other.twin == loss.label]
    return {
        "label": loss.label, "name": loss.name or loss.label,
        "title": loss.label.replace("_", " ").capitalize(), "family": _family(loss),
        "formula": r"1 - \frac{2 \sum_i p_i g_i + \epsilon}{\sum_i p_i + \sum_i g_i + \epsilon}",
        "paper": "An author, a title, 2017", "reduction": "mean over classes",
        "smoothing": "1e-5 in numerator and denominator", "background": "included",
        "absent_class": "weight of the rarest present class", "value_range": "[0, 1]",
        "options": {"batch": False}, "seed": "004" if loss.published else None,
        "twin": loss.twin if loss.published else olds,
        "reason": REASON if loss.twin else None,
        "runs_as_is": "Yes, in Keras" if loss.published else None,
    }  # fmt: skip


def _family(loss: Loss) -> str:
    return "as published" if loss.published else loss.family
