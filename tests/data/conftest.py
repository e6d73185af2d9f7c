"""Small real data sets for the data tests, written by the phantom itself."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from workflow.data.phantom import PhantomSettings, write

SMALL = PhantomSettings(subjects=4, shape=(24, 28, 24), spacing=8.0, seed=5)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four subjects; never changed by a test."""
    return write(SMALL, tmp_path_factory.mktemp("data") / "phantom")


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(pristine, tmp_path / "phantom"))


@pytest.fixture
def edit() -> Callable[[Path, Callable[[dict], None]], None]:
    """Change the content of a data set's dataset.json."""

    def edit(folder: Path, change: Callable[[dict], None]) -> None:
        path = folder / "dataset.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return edit


@pytest.fixture
def rewrite() -> Callable[..., None]:
    """Change voxels or affine of a NIfTI file and store it again."""

    def rewrite(
        path: Path,
        voxels: Callable[[np.ndarray], np.ndarray] = lambda array: array,
        affine: Callable[[np.ndarray], np.ndarray] = lambda array: array,
    ) -> None:
        image = nibabel.load(path)
        changed = voxels(np.array(image.dataobj))
        fresh = nibabel.Nifti1Image(changed, affine(np.array(image.affine)))
        path.write_bytes(gzip.compress(fresh.to_bytes(), compresslevel=1))

    return rewrite


@pytest.fixture
def nnunet(pristine: Path, tmp_path: Path) -> Path:
    """The phantom in the layout of nnU-Net v2: one file for each channel."""
    root = tmp_path / "Dataset001_Phantom"
    (root / "imagesTr").mkdir(parents=True)
    (root / "labelsTr").mkdir()
    for path in sorted((pristine / "imagesTr").iterdir()):
        image = nibabel.load(path)
        name = path.name.removesuffix(".nii.gz")
        for channel in range(image.shape[-1]):
            part = nibabel.Nifti1Image(np.array(image.dataobj)[..., channel], image.affine)
            nibabel.save(part, root / "imagesTr" / f"{name}_{channel:04d}.nii.gz")
        shutil.copy(pristine / "labelsTr" / path.name, root / "labelsTr" / path.name)
    description = {
        "channel_names": {"0": "T1", "1": "FLAIR"},
        "labels": {"background": 0, "edema": 1, "necrotic core": 2, "enhancing rim": 3},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(description))
    return root
