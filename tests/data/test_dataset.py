"""Each fault is made from a real small data set, broken as data really break."""

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


def test_a_missing_or_broken_dataset_json_is_named(folder: Path) -> None:
    path = folder / "dataset.json"
    path.write_text(path.read_text()[:-40])
    assert "dataset.json: cannot be read as JSON" in fault(lambda: read(folder))
    path.write_text("[]")
    assert "expected a JSON object, found list" in fault(lambda: read(folder))
    path.unlink()
    assert "dataset.json: no such file" in fault(lambda: read(folder))


@pytest.mark.parametrize("key", ["labels", "modality"])
def test_a_missing_key_is_named(folder: Path, edit: Edit, key: str) -> None:
    edit(folder, lambda content: content.pop(key))
    assert f"the key '{key}' is missing" in fault(lambda: read(folder))


def test_neither_layout_says_what_was_expected(folder: Path, edit: Edit) -> None:
    edit(folder, lambda content: content.pop("training"))
    line = fault(lambda: read(folder))
    assert "'training' (Medical Segmentation Decathlon)" in line
    assert "nnU-Net v2" in line


def test_an_image_without_label_and_the_reverse_are_told_together(folder: Path) -> None:
    (folder / LABEL).unlink()
    (folder / "imagesTr/phantom_003.nii.gz").unlink()
    lines = fault(lambda: read(folder)).splitlines()
    assert len(lines) == 2
    assert f"{LABEL}: no such file, so the image has no label" in lines[0]
    assert "imagesTr/phantom_003.nii.gz: no such file, so the label has no image" in lines[1]


@pytest.mark.parametrize(
    ("part", "said"), [("imagesTr", "image without label"), ("labelsTr", "label without image")]
)
def test_a_file_that_no_entry_lists_is_named(folder: Path, part: str, said: str) -> None:
    shutil.copy(folder / IMAGE, folder / part / "stray.nii.gz")
    (folder / part / "._phantom_001.nii.gz").write_bytes(b"macOS")
    assert f"{part}/stray.nii.gz: {said}" in fault(lambda: read(folder))


def test_a_case_listed_twice_is_named(folder: Path, edit: Edit) -> None:
    edit(folder, lambda content: content["training"].append(content["training"][1]))
    line = fault(lambda: read(folder))
    assert "the case 'phantom_002' is listed twice" in line
    assert "\n" not in line


@pytest.mark.parametrize("path", ["../outside.nii.gz", "imagesTr/../../x.nii.gz", "/etc/x.nii.gz"])
def test_a_path_that_leaves_the_folder_is_refused(folder: Path, edit: Edit, path: str) -> None:
    edit(folder, lambda content: content["training"][1].update(image=path))
    assert f"'{path}' leaves the folder" in fault(lambda: read(folder))


def test_a_linked_file_is_allowed(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.nii.gz"
    os.rename(folder / IMAGE, target)
    (folder / IMAGE).symlink_to(target)
    assert verify(read(folder)).warnings == []


def test_a_wrong_number_of_cases_is_told(folder: Path, edit: Edit) -> None:
    edit(folder, lambda content: content.update(numTraining=5))
    assert "numTraining is 5, but 4 cases were found" in fault(lambda: read(folder))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"1": "edema"}, "no value 0"),
        ({"0": "background", "one": "edema"}, "expected a name and an integer"),
        ({"0": "background", "1": "edema", "01": "rim"}, "value 1 is declared twice"),
        ({"0": "background", "1": "rim", "2": "rim"}, "name 'rim' is declared twice"),
        ({"background": 0, "whole": [1, 2]}, "region of several values"),
        ({"background": 0, "edema": 1, "ignore": 2}, "ignored voxels are not supported"),
        (["background"], "must be an object"),
    ],
)
def test_unusable_labels_are_refused(folder: Path, edit: Edit, labels: object, said: str) -> None:
    edit(folder, lambda content: content.update(labels=labels))
    assert said in fault(lambda: read(folder))


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


def test_a_truncated_file_is_named(folder: Path) -> None:
    path = folder / IMAGE
    path.write_bytes(path.read_bytes()[:-1000])
    assert "truncated" in only_fault(folder, IMAGE)


def test_a_truncated_file_without_compression_is_named(folder: Path, edit: Edit) -> None:
    plain = folder / "imagesTr/phantom_002.nii"
    plain.write_bytes(gzip.decompress((folder / IMAGE).read_bytes())[:-1])
    (folder / IMAGE).unlink()
    edit(folder, lambda content: content["training"][1].update(image="imagesTr/phantom_002.nii"))
    assert "truncated, fewer voxels" in only_fault(folder, "imagesTr/phantom_002.nii")


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_a_flipped_bit_is_noticed_wherever_it_is(folder: Path, place: float) -> None:
    path = folder / IMAGE
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)
    line = only_fault(folder, IMAGE)
    assert "damaged" in line or "truncated" in line


def test_a_flipped_bit_in_the_checksum_itself_is_noticed(folder: Path) -> None:
    path = folder / LABEL
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    assert "the gzip checksum does not match" in only_fault(folder, LABEL)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a NIfTI file"),
        (b"<html>404 Not Found</html>" * 40, "not a gzip file"),
        (gzip.compress(b"DICM" * 500), "not a NIfTI file"),
        (gzip.compress(b"short"), "not a NIfTI file"),
    ],
)
def test_something_else_than_nifti_is_named(folder: Path, content: bytes, said: str) -> None:
    (folder / IMAGE).write_bytes(content)
    assert said in only_fault(folder, IMAGE)


def test_a_4d_label_is_refused(folder: Path, rewrite: Callable[..., None]) -> None:
    rewrite(folder / LABEL, voxels=lambda array: np.stack([array, array], axis=-1))
    assert "the label is 4-D" in only_fault(folder, LABEL)


def test_a_shape_mismatch_is_named(folder: Path, rewrite: Callable[..., None]) -> None:
    rewrite(folder / LABEL, voxels=lambda array: array[:, :-1])
    assert "shape (24, 27, 24), but the image has (24, 28, 24)" in only_fault(folder, LABEL)


def test_an_affine_mismatch_is_named_and_rounding_is_not(
    folder: Path, rewrite: Callable[..., None]
) -> None:
    rewrite(folder / LABEL, affine=lambda affine: affine + 1e-4 * np.eye(4)[:, [3, 0, 1, 2]])
    verify(read(folder))
    rewrite(folder / LABEL, affine=lambda affine: affine @ np.diag([-1, 1, 1, 1]))
    assert "the affine differs" in only_fault(folder, LABEL)


def test_a_wrong_number_of_channels_is_named(folder: Path, rewrite: Callable[..., None]) -> None:
    rewrite(folder / IMAGE, voxels=lambda array: array[..., 0])
    assert "1 channels, but dataset.json names 2" in only_fault(folder, IMAGE)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_no_numbers_are_counted(
    folder: Path, rewrite: Callable[..., None], value: float
) -> None:
    def spoil(array: np.ndarray) -> np.ndarray:
        array = array.astype(np.float32)
        array[3, 4, 5:8, 1] = value
        return array

    rewrite(folder / IMAGE, voxels=spoil)
    assert "3 voxels are NaN or infinite" in only_fault(folder, IMAGE)


@pytest.mark.parametrize("value", [0.999, np.nan, np.inf])
def test_labels_that_are_no_integers_are_refused(
    folder: Path, rewrite: Callable[..., None], value: float
) -> None:
    def spoil(array: np.ndarray) -> np.ndarray:
        array = array.astype(np.float32)
        array[0, 0, 0] = value
        return array

    rewrite(folder / LABEL, voxels=spoil)
    assert "1 label values are not integers" in only_fault(folder, LABEL)


def test_integers_stored_as_floats_are_labels(folder: Path, rewrite: Callable[..., None]) -> None:
    rewrite(folder / LABEL, voxels=lambda array: array.astype(np.float32))
    verify(read(folder))


def test_a_label_that_is_not_declared_is_named(folder: Path, rewrite: Callable[..., None]) -> None:
    rewrite(folder / LABEL, voxels=lambda array: np.where(array == 1, 7, array).astype(np.uint8))
    assert "label values 7 are not in dataset.json" in only_fault(folder, LABEL)


def test_all_faults_are_told_in_one_go(folder: Path, rewrite: Callable[..., None]) -> None:
    rewrite(folder / LABEL, voxels=lambda array: array + np.uint8(9))
    (folder / "imagesTr/phantom_001.nii.gz").write_bytes(b"nothing")
    lines = fault(lambda: verify(read(folder))).splitlines()
    assert ["phantom_001" in line for line in lines] == [True, False]


def test_the_same_case_under_two_names_is_a_fault(folder: Path) -> None:
    for part in ("imagesTr", "labelsTr"):
        shutil.copy(folder / part / "phantom_002.nii.gz", folder / part / "phantom_003.nii.gz")
    line = only_fault(folder, "imagesTr/phantom_003.nii.gz")
    assert "the same case as phantom_002.nii.gz" in line


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
    assert "without any contrast, the first is phantom_002" in warnings[1]
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
