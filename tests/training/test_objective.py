"""The loss of a run: weights from the training cases, and the trial before the first run."""

import pytest
import torch

import losses
from workflow.study import Loss, StudyError
from workflow.training.objective import create, inverse_frequency, trial


def test_inverse_frequency_has_mean_one_and_follows_the_counts():
    weights = inverse_frequency([900, 90, 10])
    assert sum(weights) == pytest.approx(3)
    assert weights[2] / weights[0] == pytest.approx(90)


def test_a_weight_in_words_is_that_of_the_training_cases():
    loss = create(
        Loss(name="weighted_cross_entropy", options={"weight": "inverse_frequency"}), [30, 10]
    )
    assert loss.weight == (0.5, 1.5)


def test_volumes_in_words_are_those_of_the_training_cases():
    entry = Loss(name="generalized_dice", options={"volumes": "training_set"})
    assert create(entry, [30, 10]).volumes == (30, 10)
    assert entry.options == {"volumes": "training_set"}


def test_every_loss_of_the_catalogue_passes_the_trial():
    apart = [[float(i != j) for j in range(4)] for i in range(4)]
    required = {"weight": [1.0, 2.0, 3.0, 4.0], "dist_matrix": apart}
    entries = {
        name: Loss(
            name=name,
            options={
                option: required[option]
                for option, default in losses.options(name).items()
                if default is losses.REQUIRED
            },
        )
        for name in losses.available()
    }
    assert set(trial(entries, [90, 5, 3, 2], (16, 16, 8))) == set(entries)


def test_what_would_fail_in_every_run_is_told_before_the_first(monkeypatch):
    entries = {
        "short": Loss(name="dice", options={"weight": [1.0, 2.0]}),
        "map": Loss(name="dice", options={"reduction": "none"}),
        "fine": Loss(name="dice"),
    }
    with pytest.raises(StudyError) as caught:
        trial(entries, [90, 5, 3, 2], (32, 32, 32))
    told = str(caught.value).splitlines()
    assert len(told) == 2
    assert told[0].startswith("losses.short: ") and "2 values" in told[0]
    assert "must be a scalar" in told[1]


def test_a_loss_without_a_gradient_is_told(monkeypatch):
    monkeypatch.setattr(losses, "create", lambda name, **options: lambda z, y: torch.tensor(1.0))
    with pytest.raises(StudyError, match=r"losses\.x: .*grad"):
        trial({"x": Loss(name="dice")}, [3, 1], (8, 8, 8))
