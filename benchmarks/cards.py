"""``python -m benchmarks.cards``: the measured values of the cards, ``losses/measured.csv``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

import losses
from benchmarks.measure import step
from benchmarks.pairs import Pair
from benchmarks.patches import untrained
from workflow import files

MEASURED = Path(losses.__file__).parent / "measured.csv"
BENCHMARK = Path(__file__).parent / "losses.csv"


def gradient_scale(name: str) -> float:
    """Sum over voxels and classes of abs(dL / d logits) at initialisation, see ``untrained``.

    Options are the defaults, and ``example_options`` where there is none.
    """
    torch.set_num_threads(1)  # the same sum, whatever machine
    return float(step(Pair(name).ours())(untrained()).abs().sum())


def costs(table: pd.DataFrame) -> pd.Series:
    """Time of a step over that of softmax alone, by loss: one thread, losses measured alone."""
    alone = table[(table["library"].fillna("") == "") & (table["threads"] == 1)]
    return alone.set_index("loss")["floor_ratio"]


def write(table: pd.DataFrame) -> None:
    """Write the values of all losses, the costs taken from the benchmark's table."""
    cost = costs(table)
    new = sorted(set(losses.available()) - set(cost.index))
    if new:
        raise ValueError(f"not timed yet: {', '.join(new)}; run python -m benchmarks.losses")
    rows = [
        {"name": name, "gradient_scale": gradient_scale(name), "cost": cost[name]}
        for name in losses.available()
    ]
    lines = pd.DataFrame(rows).round({"cost": 1})
    lines["gradient_scale"] = lines["gradient_scale"].map("{:.4g}".format)
    files.write_table(MEASURED, lines)


if __name__ == "__main__":
    write(files.read_table(BENCHMARK))
