"""The folder of a data set: which cases, labels and channels `dataset.json` and the files declare.

Two layouts are read: the Medical Segmentation Decathlon (MSD), whose `dataset.json` lists every
image with its label, and nnU-Net v2, whose cases are found by their file names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from workflow.data.faults import DataError
from workflow.data.nifti import ENDINGS, without_ending


@dataclass(frozen=True)
class Case:
    """One volume of one subject.

    `images` is one file (3-D, or 4-D with the channels last) or one 3-D file for each channel.
    """

    name: str
    subject: str
    images: tuple[Path, ...]
    label: Path


@dataclass(frozen=True)
class DataSet:
    """A folder whose declarations are sound; its voxels are not read yet (see `dataset.verify`)."""

    name: str
    root: Path
    cases: tuple[Case, ...]
    labels: dict[int, str]
    channels: tuple[str, ...]
    reference: str
    licence: str


def read(root: Path, subject: str | None = None) -> DataSet:
    """Read the declarations of an MSD or nnU-Net v2 folder.

    Args:
        root: folder with `dataset.json`, `imagesTr/` and `labelsTr/`.
        subject: regular expression searched in each case name; its first group, or the whole
            match where it has none, is the subject. Without it each case is its own subject.

    Raises:
        DataError: with every fault of the folder.
    """
    root = Path(root)
    declared = _read_json(root)
    faults: list[str] = []
    where = root / "dataset.json"
    nnunet = "channel_names" in declared or "file_ending" in declared
    if not nnunet and "training" not in declared:
        raise DataError(
            f"{where}: expected the key 'training' (Medical Segmentation Decathlon) or "
            f"'channel_names' and 'file_ending' (nnU-Net v2), found {', '.join(declared) or 'none'}"
        )
    needed = ("channel_names", "file_ending") if nnunet else ("training", "modality")
    missing = [key for key in (*needed, "labels") if key not in declared]
    if missing:
        raise DataError([f"{where}: the key '{key}' is missing" for key in missing])
    labels = _labels(where, declared["labels"], faults)
    channels = _channels(where, declared[needed[0] if nnunet else "modality"], faults)
    if nnunet:
        found = _nnunet_cases(root, declared, len(channels), faults)
    else:
        found = _msd_cases(root, declared["training"], faults)
    count = declared.get("numTraining")
    if count is not None and count != len(found) and not faults:
        faults.append(f"{where}: numTraining is {count}, but {len(found)} cases were found")
    if not found and not faults:
        faults.append(f"{root}: no training cases")
    cases = tuple(
        Case(name, _subject(root, name, subject, faults), images, label)
        for name, (images, label) in sorted(found.items())
    )
    if faults:
        raise DataError(faults)
    return DataSet(
        name=str(declared.get("name") or root.resolve().name),
        root=root,
        cases=cases,
        labels=labels,
        channels=channels,
        reference=str(declared.get("reference", "")),
        licence=str(declared.get("licence", declared.get("license", ""))),
    )


def merge_labels(
    labels: Mapping[int, str], merge: Mapping[str, list[int]] | None = None
) -> tuple[tuple[str, ...], dict[int, int]]:
    """Class names and, for each label value of the data set, its class.

    Without `merge` every label is a class, in the order of the values. With it the classes are the
    background and the given groups in their order; labels in no group become background. Class 0
    is always "background".

    >>> merge_labels({0: "background", 1: "edema", 3: "rim"}, {"lesion": [1, 3]})
    (('background', 'lesion'), {0: 0, 1: 1, 3: 1})

    Raises:
        DataError: a value that the data set does not have or that stands in two groups; a group
            that is empty, holds 0 or is named "background"; no foreground class.
    """
    if merge is None:
        merge = {labels[value]: [value] for value in sorted(labels) if value != 0}
    faults = []
    known = ", ".join(f"{value} ({name})" for value, name in sorted(labels.items()))
    lookup = dict.fromkeys(sorted(labels), 0)
    for index, (name, values) in enumerate(merge.items(), start=1):
        if name == "background":
            faults.append("labels: 'background' is class 0 and cannot be a group")
        if not values:
            faults.append(f"labels: the group '{name}' is empty, expected some of {known}")
        for value in values:
            if value not in labels:
                faults.append(f"labels: '{name}' names label {value}; known labels: {known}")
            elif value == 0:
                faults.append(f"labels: '{name}' names label 0, which is always background")
            elif lookup[value]:
                faults.append(f"labels: label {value} ({labels[value]}) stands in two groups")
            else:
                lookup[value] = index
    if not merge:
        faults.append(f"labels: no foreground class; known labels: {known}")
    if faults:
        raise DataError(faults)
    return ("background", *merge), lookup


def _read_json(root: Path) -> dict[str, Any]:
    """The content of dataset.json."""
    path = root / "dataset.json"
    if not root.is_dir():
        raise DataError(f"{root}: no such folder, expected a data set (MSD or nnU-Net v2)")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, expected the description of the data set") from None
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def _labels(where: Path, declared: Any, faults: list[str]) -> dict[int, str]:
    """Value to name, from {"0": "background"} (MSD) or {"background": 0} (nnU-Net v2)."""
    labels: dict[int, str] = {}
    if not isinstance(declared, dict):
        faults.append(f"{where}: 'labels' must be an object of names and values")
        return labels
    for key, content in declared.items():
        name, value = (key, content) if not isinstance(content, str) else (content, key)
        if isinstance(value, list):
            faults.append(
                f"{where}: label '{name}' is a region of several values ({value}); regions "
                "overlap, expected one integer (merge labels in the study instead)"
            )
            continue
        try:
            value = int(value) if not isinstance(value, (bool, float)) else None
        except (TypeError, ValueError):
            value = None
        if value is None or value < 0:
            faults.append(f"{where}: label '{key}': '{content}', expected a name and an integer")
        elif name == "ignore":
            faults.append(f"{where}: label 'ignore' ({value}): ignored voxels are not supported")
        elif value in labels:
            faults.append(f"{where}: the label value {value} is declared twice")
        elif name in labels.values():
            faults.append(f"{where}: the label name '{name}' is declared twice")
        else:
            labels[value] = name
    if labels and 0 not in labels:
        faults.append(f"{where}: 'labels' has no value 0, expected the background")
    return labels


def _channels(where: Path, declared: Any, faults: list[str]) -> tuple[str, ...]:
    """Channel names in order, from {"0": "T1", "1": "FLAIR"}."""
    if not isinstance(declared, dict) or set(declared) != {str(i) for i in range(len(declared))}:
        faults.append(f"{where}: channels must be named '0', '1', ..., found {declared}")
        return ()
    if not declared:
        faults.append(f"{where}: no channel is named, expected {{'0': 'name'}}")
    return tuple(str(declared[str(index)]) for index in range(len(declared)))


Found = dict[str, tuple[tuple[Path, ...], Path]]


def _msd_cases(root: Path, training: Any, faults: list[str]) -> Found:
    """Cases as listed; files of imagesTr and labelsTr that the list forgets are faults."""
    where = root / "dataset.json"
    found: Found = {}
    listed: set[Path] = set()
    if not isinstance(training, list):
        faults.append(f"{where}: 'training' must be a list of images and labels")
        return found
    for number, entry in enumerate(training):
        if not isinstance(entry, dict) or not {"image", "label"} <= entry.keys():
            faults.append(f"{where}: training entry {number} needs 'image' and 'label': {entry}")
            continue
        image = _inside(root, entry["image"], faults)
        label = _inside(root, entry["label"], faults)
        if image is None or label is None:
            continue
        name = without_ending(image.name)
        if name in found:
            faults.append(f"{where}: the case '{name}' is listed twice")
            continue
        if label in listed:
            faults.append(f"{label}: the label of two cases, expected one label for each image")
        found[name] = ((image,), label)
        listed |= {image, label}
        _exists(image, label, faults=faults)
    for file in _volumes(root / "imagesTr") + _volumes(root / "labelsTr"):
        if file not in listed:
            part = "image" if file.parent.name == "imagesTr" else "label"
            other = "label" if part == "image" else "image"
            faults.append(
                f"{file}: {part} without {other}, it is in no training entry of dataset.json"
            )
    return found


def _nnunet_cases(root: Path, declared: dict[str, Any], channels: int, faults: list[str]) -> Found:
    """Cases by file name, `imagesTr/<case>_0000<ending>` and `labelsTr/<case><ending>`."""
    where = root / "dataset.json"
    ending = declared["file_ending"]
    if ending not in ENDINGS:
        faults.append(f"{where}: file_ending '{ending}', expected {' or '.join(ENDINGS)}")
        return {}
    if "dataset" in declared:
        faults.append(f"{where}: the key 'dataset' (a list of files) is not supported")
        return {}
    channels_of: dict[str, set[int]] = {}
    for file in _volumes(root / "imagesTr"):
        match = re.fullmatch(r"(.+)_(\d{4})", file.name.removesuffix(ending))
        if not match or not file.name.endswith(ending):
            faults.append(f"{file}: expected a name such as case_0000{ending}")
            continue
        channels_of.setdefault(match[1], set()).add(int(match[2]))
    found: Found = {}
    for name, numbers in channels_of.items():
        if numbers != set(range(channels)):
            faults.append(
                f"{root / 'imagesTr' / name}: channel files {sorted(numbers)}, expected "
                f"{list(range(channels))} as dataset.json names {channels} channels"
            )
            continue
        images = tuple(
            root / "imagesTr" / f"{name}_{number:04d}{ending}" for number in range(channels)
        )
        found[name] = (images, root / "labelsTr" / f"{name}{ending}")
        _exists(*images, found[name][1], faults=faults)
    for file in _volumes(root / "labelsTr"):
        if file.name.removesuffix(ending) not in channels_of:
            faults.append(f"{file}: label without image, expected imagesTr/<case>_0000{ending}")
    return found


def _volumes(folder: Path) -> list[Path]:
    """NIfTI files of a folder; hidden ones (macOS archives carry `._` twins) are passed over."""
    if not folder.is_dir():
        return []
    files = [file for file in folder.iterdir() if not file.name.startswith(".")]
    return sorted(file for file in files if file.name.endswith(ENDINGS))


def _inside(root: Path, declared: Any, faults: list[str]) -> Path | None:
    """The file that an entry names, if it stays in the folder.

    Only the declared path is judged. A file that is itself a symbolic link is allowed wherever it
    points: linking large data into place is the owner's doing, a path in a downloaded
    `dataset.json` is not.
    """
    where = root / "dataset.json"
    if not isinstance(declared, str):
        faults.append(f"{where}: {declared!r} is not a file name")
        return None
    path = PurePosixPath(declared)
    if path.is_absolute() or ".." in path.parts:
        faults.append(f"{where}: '{declared}' leaves the folder, expected a path inside {root}")
        return None
    return root / path


def _exists(*files: Path, faults: list[str]) -> None:
    for file in files:
        if not file.is_file():
            is_label = file.parent.name == "labelsTr"
            has_no = "image has no label" if is_label else "label has no image"
            faults.append(f"{file}: no such file, so the {has_no}")


def _subject(root: Path, name: str, pattern: str | None, faults: list[str]) -> str:
    """The subject that a case name belongs to."""
    if pattern is None:
        return name
    try:
        match = re.search(pattern, name)
    except re.error as error:
        fault = f"subject: '{pattern}' is not a regular expression ({error})"
        if fault not in faults:
            faults.append(fault)
        return name
    subject = match and (match[1] if match.re.groups else match[0])
    if not subject:
        faults.append(f"{root}: the case '{name}' does not match the subject pattern '{pattern}'")
        return name
    return subject
