"""The slices that figures show: a few subjects, and every loss on the median and worst case."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from workflow import files
from workflow.data.prepare import Prepared, PreparedCase
from workflow.study import FLOOR, Study

SUBJECTS = 4
COLUMNS = (
    "key", "kind", "case", "subject", "axis", "index", "role", "channel", "dice", "seed",
)  # fmt: skip


def write(study: Study, prepared: Prepared, runs: dict[tuple[str, int], Path], out: Path) -> None:
    """Writes ``slices.csv`` (what is what) and ``slices.npz`` (the 2-D arrays) to ``out``.

    ``runs``: folder of each (loss, seed). Predictions shown are those of the study's first seed,
    whatever they look like.
    """
    rows: list[dict[str, object]] = []
    arrays: dict[str, np.ndarray] = {}
    for row, array in _slices(study, prepared, runs, files.read_table(out / "cases.csv")):
        key = f"slice{len(rows)}"
        rows.append({"key": key} | row)
        arrays[key] = array
    files.write_arrays(out / "slices.npz", arrays)
    files.write_table(out / "slices.csv", pd.DataFrame(rows, columns=COLUMNS))


def fullest_slices(labels: np.ndarray, count: int = 1) -> list[int]:
    """Indices along z where the classes show most, each class counted as a share of itself.

    With ``count`` > 1 the further slices keep a distance of an eighth of the extent where slices
    with foreground allow it.
    """
    extent = labels.shape[2]
    shares = np.zeros(extent)
    for value in np.unique(labels[labels > 0]):
        area = (labels == value).sum(axis=(0, 1))
        shares += area / area.sum()
    fullest = [int(z) for z in np.argsort(-shares, kind="stable") if shares[z] > 0]
    for gap in (max(1, extent // 8), 1):
        chosen: list[int] = []
        for z in fullest:
            if len(chosen) < count and all(abs(z - other) >= gap for other in chosen):
                chosen.append(z)
        if len(chosen) == count:
            return chosen
    return (chosen + [extent // 2] * count)[:count]


def _slices(
    study: Study, prepared: Prepared, runs: dict[tuple[str, int], Path], cases: pd.DataFrame
) -> Iterator[tuple[dict, np.ndarray]]:
    by_name = {case.name: case for case in prepared.cases}
    spread = np.linspace(0, len(prepared.cases) - 1, min(SUBJECTS, len(prepared.cases)))
    for position in spread.astype(int):
        case = prepared.cases[position]
        for index in fullest_slices(prepared.label(case), 2):
            yield from _anatomy(prepared, case, "dataset", index)
    scored = cases[(cases["checkpoint"] == study.comparison.checkpoint) & (cases["loss"] != FLOOR)]
    difficulty = scored.groupby("case")["dice"].mean().dropna().sort_values(kind="stable")
    if difficulty.empty:
        return
    for kind, name in (
        ("median", difficulty.index[len(difficulty) // 2]),
        ("worst", difficulty.index[0]),
    ):
        case = by_name[name]
        index = fullest_slices(prepared.label(case))[0]
        yield from _anatomy(prepared, case, kind, index)
        for loss in study.losses:
            seed = study.seeds[0]
            with np.load(runs[loss, seed] / "predictions.npz") as stored:
                if name not in stored:
                    continue
                prediction = stored[name][:, :, index]
            rows = scored[
                (scored["loss"] == loss) & (scored["seed"] == seed) & (scored["case"] == name)
            ]
            yield (
                _row(case, kind, index, loss) | {"dice": rows["dice"].mean(), "seed": seed},
                prediction,
            )


def _anatomy(
    prepared: Prepared, case: PreparedCase, kind: str, index: int
) -> Iterator[tuple[dict, np.ndarray]]:
    image = prepared.image(case)
    for channel in range(image.shape[0]):
        row = _row(case, kind, index, "image") | {"channel": channel}
        yield row, np.array(image[channel, :, :, index], dtype=np.float32)
    yield _row(case, kind, index, "reference"), np.array(prepared.label(case)[:, :, index])


def _row(case: PreparedCase, kind: str, index: int, role: str) -> dict[str, object]:
    return {
        "kind": kind,
        "case": case.name,
        "subject": case.subject,
        "axis": "z",
        "index": index,
        "role": role,
    }
