"""What the paper says of a study's protocol is what its settings, trials and runs say."""

from pathlib import Path

import pandas as pd
import pytest
from synthetic_study import write_study

from workflow import files
from workflow.reporting import paper, paper_protocol
from workflow.reporting.study_tables import Study, read_study

REFERENCE = Path(__file__).parents[2] / "results" / "reference"


@pytest.fixture
def study() -> Study:
    return read_study(REFERENCE / paper.PROJECT)


def test_every_setting_that_a_reader_needs_is_told(study: Study) -> None:
    told = " ".join(paper_protocol.methods(study))
    training, phantom = study.config["training"], study.config["dataset"]["phantom"]
    for shape in (training["patch_size"], phantom["shape"]):
        assert " × ".join(map(str, shape)) in told
    assert f"of {phantom['spacing']:g} mm" in told
    assert f"{training['weight_decay']:g}" in told and "AdamW" in told and "one-cycle" in told
    assert f"every {training['validate_every']} steps" in told
    assert f"tolerance of {study.config['evaluation']['nsd_tolerance']:g} mm" in told
    assert "flipped" in told and "intensity by up to 10 %" in told and "residual unit a" in told


def test_what_is_not_set_is_not_told(study: Study) -> None:
    training = study.config["training"]
    training |= {"flips": False, "intensity_jitter": 0.0, "patch_size": "auto", "optimizer": "sgd"}
    study.config["network"]["num_res_units"] = 0
    told = " ".join(paper_protocol.methods(study))
    for word in ("flipped", "intensity", "residual", "AdamW", "patches of 32"):
        assert word not in told
    study.config = {}
    assert len(paper_protocol.methods(study)) == 0


@pytest.mark.parametrize(("kind", "words"), [("percentiles", "after"), ("zscore", "without")])
def test_clipping_is_told_as_it_is_set(study: Study, kind: str, words: str) -> None:
    study.config["preparation"] = {"normalisation": kind}
    assert f"standardised {words} clipping" in " ".join(paper_protocol.methods(study))


def trials(**changes: object) -> pd.DataFrame:
    rows = pd.DataFrame({
        "loss": ["dice"] * 4 + ["dice_ce"] * 3,
        "learning_rate": [0.001, 0.003, 0.01, 0.03, 0.001, 0.003, 0.01],
        "widened": [False, False, False, True, False, False, False],
        "chosen": [False, False, False, True, False, True, False],
        "seed": 1000,
        "steps": [500, 500, 500, 500, 500, 500, 44],
    })  # fmt: skip
    return rows.assign(**changes)


def test_the_grid_is_that_of_the_trials_and_not_of_what_was_chosen(study: Study) -> None:
    told = " ".join(paper_protocol.tuning(study, trials()))
    assert "grid 0.001, 0.003 and 0.01, widened by one step" in told
    assert "(1 of 2 losses); chosen were 0.003 to 0.03." in told
    assert "500 steps and 1 seed (1000, which no reported run uses)" in told
    plain = " ".join(paper_protocol.tuning(study, trials(widened=False, seed=1)))
    assert "widened" not in plain and "no reported run" not in plain
    assert paper_protocol.tuning(study, trials(loss="unknown")) == []
    assert paper_protocol.tuning(study, pd.DataFrame()) == []


def test_rates_of_one_trial_each_are_a_caveat(study: Study) -> None:
    assert "one seed" in paper_protocol.noisy(study, trials())
    assert paper_protocol.noisy(study, trials(seed=range(7))) == ""
    assert paper_protocol.noisy(study, pd.DataFrame()) == ""


def test_runs_of_another_commit_are_called_so(tmp_path: Path) -> None:
    study = read_study(write_study(tmp_path / paper.PROJECT))
    study.runs = study.runs.assign(commit="a" * 40)
    table = tmp_path / "fixed_rate" / "tables" / "runs.csv"
    for commit, told in (("a" * 40, ""), ("b" * 40, "another commit (bbbbbbbbbb)")):
        files.write_table(table, study.runs.assign(commit=commit))
        found = paper_protocol.elsewhere(study, tmp_path)
        assert told in found and bool(told) == bool(found)
    assert paper_protocol.elsewhere(study, None) == ""


def test_the_licence_is_that_of_the_citation(tmp_path: Path) -> None:
    assert paper_protocol.licence(tmp_path / "CITATION.cff") == ""
    (tmp_path / "CITATION.cff").write_text("license: MIT\n", encoding="utf-8")
    assert paper_protocol.licence(tmp_path / "CITATION.cff") == "MIT"
