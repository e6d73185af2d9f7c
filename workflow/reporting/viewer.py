"""The viewer of cases: their volumes as the page carries them, and the library that shows them.

The library is NiiVue, taken from the installed package `ipyniivue` whenever a report is made.
"""

from __future__ import annotations

import base64
import importlib.metadata
import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
from nibabel.affines import voxel_sizes

from workflow import files
from workflow.reporting import wording
from workflow.reporting.downloads import packed
from workflow.reporting.figures_slices import ERRORS
from workflow.reporting.study_tables import Study
from workflow.reporting.style import class_colours

PACKAGE = "ipyniivue"
BUNDLE = "static/widget.js"
BUDGET = 4_000_000  # characters of the page that volumes may take
NO_VOLUMES = (
    "The volumes of the cases (volumes.csv, volumes.npz) do not lie beside these tables; a run of "
    "the study writes them."
)
NAMES = {"median": "Median case", "worst": "Worst case"}


class NoLibrary(Exception):
    """The installed packages do not hold the library in a form that is understood here."""


@dataclass(frozen=True)
class Library:
    """A JavaScript module and whose it is; `code` is compressed (gzip, base64)."""

    package: str
    version: str
    licence: str
    terms: str
    code: str


def library() -> Library:
    """NiiVue, as the module that the widget of `ipyniivue` carries inside.

    The widget itself only speaks to Jupyter, but it holds the whole library a second time,
    percent-encoded in one long string, to write into the pages that it saves. Nothing of the
    package is imported: that would import Jupyter's widgets.

    Raises:
        NoLibrary: the package is missing, or this version of it is built in another way.
    """
    try:
        package = importlib.metadata.distribution(PACKAGE)
        bundle = Path(str(package.locate_file(f"{PACKAGE}/{BUNDLE}"))).read_text(encoding="utf-8")
    except (importlib.metadata.PackageNotFoundError, OSError):
        raise NoLibrary(f"The package {PACKAGE} is not installed.") from None
    encoded = re.findall(r'"([^"\\\n]{500000,})"', bundle)
    modules = [urllib.parse.unquote(text) for text in encoded if "export%7B" in text]
    modules = [code for code in modules if re.search(r"export\{[^}]*\bNiivue\b", code)]
    if len(modules) != 1:
        raise NoLibrary(f"{PACKAGE} {package.version} does not carry NiiVue as it used to.")
    licences = [path for path in package.files or [] if path.name == "LICENSE"]
    return Library(
        package=PACKAGE,
        version=package.version,
        licence=package.metadata["License-Expression"] or package.metadata["License"],
        terms="\n".join(path.read_text(encoding="utf-8") for path in licences),
        code=packed(modules[0].encode()),
    )


def section(study: Study, tables: Path) -> dict[str, Any]:
    """What `viewer.html.j2` shows: the volumes and the library, or why there are none."""
    rows = files.read_table(tables / "volumes.csv")
    archive = tables / "volumes.npz"
    if rows.empty or not archive.is_file():
        return {"reason": NO_VOLUMES}
    try:
        niivue = library()
    except NoLibrary as error:
        return {"reason": str(error)}
    with np.load(archive) as stored:
        arrays = {key: stored[key] for key in rows["key"]}
    colours = class_colours(study.classes)
    step = 1
    cases = _cases(study, rows, arrays, step)
    while _size(cases) > BUDGET:
        step += 1
        cases = _cases(study, rows, arrays, step)
    return {
        "reason": "",
        "library": niivue,
        "thinned": step,
        "data": {
            "classes": [{"name": name, "colour": colours[name]} for name in study.classes],
            "errors": [{"name": name, "colour": colour} for colour, name in ERRORS.values()],
            "cases": cases,
        },
    }


def _size(cases: list[dict[str, Any]]) -> int:
    return sum(len(entry["voxels"]) for case in cases for entry in [*case["images"], *case["maps"]])


def _cases(
    study: Study, rows: pd.DataFrame, arrays: dict[str, np.ndarray], step: int
) -> list[dict[str, Any]]:
    return [
        _case(study, str(kind), group, arrays, step)
        for kind, group in rows.groupby("kind", sort=False)
    ]


def _case(
    study: Study, kind: str, rows: pd.DataFrame, arrays: dict[str, np.ndarray], step: int
) -> dict[str, Any]:
    """One case with every `step`-th voxel along each axis; the first voxel stays where it is."""
    thinned = (slice(None, None, step),) * 3
    images = rows[rows["role"] == "image"].sort_values("channel")
    reference = arrays[rows.loc[rows["role"] == "reference", "key"].iloc[0]][thinned]
    affine = arrays[rows.loc[rows["role"] == "affine", "key"].iloc[0]]
    affine = affine @ np.diag([step, step, step, 1])
    found = {role: row for role, (_, row) in zip(rows["role"], rows.iterrows(), strict=True)}
    predictions = [(label, found[label]) for label in study.losses if label in found]
    return {
        "title": f"{NAMES.get(kind, kind)}: {rows['case'].iloc[0]}",
        "header": base64.b64encode(_header(reference.shape, affine)).decode("ascii"),
        "focus": [round(float(x), 3) for x in affine[:3] @ [*_focus(reference), 1]],
        "voxel": " × ".join(f"{size:.3g}" for size in voxel_sizes(affine)),
        "images": [
            {"title": f"channel {int(channel)}", "voxels": _voxels(arrays[key][thinned])}
            for key, channel in zip(images["key"], images["channel"], strict=True)
        ],
        "maps": [
            {"title": "Reference", "mean": "", "score": "", "voxels": _voxels(reference)},
            *(
                {
                    "title": wording.readable(label),
                    "mean": f" (mean Dice {wording.number(row['dice'])})",
                    "score": _score(study, row),
                    "voxels": _voxels(arrays[row["key"]][thinned]),
                }
                for label, row in predictions
            ),
        ],
    }


def _voxels(array: np.ndarray) -> str:
    """The voxels in the order of NIfTI, the first axis fastest."""
    return packed(np.asarray(array, np.uint8).tobytes(order="F"))


def _header(shape: tuple[int, ...], affine: np.ndarray) -> bytes:
    """The 352 bytes of a NIfTI-1 file that stand before voxels of one byte."""
    header = nibabel.Nifti1Header(endianness="<")
    header.set_data_shape(shape)
    header.set_data_dtype(np.uint8)
    header.set_sform(affine, code="scanner")
    header.set_zooms(voxel_sizes(affine))
    header["vox_offset"] = 352
    return header.binaryblock + bytes(4)


def _focus(labels: np.ndarray) -> np.ndarray:
    """Where the crosshair starts: the foreground voxel nearest to the middle of the foreground."""
    there = np.argwhere(labels > 0)
    if not len(there):
        return np.array(labels.shape) // 2
    return there[((there - there.mean(axis=0)) ** 2).sum(axis=1).argmin()]


def _score(study: Study, row: pd.Series) -> str:
    """The Dice of one prediction, as a mean and of each class that the case has."""
    told = f"Mean Dice {wording.number(row['dice'])}"
    cases = study.chosen(study.cases)
    if len(cases):
        cases = cases[(cases["loss"] == row["role"]) & (cases["case"] == row["case"])]
        dice = cases[cases["seed"] == row["seed"]].set_index("class")["dice"].dropna()
        parts = [f"{name} {wording.number(dice[name])}" for name in study.classes if name in dice]
        told += f" ({', '.join(parts)})" if parts else ""
    return f"{told}, seed {int(row['seed'])}"
