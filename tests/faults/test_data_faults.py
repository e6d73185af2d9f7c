"""Every fault of the table is one line that names file, fault and remedy, before any training."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from faulty import FAULTS, JSON, Fault, described, renamed, voxels, write

from workflow.check import check
from workflow.data.dataset import merge_labels, read
from workflow.data.faults import DataError
from workflow.data.layout import LONGEST_NAME
from workflow.data.nifti import read_nifti
from workflow.data.prepare import load_prepared, prepare
from workflow.study import StudyError

STUDY = """
title: Damaged data
dataset: {source: folder, name: small, root: data}
splits: {train: 0.5, validation: 0.25, test: 0.25}
network: {channels: [4, 8], strides: [2]}
training: {steps: 2, patch_size: [8, 8, 8]}
evaluation: {window: [16, 16, 16], nsd_tolerance: 2.0}
comparison: {reference_loss: dice}
seeds: [1]
losses: {dice: }
"""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set before anything happened to it."""
    return write(tmp_path_factory.mktemp("sound") / "data")


@pytest.fixture
def data(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy beside a study that uses it, in the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(STUDY)
    return Path(shutil.copytree(sound, "data"))


def told() -> tuple[list[str], list[str]]:
    """The faults and the warnings of `python -m workflow check study.yaml`."""
    warnings = []
    try:
        for line in check(Path("study.yaml")):
            if line.startswith("warning: "):
                warnings.append(line)
    except DataError as error:
        return str(error).split("\n"), warnings
    return [], warnings


def test_a_sound_data_set_has_neither_faults_nor_warnings(data: Path) -> None:
    assert told() == ([], [])


def test_the_table_is_as_long_as_promised() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 60


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_told_with_file_and_remedy(
    fault: Fault, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault.make(data)
    # root may read everything, so the bits of the mode decide
    monkeypatch.setattr(os, "access", lambda path, _: bool(Path(path).stat().st_mode & 0o444))
    faults, warnings = told()
    lines = [line for line in (warnings if fault.warned else faults) if fault.words[0] in line]
    assert lines, (faults, warnings)
    for word in (fault.file, *fault.words):
        assert word in lines[0]
    assert lines[0].isprintable()


def test_all_faults_of_a_data_set_are_told_in_one_go(data: Path) -> None:
    together = {fault.name: fault for fault in FAULTS}
    names = ("affine_of_another_case", "stray_file_in_labelsTr", "label_unknown", "bit_in_a_length")
    (data / "{file}.txt").touch()
    for name in names:
        together[name].make(data)
    (data / "labelsTr/case_1.nii.gz").unlink()
    (data / "imagesTr/case_4.nii.gz").write_bytes(b"")
    faults, _ = told()
    assert len(faults) == 7
    assert any("data/{file}.txt" in line for line in faults)
    for name in names:
        assert any(together[name].words[0] in line for line in faults), name
    assert any("case_1.nii.gz: no such file" in line for line in faults)
    assert any("case_4.nii.gz: empty file" in line for line in faults)


@pytest.mark.parametrize(
    ("kind", "step"), [(nibabel.Nifti1Image, 1), (nibabel.Nifti2Image, 4)], ids=["1", "2"]
)
def test_no_bit_of_a_header_ends_in_a_traceback_or_changes_voxels_unseen(
    kind: type, step: int, tmp_path: Path
) -> None:
    """But for the scale of an image, which z-scoring undoes, and the last bits of the affine."""
    image = kind(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([2.0, 2, 3, 1]))
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    whole, path = image.to_bytes(), tmp_path / "x.nii"
    refused = doubted = 0
    for place in range(image.header.sizeof_hdr):
        for bit in range(place % step, 8, step):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                found = read_nifti(path)
            except DataError as error:
                assert str(error).startswith(f"{path}: ")
                assert len(str(error).splitlines()) == 1
                refused += 1
                continue
            doubted += bool(found.doubts)
            if found.doubts or found.scaled or found.voxels.ndim != 3:  # told, or refused later
                continue
            np.testing.assert_array_equal(found.voxels, np.asarray(image.dataobj))
            np.testing.assert_allclose(found.affine, image.affine, rtol=0.01, atol=0.01)
    assert refused > 200 / step
    assert doubted > 40 / step


def test_no_bit_of_a_gzip_file_changes_voxels_unseen(sound: Path, tmp_path: Path) -> None:
    whole = (sound / "labelsTr/case_2.nii.gz").read_bytes()
    path = tmp_path / "x.nii.gz"
    path.write_bytes(whole)
    voxels = read_nifti(path).voxels
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with contextlib.suppress(DataError):  # the date in the gzip header is nobody's loss
            np.testing.assert_array_equal(read_nifti(path).voxels, voxels)


NAMES = [
    "a b", "it's", 'say "a"', "$(touch pwned)", "`touch pwned`", "; touch pwned", "a|touch pwned",
    "<b onclick=x>", "{}", "%2e%2e%2fa", "-rf", "=1+1", "..", "~", "*", "a\\b", "é", "#set",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_strange_name_is_only_a_name(name: str, data: Path, tmp_path: Path) -> None:
    renamed(f"{name}.nii.gz")(data)
    described(lambda declared: declared["labels"].update({"1": f"../{name}"}))(data)
    before = {path for path in tmp_path.rglob("*")}
    assert told() == ([], [])
    found = read(data)
    out = tmp_path / "out"
    prepared = prepare(found, out, *merge_labels(found.labels))
    assert [case.name for case in load_prepared(out).cases if case.name == name] == [name]
    assert prepared.classes[1] == f"../{name}"
    written = {path for path in tmp_path.rglob("*")} - before
    cases = [case.name for case in prepared.cases]
    parts = {"images": ["npy"], "labels": ["npy"], "foreground": ["npy"], "cases": ["npz", "json"]}
    expected = {
        out / part / f"{case}.{ending}"
        for part, endings in parts.items()
        for ending in endings
        for case in cases
    }
    assert written == {out, out / "prepared.json", *(out / part for part in parts)} | expected


def test_a_description_that_cannot_be_encoded_is_no_end_of_the_preparation(
    data: Path, tmp_path: Path
) -> None:
    described(lambda declared: declared.update(reference="a\ud800\nb", licence={"a": 1}))(data)
    assert told() == ([], [])
    found = read(data)
    prepare(found, tmp_path / "out", *merge_labels(found.labels))
    assert load_prepared(tmp_path / "out").reference == r"a\ud800\nb"


def test_a_download_that_was_changed_since_is_refused(data: Path) -> None:
    Path("study.yaml").write_text(
        STUDY.replace("source: folder", "source: decathlon, task: Task04_Hippocampus").replace(
            "root: data", "root: ."
        )
    )
    task = data.rename("Task04_Hippocampus")
    digests = Path("Task04_Hippocampus.sha256")
    digest = hashlib.sha256((task / JSON).read_bytes()).hexdigest()
    digests.write_text(f"{digest}  {task}/{JSON}\n")
    assert told() == ([], [])
    digests.write_text(f"{'0' * 64}  {task}/{JSON}\n")
    (line,), _ = told()
    assert line.startswith(f"{task}/{JSON}: changed since the download; remove {task}")


def test_the_longest_name_that_is_let_through_can_be_prepared(data: Path, tmp_path: Path) -> None:
    renamed(f"{'x' * LONGEST_NAME}.nii.gz")(data)
    assert told() == ([], [])
    found = read(data)
    prepare(found, tmp_path / "out", *merge_labels(found.labels))


@pytest.mark.parametrize("folder", ["results", "resources"])
@pytest.mark.parametrize(
    "make", [lambda path: path.symlink_to("nowhere/x"), lambda path: path.symlink_to(path.name),
             Path.touch],
    ids=["broken link", "loop", "file"],
)  # fmt: skip
def test_a_folder_that_cannot_be_made_is_named_before_anything_is_read(
    folder: str, make: Callable, data: Path
) -> None:
    make(Path(folder))
    with pytest.raises(StudyError, match=f"^{folder}: not writable, as it is no folder; .*correct"):
        told()


def test_labels_that_say_nothing_of_their_images_are_not_judged(data: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(1, 5):
        noise = voxels(f"imagesTr/case_{number}.nii.gz", lambda a: rng.integers(0, 999, a.shape))
        noise(data)
    labels_exchanged = next(fault for fault in FAULTS if fault.name == "labels_exchanged")
    labels_exchanged.make(data)
    assert told() == ([], [])
