"""Raw tables of an experiment as its runs would leave them, with made-up scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from workflow.comparison import experiment, tables
from workflow.data.phantom import PhantomSettings
from workflow.study import Study

CLASSES = ("background", "edema", "necrotic core", "enhancing rim")
FRACTIONS = (0.988, 0.0085, 0.0012, 0.0023)
VOXELS = 48 * 56 * 48


def raw_tables(
    study: Study,
    level: Callable[[str, str, str], float],
    *,
    cases: int = 12,
    absent: float = 0.0,
    spread: float = 0.05,
) -> experiment.Table:
    """What ``experiment.collect`` makes of a study.

    Args:
        level: (arm, loss, class) -> mean Dice; 0 is a class that is never found.
        cases: of each test set.
        absent: share of cases that lack the rarest class.
        spread: standard deviation of the score between cases and between runs.
    """
    rng = np.random.default_rng(0)
    found: dict[str, list] = {"dataset": [], "runs": [], "cases": [], "curves": [], "signals": []}
    for name, arm in study.variants.items():
        found["dataset"] += _dataset(name, arm)
        sets = [arm.test_set] + ([arm.dataset.name] if arm.external and arm.splits.test else [])
        for loss in arm.losses:
            rate = float(arm.rate(loss))
            for seed in arm.seeds:
                key = {"arm": name, "loss": loss, "learning_rate": rate, "seed": seed}
                wanted = {c: level(name, loss, c) for c in CLASSES[1:]}
                levels = {
                    c: max(0.0, mean + rng.normal(0, spread / 3)) if mean else 0.0
                    for c, mean in wanted.items()
                }
                rows = [
                    key | row
                    for test_set in sets
                    for row in _cases(test_set, levels, cases, absent, spread, rng)
                ]
                found["cases"] += rows
                found["runs"].append(_run(key, arm))
                found["curves"] += [key | row for row in _curves(arm, levels)]
                found["signals"] += [key | row for row in _signals(arm, seed, levels)]
    raw = {name: pd.DataFrame(rows) for name, rows in found.items() if rows}
    graded = []
    for (arm, _), rows in raw["runs"].groupby(["arm", "loss"], sort=False):
        its = raw["cases"][raw["cases"]["arm"] == arm]
        its = its[its["test_set"] == study.variants[arm].test_set]
        graded.append(tables.graded(rows, its).assign(arm=arm))
    raw["runs"] = pd.concat(graded, ignore_index=True)
    return {"arms": experiment.arm_table(study)} | raw


def _dataset(name: str, arm: Study) -> list[dict]:
    """Volumes and prevalence as the phantom's settings have them."""
    phantom = arm.dataset.phantom
    larger = phantom.lesion_volume / PhantomSettings().lesion_volume
    fractions = [larger * fraction for fraction in FRACTIONS]
    fractions[0] = 1 - sum(fractions[1:])
    return [
        {
            "arm": name, "dataset": arm.dataset.name, "split": split, "class": c, "class_index": i,
            "cases": 10, "subjects": 10, "voxel_fraction": fractions[i],
            "prevalence": phantom.prevalence.get(c, 1.0),
            "smallest_mm3": 640.0, "sha256": "0", "rarest": c == "necrotic core",
        }
        for split in ("train", "validation", "test", "all")
        for i, c in enumerate(CLASSES)
    ]  # fmt: skip


def _run(key: dict, arm: Study) -> dict:
    return {
        **key, "dataset": arm.dataset.name, "status": "ok", "reason": "",
        "steps": arm.training.steps, "best_step": arm.training.steps, "seconds": 30.0,
        "seconds_per_step": 0.03, "peak_memory_mib": 600.0, "commit": "0a1b2c3",
        "torch": "2.13.0", "initial_weights_sha256": f"weights {key['seed']}",
        "patch_order_sha256": f"patches {key['seed']}",
    }  # fmt: skip


def _cases(test_set, levels, cases, absent, spread, rng) -> list[dict]:
    rows = []
    for index in range(cases):
        for place, (name, mean) in enumerate(levels.items()):
            there = name != "necrotic core" or index >= absent * cases
            dice = float(np.clip(mean + rng.normal(0, spread), 0, 1)) if mean else 0.0
            voxels = round(VOXELS * FRACTIONS[place + 1]) if there else 0
            rows.append({
                "test_set": test_set, "case": f"{test_set}.{index:03d}",
                "subject": f"{test_set}.{index:03d}", "class": name, "voxel_mm3": 64.0,
                "reference_voxels": voxels, "predicted_voxels": round(voxels * (mean > 0)),
                "dice": dice if there else np.nan, "sensitivity": dice if there else np.nan,
                "precision": dice if there and dice else np.nan,
                "nsd": dice if there else np.nan,
            })  # fmt: skip
    return rows


def _curves(arm: Study, levels: dict[str, float]) -> list[dict]:
    steps = range(0, arm.training.steps + 1, arm.training.validate_every)
    return [
        {"step": step, "split": "validation", "quantity": "dice", "class": name,
         "value": mean * step / arm.training.steps}
        for step in steps
        for name, mean in levels.items()
    ]  # fmt: skip


def _signals(arm: Study, seed: int, levels: dict[str, float]) -> list[dict]:
    """The patches of a seed are the same for all losses; seven in ten reach a class that is there.

    The gradient of a class that is not there comes from the voxels of the others alone.
    """
    rng = np.random.default_rng(seed)
    prevalence, size = arm.dataset.phantom.prevalence, arm.training.batch_size
    every = arm.training.signals_every
    rows = []
    for step in range(0, arm.training.steps, every) if every else ():
        for index, name in enumerate(CLASSES):
            images = size if index < 2 else int(rng.binomial(size, 0.7 * prevalence[name]))
            there = images > 0
            p = 0.9 if index == 0 else 0.25 + levels[name] * step / arm.training.steps
            rows.append({
                "step": step, "class": name, "images": images,
                "voxels": 100 * there, "probability": p if there else np.nan,
                "slope": p * (1 - p) if there else np.nan, "gradient_inside": 1e-3 * there,
                "gradient_outside": 2e-3, "weight": np.nan,
            })  # fmt: skip
    return rows
