"""Every fault of the table is one line that names file, fault and remedy, before any training."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from faulty import FAULTS, Fault, write

from workflow.check import check
from workflow.data.faults import DataError

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
def test_a_fault_is_told_with_file_and_remedy(fault: Fault, data: Path) -> None:
    fault.make(data)
    if fault.name == "no_permission" and os.geteuid() == 0:
        pytest.skip("root may read everything")
    faults, warnings = told()
    lines = [line for line in (warnings if fault.warned else faults) if fault.words[0] in line]
    assert lines, (faults, warnings)
    for word in (fault.file, *fault.words):
        assert word in lines[0]
    assert lines[0].isprintable()
