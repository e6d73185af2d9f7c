"""The measured values of the cards belong to the losses as they are now."""

import csv
import tomllib
from pathlib import Path

import pytest

import losses
from benchmarks import cards
from benchmarks.patches import untrained

ROOT = Path(__file__).parents[2]
AGAIN = (
    "run python -m benchmarks.losses (or, if only gradients changed, python -m benchmarks.cards)"
)


def test_every_loss_is_measured_and_none_that_is_gone():
    with cards.MEASURED.open(newline="") as table:
        measured = [row["name"] for row in csv.DictReader(table)]
    assert measured == losses.available(), AGAIN


def test_the_gradient_scale_is_that_of_the_loss(name):
    assert losses.card(name).gradient_scale == pytest.approx(
        cards.gradient_scale(name), rel=1e-2
    ), AGAIN


def test_the_cost_is_more_than_nothing(name):
    assert losses.card(name).cost > 0.3, AGAIN  # the floor is 1, less what timing scatters


def test_the_gradient_scale_of_cross_entropy_is_that_of_its_formula():
    patch = untrained()
    missed = 1 - patch.logits.softmax(1).gather(1, patch.labels.unsqueeze(1))
    assert cards.gradient_scale("cross_entropy") == pytest.approx(
        2 * float(missed.mean()), rel=1e-5
    )


def test_the_card_tells_both():
    text = losses.card("dice").text()
    assert f"gradient scale {losses.card('dice').gradient_scale:.2g}" in text
    assert f"cost           {losses.card('dice').cost:g} times" in text


def test_the_table_is_shipped_with_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert cards.MEASURED.name in project["tool"]["setuptools"]["package-data"]["losses"]
