from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.data.conftest import SMALL
from workflow.data import dataset, phantom
from workflow.data.dataset import DataError
from workflow.data.phantom import CLASSES, PhantomSettings, make_subject, write


def content(root: Path) -> dict[str, bytes]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_same_settings_give_the_same_bytes_and_another_seed_does_not(
    pristine: Path, tmp_path: Path
) -> None:
    assert content(write(SMALL, tmp_path / "again")) == content(pristine)
    other = content(write(replace(SMALL, seed=6), tmp_path / "other"))
    ours = content(pristine)
    volumes = [name for name in ours if name.endswith(".nii.gz")]
    assert len(volumes) == 8
    assert all(ours[name] != other[name] for name in volumes)


def test_a_larger_phantom_begins_with_the_subjects_of_a_smaller_one() -> None:
    for few, many in zip(
        make_subject(SMALL, 3), make_subject(replace(SMALL, subjects=50), 3), strict=True
    ):
        np.testing.assert_array_equal(few, many)


def test_what_is_written_is_a_sound_decathlon_folder(pristine: Path) -> None:
    found = dataset.read(pristine)
    assert found.labels == dict(enumerate(("background", *CLASSES)))
    assert len(found.cases) == 4
    assert len(found.channels) == 2
    assert dataset.verify(found).warnings == []
    image, affine, spacing = dataset.load_image(found.cases[0])
    assert image.shape == (2, *SMALL.shape)
    assert spacing == (8.0, 8.0, 8.0)
    np.testing.assert_allclose(affine[:3, 3], -(np.array(SMALL.shape) - 1) / 2 * 8)


def test_the_notice_of_the_templates_travels_with_the_data(pristine: Path) -> None:
    notice = (pristine / "NOTICE").read_text()
    assert "Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre" in notice
    assert "ICBM 2009a nonlinear" in notice
    assert "NOTICE" in json.loads((pristine / "dataset.json").read_text())["licence"]


def test_default_volumes_are_as_imbalanced_as_tumours_are() -> None:
    labels = np.stack([make_subject(PhantomSettings(), index)[1] for index in range(16)])
    share = np.bincount(labels.ravel(), minlength=4) / labels.size
    assert 0.98 < share[0] < 0.995
    assert 0.0004 < share[1:].min() < 0.002
    assert share[1] > 3 * share[2:].max()


def test_lesions_stand_out_of_the_tissue_in_at_least_one_contrast() -> None:
    image, label = make_subject(PhantomSettings(noise=0.0, contrast_spread=0.0), 0)
    healthy = np.median(image[:, (label == 0) & (image[0] > 400)], axis=1)
    for value in np.unique(label)[1:]:
        ratio = np.median(image[:, label == value], axis=1) / healthy
        assert np.abs(ratio - 1).max() > 0.2


@pytest.mark.parametrize("prevalence", [(1.0, 0.84, 0.69), (0.5, 0.3, 0.9), (0.0, 1.0, 0.0)])
def test_prevalence_is_what_the_settings_say(prevalence: tuple[float, ...]) -> None:
    settings = replace(SMALL, prevalence=dict(zip(CLASSES, prevalence, strict=True)))
    present = [phantom._present(settings, index) for index in range(120)]
    for name, share in settings.prevalence.items():
        assert np.mean([name in found for found in present]) == pytest.approx(share, abs=0.02)


def test_labels_hold_exactly_the_classes_that_the_subject_has() -> None:
    settings = replace(SMALL, prevalence={name: 0.5 for name in CLASSES})
    patterns = set()
    for index in range(12):
        _, label = make_subject(settings, index)
        found = frozenset(CLASSES[value - 1] for value in np.unique(label) if value)
        assert found == phantom._present(settings, index)
        patterns.add(found)
    assert len(patterns) >= 5


def test_an_interrupted_phantom_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(phantom, "_save", full)
    with pytest.raises(OSError, match="No space left"):
        write(SMALL, tmp_path / "phantom")
    assert list(tmp_path.iterdir()) == []


def test_only_a_phantom_or_an_empty_folder_is_replaced(folder: Path, tmp_path: Path) -> None:
    one = replace(SMALL, subjects=1)
    write(one, folder)
    assert len(list((folder / "imagesTr").iterdir())) == 1
    (tmp_path / "empty").mkdir()
    write(one, tmp_path / "empty")
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="is not a phantom"):
        write(one, folder)
    assert (folder / "thesis.txt").read_text() == "mine"


def test_progress_counts_the_subjects(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write(replace(SMALL, subjects=2), tmp_path / "p", progress=lambda *now: seen.append(now))
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subjects": 0}, "subjects must be 1 or more"),
        ({"shape": (4, 28, 24)}, "shape must be three lengths"),
        ({"spacing": 0.0}, "spacing must lie"),
        ({"seed": -1}, "seed must be 0"),
        ({"prevalence": {"edema": 1.0}}, "prevalence needs edema, necrotic core"),
        ({"prevalence": dict.fromkeys(CLASSES, 1.5)}, "between 0 and 1"),
        ({"lesions": (3, 1)}, "lesions must be"),
        ({"noise": -0.1}, "noise must be 0 or more"),
        ({"lesion_volume": 0.0}, "lesion_volume must be more than 0"),
        ({"bias": 1.0}, "bias must be less than 1"),
        ({"core_share": 1.0}, "core_share must lie"),
    ],
)
def test_impossible_settings_name_the_dial(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)


def test_lesions_too_small_for_the_voxels_are_refused() -> None:
    with pytest.raises(DataError, match="expected a larger lesion_volume"):
        make_subject(replace(SMALL, lesion_volume=0.01), 0)
