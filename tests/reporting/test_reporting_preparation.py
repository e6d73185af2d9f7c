"""What the report says of the preparation is what `preparation.json` holds."""

import copy
import dataclasses
import html
from pathlib import Path

import pytest

from workflow.reporting import report
from workflow.reporting.preparation import NORMALISATIONS, of_arms, section, source
from workflow.reporting.study_tables import read_study

EVIL = "<script>alert(1)</script>"
SPREAD = {"median": [1.5, 1.5, 8.0], "minimum": [1.25, 1.25, 5.0], "maximum": [2.0, 2.0, 10.0]}
CLASS = {"prevalence": 1.0, "voxel_fraction": 0.01, "minimum": 1.0, "maximum": 3.0}
FOUND = {
    "dataset": "made_up",
    "reference": "Nobody et al.",
    "licence": "CC0",
    "asked": {
        "spacing": "auto", "crop": "none", "normalisation": ["ct", "zscore"], "patch_voxels": 4096,
        "patch_size": [64, 64, 8], "strides": "auto", "window": None,
    },
    "chosen": {
        "spacing": [1.5, 1.5, 5.0], "crop": "none", "normalisation": ["ct", "zscore"],
        "intensities": [], "patch_size": [64, 64, 8], "strides": [[2, 2, 1], 2],
        "window": [64, 64, 8],
    },
    "fingerprint": {
        "cases": 7,
        "spacing": SPREAD,
        "size": SPREAD,
        "kept": 0.375,
        "channels": [
            {"name": "CT", "mean": 99.25, "deviation": 1.0, "median": 1.0, "low": 0.0, "high": 2.0},
            {"name": EVIL, **dict.fromkeys(("mean", "deviation", "median", "low", "high"))},
        ],
        "classes": [{"name": "liver", "median": 123456.0, **CLASS}],
    },
}  # fmt: skip


def test_choices_are_told_with_their_origin() -> None:
    rows = {row["name"]: (row["value"], row["origin"]) for row in section(FOUND)["choices"]}
    assert rows == {
        "Spacing of the arrays": ("1.5 × 1.5 × 5 mm", "from the fingerprint"),
        "Crop": ("none", "as the files are"),
        "Normalisation": (
            f"CT: {NORMALISATIONS['ct']}; {EVIL}: {NORMALISATIONS['zscore']}", "set in the study",
        ),
        "Patch": ("64 × 64 × 8 voxels", "set in the study"),
        "Strides of the network": ("2 × 2 × 1, 2", "from the fingerprint"),
        "Window of prediction": ("64 × 64 × 8 voxels", "the patch"),
    }  # fmt: skip


def test_arrays_on_the_grid_of_the_files_are_told_so() -> None:
    found = copy.deepcopy(FOUND)
    found["asked"]["spacing"] = found["chosen"]["spacing"] = "native"
    assert section(found)["choices"][0]["value"] == "that of each image"


def test_data_are_told_as_far_as_they_say_whose_they_are() -> None:
    found = {key: FOUND[key] for key in ("dataset", "reference", "licence")}
    assert source(found) == "made_up: Nobody et al. (CC0)"
    assert source(found | {"licence": ""}) == "made_up: Nobody et al."
    assert source(found | {"reference": ""}) == "made_up: licence CC0"
    assert source({"dataset": "made_up"}) == ""  # of an earlier version


def test_arms_that_are_prepared_alike_are_told_together() -> None:
    smaller = copy.deepcopy(FOUND)
    smaller["chosen"]["patch_size"] = [32, 32, 8]
    other_data = copy.deepcopy(FOUND)
    other_data["fingerprint"]["cases"] = 70
    found = of_arms({"a": FOUND, "b": smaller, "c": other_data})
    assert [group["arms"] for group in found] == [["a", "c"], ["b"]]
    assert [row["value"] for row in found[1]["choices"]][3] == "32 × 32 × 8 voxels"


@pytest.fixture(scope="module")
def folder(study_dir: Path) -> Path:
    report.build(study_dir)
    return study_dir


def test_the_report_shows_fingerprint_and_choices(folder: Path) -> None:
    study = dataclasses.replace(read_study(folder), preparation=FOUND)
    page = report.render(study, folder)
    part = page.partition('<section id="preparation">')[2].partition("</section>")[0]
    for text in (
        "made_up: Nobody et al. (CC0).",
        "all 7 cases",
        "38 %",
        "99.25",
        "123456",
        "1.50",
        html.escape(EVIL),
        "–",
    ):
        assert text in part
    assert EVIL not in part
    assert '<a href="#preparation">' in page


def test_results_that_are_older_have_no_such_section(folder: Path) -> None:
    assert "#preparation" not in report.render(read_study(folder), folder)
