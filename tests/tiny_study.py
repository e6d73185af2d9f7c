"""A study of eight small phantoms, on which a network trains within a second."""

from pathlib import Path

from workflow import check
from workflow.data import phantom
from workflow.data.prepare import Prepared
from workflow.study import Study

TRAINING = {"steps": 6, "patch_size": [16, 16, 16], "validate_every": 3}
TINY = {
    "dataset": {
        "source": "phantom",
        "name": "tiny",
        "phantom": {"subjects": 8, "shape": [24, 24, 24], "spacing": 8.0},
    },
    "splits": {"train": 0.5, "validation": 0.25, "test": 0.25},
    "network": {"channels": [4, 8], "strides": [2]},
    "training": TRAINING,
    "evaluation": {"window": [24, 24, 24]},
    "losses": {"dice_ce": {}},
}
"""Its settings; a test replaces the sections in which it differs."""


def prepare(study: Study, folder: Path) -> Prepared:
    """The data of the study, written to ``folder/raw`` and prepared in ``folder/prepared``."""
    phantom.write(study.dataset.phantom, folder / "raw")
    data = check.read_dataset(study.dataset, folder / "raw")
    return check.prepare_data(study.data(), data, folder / "prepared")
