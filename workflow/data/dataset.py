"""Data sets as folders: read the declarations, load the volumes, verify every voxel.

`examine` reads one case and knows nothing of the others, so cases are read in any order and by many
processes; `judge` holds what they left against each other. `verify` and `prepare.prepare` do both.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
from nibabel.affines import voxel_sizes

from workflow.data.evidence import Thumbnail, alike, mismatches, thumbnail
from workflow.data.faults import DataError, one_line
from workflow.data.fingerprint import Facts, facts
from workflow.data.layout import LARGEST_LABEL, Case, DataSet, merge_labels, read
from workflow.data.nifti import Nifti, read_nifti

__all__ = [
    "Case",
    "DataError",
    "DataSet",
    "Examination",
    "Verification",
    "Volume",
    "examine",
    "judge",
    "load_image",
    "load_label",
    "merge_labels",
    "read",
    "verify",
]

AFFINE_TOLERANCE = 1e-3  # mm; headers round differently


@dataclass(frozen=True)
class Volume:
    """One case in memory: image (channels, x, y, z) float32, label (x, y, z), affine in mm."""

    case: Case
    image: np.ndarray
    label: np.ndarray
    affine: np.ndarray
    spacing: tuple[float, float, float]


@dataclass
class Verification:
    """What was noticed: `faults` forbid the use of the data set, `warnings` are told.

    `same_subject` leads from a subject to the one that it turned out to be.
    """

    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    same_subject: dict[str, str] = field(default_factory=dict)

    def subject(self, declared: str) -> str:
        """The subject that a declared one is, by the images seen so far."""
        while declared in self.same_subject:
            declared = self.same_subject[declared]
        return declared


def load_image(case: Case) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Image (channels, x, y, z) as float32, affine (4 x 4) and voxel spacing, both in mm.

    Raises:
        DataError: a file that cannot be read; files of one case that differ in shape or affine.
    """
    return _load_image(case, Findings())


def load_label(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Label values (x, y, z) as int32, and the affine in mm.

    Raises:
        DataError: a file that cannot be read, a label that is not 3-D, a value that is no integer.
    """
    return _load_label(case, Findings())


@dataclass
class Findings:
    """What is likely to be wrong, gathered over files or cases to be told once for each kind.

    `kinds` leads from what was found, as the end of "3 of 4 ...", to names and evidence. Kinds
    that begin with "files" count files (`files` in all), the others count cases.
    """

    kinds: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    files: int = 0

    def add(self, kind: str, name: str, evidence: str) -> None:
        """One case or file."""
        self.kinds[kind].append((name, evidence))

    def add_file(self, path: Path, read: Nifti) -> None:
        """The doubts about the header of one file."""
        self.files += 1
        for kind, evidence in read.doubts:
            self.add(f"files {kind}", str(path), evidence)

    def add_all(self, others: Findings) -> None:
        """Those of another case."""
        self.files += others.files
        for kind, found in others.kinds.items():
            self.kinds[kind] += found

    def lines(self, cases: int) -> Iterator[str]:
        """One line a kind."""
        for kind, found in self.kinds.items():
            name, evidence = found[0]
            names = ", ".join(other for other, _ in found[1:6])
            rest = f"; also {names}" if names else ""
            more = f" and {len(found) - 6} more" if len(found) > 6 else ""
            of = self.files if kind.startswith("files") else cases
            yield f"{len(found)} of {of} {kind}: {name} ({evidence}){rest}{more}"


@dataclass
class Examination:
    """What is known of one case once its voxels are let go.

    What follows `findings` is there only for a case without faults.
    """

    case: Case
    faults: list[str] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    affine: np.ndarray | None = None
    image_sha256: str = ""
    label_sha256: str = ""
    facts: Facts | None = None
    thumbnail: Thumbnail | None = None


def examine(
    dataset: DataSet, case: Case, patch_size: Sequence[int] | None = None
) -> tuple[Volume | None, Examination]:
    """Read every voxel of one case: what it is, and what is wrong with it.

    There is no volume if a file cannot be read; one with faults must not be used.
    """
    found = Examination(case)
    volume, found.faults = _inspect_case(dataset, case, found.findings)
    if volume is not None:
        found.image_sha256, found.label_sha256 = _digest(volume.image), _digest(volume.label)
    if volume is not None and not found.faults:
        _look_at(volume, found.findings, patch_size)
        found.affine = volume.affine
        found.facts = facts(volume.image, volume.label, volume.spacing)
        found.thumbnail = thumbnail(case.name, volume.image, volume.label, volume.affine)
    return volume, found


def judge(dataset: DataSet, examinations: Iterable[Examination], notes: Verification) -> None:
    """Write faults and warnings into `notes`: those of each case, and those between cases."""
    notes.faults += dataset.faults
    images: dict[str, Examination] = {}
    labels: dict[str, Examination] = {}
    values: set[int] = set()
    thumbnails: list[Thumbnail] = []
    findings = Findings()
    for one in examinations:
        faults = list(one.faults)
        if one.image_sha256:
            twin = images.setdefault(one.image_sha256, one)
            if twin is not one:
                faults += _judge_twins(one, twin, notes)
        notes.faults += faults
        findings.add_all(one.findings)
        if faults or one.facts is None or one.thumbnail is None:
            continue
        values |= set(one.facts.counts)
        thumbnails.append(one.thumbnail)
        if len(one.facts.counts) == 1:
            continue  # empty labels are all the same
        twin = labels.setdefault(one.label_sha256, one)
        if twin is not one and _one_subject(notes, one.case, twin.case):
            notes.warnings.append(
                f"{one.case.name}: the same label as {twin.case.name} with another image; if it is "
                "not one patient, one label is wrong; their subjects count as one and stay in one "
                "split"
            )
    absent = [name for value, name in dataset.labels.items() if value not in values]
    if absent and not notes.faults:
        notes.warnings.append(
            f"{dataset.declared}: no label has a voxel of {', '.join(absent)}; are the values "
            "right?"
        )
    cases = {case.name: case for case in dataset.cases}
    for name, other, correlation in alike(thumbnails):
        if _one_subject(notes, cases[name], cases[other]):
            notes.warnings.append(
                f"{name}: nearly the same image as {other} (correlation {correlation:.5f}); their "
                "subjects count as one and stay in one split, remove one if it is a copy"
            )
    notes.warnings += findings.lines(len(dataset.cases))
    notes.warnings += mismatches(thumbnails)
    notes.warnings[:] = map(one_line, notes.warnings)


def verify(dataset: DataSet, patch_size: Sequence[int] | None = None) -> Verification:
    """Read every voxel of every case.

    Raises:
        DataError: with the faults of all cases.
    """
    notes = Verification()
    judge(dataset, (examine(dataset, case, patch_size)[1] for case in dataset.cases), notes)
    if notes.faults:
        raise DataError(notes.faults)
    return notes


def _look_at(volume: Volume, findings: Findings, patch_size: Sequence[int] | None) -> None:
    """Gather what is only likely to be wrong with a case that can be used."""
    name, image, label = volume.case.name, volume.image, volume.label
    if patch_size and any(np.less(label.shape, patch_size)):
        size = " x ".join(str(length) for length in patch_size)
        shape = " x ".join(str(length) for length in label.shape)
        findings.add(f"volumes are smaller than the patch ({size}) and are padded", name, shape)
    flat = np.ptp(image, axis=(1, 2)) == 0  # of each channel and slice
    constant = flat.all(axis=1) & (np.ptp(image[:, 0, 0], axis=1) == 0)
    if constant.any():
        findings.add(
            "images have a channel without any contrast, export them again or leave it out",
            name,
            f"channel {int(constant.argmax())}",
        )
    elif (marked := flat & label.any(axis=(0, 1))).any():
        channel, place = np.argwhere(marked)[0]
        findings.add(
            "images are flat in slices where the label marks something, export them again",
            name,
            f"{marked[channel].sum()} slices of channel {channel}, the first is {place}",
        )
    for one, two in combinations(range(len(image)), 2):
        if not constant[[one, two]].any() and np.array_equal(image[one], image[two]):
            findings.add(
                "images have one channel twice, check which was meant",
                name,
                f"channels {one} and {two}",
            )
    values = _values(label)
    if len(values) == 1:
        findings.add(
            "labels have one value everywhere, check that nothing is missing",
            name,
            f"the value {values[0]}",
        )


def _one_subject(notes: Verification, case: Case, other: Case) -> bool:
    """Count the subjects of two cases as one; whether they were two."""
    subject, first = notes.subject(case.subject), notes.subject(other.subject)
    if subject != first:
        notes.same_subject[subject] = first
    return subject != first


def _judge_twins(one: Examination, twin: Examination, notes: Verification) -> list[str]:
    """What two cases with one image mean.

    With one label too, a case is in the data set twice: a fault. With different labels one patient
    was annotated under two names (public data have it): both are usable, but only in one split.
    """
    path, other = one.case.images[0], twin.case.images[0]
    if one.label_sha256 == twin.label_sha256:
        return [f"{path}: the same case as {other.name}, image and label are identical; remove one"]
    if _one_subject(notes, one.case, twin.case):
        notes.warnings.append(
            f"{one.case.name}: the same image as {twin.case.name} with another label; subjects "
            f"'{one.case.subject}' and '{twin.case.subject}' count as one and stay in one split"
        )
    return []


def _load_image(
    case: Case, findings: Findings
) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    parts: list[np.ndarray] = []
    affines: list[np.ndarray] = []
    for path in case.images:
        voxels, affine, *_ = read = read_nifti(path)
        findings.add_file(path, read)
        if voxels.ndim == 4 and len(case.images) == 1:
            parts = list(np.moveaxis(voxels, -1, 0))
        elif voxels.ndim == 3:
            parts.append(voxels)
        else:
            allowed = "3-D" if len(case.images) > 1 else "3-D, or 4-D with the channels last"
            raise DataError(f"{path}: the image is {voxels.ndim}-D {voxels.shape}, store {allowed}")
        affines.append(affine)
        if parts[-1].shape != parts[0].shape or not _same(affine, affines[0]):
            raise DataError(
                f"{path}: shape or affine differs from {case.images[0].name}, the first channel; "
                "resample the channels to one grid"
            )
    with np.errstate(over="ignore"):  # told as infinite
        image = np.stack(parts).astype(np.float32, copy=False)
    x, y, z = (round(float(size), 6) for size in voxel_sizes(affines[0]))
    return image, affines[0], (x, y, z)


def _load_label(case: Case, findings: Findings) -> tuple[np.ndarray, np.ndarray]:
    voxels, affine, scaled, _ = read = read_nifti(case.label)
    findings.add_file(case.label, read)
    if scaled:
        findings.add(
            "labels are scaled by their headers, store the values themselves",
            str(case.label),
            "scl_slope or scl_inter",
        )
    if voxels.ndim != 3:
        raise DataError(
            f"{case.label}: the label is {voxels.ndim}-D {voxels.shape}, store one 3-D map of "
            "values"
        )
    if voxels.dtype.kind == "f":
        broken = voxels[~(np.isfinite(voxels) & (voxels == np.rint(voxels)))]
        if broken.size:
            raise DataError(
                f"{case.label}: {broken.size} label values are not integers, such as "
                f"{broken[0]:g}; resample labels by nearest neighbour, store them as integers"
            )
    if not -(2**31) <= voxels.min() <= voxels.max() < 2**31:
        raise DataError(
            f"{case.label}: label values from {voxels.min():g} to {voxels.max():g}, expected those "
            "of dataset.json"
        )
    return voxels.astype(np.int32), affine


def _inspect_case(
    dataset: DataSet, case: Case, findings: Findings
) -> tuple[Volume | None, list[str]]:
    """The volume if both files are readable, and what is wrong with it."""
    faults: list[str] = []
    image = label = None
    try:
        image, affine, spacing = _load_image(case, findings)
        faults += _image_faults(dataset, case, image)
    except DataError as error:
        faults += error.faults
    try:
        label, label_affine = _load_label(case, findings)
        faults += _label_faults(dataset, case, label)
    except DataError as error:
        faults += error.faults
    if image is None or label is None:
        return None, faults
    if image.shape[1:] != label.shape:
        faults.append(
            f"{case.label}: shape {label.shape}, but the image has {image.shape[1:]}; is it "
            "another case's label?"
        )
    elif not _same(affine, label_affine):
        worst = np.abs(affine - label_affine).max()
        faults.append(
            f"{case.label}: the affine differs from the image's by up to {worst:.3g}, expected "
            f"at most {AFFINE_TOLERANCE:g}; resample the label onto the image or correct the header"
        )
    elif label.any() and any(np.array_equal(channel, label) for channel in image):
        faults.append(f"{case.images[0]}: the image is a copy of its label, put the image there")
    return Volume(case, image, label, affine, spacing), faults


def _digest(voxels: np.ndarray) -> str:
    """SHA-256 over shape and voxels."""
    digest = hashlib.sha256(repr(voxels.shape).encode())
    digest.update(np.ascontiguousarray(voxels).data)
    return digest.hexdigest()


def _image_faults(dataset: DataSet, case: Case, image: np.ndarray) -> list[str]:
    faults = []
    if len(image) != len(dataset.channels):
        faults.append(
            f"{case.images[0]}: {len(image)} channels, but {dataset.declared.name} names "
            f"{len(dataset.channels)} ({', '.join(dataset.channels)}); correct one of them"
        )
    broken = image.size - int(np.isfinite(image).sum())
    if broken:
        faults.append(
            f"{case.images[0]}: {broken} voxels are NaN or infinite, replace them or export again"
        )
    elif all(channel.min() == channel.max() for channel in image):
        faults.append(
            f"{case.images[0]}: the image has the value {image.flat[0]:g} everywhere, export it "
            "again or remove the case"
        )
    return faults


def _label_faults(dataset: DataSet, case: Case, label: np.ndarray) -> list[str]:
    unknown = [value for value in _values(label) if value not in dataset.labels]
    if not unknown:
        return []
    shown = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
    known = ", ".join(map(str, sorted(dataset.labels)))
    return [
        f"{case.label}: label values {shown} are not in {dataset.declared.name}, which has "
        f"{known}; declare or correct them"
    ]


def _values(label: np.ndarray) -> list[int]:
    """The values of a label, sorted; counting is many times faster than sorting them."""
    if label.min() >= 0 and label.max() <= LARGEST_LABEL:
        return np.flatnonzero(np.bincount(label.ravel())).tolist()
    return np.unique(label).tolist()


def _same(affine: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.allclose(affine, other, rtol=0, atol=AFFINE_TOLERANCE))
