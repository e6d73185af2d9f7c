"""ACDC as its authors distribute it, in miniature; the other layouts stand in test_dataset."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from workflow.data.dataset import DataError, load_image, load_label, read, verify

AFFINE = np.diag([1.5, 1.5, 10.0, 1.0])


def write_patient(folder: Path, frames: tuple[int, int], seed: int) -> None:
    """The files of one patient; the frames between the two are in `_4d`, without labels."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for frame in frames:
        label = np.zeros((12, 14, 5), np.uint8)
        label[2:9, 3:10, 1:4] = 1
        label[3:7, 4:8, 1:4] = 2
        label[4:6, 5 : 5 + seed, 1:4] = 3
        image = (rng.integers(0, 99, label.shape) + 100 * label).astype(np.int16)
        for array, ending in ((image, ""), (label, "_gt")):
            path = folder / f"{folder.name}_frame{frame:02d}{ending}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(array, AFFINE), path)
    movie = rng.integers(0, 99, (12, 14, 5, 8)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(movie, AFFINE), folder / f"{folder.name}_4d.nii.gz")
    first, last = frames
    (folder / "Info.cfg").write_text(
        f"ED: {first}\nES: {last}\nGroup: DCM\nHeight: 184.0\nNbFrame: 30\nWeight: 95.0\n"
    )


@pytest.fixture
def acdc(tmp_path: Path) -> Path:
    """Three patients of two frames each."""
    root = tmp_path / "ACDC"
    for number, frames in enumerate([(1, 12), (1, 9), (4, 14)], start=1):
        write_patient(root / "training" / f"patient{number:03d}", frames, number)
    return root


@pytest.mark.parametrize("below", ["", "training"])
def test_acdc_is_read_as_its_authors_distribute_it(acdc: Path, below: str) -> None:
    found = read(acdc / below)
    assert [case.name for case in found.cases] == [
        "patient001_frame01", "patient001_frame12", "patient002_frame01", "patient002_frame09",
        "patient003_frame04", "patient003_frame14",
    ]  # fmt: skip
    assert [case.subject for case in found.cases][::2] == ["patient001", "patient002", "patient003"]
    assert list(found.labels.values()) == [
        "background", "right ventricle", "myocardium", "left ventricle"
    ]  # fmt: skip
    assert found.channels == ("MRI",)
    assert "Bernard" in found.reference
    assert verify(found).warnings == []
    image, _, spacing = load_image(found.cases[0])
    assert image.shape == (1, 12, 14, 5)
    assert spacing == (1.5, 1.5, 10.0)
    assert set(np.unique(load_label(found.cases[0])[0])) == {0, 1, 2, 3}


def test_another_subject_pattern_is_taken(acdc: Path) -> None:
    assert read(acdc, r"frame(\d+)").cases[1].subject == "12"


def test_a_described_folder_is_no_acdc_folder(acdc: Path) -> None:
    (acdc / "dataset.json").write_text(json.dumps({"training": []}))
    with pytest.raises(DataError, match="the key 'modality' is missing"):
        read(acdc)


def test_faults_of_acdc_name_file_and_remedy(acdc: Path) -> None:
    home = acdc / "training"
    (home / "patient001/patient001_frame12_gt.nii.gz").unlink()
    (home / "patient002/patient002_frame01.nii.gz").unlink()
    for ending in ("", "_gt"):
        (home / f"patient003/patient003_frame14{ending}.nii.gz").unlink()
    shutil.copy(
        home / "patient001/patient001_frame01.nii.gz", home / "patient003/patient001_frame01.nii.gz"
    )
    (home / "patient004").mkdir()
    with pytest.raises(DataError) as caught:
        read(acdc)
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    said = "\n".join(lines)
    for part in (
        "patient001_frame12_gt.nii.gz: no such file, so the image has no label",
        "patient002_frame01.nii.gz: no such file, so the label has no image",
        "patient003_frame14.nii.gz: no such file, but Info.cfg names the frame",
        "patient003/patient001_frame01.nii.gz: expected a name such as patient003_frame01.nii.gz",
        "patient004: no frames, expected patient004_frame01.nii.gz and _gt",
    ):
        assert part in said


def test_a_value_that_acdc_has_not_is_named(acdc: Path) -> None:
    path = acdc / "training/patient001/patient001_frame01_gt.nii.gz"
    label = np.zeros((12, 14, 5), np.uint8)
    label[3, 3, 3] = 7
    nibabel.save(nibabel.Nifti1Image(label, AFFINE), path)
    with pytest.raises(DataError, match=r"label values 7 are not in ACDC, which has 0, 1, 2, 3"):
        verify(read(acdc))


def test_a_folder_of_nothing_known_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file.*for ACDC, its folders patient001"):
        read(tmp_path)
