"""A prepared data set small enough to train on within seconds."""

import pytest

from tests import tiny_study
from workflow import check
from workflow.study import Study


@pytest.fixture(scope="session")
def study():
    losses = {
        "dice_ce": {},
        "dice": {},
        "weighted": {"name": "weighted_cross_entropy", "weight": "inverse_frequency"},
    }
    return Study.model_validate(tiny_study.TINY | {"seeds": [1, 2], "losses": losses})


@pytest.fixture(scope="session")
def prepared(study, tmp_path_factory):
    return tiny_study.prepare(study, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def splits(study, prepared):
    return check.split(study.splits, prepared)
