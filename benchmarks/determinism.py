"""How far one run differs from itself with other threads, instructions, or on another machine.

    python -m benchmarks.determinism --runs FOLDER        # writes determinism.csv, keeps the runs
    python -m benchmarks.determinism --against FOLDER     # a FOLDER of another machine as well

The network and settings of the default study, fewer subjects and steps. Each variant is a process
of its own; less able processors are imitated by forbidding instructions. Another seed stands beside
them, as the difference that the report's intervals are made of.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from workflow import check, files
from workflow.data import phantom
from workflow.data.prepare import load_prepared
from workflow.study import RunSettings, Study, load
from workflow.training.train import Run, train

TABLE = Path(__file__).parent / "determinism.csv"
DEFAULT = Path(__file__).parent.parent / "config" / "default.yaml"
LOSS, SEED, FIRST = "dice_ce", 1, "one thread"
SMALLER = {
    "dataset": {"phantom": {"subjects": 24}},
    "training": {"steps": 120, "validate_every": 20},
    "losses": [LOSS],
}
VARIANTS: dict[str, dict[str, str]] = {
    FIRST: {},
    "the same again": {},
    "two threads": {"OMP_NUM_THREADS": "2"},
    "AVX2, no AVX-512": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "SSE4.1, no AVX": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "another seed": {},
}


def settings() -> tuple[Study, RunSettings]:
    study = load(DEFAULT, SMALLER)
    return study, study.run_settings(LOSS)


def write_data(folder: Path) -> None:
    study, _ = settings()
    phantom.write(study.dataset.phantom, folder / "raw")
    data = check.read_dataset(study.dataset, folder / "raw")
    prepared = check.prepare_data(study.data(), data, folder / "prepared")
    files.write_table(folder / "splits.csv", check.split(study.splits, prepared))


def run(data: Path, out: Path, seed: int) -> None:
    """The run of one variant, in this process."""
    study, what = settings()
    rate = float(study.rate(LOSS))
    splits = files.read_table(data / "splits.csv")
    train(what, load_prepared(data / "prepared"), splits, Run(LOSS, rate, seed), out)


def differences(first: Path, other: Path) -> dict[str, object]:
    """Of validation loss at each step, and of Dice on each held-out case and class (best weights).

    ``identical``: every number of curve and scores, and every voxel.
    """
    names = ("curve.csv", "cases.csv", "predictions.npz")
    row: dict[str, object] = {
        "identical": all((first / n).read_bytes() == (other / n).read_bytes() for n in names)
    }
    curves = [files.read_table(place / "curve.csv") for place in (first, other)]
    losses = [
        c[(c["split"] == "validation") & (c["quantity"] == "loss")].set_index("step")["value"]
        for c in curves
    ]
    apart = (losses[0] - losses[1]).abs()
    row |= {f"loss_at_{step}": apart[step] for step in (apart.index[1], apart.index[-1])}
    cases = [files.read_table(place / "cases.csv") for place in (first, other)]
    dice = [
        c[c["checkpoint"] == "best"].set_index(["case", "class"])["dice"].dropna() for c in cases
    ]
    apart = (dice[0] - dice[1]).abs()
    return row | {
        "dice_mean": apart.mean(),
        "dice_most": apart.max(),
        "dice_of_the_run": abs(dice[0].mean() - dice[1].mean()),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.determinism", description=__doc__)
    parser.add_argument("--runs", type=Path, help="folder that keeps the runs")
    parser.add_argument("--against", type=Path, help="such a folder of another machine")
    options = parser.parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        data, runs = Path(temporary), options.runs or Path(temporary) / "runs"
        write_data(data)
        for name, variables in VARIANTS.items():
            seed = SEED + (name == "another seed")
            words = f"run(Path({str(data)!r}), Path({str(runs / name)!r}), {seed})"
            subprocess.run(
                [sys.executable, "-c", f"from benchmarks.determinism import *; {words}"],
                env=os.environ | {"OMP_NUM_THREADS": "1"} | variables,
                check=True,
            )
            if name != FIRST:
                rows.append({"against": name} | differences(runs / FIRST, runs / name))
        files.write_table(TABLE, pd.DataFrame(rows))
        if options.against:
            other = options.against / FIRST
            rows.append({"against": str(other)} | differences(runs / FIRST, other))
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
