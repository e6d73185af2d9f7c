"""A run on arrays of another grid than the files: sizes are chosen, scores are of the files."""

import numpy as np
import pandas as pd
import pytest

from workflow import check, files, paths
from workflow.data import phantom
from workflow.data.prepare import load_prepared
from workflow.evaluation.metrics import confusion_counts
from workflow.study import Data, Study, StudyError
from workflow.training.train import Run, train


@pytest.fixture(scope="module")
def coarse(tmp_path_factory):
    """A study at half the resolution that leaves patch and strides open, and its data."""
    folder = tmp_path_factory.mktemp("coarse")
    study = Study.model_validate(
        {
            "dataset": {
                "source": "phantom",
                "name": "coarse",
                "phantom": {"subjects": 8, "shape": [32, 36, 32], "spacing": 6.0},
            },
            "preparation": {
                "spacing": [12.0, 12.0, 6.0], "crop": "auto", "normalisation": "zscore",
                "patch_voxels": 2048,
            },
            "splits": {"train": 0.5, "validation": 0.25, "test": 0.25},
            "network": {"channels": [4, 8], "strides": "auto"},
            "training": {"steps": 2, "patch_size": "auto", "validate_every": 1},
            "seeds": [1],
            "losses": {"dice_ce": {}},
        }
    )  # fmt: skip
    phantom.write(study.dataset.phantom, folder / "raw")
    read = check.read_dataset(study.dataset, folder / "raw")
    prepared = check.prepare_data(study.data(), read, folder / "prepared")
    return study, prepared, check.split(study.splits, prepared)


def test_scores_are_of_the_files_and_pictures_of_the_arrays(coarse, tmp_path):
    study, prepared, splits = coarse
    settings = study.run_settings("dice_ce")
    assert train(settings, prepared, splits, Run("dice_ce", 3e-3, 1), tmp_path) == "ok"
    rows = files.read_table(tmp_path / "cases.csv")
    tested = set(splits.loc[splits["split"] == "test", "case"])
    assert set(rows["case"]) == tested
    with np.load(tmp_path / "predictions.npz") as predictions:
        for case in (case for case in prepared.cases if case.name in tested):
            assert case.shape != case.file_shape
            assert predictions[case.name].shape == case.shape
            own = rows[rows["case"] == case.name].set_index("class")
            for name, voxels in list(case.voxels.items())[1:]:
                assert (own.loc[name, "reference_voxels"] == voxels).all()
            assert own["voxel_mm3"].unique() == pytest.approx([6.0**3])


def test_the_floor_is_of_the_files_too(coarse):
    from workflow.comparison.tables import _floor_cases

    study, prepared, splits = coarse
    floor = _floor_cases(study, prepared, splits).set_index(["case", "class"])
    for case in prepared.cases:
        if case.name in floor.index:
            label = prepared.reference_label(case)
            counts = confusion_counts(np.zeros_like(label), label, len(prepared.classes))
            for name, count in list(zip(prepared.classes, counts, strict=True))[1:]:
                found = floor.loc[(case.name, name), "reference_voxels"]
                assert set(np.atleast_1d(found)) == {count["reference_voxels"]}


def test_sizes_follow_from_the_prepared_cases(coarse):
    study, prepared, _ = coarse
    found = study.run_settings("dice_ce").geometry(prepared)
    assert found.strides == ((1, 1, 2),)  # z is half as coarse as the others
    assert found.window == found.patch_size
    assert np.prod(found.patch_size) <= 2048
    plan = study.plan(prepared)
    assert plan["asked"]["patch_size"] == plan["asked"]["strides"] == "auto"
    assert plan["chosen"]["patch_size"] == found.patch_size
    assert plan["chosen"]["crop"] in ("none", "nonzero")


def test_a_window_that_does_not_fit_chosen_strides_is_refused(coarse):
    study, prepared, _ = coarse
    evaluation = study.evaluation.model_copy(update={"window": (16, 16, 15)})
    settings = study.model_copy(update={"evaluation": evaluation}).run_settings("dice_ce")
    with pytest.raises(StudyError, match=r"evaluation\.window: \[16, 16, 15\] must be multiples"):
        settings.geometry(prepared)


def test_a_study_without_preparation_keeps_its_digest_and_an_external_set_follows(coarse):
    study, _, _ = coarse
    other = study.dataset.model_copy(update={"name": "other"})
    plain = Data(dataset=other, patch_size=(32, 32, 32))
    assert set(plain.model_dump()) == {"dataset", "patch_size"}
    external = study.model_copy(update={"external": other}).external_data()
    assert external.like == study.data()
    assert Data.model_validate_json(external.model_dump_json()) == external
    assert paths.resources(external) != paths.resources(external.model_copy(update={"like": None}))


def test_what_was_prepared_anew_is_the_same_run(coarse, tmp_path):
    """Digests of weights and patches, from a folder that was read again."""
    study, prepared, splits = coarse
    settings, found = study.run_settings("dice_ce"), []
    for number, data in enumerate((prepared, load_prepared(prepared.root))):
        train(settings, data, pd.DataFrame(splits), Run("dice_ce", 3e-3, 1), tmp_path / str(number))
        status = files.read_json(tmp_path / str(number) / "status.json")
        found.append((status["patch_order_sha256"], status["initial_weights_sha256"]))
    assert found[0] == found[1]
