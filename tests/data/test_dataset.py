"""What is read from folders of either layout; their faults stand in tests/faults."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from workflow.data import dataset
from workflow.data.dataset import DataError, DataSet, merge_labels, read, verify

IMAGE = Path("imagesTr/phantom_002.nii.gz")
LABEL = Path("labelsTr/phantom_002.nii.gz")
Edit = Callable[[Path, Callable[[dict], None]], None]


def fault(action: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        action()
    return str(caught.value)


def only_fault(folder: Path, name: Path | str) -> str:
    """The one line that verification says, which must name the file."""
    line = fault(lambda: verify(read(folder)))
    assert "\n" not in line
    assert str(name) in line
    return line


# --- declarations ----------------------------------------------------------------------------


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert "nowhere: no such folder" in fault(lambda: read(tmp_path / "nowhere"))


def test_an_image_without_label_and_the_reverse_are_told_together(folder: Path) -> None:
    (folder / LABEL).unlink()
    (folder / "imagesTr/phantom_003.nii.gz").unlink()
    lines = fault(lambda: read(folder)).splitlines()
    assert len(lines) == 2
    assert f"{LABEL}: no such file, so the image has no label" in lines[0]
    assert "imagesTr/phantom_003.nii.gz: no such file, so the label has no image" in lines[1]


def test_a_linked_file_is_allowed(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.nii.gz"
    os.rename(folder / IMAGE, target)
    (folder / IMAGE).symlink_to(target)
    assert verify(read(folder)).warnings == []


def test_forty_faults_are_shown_and_the_rest_is_counted() -> None:
    lines = str(DataError([f"fault {number}" for number in range(100)])).splitlines()
    assert len(lines) == 41
    assert lines[-1] == "... and 60 more faults"


# --- subjects --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "subjects"),
    [
        (None, ["phantom_001", "phantom_002", "phantom_003", "phantom_004"]),
        (r"_(\d\d)", ["00", "00", "00", "00"]),
        (r"\d+$", ["001", "002", "003", "004"]),
    ],
)
def test_the_subject_is_the_group_or_the_match(
    pristine: Path, pattern: str | None, subjects: list[str]
) -> None:
    assert [case.subject for case in read(pristine, pattern).cases] == subjects


def test_a_case_that_does_not_match_the_subject_pattern_is_named(pristine: Path) -> None:
    lines = fault(lambda: read(pristine, r"00([123])")).splitlines()
    assert len(lines) == 1
    assert "'phantom_004' does not match" in lines[0]
    assert "is not a regular expression" in fault(lambda: read(pristine, "("))


# --- nnU-Net v2 ------------------------------------------------------------------------------


def test_nnunet_folders_hold_the_same_voxels(nnunet: Path, pristine: Path) -> None:
    ours, theirs = read(pristine), read(nnunet)
    assert theirs.channels == ("T1", "FLAIR")
    assert theirs.labels == ours.labels
    assert theirs.name == "Dataset001_Phantom"
    assert verify(theirs).warnings == []
    for case, twin in zip(ours.cases, theirs.cases, strict=True):
        assert case.name == twin.name
        np.testing.assert_array_equal(dataset.load_image(case)[0], dataset.load_image(twin)[0])
        np.testing.assert_array_equal(dataset.load_label(case)[0], dataset.load_label(twin)[0])


def test_nnunet_faults_name_the_file(nnunet: Path, edit: Edit) -> None:
    (nnunet / "imagesTr/phantom_001_0001.nii.gz").unlink()
    (nnunet / LABEL).unlink()
    for channel in range(2):
        (nnunet / f"imagesTr/phantom_003_{channel:04d}.nii.gz").unlink()
    shutil.copy(nnunet / "imagesTr/phantom_004_0000.nii.gz", nnunet / "imagesTr/odd.nii.gz")
    said = fault(lambda: read(nnunet))
    assert "imagesTr/phantom_001: channel files [0], expected [0, 1]" in said
    assert f"{LABEL}: no such file, so the image has no label" in said
    assert "labelsTr/phantom_003.nii.gz: label without image" in said
    assert "imagesTr/odd.nii.gz: expected a name such as case_0000.nii.gz" in said
    assert len(said.splitlines()) == 4
    edit(nnunet, lambda content: content.update(file_ending=".png"))
    assert "file_ending '.png', expected .nii.gz or .nii" in fault(lambda: read(nnunet))


def test_nnunet_channels_of_different_shape_are_named(
    nnunet: Path, rewrite: Callable[..., None]
) -> None:
    path = nnunet / "imagesTr/phantom_001_0001.nii.gz"
    rewrite(path, voxels=lambda array: array[:-1])
    assert "differs from phantom_001_0000.nii.gz" in only_fault(nnunet, path)


# --- voxels ----------------------------------------------------------------------------------


def test_an_affine_that_differs_by_rounding_is_the_same(
    folder: Path, rewrite: Callable[..., None]
) -> None:
    rewrite(folder / LABEL, affine=lambda affine: affine + 1e-4 * np.eye(4)[:, [3, 0, 1, 2]])
    assert verify(read(folder)).warnings == []


def test_hidden_files_are_passed_over(folder: Path) -> None:
    (folder / "imagesTr/._phantom_001.nii.gz").write_bytes(b"macOS")
    assert len(read(folder).cases) == 4


def test_integers_stored_as_floats_are_labels(folder: Path, rewrite: Callable[..., None]) -> None:
    rewrite(folder / LABEL, voxels=lambda array: array.astype(np.float32))
    verify(read(folder))


def test_one_image_under_two_subjects_makes_them_one_subject(folder: Path) -> None:
    shutil.copy(folder / IMAGE, folder / "imagesTr/phantom_003.nii.gz")
    notes = verify(read(folder))
    assert len(notes.warnings) == 1
    assert "phantom_003: the same image as phantom_002" in notes.warnings[0]
    assert notes.subject("phantom_003") == "phantom_002"
    assert notes.subject("phantom_004") == "phantom_004"


def test_small_volumes_and_flat_channels_are_warnings_said_once(
    folder: Path, rewrite: Callable[..., None]
) -> None:
    def flatten(array: np.ndarray) -> np.ndarray:
        array[..., 1] = 3
        return array

    rewrite(folder / IMAGE, voxels=flatten)
    warnings = verify(read(folder), patch_size=(32, 24, 24)).warnings
    assert len(warnings) == 2
    assert "4 of 4 volumes are smaller than the patch (32 x 24 x 24)" in warnings[0]
    assert "channel without any contrast" in warnings[1]
    assert "phantom_002 (channel 1)" in warnings[1]
    assert len(verify(read(folder), patch_size=(24, 28, 24)).warnings) == 1


def test_anisotropic_rotated_spacing_is_the_length_of_the_axes(
    folder: Path, rewrite: Callable[..., None]
) -> None:
    turn = np.array([[0, -2.0, 0, 1], [1.5, 0, 0, 2], [0, 0, 5, 3], [0, 0, 0, 1]])
    for path in (IMAGE, LABEL):
        rewrite(folder / path, affine=lambda _: turn)
    found = read(folder)
    verify(found)
    assert dataset.load_image(found.cases[1])[2] == (1.5, 2.0, 5.0)


def test_a_nifti2_file_is_read(folder: Path) -> None:
    image = nibabel.load(folder / IMAGE)
    second = nibabel.Nifti2Image(np.array(image.dataobj), image.affine)
    (folder / IMAGE).write_bytes(gzip.compress(second.to_bytes()))
    verify(read(folder))


# --- merging ---------------------------------------------------------------------------------

LABELS = {0: "air", 1: "edema", 2: "core", 4: "rim"}


def test_without_merging_labels_become_contiguous_classes() -> None:
    names, lookup = merge_labels(LABELS)
    assert names == ("background", "edema", "core", "rim")
    assert lookup == {0: 0, 1: 1, 2: 2, 4: 3}


def test_groups_are_classes_in_their_order_and_the_rest_is_background() -> None:
    names, lookup = merge_labels(LABELS, {"tumour": [2, 4]})
    assert names == ("background", "tumour")
    assert lookup == {0: 0, 1: 0, 2: 1, 4: 1}
    assert merge_labels(LABELS, {"b": [4], "a": [1]})[0] == ("background", "b", "a")


@pytest.mark.parametrize(
    ("merge", "said"),
    [
        ({"x": [3]}, "'x' names label 3; known labels: 0 (air), 1 (edema), 2 (core), 4 (rim)"),
        ({"x": [1], "y": [1]}, "label 1 (edema) stands in two groups"),
        ({"x": [0, 1]}, "always background"),
        ({"x": []}, "is empty"),
        ({"background": [1]}, "cannot be a group"),
        ({}, "no foreground class"),
    ],
)
def test_impossible_merges_are_refused(merge: dict[str, list[int]], said: str) -> None:
    assert said in fault(lambda: merge_labels(LABELS, merge))


def test_reading_keeps_reference_and_licence(folder: Path, edit: Edit) -> None:
    edit(folder, lambda content: content.update(reference="Doe 2020", licence="CC0"))
    found = read(folder)
    assert isinstance(found, DataSet)
    assert (found.reference, found.licence) == ("Doe 2020", "CC0")
    assert json.loads((folder / "dataset.json").read_text())["numTraining"] == len(found.cases)
