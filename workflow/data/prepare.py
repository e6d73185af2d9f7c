"""From a verified data set to arrays that training can map into memory.

<out>/images/<case>.npy    float32 (channels, x, y, z), clipped and z-scored
<out>/labels/<case>.npy    uint8 (x, y, z), merged classes
<out>/prepared.json        what they are; written last, so its presence means all is there
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from workflow.data.dataset import DataSet, Verification, Volume, inspect
from workflow.data.faults import DataError

CLIPPED = (0.5, 99.5)  # percentiles; a few hot voxels would otherwise set the scale


@dataclass(frozen=True)
class PreparedCase:
    """What is known of a case without opening its arrays; spacing and affine in mm.

    ``name`` tells it from every other case, ``dataset`` is where it comes from.
    """

    name: str
    subject: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    affine: tuple[tuple[float, ...], ...]
    voxels: dict[str, int]
    image_sha256: str
    dataset: str
    image_file: Path
    label_file: Path

    @property
    def present(self) -> frozenset[str]:
        """Foreground classes with at least one voxel."""
        foreground = list(self.voxels.items())[1:]
        return frozenset(name for name, count in foreground if count)


@dataclass(frozen=True)
class Prepared:
    """A folder of prepared arrays; `classes[0]` is "background"."""

    root: Path
    name: str
    classes: tuple[str, ...]
    channels: tuple[str, ...]
    reference: str
    licence: str
    warnings: tuple[str, ...]
    cases: tuple[PreparedCase, ...]

    def image(self, case: PreparedCase) -> np.ndarray:
        """Image (channels, x, y, z) float32, mapped read-only."""
        return np.load(case.image_file, mmap_mode="r")

    def label(self, case: PreparedCase) -> np.ndarray:
        """Classes (x, y, z) uint8, mapped read-only."""
        return np.load(case.label_file, mmap_mode="r")

    def joined(self, external: Prepared) -> Prepared:
        """With the cases of another data set, whose names (and subjects) begin with its name.

        Raises:
            DataError: it has other classes or channels, or the same name.
        """
        faults = [
            f"{external.name}: its {what} are {', '.join(theirs)}, but those of {self.name} are "
            f"{', '.join(ours)}"
            for what, theirs, ours in (
                ("classes", external.classes, self.classes),
                ("channels", external.channels, self.channels),
            )
            if theirs != ours
        ]
        if external.name == self.name:
            faults.append(f"{self.name}: two data sets have this name, expected different ones")
        if faults:
            raise DataError(faults)
        others = tuple(
            replace(
                case,
                name=f"{external.name}.{case.name}",
                subject=f"{external.name}.{case.subject}",
            )
            for case in external.cases
        )
        return replace(
            self,
            cases=self.cases + others,
            warnings=self.warnings + external.warnings,
        )


def prepare(
    dataset: DataSet,
    out: Path,
    classes: Sequence[str],
    lookup: Mapping[int, int],
    patch_size: Sequence[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Verify the data set and write its arrays, one case in memory at a time.

    Args:
        dataset: a folder that was read.
        out: folder for the arrays; made if missing, arrays of an earlier preparation are replaced.
        classes: class names, background first, and
        lookup: the class of each label value, both from `merge_labels`.
        patch_size: only to warn of smaller volumes.
        progress: called with the cases done and the cases in all.

    Raises:
        DataError: with every fault of the data set; then nothing is left in `out`.
    """
    if len(classes) > 256:
        raise DataError(f"{dataset.root}: {len(classes)} classes, expected at most 256")
    out = Path(out)
    _clear(out)
    for folder in ("images", "labels"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    notes = Verification()
    cases: list[PreparedCase] = []
    try:
        for volume in inspect(dataset, notes, patch_size):
            # After a fault nothing will be used: go on reading for the other faults, write nothing.
            if not notes.faults:
                cases.append(_write_case(volume, out, classes, lookup, dataset.name))
            if progress:
                progress(len(cases), len(dataset.cases))
        if notes.faults:
            raise DataError(notes.faults)
        prepared = Prepared(
            root=out,
            name=dataset.name,
            classes=tuple(classes),
            channels=dataset.channels,
            reference=dataset.reference,
            licence=dataset.licence,
            warnings=tuple(notes.warnings),
            cases=tuple(replace(case, subject=notes.subject(case.subject)) for case in cases),
        )
        _write_json(prepared)
    except BaseException:
        _clear(out)
        raise
    return prepared


def load_prepared(out: Path) -> Prepared:
    """Read `prepared.json`.

    Raises:
        DataError: missing or broken, so the preparation did not finish.
    """
    path = Path(out) / "prepared.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        cases = tuple(
            PreparedCase(
                **{
                    **case,
                    "shape": tuple(case["shape"]),
                    "spacing": tuple(case["spacing"]),
                    "affine": tuple(map(tuple, case["affine"])),
                    "dataset": content["name"],
                    "image_file": _array(out, "images", case["name"]),
                    "label_file": _array(out, "labels", case["name"]),
                }
            )
            for case in content["cases"]
        )
        texts: dict[str, Any] = {key: content[key] for key in ("name", "reference", "licence")}
        lists = {key: tuple(content[key]) for key in ("classes", "channels", "warnings")}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, the preparation is not finished") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error}), prepare the data set again") from None
    return Prepared(root=Path(out), cases=cases, **texts | lists)


def load_all(folders: Iterable[Path]) -> Prepared:
    """A data set, joined by its external test set if there is a second folder."""
    own, *others = (load_prepared(folder) for folder in folders)
    for external in others:
        own = own.joined(external)
    return own


def normalise(image: np.ndarray) -> np.ndarray:
    """Clip each channel (channels, x, y, z) to its percentiles, then mean 0 and deviation 1.

    A channel without contrast becomes 0.
    """
    result = np.empty(image.shape, dtype=np.float32)
    for channel, source in zip(result, image, strict=True):
        low, high = np.percentile(source, CLIPPED)
        np.clip(source, low, high, out=channel)
        mean, deviation = channel.mean(dtype=np.float64), channel.std(dtype=np.float64)
        channel -= mean
        channel /= deviation if deviation > 0 else 1.0
    return result


def _write_case(
    volume: Volume, out: Path, classes: Sequence[str], lookup: Mapping[int, int], dataset: str
) -> PreparedCase:
    name = volume.case.name
    table = np.zeros(max(lookup) + 1, dtype=np.uint8)
    for value, index in lookup.items():
        table[value] = index
    label = table[volume.label]
    image_file, label_file = _array(out, "images", name), _array(out, "labels", name)
    np.save(image_file, normalise(volume.image))
    np.save(label_file, label)
    counts = np.bincount(label.ravel(), minlength=len(classes))
    return PreparedCase(
        name=name,
        subject=volume.case.subject,
        shape=label.shape,
        spacing=volume.spacing,
        affine=tuple(map(tuple, volume.affine.tolist())),
        voxels=dict(zip(classes, counts.tolist(), strict=True)),
        image_sha256=volume.image_sha256,
        dataset=dataset,
        image_file=image_file,
        label_file=label_file,
    )


def _write_json(prepared: Prepared) -> None:
    path = prepared.root / "prepared.json"
    content = asdict(prepared)
    del content["root"]
    for case in content["cases"]:  # what the folder tells
        for key in ("dataset", "image_file", "label_file"):
            del case[key]
    temporary = path.with_suffix(".json.part")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _array(root: Path, folder: str, name: str) -> Path:
    return root / folder / f"{name}.npy"


def _clear(out: Path) -> None:
    """Remove what a preparation writes, and nothing else; prepared.json goes first."""
    for path in (out / "prepared.json", out / "prepared.json.part"):
        path.unlink(missing_ok=True)
    for folder in (out / "images", out / "labels"):
        for path in folder.glob("*.npy"):
            path.unlink()
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
