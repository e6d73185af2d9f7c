"""A prepared data set small enough to train on within seconds."""

import pytest

from workflow import check
from workflow.data import phantom
from workflow.study import Study


@pytest.fixture(scope="session")
def study():
    return Study.model_validate(
        {
            "dataset": {
                "source": "phantom",
                "name": "tiny",
                "phantom": {"subjects": 8, "shape": [24, 24, 24], "spacing": 8.0},
            },
            "splits": {"train": 0.5, "validation": 0.25, "test": 0.25},
            "network": {"channels": [4, 8], "strides": [2]},
            "training": {"steps": 6, "patch_size": [16, 16, 16], "validate_every": 3},
            "evaluation": {"window": [24, 24, 24]},
            "seeds": [1, 2],
            "losses": {
                "dice_ce": {},
                "dice": {},
                "weighted": {"name": "weighted_cross_entropy", "weight": "inverse_frequency"},
            },
        }
    )


@pytest.fixture(scope="session")
def prepared(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    phantom.write(study.dataset.phantom, folder / "raw")
    data = check.read_dataset(study.dataset, folder / "raw")
    return check.prepare_data(study.data(), data, folder / "prepared")


@pytest.fixture(scope="session")
def splits(study, prepared):
    return check.split(study.splits, prepared)
