"""What is shown of cases: slices of a few subjects, every loss on the median and the worst case."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from workflow import files
from workflow.data.prepare import Prepared, PreparedCase
from workflow.study import FLOOR, Study

SUBJECTS = 4
SIDE = 160  # voxels along an axis of a stored volume; a larger one is thinned
WINDOW = (0.01, 0.995)  # quantiles of the image between which its grey levels lie
COLUMNS = (
    "key", "kind", "case", "subject", "axis", "index", "role", "channel", "dice", "seed",
)  # fmt: skip
VOLUME_COLUMNS = tuple(name for name in COLUMNS if name not in ("axis", "index"))


def write(study: Study, prepared: Prepared, runs: dict[tuple[str, int], Path], out: Path) -> None:
    """Writes ``slices.csv`` (what is what) and ``slices.npz`` (the 2-D arrays) to ``out``.

    And ``volumes.csv`` and ``volumes.npz``, the same cases as a whole: images as grey levels from
    0 to 255, label maps, and the affine (4 x 4, voxel to mm) as a further role of each case.

    ``runs``: folder of each (loss, seed). Predictions shown are those of the study's first seed,
    whatever they look like.
    """
    cases = files.read_table(out / "cases.csv")
    _store(out, "slice", COLUMNS, _slices(study, prepared, runs, cases))
    _store(out, "volume", VOLUME_COLUMNS, _volumes(study, prepared, runs, cases))


def _store(
    out: Path, name: str, columns: Sequence[str], found: Iterator[tuple[dict, np.ndarray]]
) -> None:
    rows: list[dict[str, object]] = []
    arrays: dict[str, np.ndarray] = {}
    for row, array in found:
        key = f"{name}{len(rows)}"
        rows.append({"key": key} | row)
        arrays[key] = array
    files.write_arrays(out / f"{name}s.npz", arrays)
    files.write_table(out / f"{name}s.csv", pd.DataFrame(rows, columns=columns))


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
    spread = np.linspace(0, len(prepared.cases) - 1, min(SUBJECTS, len(prepared.cases)))
    for position in spread.astype(int):
        case = prepared.cases[position]
        for index in fullest_slices(prepared.label(case), 2):
            yield from _anatomy(prepared, case, "dataset", index)
    for kind, case in _median_and_worst(study, prepared, cases):
        index = fullest_slices(prepared.label(case))[0]
        yield from _anatomy(prepared, case, kind, index)
        for shown, prediction in _predictions(study, runs, cases, case):
            yield _row(case, kind, index, shown["role"]) | shown, prediction[:, :, index]


def _volumes(
    study: Study, prepared: Prepared, runs: dict[tuple[str, int], Path], cases: pd.DataFrame
) -> Iterator[tuple[dict, np.ndarray]]:
    for kind, case in _median_and_worst(study, prepared, cases):
        told = {"kind": kind, "case": case.name, "subject": case.subject}
        reference = prepared.label(case)
        step = -(-max(reference.shape) // SIDE)
        every = (slice(None, None, step),) * 3
        # the first voxel stays where it is, the others are `step` times as far from it
        affine = np.array(case.affine) @ np.diag([step, step, step, 1])
        yield told | {"role": "affine"}, affine
        for channel, image in enumerate(prepared.image(case)):
            yield told | {"role": "image", "channel": channel}, grey_levels(image[every])
        yield told | {"role": "reference"}, np.array(reference[every])
        for shown, prediction in _predictions(study, runs, cases, case):
            yield told | shown, prediction[every].copy()


def grey_levels(image: np.ndarray) -> np.ndarray:
    """The image between its quantiles `WINDOW` as integers 0 to 255 (uint8); NaN is 0."""
    finite = image[np.isfinite(image)]
    low, high = np.quantile(finite, WINDOW) if finite.size else (0.0, 1.0)
    shown = np.clip((np.nan_to_num(image, nan=low) - low) / max(high - low, 1e-9), 0, 1)
    return np.round(255 * shown).astype(np.uint8)


def _median_and_worst(
    study: Study, prepared: Prepared, cases: pd.DataFrame
) -> list[tuple[str, PreparedCase]]:
    """By the mean Dice of all losses and seeds; empty if nothing was scored."""
    by_name = {case.name: case for case in prepared.cases}
    difficulty = _scored(study, cases).groupby("case")["dice"].mean().dropna()
    ordered = difficulty.sort_values(kind="stable").index
    if not len(ordered):
        return []
    return [("median", by_name[ordered[len(ordered) // 2]]), ("worst", by_name[ordered[0]])]


def _scored(study: Study, cases: pd.DataFrame) -> pd.DataFrame:
    return cases[(cases["checkpoint"] == study.comparison.checkpoint) & (cases["loss"] != FLOOR)]


def _predictions(
    study: Study, runs: dict[tuple[str, int], Path], cases: pd.DataFrame, case: PreparedCase
) -> Iterator[tuple[dict, np.ndarray]]:
    """Every loss's label map of a case, and what it scored."""
    seed = study.seeds[0]
    scored = _scored(study, cases)
    scored = scored[(scored["seed"] == seed) & (scored["case"] == case.name)]
    for loss in study.losses:
        with np.load(runs[loss, seed] / "predictions.npz") as stored:
            if case.name in stored:
                dice = scored.loc[scored["loss"] == loss, "dice"].mean()
                yield {"role": loss, "dice": dice, "seed": seed}, stored[case.name]


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
