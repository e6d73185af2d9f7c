from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import psutil
import pytest
import torch

from workflow.data import dataset, prepare
from workflow.data.choices import Choices, Wishes
from workflow.data.dataset import DataError, merge_labels, read
from workflow.data.patches import PatchSampler
from workflow.data.phantom import PhantomSettings, write
from workflow.data.prepare import Prepared, load_prepared
from workflow.data.transform import normalise

AUTO = Wishes("auto", "auto", "auto")
TINY = PhantomSettings(shape=(16, 18, 16), spacing=12.0)


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


# --- one case at a time, remembered ----------------------------------------------------------


def stored(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*.npy"))}


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the cases whose voxels are read from now on."""
    names: list[str] = []
    examine = prepare.examine

    def watched(found: object, case: dataset.Case, *rest: object) -> object:
        names.append(case.name)
        return examine(found, case, *rest)

    monkeypatch.setattr(prepare, "examine", watched)
    return names


def test_nothing_is_done_twice_for_the_same_bytes(
    folder: Path, tmp_path: Path, examined: list[str]
) -> None:
    first = run(folder, tmp_path / "out")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.npy")}
    examined.clear()
    for path in folder.rglob("*.nii.gz"):
        path.touch()
    assert run(folder, tmp_path / "out") == first
    assert examined == []
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.npy")} == before


def test_a_changed_file_redoes_its_case_only(
    folder: Path, tmp_path: Path, examined: list[str], rewrite: Callable[..., None]
) -> None:
    first = run(folder, tmp_path / "out")
    examined.clear()
    rewrite(folder / "imagesTr/phantom_002.nii.gz", voxels=lambda array: array + 1)
    second = run(folder, tmp_path / "out")
    assert examined == ["phantom_002"]
    changed = [a.name for a, b in zip(first.cases, second.cases, strict=True) if a != b]
    assert changed == ["phantom_002"]


def test_a_killed_preparation_goes_on(
    folder: Path, tmp_path: Path, examined: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(folder, tmp_path / "whole")
    arrays = prepare._arrays

    def killed(image: np.ndarray, reference: np.ndarray, case: object, choices: object) -> object:
        if case.name == "phantom_003":
            raise KeyboardInterrupt
        return arrays(image, reference, case, choices)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(prepare, "_arrays", killed)
        run(folder, tmp_path / "out")
    examined.clear()
    assert run(folder, tmp_path / "out").cases == tuple(
        replace(case, root=tmp_path / "out") for case in whole.cases
    )
    assert examined == ["phantom_004"]  # the third was examined, its arrays were not written
    assert stored(tmp_path / "out") == stored(tmp_path / "whole")


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 damaged"])
def test_a_damaged_memory_is_no_memory(
    folder: Path, tmp_path: Path, examined: list[str], damage: bytes
) -> None:
    run(folder, tmp_path / "out")
    examined.clear()
    (tmp_path / "out/cases/phantom_001.npz").write_bytes(damage)
    (tmp_path / "out/cases/phantom_002.json").write_bytes(damage)
    (tmp_path / "out/labels/phantom_003.npy").unlink()
    run(folder, tmp_path / "out")
    assert examined == ["phantom_001"]
    assert (tmp_path / "out/labels/phantom_003.npy").exists()


def test_other_settings_are_remembered_apart(folder: Path, tmp_path: Path) -> None:
    plain = run(folder, tmp_path / "out")
    half = run(folder, tmp_path / "out", wishes=Wishes(spacing=(16.0, 16.0, 16.0)))
    assert half.cases[0].shape == (12, 14, 12)
    again = run(folder, tmp_path / "out")
    assert again == plain
    assert not list((tmp_path / "out/references").iterdir())  # those of the other grid are gone


def test_several_processes_write_what_one_writes(tmp_path: Path) -> None:
    folder = write(replace(TINY, subjects=16), tmp_path / "data")
    wishes = Wishes("auto", "auto")
    one = run(folder, tmp_path / "one", wishes=wishes)
    seen: list[tuple[int, int]] = []
    two = run(
        folder, tmp_path / "two", wishes=wishes, jobs=2, progress=lambda *now: seen.append(now)
    )
    assert stored(tmp_path / "two") == stored(tmp_path / "one")
    assert replace(two, root=one.root, cases=()) == replace(one, cases=())
    assert seen == [(n, 32) for n in range(1, 33)]  # examined first, written then


def test_a_fault_in_another_process_is_told_as_here(tmp_path: Path) -> None:
    folder = write(replace(TINY, subjects=16), tmp_path / "data")
    path = folder / "imagesTr/phantom_011.nii.gz"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"phantom_011\.nii\.gz: truncated"):
        run(folder, tmp_path / "out", jobs=2)


def test_no_process_outlives_a_killed_preparation(tmp_path: Path) -> None:
    folder = write(replace(TINY, subjects=16), tmp_path / "data")
    script = tmp_path / "script.py"  # a file: the processes import it, and must find it harmless
    script.write_text(
        "import sys; from pathlib import Path\n"
        "from workflow.data.dataset import merge_labels, read\n"
        "from workflow.data.prepare import prepare\n"
        "if __name__ == '__main__':\n"
        "    found = read(Path(sys.argv[1]))\n"
        "    tell = lambda *now: print(*now, flush=True)\n"
        "    classes = merge_labels(found.labels)\n"
        "    prepare(found, Path(sys.argv[2]), *classes, jobs=2, progress=tell)\n"
    )
    command = [sys.executable, str(script), str(folder), str(tmp_path / "out")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert first.stdout is not None
    assert first.stdout.readline() == "1 16\n"
    children = psutil.Process(first.pid).children(recursive=True)
    assert len(children) >= 2
    first.kill()
    first.wait()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    assert len(load_prepared(tmp_path / "out").cases) == 16


def test_two_at_once_wait_for_each_other(pristine: Path, tmp_path: Path) -> None:
    """The second process finds the work of the first."""
    code = (
        "import sys, time; from pathlib import Path; from workflow.data import prepare; "
        "from workflow.data.dataset import merge_labels, read; "
        "examine = prepare.examine; "
        "tell = lambda: (print('examined', flush=True), time.sleep(.2)); "
        "prepare.examine = lambda *a: (tell(), examine(*a))[1]; "
        "found = read(Path(sys.argv[1])); "
        "prepare.prepare(found, Path(sys.argv[2]), *merge_labels(found.labels))"
    )
    command = [sys.executable, "-c", code, str(pristine), str(tmp_path / "out")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0].count("examined") for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(said) == [0, 4]
    assert len(load_prepared(tmp_path / "out").cases) == 4


def test_verifying_alone_leaves_no_file(pristine: Path, tmp_path: Path) -> None:
    whole = run(pristine, tmp_path / "whole")
    told = run(pristine, tmp_path / "out", write=False)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert [c.voxels for c in told.cases] == [c.voxels for c in whole.cases]
    assert told.fingerprint == whole.fingerprint


# --- what a study asks for -------------------------------------------------------------------


@pytest.fixture
def thick(tmp_path: Path) -> Path:
    """Eight images of a ball in thick slices with a margin of zeros; spacings differ."""
    root = tmp_path / "thick"
    for part in ("imagesTr", "labelsTr"):
        (root / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(8):
        shape, edge = ((40, 36, 8), 1.0) if number % 4 else ((30, 26, 8), 1.5)
        affine = np.diag([edge, edge, 6.0, 1.0])
        place = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
        centre = np.array(shape) / 2 + rng.uniform(-1, 1, 3)
        distance = np.linalg.norm((place - centre) * [edge, edge, 6.0], axis=-1)
        label = (distance < 12).astype(np.uint8) + (distance < 7)
        image = (rng.normal(100, 10, shape) + 40 * label).astype(np.float32)
        image[:6] = image[:, :, -1] = 0
        name = f"case_{number}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(image, affine), root / "imagesTr" / name)
        nibabel.save(nibabel.Nifti1Image(label.astype(np.uint8), affine), root / "labelsTr" / name)
    content = {
        "name": "thick", "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "a", "2": "b"},
        "training": [
            {"image": f"imagesTr/case_{n}.nii.gz", "label": f"labelsTr/case_{n}.nii.gz"}
            for n in range(8)
        ],
    }  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def test_choices_are_applied_and_kept(thick: Path, tmp_path: Path) -> None:
    prepared = run(thick, tmp_path / "out", wishes=AUTO)
    assert load_prepared(tmp_path / "out") == prepared
    assert prepared.choices == Choices((1.0, 1.0, 6.0), "nonzero", ("zscore_nonzero",))
    assert prepared.fingerprint["kept"] == pytest.approx(34 * 36 * 7 / (40 * 36 * 8))
    for case in prepared.cases:
        small = case.file_shape == (30, 26, 8)
        assert case.box == ((6, case.file_shape[0]), (0, case.file_shape[1]), (0, 7))
        assert case.shape == ((36, 39, 7) if small else (34, 36, 7))
        assert case.array_spacing == pytest.approx((1, 1, 6), abs=0.05)
        image, label = prepared.image(case), prepared.label(case)
        assert image.shape == (1, *label.shape) == (1, *case.shape)
        assert image.mean() == pytest.approx(0, abs=0.1)
        reference = prepared.reference_label(case)
        assert reference.shape == case.file_shape
        assert list(case.voxels.values()) == np.bincount(reference.ravel(), minlength=3).tolist()
        assert list(case.array_voxels.values()) == np.bincount(label.ravel(), minlength=3).tolist()


def test_a_label_that_changed_where_the_array_does_not_show_it_is_another_one(
    thick: Path, tmp_path: Path
) -> None:
    """Scores are of the grid of the file, so they would be those of the old label."""
    first, *_ = (before := run(thick, tmp_path / "out", wishes=AUTO)).cases
    shown = np.array(before.label(first))
    path = thick / "labelsTr/case_0.nii.gz"
    image = nibabel.load(path)
    label = np.array(image.dataobj)
    label[0, 0, 0] = 1 - label[0, 0, 0]  # in the margin that is cropped
    nibabel.save(nibabel.Nifti1Image(label, image.affine), path)
    second, *_ = (after := run(thick, tmp_path / "out", wishes=AUTO)).cases
    np.testing.assert_array_equal(after.label(second), shown)
    assert second.label_sha256 != first.label_sha256


def test_a_perfect_prediction_is_perfect_on_the_grid_of_the_file(
    thick: Path, tmp_path: Path
) -> None:
    prepared = run(thick, tmp_path / "out", wishes=AUTO)
    for case in prepared.cases:
        label = torch.from_numpy(np.array(prepared.label(case))).long()
        logits = 20 * torch.nn.functional.one_hot(label, 3).movedim(-1, 0).float()
        back = prepared.restored(case, logits).argmax(0).numpy()
        reference = prepared.reference_label(case)
        inside = np.zeros(reference.shape, bool)
        inside[tuple(slice(*limits) for limits in case.box)] = True
        assert not back[~inside].any()
        for value in (1, 2):
            both = ((back == value) & (reference == value) & inside).sum()
            dice = 2 * both / ((back == value).sum() + ((reference == value) & inside).sum())
            assert dice > (0.999 if case.file_shape[0] == 40 else 0.93)


def test_an_external_data_set_is_prepared_as_the_other_one(
    thick: Path, pristine: Path, tmp_path: Path
) -> None:
    own = run(thick, tmp_path / "own", wishes=AUTO)
    other = run(thick, tmp_path / "other", wishes=Wishes("native"), like=own)
    assert other.choices == own.choices
    assert stored(tmp_path / "other") == stored(tmp_path / "own")


def test_what_cannot_be_chosen_names_the_data_set(thick: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"thick: preparation.normalisation: 2 words for 1 chann"):
        run(thick, tmp_path / "out", wishes=Wishes(normalisation=("zscore", "zscore")))


# --- memory does not grow with the cases -----------------------------------------------------


def test_open_files_and_mapped_memory_do_not_grow_with_the_cases(tmp_path: Path) -> None:
    """Of what a process holds after it has seen every case: `benchmarks.preparation` measures."""
    process = psutil.Process()

    def held(count: int) -> tuple[int, int]:
        settings = replace(TINY, subjects=count)
        prepared = run(write(settings, tmp_path / f"data{count}"), tmp_path / f"out{count}")
        before = process.num_fds()
        sampler = PatchSampler(
            *prepared.patches_of(prepared.cases), patch_size=(8, 8, 8), batch_size=1,
            foreground_share=0.5, flips=False, intensity=0.0, order_seed=0, augmentation_seed=0,
        )  # fmt: skip
        for _ in range(10 * count):
            next(sampler)
        mapped = [m for m in process.memory_maps() if str(prepared.root) in m.path]
        return process.num_fds() - before, len(mapped)

    assert held(20) == held(4) == (0, 0)
