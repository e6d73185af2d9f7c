"""The contract says in words what a user's own loss breaks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

import losses
from losses import contract

FILE = Path(__file__).parent / "own_losses.py"


def results(name, **options):
    checked = contract.check(contract.subject(f"{FILE}:{name}", **options))
    return {result.name: result for result in checked}


def test_a_good_loss_keeps_the_contract():
    found = results("Sharp", power=1.5)
    assert {result.verdict for result in found.values()} == {"ok", "not applicable"}
    refused = [name for name, result in found.items() if result.verdict != "ok"]
    assert refused == ["channel_axis"]
    assert "a study gives (B, *spatial)" in found["channel_axis"].words


@pytest.mark.parametrize(
    ("name", "check", "words"),
    [
        ("NoMean", "scalar", "returns a tensor of shape (2, 4, 5), expected a scalar"),
        ("Hard", "scalar", "the value has no gradient"),
        ("OneHot", "scalar", "wants one-hot labels, but a study gives the label map"),
        ("InPlace", "unchanged_input", "changes the logits in place, 160 of 160"),
        ("Present", "absent_classes", "with class 0 alone in the labels, the value is nan"),
        ("CountsIgnored", "ignored_voxels", "the gradient at ignored voxels is up to 0.0"),
        ("CountsIgnored", "all_ignored", "with every voxel ignored the value is 1."),
        ("Noisy", "deterministic", "called again, the loss is"),
        ("Overflows", "finite", "up to 10000, the value is inf, expected a finite one"),
        ("HandWritten", "gradient", "but differences of the value give"),
        ("Item", "scalar", "returns float, expected a scalar torch.Tensor"),
        ("Steep", "finite", "the gradient is inf at"),
        ("Flat", "scalar", "the gradient is 0 at every logit, so that nothing is learnt"),
        ("Product", "ignored_voxels", "with nan as logits of ignored voxels the value is nan"),
        ("Where", "ignored_voxels", "with nan as logits of ignored voxels the gradient changes"),
        ("NoisySlope", "deterministic", "another gradient on the same input"),
        ("Narrow", "channel_axis", "ValueError: labels have a channel"),
    ],
)
def test_a_bad_loss_is_told_what_it_breaks_and_on_which_input(name, check, words):
    result = results(name)[check]
    assert result.verdict == "FAILS"
    assert words in result.words
    assert "[images: " in result.words


def test_what_does_not_concern_a_loss_is_said():
    found = results("Noisy")
    assert found["ignored_voxels"].verdict == "not applicable"
    assert found["ignored_voxels"].words == "the loss has no option ignore_index"
    single = contract.Subject(lambda classes: lambda z, y: cross_entropy(z.float(), y))
    coarse = {r.name for r in contract.check(single) if "too coarse to compare" in r.words}
    assert coarse == {"gradient", "collapsed"}
    found = results("NoMean")
    assert found["finite"].words == "needs a loss that passes the check scalar"


def test_a_result_is_a_line_of_verdict_check_and_words():
    assert str(results("Flat")["scalar"]).startswith("FAILS           scalar: the gradient is 0")


def test_a_class_without_a_constructor_is_a_loss_without_options():
    logits, labels = torch.randn(2, 3, 5), torch.randint(3, (2, 5))
    value = losses.create(f"{FILE}:Plain")(logits, labels)
    assert torch.equal(value, cross_entropy(logits, labels))
    with pytest.raises(TypeError, match="power"):
        losses.create(f"{FILE}:Plain", power=2)


def test_a_function_can_be_checked_too():
    def brier(logits, labels):
        hot = torch.nn.functional.one_hot(labels, logits.shape[1]).movedim(-1, 1)
        return (logits.softmax(1) - hot).square().mean()

    checked = {r.name: r.verdict for r in contract.check(contract.Subject(lambda classes: brier))}
    assert checked["voxel_order"] == checked["gradient"] == checked["collapsed"] == "ok"


def test_a_loss_for_one_number_of_classes_is_checked_with_that_number():
    weighted = {"weight": [1.0, 2.0, 3.0]}
    subject = contract.subject("weighted_cross_entropy", classes=3, **weighted)
    assert {result.verdict for result in contract.check(subject)} == {"ok"}
    subject = contract.subject("weighted_cross_entropy", **weighted)
    first = next(contract.check(subject))
    assert first.verdict == "FAILS"
    assert "weight has 3 values, but logits have 4 classes" in first.words


def test_an_input_says_what_it_is():
    case = contract.Case((3, 4), 3, ((0, 2), (0, 1, 2)), ignored=0.2)
    assert str(case) == (
        "images: 2 of 3 x 4 voxels, 3 classes, class 1 absent from image 0, "
        "20% of the voxels ignored, logits about 1, seed 0"
    )
    assert case.labels[0].unique().tolist() == [0, 2]
    assert case.labels[1].unique().tolist() == [0, 1, 2]
    assert case.with_classes(2).labels.max() == 1
