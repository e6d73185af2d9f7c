"""Choosing a learning rate from trials."""

from __future__ import annotations

import pandas as pd
import pytest

from workflow import files
from workflow.study import Tuning
from workflow.training import tuning


def write_trial(folder, rate, scores, status="ok"):
    """A trial whose validation Dice of two classes is ``scores`` at steps 0, 1, ..."""
    place = tuning.trial_folder(folder, rate)
    rows = [
        {"step": step, "split": "validation", "quantity": "dice", "class": name, "value": value}
        for step, value in enumerate(scores)
        for name in ("a", "b")
    ]
    rows.append({"step": 1, "split": "validation", "quantity": "loss", "class": "", "value": 9.0})
    place.mkdir(parents=True)
    files.write_table(place / "curve.csv", pd.DataFrame(rows))
    key = {"dataset": "d", "loss": "dice", "learning_rate": rate, "seed": 7}
    files.write_json(place / "status.json", key | {"status": status, "steps": 2})


@pytest.mark.parametrize(
    ("scores", "chosen", "beyond"),
    [
        ({1e-3: 0.1, 3e-3: 0.3, 1e-2: 0.2}, 3e-3, None),
        ({1e-3: 0.1, 3e-3: 0.2, 1e-2: 0.3}, 1e-2, 0.0333),
        ({1e-3: 0.3, 3e-3: 0.2, 1e-2: 0.1}, 1e-3, 0.000333),
        ({1e-3: 0.0, 3e-3: 0.0, 1e-2: 0.0}, 3e-3, None),
        ({1e-3: 0.2, 3e-3: 0.2, 1e-2: 0.1}, 3e-3, None),
    ],
)
def test_the_best_is_chosen_and_an_end_of_the_grid_is_gone_beyond(scores, chosen, beyond):
    assert tuning.best(scores) == chosen
    assert tuning.one_step_beyond(scores) == beyond


def test_the_score_is_that_of_the_reported_checkpoint_and_never_of_untrained_weights(tmp_path):
    write_trial(tmp_path, 0.1, [0.9, 0.4, 0.2])
    curve = files.read_table(tuning.trial_folder(tmp_path, 0.1) / "curve.csv")
    assert tuning.score(curve, "best") == pytest.approx(0.4)
    assert tuning.score(curve, "last") == pytest.approx(0.2)
    assert tuning.score(curve[curve["step"] == 0], "best") == 0


def choose(folder, monkeypatch, beyond):
    """The table of a choice; a trial beyond the grid scores as ``beyond`` says for its rate."""

    def train(_settings, _prepared, _splits, run, out, *, trial, limit):
        assert trial
        assert run.seed == 7
        assert out == tuning.trial_folder(folder, run.learning_rate)
        write_trial(folder, run.learning_rate, [0.0, beyond[run.learning_rate]])

    class Settings:
        checkpoint = "best"

    monkeypatch.setattr(tuning, "train", train)
    grid = Tuning(grid=(1e-3, 3e-3, 1e-2), seed=7)
    return tuning.choose(Settings, None, None, grid, "dice", folder).set_index("learning_rate")


def test_one_trial_more_is_run_beyond_the_end_and_said_so(tmp_path, monkeypatch):
    for rate, value in ((1e-3, 0.1), (3e-3, 0.2), (1e-2, 0.3)):
        write_trial(tmp_path, rate, [0.0, value])
    table = choose(tmp_path, monkeypatch, {0.0333: 0.25})
    assert list(table.index) == [1e-3, 3e-3, 1e-2, 0.0333]
    assert list(table["widened"]) == [False, False, False, True]
    assert list(table["chosen"]) == [False, False, True, False]
    assert not table["on_edge"].any()


def test_a_best_rate_that_is_still_at_an_end_is_said_so(tmp_path, monkeypatch):
    for rate, value in ((1e-3, 0.1), (3e-3, 0.2), (1e-2, 0.3)):
        write_trial(tmp_path, rate, [0.0, value])
    table = choose(tmp_path, monkeypatch, {0.0333: 0.4})
    assert table.index[table["chosen"]].item() == 0.0333
    assert table["on_edge"].all()


def test_a_rate_at_which_the_run_breaks_down_is_no_candidate(tmp_path, monkeypatch):
    write_trial(tmp_path, 1e-3, [0.0, 0.1])
    write_trial(tmp_path, 3e-3, [0.0, 0.2])
    write_trial(tmp_path, 1e-2, [0.0, 0.9], status="diverged")
    table = choose(tmp_path, monkeypatch, {})
    assert table.index[table["chosen"]].item() == 3e-3
    assert table.loc[1e-2, "status"] == "diverged"
