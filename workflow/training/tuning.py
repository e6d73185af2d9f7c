"""The learning rate of a loss: chosen on validation, from the same trials for every loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from workflow import files
from workflow.data.prepare import Prepared
from workflow.study import RunSettings, Tuning
from workflow.training.train import LOG, Run, train

COLUMNS = (
    "dataset", "loss", "learning_rate", "score", "status", "seed", "steps", "widened", "chosen",
    "on_edge", "seconds", "commit", "torch",
)  # fmt: skip


def choose(
    settings: RunSettings,
    prepared: Prepared,
    splits: pd.DataFrame,
    tuning: Tuning,
    loss: str,
    folder: Path,
    limit: float | None = None,
) -> pd.DataFrame:
    """The trials of a loss, a row each, and which of them is chosen.

    The grid's trials lie in ``folder`` already. If the best of them is at an end of the grid, one
    more is run a step beyond it (``widened``); ``on_edge`` says that the best is still at an end.
    """
    rows = {rate: _read(folder, rate, settings.checkpoint) for rate in tuning.grid}
    beyond = one_step_beyond({rate: row["score"] for rate, row in rows.items()})
    if beyond is not None:
        LOG.info("%s: the best rate is at an end of the grid: trying %g too", loss, beyond)
        run = Run(loss, beyond, tuning.seed)
        out = trial_folder(folder, beyond)
        train(settings, prepared, splits, run, out, trial=True, limit=limit)
        rows[beyond] = _read(folder, beyond, settings.checkpoint)
    scores = dict(sorted((rate, row["score"]) for rate, row in rows.items()))
    chosen = best(scores)
    table = pd.DataFrame([rows[rate] for rate in scores])
    table["widened"] = [rate == beyond for rate in scores]
    table["chosen"] = [rate == chosen for rate in scores]
    table["on_edge"] = one_step_beyond(scores) is not None
    return table.reindex(columns=COLUMNS)


def trial_folder(folder: Path, rate: float) -> Path:
    """Where a trial of this rate leaves its files."""
    return folder / f"lr-{rate!r}"


def best(scores: Mapping[float, float]) -> float:
    """The rate with the highest score; of equal ones that nearest to the middle of the rates."""
    middle = (math.log(min(scores)) + math.log(max(scores))) / 2
    return max(scores, key=lambda rate: (scores[rate], -abs(math.log(rate) - middle)))


def one_step_beyond(scores: Mapping[float, float]) -> float | None:
    """The next rate of a geometric grid if the best is at its end, else None."""
    rates = sorted(scores)
    chosen = best(scores)
    if chosen == rates[0]:
        beyond = rates[0] ** 2 / rates[1]
    elif chosen == rates[-1]:
        beyond = rates[-1] ** 2 / rates[-2]
    else:
        return None
    return float(f"{beyond:.3g}")


def score(curve: pd.DataFrame, checkpoint: str) -> float:
    """Mean Dice of the foreground classes on validation at the checkpoint that is reported.

    0 where there is none: the run diverged or failed before its first validation.
    """
    rows = curve[(curve["quantity"] == "dice") & (curve["step"] > 0)]
    by_step = rows.groupby("step")["value"].mean()
    if by_step.empty:
        return 0.0
    return float(by_step.max() if checkpoint == "best" else by_step.iloc[-1])


def _read(folder: Path, rate: float, checkpoint: str) -> dict[str, Any]:
    place = trial_folder(folder, rate)
    status = files.read_json(place / "status.json")
    # a rate at which the run breaks down is no candidate, however well it began
    value = score(files.read_table(place / "curve.csv"), checkpoint)
    return status | {"score": value if status["status"] == "ok" else 0.0}
