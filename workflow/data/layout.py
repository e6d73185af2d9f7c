"""The folder of a data set: which cases, labels and channels `dataset.json` and the files declare.

Three layouts are read: the Medical Segmentation Decathlon (MSD), whose `dataset.json` lists every
image with its label; nnU-Net v2, whose cases are found by their file names; and ACDC as its authors
distribute it, a folder for each patient and no `dataset.json`.
"""

from __future__ import annotations

import json
import os
import re
import reprlib
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from workflow.data.faults import DataError, one_line
from workflow.data.nifti import ENDINGS, without_ending

LARGEST_LABEL = 65535  # a table of the values is held in memory
LONGEST_NAME = 200  # bytes of a case: files are called after it, and none may have more than 255
ACDC = {
    "name": "ACDC",
    "labels": {
        "background": 0, "right ventricle": 1, "myocardium": 2, "left ventricle": 3,
    },
    "modality": {"0": "MRI"},
    "reference": "Bernard et al. 2018, doi:10.1109/TMI.2018.2837502",
    "licence": "CC BY-NC-SA 4.0",
}  # fmt: skip
"""What the `dataset.json` of ACDC would say, if there were one."""


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
    """A folder whose declarations are sound; its voxels are not read yet (see `dataset.verify`).

    `declared` is the file, or folder, that says so. `faults` are those of files that `cases` leaves
    out; verification tells them with its own.
    """

    name: str
    root: Path
    declared: Path
    cases: tuple[Case, ...]
    labels: dict[int, str]
    channels: tuple[str, ...]
    reference: str
    licence: str
    faults: tuple[str, ...] = ()


def read(root: Path, subject: str | None = None, incomplete: bool = False) -> DataSet:
    """Read the declarations of an MSD, nnU-Net v2 or ACDC folder.

    Args:
        root: folder with `dataset.json`, `imagesTr/` and `labelsTr/`, or with the patients of ACDC
            (also below `training/`).
        subject: regular expression searched in each case name; its first group, or the whole
            match where it has none, is the subject. Without it each case is its own subject, but
            the frames of a patient of ACDC are one.
        incomplete: leave out the cases with faults and put these in `faults`, so that they can be
            told together with those of the voxels.

    Raises:
        DataError: with every fault of the folder.
    """
    root = Path(root)
    patients = _acdc_patients(root)
    declared = ACDC if patients else _read_json(root)
    faults: list[str] = []
    where = root / "dataset.json"
    nnunet = "channel_names" in declared or "file_ending" in declared
    if not patients and not nnunet and "training" not in declared:
        raise DataError(
            f"{where}: expected the key 'training' (Medical Segmentation Decathlon) or "
            f"'channel_names' and 'file_ending' (nnU-Net v2), found "
            f"{', '.join(declared) or 'none'}; add what the folder holds"
        )
    needed = ("channel_names", "file_ending") if nnunet else ("modality",)
    missing = [key for key in (*needed, "labels") if key not in declared]
    if missing:
        raise DataError([f"{where}: the key '{key}' is missing, add it" for key in missing])
    labels = _labels(where, declared["labels"], faults)
    channels = _channels(where, declared[needed[0] if nnunet else "modality"], faults)
    undefined = bool(faults)  # no voxel can be judged by these declarations
    if patients:
        found = _acdc_cases(patients, faults)
        subject = subject or ACDC_PATIENT
    elif nnunet:
        found = _nnunet_cases(root, declared, len(channels), faults)
    else:
        found = _msd_cases(root, declared["training"], faults)
    count = declared.get("numTraining")
    if count is not None and count != len(found) and not faults:
        faults.append(
            f"{where}: numTraining is {count!r}, but {len(found)} cases were found; add the "
            "missing ones or correct the number"
        )
    if not found and not faults:
        faults.append(f"{root}: no training cases, put images in imagesTr and labels in labelsTr")
    cases = tuple(
        Case(name, _subject(root, name, subject, faults), images, label)
        for name, (images, label) in sorted(found.items())
    )
    if faults and (undefined or not (incomplete and cases)):
        raise DataError(faults)
    return DataSet(
        name=one_line(str(declared.get("name") or root.resolve().name)),
        root=root,
        declared=root if patients else where,
        cases=cases,
        labels=labels,
        channels=channels,
        reference=one_line(str(declared.get("reference", ""))),
        licence=one_line(str(declared.get("licence", declared.get("license", "")))),
        faults=tuple(faults),
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
        faults.append(f"labels: no foreground class, declare one; known labels: {known}")
    if faults:
        raise DataError(faults)
    return ("background", *merge), lookup


def _read_json(root: Path) -> dict[str, Any]:
    """The content of dataset.json."""
    path = root / "dataset.json"
    if why := _unusable(root, stat.S_ISDIR, "folder"):
        raise DataError(f"{root}: {why}, expected a data set (MSD, nnU-Net v2 or ACDC)")
    if why := _unusable(path, stat.S_ISREG, "file"):
        raise DataError(
            f"{path}: {why}, expected the description of the data set (or, for ACDC, its folders "
            "patient001, ...)"
        )
    twice: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice.extend(name for name in dict.fromkeys(names) if names.count(name) > 1)
        return dict(pairs)

    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique)
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}), correct it") from None
    except RecursionError:
        raise DataError(f"{path}: cannot be read as JSON (nested too deeply), correct it") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(content).__name__}")
    if twice:  # JSON readers keep the last one and say nothing
        raise DataError(
            [f"{path}: the key '{name}' stands twice in an object, keep one" for name in twice]
        )
    return content


def _unusable(path: Path, right: Callable[[int], bool], wanted: str) -> str:
    """Why this is no file (or folder), empty if it is one; links are followed."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "a link that leads nowhere" if path.is_symlink() else f"no such {wanted}"
    except (OSError, ValueError) as error:  # a loop of links, no permission, a name too long
        return f"cannot be opened ({getattr(error, 'strerror', None) or error})"
    if not right(mode):
        found = (
            "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "device or pipe"
        )
        return f"a {found} and no {wanted}"
    if not os.access(path, os.R_OK):
        return f"a {wanted} that you may not read"
    return ""


def _unfit(name: str) -> bool:
    """Whether a name cannot stand in a line of a table or a report."""
    return not name.strip() or not name.isprintable()


def _labels(where: Path, declared: Any, faults: list[str]) -> dict[int, str]:
    """Value to name, from {"0": "background"} (MSD) or {"background": 0} (nnU-Net v2)."""
    labels: dict[int, str] = {}
    if not isinstance(declared, dict):
        faults.append(
            f"{where}: 'labels' must be an object of names and values, found {_short(declared)}"
        )
        return labels
    for key, content in declared.items():
        name, value = (key, content) if not isinstance(content, str) else (content, key)
        if isinstance(value, list):
            faults.append(
                f"{where}: label '{name}' is a region of several values ({value}); regions "
                "overlap, expected one integer (merge labels in the study instead)"
            )
            continue
        digits = str(value) if isinstance(value, (str, int)) else ""
        value = int(digits) if re.fullmatch("[0-9]{1,9}", digits) else None
        if value is None or value > LARGEST_LABEL:
            faults.append(
                f"{where}: label {_short(key)}: {_short(content)}, expected a name and an integer "
                f"from 0 to {LARGEST_LABEL}"
            )
        elif _unfit(name):
            faults.append(
                f"{where}: the name of label {value}, {name!r}, cannot be printed; change it"
            )
        elif name == "ignore":
            faults.append(
                f"{where}: label 'ignore' ({value}): ignored voxels are not supported, give "
                "them a class"
            )
        elif name.lower() == "background" and value != 0:
            faults.append(f"{where}: the label '{name}' has the value {value}, expected 0")
        elif value in labels:
            faults.append(f"{where}: the label value {value} is declared twice, keep one")
        elif name in labels.values():
            faults.append(f"{where}: the label name '{name}' is declared twice, rename one")
        else:
            labels[value] = name
    if labels and 0 not in labels:
        faults.append(f"{where}: 'labels' has no value 0, expected the background")
    return labels


def _channels(where: Path, declared: Any, faults: list[str]) -> tuple[str, ...]:
    """Channel names in order, from {"0": "T1", "1": "FLAIR"}."""
    if not isinstance(declared, dict) or set(declared) != {str(i) for i in range(len(declared))}:
        faults.append(
            f"{where}: channels must be named '0', '1', ..., found {_short(declared)}; write "
            "{'0': 'name'}"
        )
        return ()
    if not declared:
        faults.append(f"{where}: no channel is named, expected {{'0': 'name'}}")
    for key, name in declared.items():
        if not isinstance(name, str) or _unfit(name):
            faults.append(f"{where}: channel {key} is named {_short(name)}, expected a plain name")
    return tuple(str(declared[str(index)]) for index in range(len(declared)))


Found = dict[str, tuple[tuple[Path, ...], Path]]


def _msd_cases(root: Path, training: Any, faults: list[str]) -> Found:
    """Cases as listed; files of imagesTr and labelsTr that the list forgets are faults."""
    where = root / "dataset.json"
    found: Found = {}
    listed: set[Path] = set()
    if not isinstance(training, list):
        faults.append(
            f"{where}: 'training' must be a list of images and labels, found {_short(training)}"
        )
        return found
    for number, entry in enumerate(training):
        if not isinstance(entry, dict) or not {"image", "label"} <= entry.keys():
            faults.append(
                f"{where}: training entry {number} needs 'image' and 'label', found {_short(entry)}"
            )
            continue
        image = _inside(root, entry["image"], faults)
        label = _inside(root, entry["label"], faults)
        if image is None or label is None:
            continue
        name = without_ending(image.name)
        if image in listed or name in found:
            faults.append(f"{where}: the case '{name}' is listed twice, remove or rename one")
            continue
        if image == label:
            faults.append(
                f"{where}: entry {number} has '{entry['image']}' as image and label; name the label"
            )
            continue
        if label in listed:
            faults.append(f"{label}: the label of two cases, expected one label for each image")
        listed |= {image, label}
        if _exists(image, label, faults=faults):
            found[name] = ((image,), label)
    for file in _volumes(root / "imagesTr", faults) + _volumes(root / "labelsTr", faults):
        if file not in listed:
            part = "image" if file.parent.name == "imagesTr" else "label"
            other = "label" if part == "image" else "image"
            faults.append(
                f"{file}: {part} without {other}, it is in no training entry of dataset.json; list "
                "it or remove it"
            )
    return found


def _nnunet_cases(root: Path, declared: dict[str, Any], channels: int, faults: list[str]) -> Found:
    """Cases by file name, `imagesTr/<case>_0000<ending>` and `labelsTr/<case><ending>`."""
    where = root / "dataset.json"
    ending = declared["file_ending"]
    if ending not in ENDINGS:
        faults.append(f"{where}: file_ending {_short(ending)}, expected {' or '.join(ENDINGS)}")
        return {}
    if "dataset" in declared:
        faults.append(f"{where}: the key 'dataset' (a list of files) is not supported, remove it")
        return {}
    channels_of: dict[str, set[int]] = {}
    for file in _volumes(root / "imagesTr", faults):
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
        label = root / "labelsTr" / f"{name}{ending}"
        if _exists(*images, label, faults=faults):
            found[name] = (images, label)
    for file in _volumes(root / "labelsTr", faults):
        if file.name.removesuffix(ending) not in channels_of:
            faults.append(f"{file}: label without image, expected imagesTr/<case>_0000{ending}")
    return found


ACDC_PATIENT = r"^patient\d+"


def _acdc_patients(root: Path) -> list[Path]:
    """The folders of the patients; none if this is another layout, or no folder at all."""
    if not _unusable(root / "dataset.json", stat.S_ISREG, "file"):
        return []
    for folder in (root, root / "training"):
        if _unusable(folder, stat.S_ISDIR, "folder"):
            continue
        found = [path for path in folder.glob("patient*") if path.is_dir()]
        if found:
            return sorted(found)
    return []


def _acdc_cases(patients: list[Path], faults: list[str]) -> Found:
    """`patientNNN/patientNNN_frameMM.nii.gz` with `_gt`, two frames a patient as `Info.cfg` says.

    The frames between them (`_4d`) have no label and are passed over.
    """
    found: Found = {}
    for folder in patients:
        frames: set[str] = set()
        for file in _volumes(folder, faults):
            name = without_ending(file.name)
            if name.endswith("_4d"):
                continue
            match = re.fullmatch(rf"({re.escape(folder.name)}_frame\d+)(_gt)?", name)
            if not match:
                faults.append(f"{file}: expected a name such as {folder.name}_frame01.nii.gz")
                continue
            frames.add(match[1])
        for name in _acdc_frames(folder, faults) - frames:
            faults.append(
                f"{folder / name}.nii.gz: no such file, but Info.cfg names the frame; download the "
                "patient again"
            )
        if not frames:
            faults.append(f"{folder}: no frames, expected {folder.name}_frame01.nii.gz and _gt")
        for name in sorted(frames):
            image, label = (_packed_or_not(folder, stem) for stem in (name, f"{name}_gt"))
            if _exists(image, label, faults=faults):
                found[name] = ((image,), label)
    return found


def _acdc_frames(folder: Path, faults: list[str]) -> set[str]:
    """Names of the two frames (end of diastole and systole) in `Info.cfg`, if the file is there."""
    info = folder / "Info.cfg"
    if not info.is_file():
        return set()
    try:
        text = info.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{info}: cannot be read ({error}), download it again")
        return set()
    return {
        f"{folder.name}_frame{int(number):02d}"
        for number in re.findall(r"^\s*E[DS]\s*:\s*(\d{1,4})\s*$", text, re.MULTILINE)
    }


def _packed_or_not(folder: Path, stem: str) -> Path:
    """The file with one of the endings, the first one if neither is there."""
    packed, plain = (folder / f"{stem}{ending}" for ending in ENDINGS)
    return plain if plain.is_file() and not packed.is_file() else packed


def _volumes(folder: Path, faults: list[str]) -> list[Path]:
    """NIfTI files of a folder; hidden ones (macOS archives carry `._` twins) are passed over."""
    if why := _unusable(folder, stat.S_ISDIR, "folder"):
        faults.append(f"{folder}: {why}, expected the images or labels")
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
        faults.append(f"{where}: {_short(declared)} is not a file name, expected a text")
        return None
    path = PurePosixPath(declared)
    if path.is_absolute() or ".." in path.parts:
        faults.append(f"{where}: '{declared}' leaves the folder, expected a path inside {root}")
        return None
    return root / path


def _exists(*files: Path, faults: list[str]) -> bool:
    """Whether all the files can be opened."""
    before = len(faults)
    for file in files:
        why = _unusable(file, stat.S_ISREG, "file")
        if why:
            is_label = file.parent.name == "labelsTr" or without_ending(file.name).endswith("_gt")
            has_no = "image has no label" if is_label else "label has no image"
            faults.append(f"{file}: {why}, so the {has_no}; add the file or remove the case")
    return len(faults) == before


def _subject(root: Path, name: str, pattern: str | None, faults: list[str]) -> str:
    """The subject that a case name belongs to."""
    if _unfit(name):
        faults.append(
            f"{root}: the case name {name!r} cannot be printed in a table, rename its files"
        )
        return name
    if len(os.fsencode(name)) > LONGEST_NAME:
        faults.append(
            f"{root}: the case name {_short(name)} is longer than {LONGEST_NAME} bytes, rename its "
            "files"
        )
        return name
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
        faults.append(
            f"{root}: the case '{name}' does not match the subject pattern '{pattern}', change one"
        )
        return name
    return subject


def _short(content: Any) -> str:
    """A piece of dataset.json for a message, however long it is."""
    return reprlib.repr(content)
