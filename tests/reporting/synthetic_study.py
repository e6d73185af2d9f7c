"""A plausible study folder: made-up runs, and the tables that the comparison makes of them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import yaml

from workflow.comparison import tables as comparison
from workflow.evaluation.calibration import BINS
from workflow.study import Comparison
from workflow.training import tuning
from workflow.training.train import Record

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


SPACING = (4.0, 4.0, 4.0)
SHAPE = (24, 24, 24)
GRID = (0.001, 0.003, 0.01)


@dataclass(frozen=True)
class Card:
    """The card of a made-up loss, with the fields of a real one that the report shows."""

    name: str
    title: str
    family: str
    twin: str | list[str]
    seed: str | None
    reason: str | None
    runs_as_is: str | None
    formula: str = r"1 - \frac{2 \sum_i p_i g_i + \epsilon}{\sum_i p_i + \sum_i g_i + \epsilon}"
    paper: str = "An author, a title, 2017"
    reduction: str = "mean over classes"
    smoothing: str = "1e-5 in numerator and denominator"
    background: str = "included"
    absent_class: str = "weight of the rarest present class"
    value_range: str = "[0, 1]"

    @property
    def published(self) -> bool:
        return bool(self.seed)

    @property
    def defaults(self) -> dict:
        return {"batch": False}


class Case:
    """A case of the made-up data: how many voxels of each class it has, and a map with them."""

    spacing, dataset, image_sha256 = SPACING, "phantom", ""

    def __init__(self, name: str, classes: tuple[str, ...], volumes: np.ndarray) -> None:
        self.name = self.subject = name
        label = np.zeros(np.prod(SHAPE), np.uint8)
        ends = np.cumsum(volumes)
        for index, (volume, end) in enumerate(zip(volumes, ends, strict=True)):
            label[end - volume : end] = index + 1
        self.label = label.reshape(SHAPE)
        counts = np.bincount(label, minlength=len(classes))
        self.voxels = dict(zip(classes, counts.tolist(), strict=True))


class Data:
    """Stands for ``Prepared``."""

    def __init__(self, name: str, classes: tuple[str, ...], cases: list[Case]) -> None:
        self.name, self.classes, self.cases = name, classes, cases

    def label(self, case: Case) -> np.ndarray:
        return case.label

    reference_label = label


def write_study(
    folder: Path,
    losses: tuple[Loss, ...] = SMALL,
    classes: tuple[str, ...] = CLASSES,
    seeds: int = 2,
    cases: int = 8,
    case_name: str = "case_{:03d}",
    dataset: str = "phantom",
    tuned: bool = False,
) -> Path:
    """Write run folders, make `tables/` of them as a real study does, and return the folder.

    The tables are the comparison's own, so that their columns cannot drift from those the figures
    are tested with; made up are the scores, the slices and the trials (where ``tuned``).
    """
    rng = np.random.default_rng(7)
    tables = folder / "tables"
    names = [case_name.format(number) for number in range(cases)]
    data, splits, volumes = _data(dataset, classes, names, rng)
    difficulty = rng.normal(0, 0.08, cases)
    trials = _trials(losses, dataset, rng)
    chosen = trials[trials["chosen"]].set_index("loss")["learning_rate"]
    runs = []
    for number, loss in enumerate(losses):
        for seed in range(seeds):
            record = _record(loss, seed, classes, names, volumes, difficulty, rng)
            key = {"dataset": dataset, "loss": loss.label, "seed": seed}
            key["learning_rate"] = chosen[loss.label] if tuned else 0.003
            runs.append(folder / "runs" / f"{number}-{seed}")
            record.write(runs[-1], key)
    study = SimpleNamespace(
        dataset=SimpleNamespace(name=dataset),
        test_set="phantom",
        evaluation=SimpleNamespace(nsd_tolerance=2.0),
        comparison=Comparison(reference_loss=losses[0].label),
        losses={x.label: SimpleNamespace(name=x.name or x.label, options={}) for x in losses},
    )
    cards = {loss.name or loss.label: _card(loss, losses) for loss in losses}
    with mock.patch("losses.card", cards.__getitem__):
        comparison.write_all(study, data, splits, runs, tables)
    if tuned:
        trials.to_csv(tables / "trials.csv", index=False)
    _slices(tables, losses, classes, names, dataset, rng)
    config = {
        "title": "Which segmentation loss survives class imbalance?",
        "dataset": {"name": dataset, "subjects": len(data.cases)},
        "splits": {"train": 0.6, "validation": 0.15, "test": 0.25},
        "network": {"channels": [8, 16, 32, 64], "norm": "batch"},
        "training": {"steps": 800, "learning_rate": 0.003, "batch_size": 2},
        "seeds": list(range(seeds)),
        "losses": {loss.label: {"name": loss.name or loss.label, "options": {}} for loss in losses},
        "comparison": study.comparison.model_dump(),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    environment = {"python": "3.12.3", "torch": "2.13.0", "monai": "1.6.1", "commit": "0a1b2c3"}
    (folder / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    return folder


def _data(
    dataset: str, classes: tuple[str, ...], names: list[str], rng
) -> tuple[Data, pd.DataFrame, np.ndarray]:
    """Twice as many training cases as held-out ones; voxels (case, class) of the latter."""
    prevalence = np.array([1.0, 0.84, 0.69, 0.6, 0.5][: len(classes)])
    others = [f"other {number}" for number in range(2 * len(names) + 2)]
    present = rng.random((len(names) + len(others), len(classes))) < prevalence
    present[:2] = present[-2:] = True
    present[len(names) - 1, -1] = False
    typical = 5.5 - 0.7 * np.arange(len(classes))
    volumes = (rng.lognormal(typical, 0.5, present.shape).round() * present).astype(int)
    cases = [
        Case(name, ("background", *classes), row)
        for name, row in zip([*names, *others], volumes, strict=True)
    ]
    split = ["test"] * len(names) + ["train"] * (len(others) - 2) + ["validation"] * 2
    splits = pd.DataFrame({"case": [c.name for c in cases], "split": split})
    splits["subject"] = splits["case"]
    return Data(dataset, ("background", *classes), cases), splits, volumes[: len(names)]


def _levels(loss: Loss, classes: tuple[str, ...]) -> np.ndarray:
    levels = loss.level * (1 - 0.16 * np.arange(len(classes)))
    if loss.collapse == "partial":
        levels[-1] = 0
    if loss.collapse == "total":
        levels[:] = 0
    return levels


def _record(loss, seed, classes, names, volumes, difficulty, rng) -> Record:
    """What a run of this loss leaves behind."""
    status = "diverged" if seed in loss.diverges else "failed" if seed in loss.fails else "ok"
    reason = {"diverged": "the loss became nan at step 310", "failed": "MemoryError: killed"}
    seconds = 31 + rng.random() * 8
    record = Record(status={
        "status": status, "reason": reason.get(status, ""), "steps": 800, "best_step": 700,
        "seconds": seconds, "startup_seconds": 4.0, "training_seconds": seconds - 12,
        "validation_seconds": 5.0, "evaluation_seconds": 3.0,
        "seconds_per_step": (seconds - 12) / 800, "loss_share": 0.08 + 0.3 * rng.random(),
        "peak_memory_mib": 900 + 50 * rng.random(), "initial_weights_sha256": f"{seed:064x}",
        "patch_order_sha256": f"{seed + 9:064x}",
    })  # fmt: skip
    if status == "failed":
        return record
    offset = rng.normal(0, 0.015)
    for step in range(100, 301 if status == "diverged" else 801, 100):
        share = 1 - np.exp(-step / 250)
        record.curve.append((step, "validation", "loss", "", 1 - share * loss.level))
        for name, level in zip(classes, _levels(loss, classes), strict=True):
            value = max(0, (level + offset) * share + rng.normal(0, 0.02)) if level else 0
            record.curve.append((step, "validation", "dice", name, value))
    if status == "diverged":
        return record
    for checkpoint, shift in (("best", 0.0), ("last", -0.01)):
        scores = _levels(loss, classes) + offset + shift
        noise = rng.normal(0, 0.05, volumes.shape)
        dice = np.clip(scores[None] + difficulty[:, None] + noise, 0, 0.97)
        dice[:, _levels(loss, classes) == 0] = 0
        record.cases += _cases(checkpoint, classes, names, volumes, dice, rng)
        record.reliability += _reliability(loss, checkpoint, classes)
    return record


def _cases(checkpoint, classes, names, volumes, dice, rng) -> list[dict]:
    rows = []
    for i, case in enumerate(names):
        ece = 0.02 + 0.1 * rng.random()
        for j, name in enumerate(classes):
            score, volume = dice[i, j], int(volumes[i, j])
            there, found = volume > 0, bool(dice[:, j].any())
            tp = int(score * volume)
            alarm = int(rng.lognormal(2, 2)) if found and rng.random() < 0.6 else 0
            predicted = (volume if score else 0) if there else alarm
            known = {
                "dice": score, "iou": score / (2 - score), "sensitivity": min(1, score + 0.05),
                "precision": score if score else np.nan, "nsd": min(1, score + 0.1),
                "hd95": 60 * (1 - score), "volume_error": (score - 1) / 4,
            }  # fmt: skip
            rows.append({
                "checkpoint": checkpoint, "test_set": "phantom",
                "case": case, "subject": case, "class": name,
                "voxel_mm3": float(np.prod(SPACING)), "reference_voxels": volume,
                "predicted_voxels": predicted, "tp": tp, "fp": predicted - tp, "fn": volume - tp,
                **(known if there else {}),
                "presence_log_odds": rng.normal(3 * there * found, 2),
                "ece": ece, "nll": 3 * ece,
            })  # fmt: skip
    return rows


def _reliability(loss: Loss, checkpoint: str, classes: tuple[str, ...]) -> list[dict]:
    """A loss of a low level is overconfident."""
    rows = []
    for name in ("", *classes):
        for index in range(4 if name == "" else 0, BINS):
            confidence = (index + 0.5) / BINS
            rows.append({
                "checkpoint": checkpoint, "class": name, "bin": index,
                "voxels": 50 + 40 * abs(2 * index - BINS), "confidence": confidence,
                "accuracy": confidence ** (2 - loss.level),
            })  # fmt: skip
    return rows


def _trials(losses: tuple[Loss, ...], dataset: str, rng) -> pd.DataFrame:
    """Each loss at each rate of the grid; the best rate of every second loss is at its end."""
    rows = []
    for number, loss in enumerate(losses):
        peak = math.log(GRID[1] if number % 2 else GRID[-1] * (1 + 2 * (number % 4)))
        scores = {rate: loss.level * math.exp(-((math.log(rate) - peak) ** 2) / 8) for rate in GRID}
        beyond = tuning.one_step_beyond(scores)
        if beyond is not None:
            scores[beyond] = loss.level * math.exp(-((math.log(beyond) - peak) ** 2) / 8)
        chosen = tuning.best(scores)
        rows += [
            {"dataset": dataset, "loss": loss.label, "learning_rate": rate, "score": score,
             "status": "ok" if score else "diverged", "seed": 1000, "steps": 800,
             "widened": rate == beyond, "chosen": rate == chosen,
             "on_edge": tuning.one_step_beyond(scores) is not None}
            for rate, score in sorted(scores.items())
        ]  # fmt: skip
    return pd.DataFrame(rows).reindex(columns=tuning.COLUMNS)


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


def _card(loss: Loss, losses: tuple[Loss, ...]) -> Card:
    olds = [other.label for other in losses if other.twin == loss.label]
    return Card(
        name=loss.name or loss.label,
        title=loss.label.replace("_", " ").capitalize(),
        family="as published" if loss.published else loss.family,
        twin=loss.twin or olds,
        seed="004" if loss.published else None,
        reason=REASON if loss.twin else "",
        runs_as_is="Yes, in Keras" if loss.published else None,
    )
