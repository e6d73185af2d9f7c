"""Slices of cases: the data set, and what every loss made of the median and the worst case."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from workflow.reporting import text, wording
from workflow.reporting.study_tables import Study
from workflow.reporting.style import (
    BLACK,
    CLASS_COLOURS,
    PURPLE,
    VERMILION,
    WIDTH,
    headline,
    new_figure,
    nothing_to_show,
    styled,
)

TILES = 6  # in a row
NO_SLICES = "No slices of cases lie beside these tables (slices.csv, slices.npz)."
MARGIN = 8  # voxels around the lesion
ERRORS = {
    "missed": (VERMILION, "missed (predicted background)"),
    "alarm": (PURPLE, "false alarm (reference is background)"),
    "confused": (BLACK, "wrong class"),
}


def errors(reference: np.ndarray, prediction: np.ndarray) -> dict[str, np.ndarray]:
    """Masks of the three kinds of wrong voxels."""
    return {
        "missed": (reference > 0) & (prediction == 0),
        "alarm": (reference == 0) & (prediction > 0),
        "confused": (reference > 0) & (prediction > 0) & (reference != prediction),
    }


def painted(
    image: np.ndarray, labels: np.ndarray, wrong: dict[str, np.ndarray], strength: float = 0.75
) -> np.ndarray:
    """The image in grey with labels in the colours of their classes and errors over them."""
    finite = image[np.isfinite(image)]
    low, high = np.quantile(finite, [0.01, 0.995]) if finite.size else (0.0, 1.0)
    grey = np.clip((np.nan_to_num(image) - low) / max(high - low, 1e-9), 0, 1)
    picture = np.repeat(grey[..., None], 3, axis=-1)
    for index in np.unique(labels[labels > 0]):
        colour = np.array(to_rgb(CLASS_COLOURS[(int(index) - 1) % len(CLASS_COLOURS)]))
        here = labels == index
        picture[here] = (1 - strength) * picture[here] + strength * colour
    for kind, mask in wrong.items():
        picture[mask] = to_rgb(ERRORS[kind][0])
    return picture


def _show(axis: Axes, picture: np.ndarray, title: str, size: float = 8) -> None:
    # First axis to the right, second upwards: the way a NIfTI slice is usually looked at.
    axis.imshow(np.swapaxes(picture, 0, 1), origin="lower", interpolation="nearest")
    axis.set_title(title, fontsize=size)
    axis.set_anchor("N")
    axis.set_xticks([])
    axis.set_yticks([])
    for side in axis.spines.values():
        side.set_visible(False)


def _box(masks: list[np.ndarray], shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The part of the slice around all labels, square where the slice allows."""
    there = np.any([mask > 0 for mask in masks], axis=0) if masks else np.zeros(shape, bool)
    if not there.any():
        return slice(0, shape[0]), slice(0, shape[1])
    bounds = [(int(line.min()), int(line.max()) + 1) for line in np.nonzero(there)]
    side = max(stop - start for start, stop in bounds) + 2 * MARGIN
    slices = []
    for (start, stop), length in zip(bounds, shape, strict=True):
        begin = max(0, min((start + stop - side) // 2, length - side))
        slices.append(slice(begin, min(length, begin + side)))
    return slices[0], slices[1]


@styled
def draw_cases(study: Study, kind: str) -> Figure:
    """One slice of the median or the worst case: image, reference, every loss's prediction."""
    rows = study.slices[study.slices["kind"] == kind] if len(study.slices) else study.slices
    if rows.empty:
        return nothing_to_show(text.cases_title(study, kind), NO_SLICES)
    first = rows.iloc[0]
    rows = rows[(rows["case"] == first["case"]) & (rows["axis"] == first["axis"])]
    rows = rows[rows["index"] == first["index"]]
    images = rows[rows["role"] == "image"].sort_values("channel")
    image = study.arrays[images["key"].iloc[0]]
    reference = study.arrays[rows.loc[rows["role"] == "reference", "key"].iloc[0]]
    shown = [label for label in study.losses if (rows["role"] == label).any()]
    predictions = {
        label: study.arrays[rows.loc[rows["role"] == label, "key"].iloc[0]] for label in shown
    }
    # Framed by the reference: a wild false positive must not shrink every other tile.
    box = _box([reference] if reference.any() else list(predictions.values()), reference.shape)
    tiles = len(images) + 1 + len(shown)
    across = min(TILES, tiles)
    down = math.ceil(tiles / across)
    tall = reference[box].shape[1] / reference[box].shape[0]
    figure = new_figure(WIDTH, 0.9 + down * (tall * WIDTH / across + 0.33))
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for axis in axes[tiles:]:
        axis.axis("off")
    for axis, (_, row) in zip(axes, images.iterrows(), strict=False):
        array = study.arrays[row["key"]]
        channel = f", channel {int(row['channel'])}" if len(images) > 1 else ""
        _show(axis, painted(array, np.zeros_like(reference), {}), f"image{channel}\n(whole slice)")
        axis.add_patch(
            Rectangle((box[0].start - 0.5, box[1].start - 0.5), box[0].stop - box[0].start,
                      box[1].stop - box[1].start, fill=False, edgecolor="white", linewidth=1)
        )  # fmt: skip
    _show(axes[len(images)], painted(image[box], reference[box], {}), "reference\n")
    for axis, label in zip(axes[len(images) + 1 :], shown, strict=False):
        wrong = errors(reference[box], predictions[label][box])
        score = rows.loc[rows["role"] == label, "dice"].iloc[0]
        picture = painted(image[box], predictions[label][box], wrong)
        _show(axis, picture, _tile_title(label, score), 7.5)
    handles = _class_handles(study) + [Patch(color=c, label=name) for c, name in ERRORS.values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    headline(figure, text.cases_title(study, kind))
    return figure


def _tile_title(label: str, score: float, width: int = 26) -> str:
    name, published, _ = wording.readable(label).partition(" (published)")
    name = name if len(name) <= width else f"{name[: width - 1]}…"
    told = "published, " if published else ""
    return f"{name}\n{told}Dice {wording.number(score)}"


def _class_handles(study: Study) -> list[Patch]:
    return [
        Patch(color=CLASS_COLOURS[i % len(CLASS_COLOURS)], label=name)
        for i, name in enumerate(study.classes)
    ]


@styled
def draw_dataset(study: Study) -> Figure:
    """Two slices of a few subjects with their labels; sizes of the classes in the legend."""
    rows = study.slices[study.slices["kind"] == "dataset"] if len(study.slices) else study.slices
    if rows.empty:
        return nothing_to_show(text.dataset_title(study), NO_SLICES)
    places = rows.groupby(["case", "axis", "index"], sort=False)
    cases = list(dict.fromkeys(rows["case"]))[:TILES]
    depth = max(sum(key[0] == case for key in places.groups) for case in cases)
    shape = study.arrays[rows["key"].iloc[0]].shape
    figure = new_figure(WIDTH, 1.15 + depth * WIDTH / len(cases) * shape[1] / shape[0])
    axes = figure.subplots(depth, len(cases), squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    for column, case in enumerate(cases):
        own = [group for key, group in places if key[0] == case]
        for line, group in enumerate(own[:depth]):
            subject = str(group["subject"].iloc[0]) if line == 0 else ""
            axes[line, column].axis("on")
            _show(axes[line, column], _labelled(study, group), subject, 8.5)
    sizes = study.class_sizes().set_index("class") if len(study.dataset) else pd.DataFrame()
    handles = _class_handles(study)
    for handle in handles:
        name = handle.get_label()
        if name in sizes.index:
            size = sizes.loc[name]
            handle.set_label(
                f"{name}: {wording.percent(size['voxel_fraction'], 2)} of voxels, "
                f"in {wording.percent(size['prevalence'])} of cases"
            )
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    headline(figure, text.dataset_title(study))
    return figure


def _labelled(study: Study, group: pd.DataFrame) -> np.ndarray:
    image = study.arrays[group.loc[group["role"] == "image", "key"].iloc[0]]
    found = group.loc[group["role"] == "reference", "key"]
    labels = study.arrays[found.iloc[0]] if len(found) else np.zeros(image.shape, np.uint8)
    return painted(image, labels, {})
