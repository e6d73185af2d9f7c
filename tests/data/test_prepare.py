from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from workflow.data import dataset, prepare
from workflow.data.choices import Choices
from workflow.data.dataset import DataError, merge_labels, read
from workflow.data.prepare import Prepared, load_prepared
from workflow.data.transform import normalise


def run(folder: Path, out: Path, merge: dict[str, list[int]] | None = None, **options) -> Prepared:
    found = read(folder)
    return prepare.prepare(found, out, *merge_labels(found.labels, merge), **options)


def test_what_is_prepared_is_what_is_loaded(pristine: Path, tmp_path: Path) -> None:
    prepared = run(pristine, tmp_path / "out")
    assert load_prepared(tmp_path / "out") == prepared
    assert prepared.classes == ("background", "edema", "necrotic core", "enhancing rim")
    for case, source in zip(prepared.cases, read(pristine).cases, strict=True):
        image, label = prepared.image(case), prepared.label(case)
        assert isinstance(image, np.memmap)
        assert image.dtype == np.float32
        assert image.shape == (2, *case.shape)
        assert label.dtype == np.uint8
        np.testing.assert_array_equal(label, dataset.load_label(source)[0])
        assert case.voxels == {
            name: int((label == index).sum()) for index, name in enumerate(prepared.classes)
        }
        assert case.spacing == (8.0, 8.0, 8.0)
        np.testing.assert_allclose(image.mean(axis=(1, 2, 3)), 0, atol=1e-4)
        np.testing.assert_allclose(image.std(axis=(1, 2, 3)), 1, atol=1e-4)


def test_present_classes_leave_out_background_and_empty_classes(
    pristine: Path, tmp_path: Path
) -> None:
    for case in run(pristine, tmp_path / "out").cases:
        assert "background" not in case.present
        assert case.present == {n for n, c in case.voxels.items() if c and n != "background"}


def test_labels_are_merged(pristine: Path, tmp_path: Path) -> None:
    prepared = run(pristine, tmp_path / "out", {"lesion": [2, 3]})
    assert prepared.classes == ("background", "lesion")
    source = dataset.load_label(read(pristine).cases[0])[0]
    np.testing.assert_array_equal(prepared.label(prepared.cases[0]), source >= 2)


def test_a_faulty_data_set_is_not_prepared_even_where_it_was(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(folder, out)
    (out / "notes.txt").write_text("not ours")
    path = folder / "imagesTr/phantom_003.nii.gz"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"phantom_003\.nii\.gz: truncated"):
        run(folder, out)
    assert (out / "notes.txt").exists()
    with pytest.raises(DataError, match="the preparation is not finished"):
        load_prepared(out)


def test_a_full_disk_leaves_no_half_file(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepare.os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        run(pristine, out)
    assert [path for path in out.rglob("*") if path.is_file()] == []


def test_arrays_of_cases_that_are_gone_are_removed(
    folder: Path, tmp_path: Path, edit: Callable
) -> None:
    run(folder, tmp_path / "out")
    for part in ("imagesTr", "labelsTr"):
        (folder / part / "phantom_004.nii.gz").unlink()

    def drop_the_last(content: dict) -> None:
        content["training"].pop()
        content["numTraining"] = 3

    edit(folder, drop_the_last)
    run(folder, tmp_path / "out")
    assert len(list((tmp_path / "out/images").iterdir())) == 3


def test_a_broken_prepared_json_is_named(pristine: Path, tmp_path: Path) -> None:
    run(pristine, tmp_path / "out")
    path = tmp_path / "out/prepared.json"
    content = json.loads(path.read_text())
    del content["cases"][0]["shape"]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"prepared\.json: cannot be read"):
        load_prepared(tmp_path / "out")


def test_subjects_that_share_an_image_are_one_subject(folder: Path, tmp_path: Path) -> None:
    first, second = (folder / f"imagesTr/phantom_00{n}.nii.gz" for n in (1, 4))
    second.write_bytes(first.read_bytes())
    prepared = run(folder, tmp_path / "out")
    assert [case.subject[-1] for case in prepared.cases] == ["1", "2", "3", "1"]
    assert "count as one" in prepared.warnings[0]


def test_small_volumes_warn_once_and_progress_is_told(pristine: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    prepared = run(
        pristine,
        tmp_path / "out",
        patch_size=(32, 32, 32),
        progress=lambda *now: seen.append(now),
    )
    assert len(prepared.warnings) == 1
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_normalising_clips_outliers_and_survives_a_flat_channel() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(100, 5, size=(2, 20, 20, 20)).astype(np.float32)
    image[0, 0, 0, 0] = 1e6
    image[1] = 7
    result = normalise(image, Choices(None, "none", ("percentiles", "percentiles")))
    assert result[0].max() < 3
    assert result[0].std() == pytest.approx(1, abs=1e-4)
    assert not result[1].any()


@pytest.fixture
def pair(pristine: Path, tmp_path: Path) -> tuple[Prepared, Prepared]:
    """Two data sets of the same cases under different names."""
    found = read(pristine)
    classes = merge_labels(found.labels, None)
    return tuple(
        prepare.prepare(replace(found, name=name), tmp_path / name, *classes)
        for name in ("own", "other")
    )


def test_joined_cases_are_named_after_their_data_set(pair: tuple[Prepared, Prepared]) -> None:
    own, other = pair
    joined = own.joined(other)
    assert joined.cases[: len(own.cases)] == own.cases
    assert (joined.name, joined.classes, joined.root) == (own.name, own.classes, own.root)
    for case, source in zip(joined.cases[len(own.cases) :], other.cases, strict=True):
        assert (case.name, case.subject) == (f"other.{source.name}", f"other.{source.subject}")
        assert case.dataset == "other"
        np.testing.assert_array_equal(joined.label(case), other.label(source))
        np.testing.assert_array_equal(joined.image(case), other.image(source))
    assert len({case.name for case in joined.cases}) == 2 * len(own.cases)


def test_two_folders_are_loaded_as_one(pair: tuple[Prepared, Prepared], tmp_path: Path) -> None:
    own, other = pair
    assert prepare.load_all([tmp_path / "own"]) == own
    assert prepare.load_all([tmp_path / "own", tmp_path / "other"]) == own.joined(other)


def test_data_sets_that_do_not_fit_are_told_all_their_differences(
    pair: tuple[Prepared, Prepared],
) -> None:
    own, other = pair
    with pytest.raises(DataError) as caught:
        own.joined(replace(other, classes=("background", "tumour"), channels=("CT",)))
    told = str(caught.value)
    assert "other: its classes are background, tumour, but those of own are background" in told
    assert "other: its channels are CT, but those of own are " in told
    with pytest.raises(DataError, match="own: two data sets have this name"):
        own.joined(replace(other, name="own"))
