"""The gallery's one ball: what is predicted, and what value and gradient are."""

import numpy as np
import pytest
import torch

import losses
from workflow import files
from workflow.__main__ import main
from workflow.comparison import gallery


@pytest.fixture(scope="module")
def responses():
    return gallery.responses(points=2)


def found(course, error):
    return gallery.prediction(course, error).argmax(1) == 2


@pytest.mark.parametrize("course", gallery.COURSES)
def test_every_course_begins_with_the_right_prediction(course):
    labels = gallery.reference("present")
    assert torch.equal(gallery.prediction(course, 0.0).argmax(1), labels)
    assert set(labels.unique().tolist()) == {0, 1, 2}


def test_the_courses_end_with_the_ball_lost_shifted_away_or_doubled():
    ball = gallery.reference("present") == 2
    assert not found("shrinks", 1.0).any()
    shifted = found("shifts", 1.0)
    assert shifted.sum() == ball.sum()
    assert not (shifted & ball).any()
    doubled = found("false positive grows", 1.0)
    assert doubled[ball].all()
    assert doubled.sum() > 1.9 * ball.sum()


def test_absence_erases_the_class_and_nothing_else():
    present, absent = gallery.reference("present"), gallery.reference("absent")
    assert torch.equal(absent, present.masked_fill(present == 2, 0))


def test_value_and_gradient_are_those_of_the_formula():
    labels = gallery.reference("present")
    logits = gallery.prediction("shifts", 0.5)
    value, gradient = gallery.response(losses.create("cross_entropy"), logits, labels)
    p = logits.detach().softmax(1)
    assert value == pytest.approx(-float(p.gather(1, labels.unsqueeze(1)).log().mean()), rel=1e-5)
    expected = (p[:, 2] - (labels == 2).float()).abs().mean()
    assert gradient == pytest.approx(float(expected), rel=1e-5)


def test_every_loss_has_a_finite_answer_to_every_prediction(responses):
    assert len(responses) == len(losses.available()) * 3 * 2 * 2
    assert set(responses["loss"]) == set(losses.available())
    assert np.isfinite(responses[["value", "gradient"]]).all(axis=None)


def test_shifting_a_ball_that_should_not_be_there_changes_nothing_for_dice(responses):
    rows = responses.query("loss == 'dice' and course == 'shifts' and reference == 'absent'")
    assert rows["value"].iloc[0] == pytest.approx(rows["value"].iloc[1], rel=1e-4)


@pytest.mark.parametrize("name", ["dice", "cross_entropy", "generalized_dice", "jaccard"])
def test_a_worse_prediction_costs_more(responses, name):
    rows = responses.query(f"loss == '{name}' and reference == 'present'")
    for _, course in rows.groupby("course"):
        assert course["value"].iloc[1] > course["value"].iloc[0]


def test_every_option_that_must_be_given_is_known():
    for name in losses.available():
        losses.create(name, **gallery.example_options(name, 3))


def test_the_command_writes_the_table_beside_the_pages(tmp_path, monkeypatch):
    monkeypatch.setattr(losses, "available", lambda: ["dice"])
    assert main(["gallery", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "gallery.csv", "gallery_region.png", "gallery_region.svg",
    }  # fmt: skip
    assert len(files.read_table(tmp_path / "gallery.csv")) == 17 * 3 * 2
