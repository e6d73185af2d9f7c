"""Data sets as folders: read the declarations, load the volumes, verify every voxel.

Every file is read once: `inspect` yields each sound case and notes the faults of the others, and
both `verify` and `prepare.prepare` are consumers of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from nibabel.affines import voxel_sizes

from workflow.data.faults import DataError
from workflow.data.layout import Case, DataSet, merge_labels, read
from workflow.data.nifti import read_nifti

__all__ = [
    "Case",
    "DataError",
    "DataSet",
    "Verification",
    "Volume",
    "inspect",
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
    image_sha256: str
    label_sha256: str


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
    parts, first_affine = [], None
    for path in case.images:
        voxels, affine = read_nifti(path)
        if voxels.ndim == 4 and len(case.images) == 1:
            parts = list(np.moveaxis(voxels, -1, 0))
        elif voxels.ndim == 3:
            parts.append(voxels)
        else:
            allowed = "3-D" if len(case.images) > 1 else "3-D, or 4-D with the channels last"
            raise DataError(f"{path}: the image is {voxels.ndim}-D, expected {allowed}")
        first_affine = affine if first_affine is None else first_affine
        if parts[-1].shape != parts[0].shape or not _same(affine, first_affine):
            raise DataError(
                f"{path}: shape or affine differs from {case.images[0].name}, the first channel"
            )
    image = np.stack(parts).astype(np.float32, copy=False)
    spacing = tuple(round(float(size), 6) for size in voxel_sizes(first_affine))
    return image, first_affine, spacing


def load_label(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Label values (x, y, z) as int32, and the affine in mm.

    Raises:
        DataError: a file that cannot be read, a label that is not 3-D, a value that is no integer.
    """
    voxels, affine = read_nifti(case.label)
    if voxels.ndim != 3:
        raise DataError(f"{case.label}: the label is {voxels.ndim}-D {voxels.shape}, expected 3-D")
    if voxels.dtype.kind == "f":
        broken = voxels[~(np.isfinite(voxels) & (voxels == np.rint(voxels)))]
        if broken.size:
            raise DataError(
                f"{case.label}: {broken.size} label values are not integers, such as {broken[0]:g}"
            )
    if voxels.size and not -(2**31) <= voxels.min() <= voxels.max() < 2**31:
        raise DataError(f"{case.label}: label values up to {voxels.max():g}, expected 32 bits")
    return voxels.astype(np.int32), affine


def inspect(
    dataset: DataSet, notes: Verification, patch_size: Sequence[int] | None = None
) -> Iterator[Volume]:
    """Read each case once, yield the sound ones and write faults and warnings into `notes`.

    Exhaust the iterator before judging `notes`: some findings concern several cases.
    """
    seen: dict[str, Volume] = {}
    small: list[str] = []
    constant: list[str] = []
    for case in dataset.cases:
        volume, faults = _inspect_case(dataset, case)
        if volume is not None:
            twin = seen.setdefault(volume.image_sha256, _without_voxels(volume))
            if twin.case != case:
                faults += _judge_twins(volume, twin, notes)
        notes.faults += faults
        if volume is None:
            continue
        if patch_size and any(np.less(volume.label.shape, patch_size)):
            small.append(case.name)
        if (np.ptp(volume.image.reshape(len(volume.image), -1), axis=1) == 0).any():
            constant.append(case.name)
        if not faults:
            yield volume
    if small:
        size = " x ".join(str(length) for length in patch_size or ())
        notes.warnings.append(
            f"{len(small)} of {len(dataset.cases)} volumes are smaller than the patch ({size}) "
            f"and are padded, the first is {small[0]}"
        )
    if constant:
        notes.warnings.append(
            f"{len(constant)} of {len(dataset.cases)} images have a channel without any contrast, "
            f"the first is {constant[0]}"
        )


def verify(dataset: DataSet, patch_size: Sequence[int] | None = None) -> Verification:
    """Read every voxel of every case.

    Raises:
        DataError: with the faults of all cases.
    """
    notes = Verification()
    for _ in inspect(dataset, notes, patch_size):
        pass
    if notes.faults:
        raise DataError(notes.faults)
    return notes


def _judge_twins(volume: Volume, twin: Volume, notes: Verification) -> list[str]:
    """What two cases with one image mean.

    With one label too, a case is in the data set twice: a fault. With different labels one patient
    was annotated under two names (public data have it): both are usable, but only in one split.
    """
    path, other = volume.case.images[0], twin.case.images[0]
    if volume.label_sha256 == twin.label_sha256:
        return [f"{path}: the same case as {other.name}, image and label are identical"]
    subject, first = notes.subject(volume.case.subject), notes.subject(twin.case.subject)
    if subject != first:
        notes.same_subject[subject] = first
        notes.warnings.append(
            f"{volume.case.name}: the same image as {twin.case.name} with another label; subjects "
            f"'{volume.case.subject}' and '{twin.case.subject}' count as one and stay in one split"
        )
    return []


def _without_voxels(volume: Volume) -> Volume:
    """What is worth remembering of a case once its arrays are let go."""
    nothing = np.empty(0)
    return replace(volume, image=nothing, label=nothing)


def _inspect_case(dataset: DataSet, case: Case) -> tuple[Volume | None, list[str]]:
    """The volume if both files are readable, and what is wrong with it."""
    faults: list[str] = []
    image = label = None
    try:
        image, affine, spacing = load_image(case)
        faults += _image_faults(dataset, case, image)
    except DataError as error:
        faults += error.faults
    try:
        label, label_affine = load_label(case)
        faults += _label_faults(dataset, case, label)
    except DataError as error:
        faults += error.faults
    if image is None or label is None:
        return None, faults
    if image.shape[1:] != label.shape:
        faults.append(f"{case.label}: shape {label.shape}, but the image has {image.shape[1:]}")
    elif not _same(affine, label_affine):
        worst = np.abs(affine - label_affine).max()
        faults.append(
            f"{case.label}: the affine differs from the image's by up to {worst:.3g}, expected "
            f"at most {AFFINE_TOLERANCE:g}"
        )
    return Volume(case, image, label, affine, spacing, _digest(image), _digest(label)), faults


def _digest(voxels: np.ndarray) -> str:
    """SHA-256 over shape and voxels."""
    digest = hashlib.sha256(repr(voxels.shape).encode())
    digest.update(np.ascontiguousarray(voxels))
    return digest.hexdigest()


def _image_faults(dataset: DataSet, case: Case, image: np.ndarray) -> list[str]:
    faults = []
    if len(image) != len(dataset.channels):
        faults.append(
            f"{case.images[0]}: {len(image)} channels, but dataset.json names "
            f"{len(dataset.channels)} ({', '.join(dataset.channels)})"
        )
    broken = image.size - int(np.isfinite(image).sum())
    if broken:
        faults.append(f"{case.images[0]}: {broken} voxels are NaN or infinite")
    return faults


def _label_faults(dataset: DataSet, case: Case, label: np.ndarray) -> list[str]:
    unknown = sorted(set(np.unique(label).tolist()) - dataset.labels.keys())
    if not unknown:
        return []
    shown = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
    known = ", ".join(map(str, sorted(dataset.labels)))
    return [f"{case.label}: label values {shown} are not in dataset.json, which has {known}"]


def _same(affine: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.allclose(affine, other, rtol=0, atol=AFFINE_TOLERANCE))
