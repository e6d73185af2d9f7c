"""The soft counts under all region losses, against one-hot maps in plain words."""

from __future__ import annotations

import math

import pytest
import torch
from loss_samples import sample
from torch.nn.functional import one_hot
from torch.testing import assert_close

from losses.counts import class_masks, soft_confusion, soft_counts
from losses.odds import log_odds
from losses.probabilities import cross_entropies


def case(classes=4, ignored=True):
    """Logits, labels and valid voxels; class 1 is absent from image 1."""
    logits, labels = sample(5, 4, 3, classes=classes, dtype=torch.float64)
    labels[1][labels[1] == 1] = 0
    valid = torch.rand(labels.shape, generator=torch.Generator().manual_seed(1)) > 0.3
    return logits.requires_grad_(), labels, valid if ignored else None


@pytest.fixture(params=[2**17, 28], ids=["whole images", "pieces"])
def _size_of_pieces(request, monkeypatch):
    """28 elements are 7 voxels of 4 classes: an image of 60 is cut into 8 pieces and a rest."""
    monkeypatch.setattr("losses.counts._PIECE", request.param)


def literal(logits, labels, valid):
    """p and one-hot g, (B, C, N), 0 where ignored."""
    kept = torch.ones_like(labels, dtype=torch.bool) if valid is None else valid
    g = one_hot(labels, logits.shape[1]).movedim(-1, 1) * kept.unsqueeze(1)
    p = logits.softmax(1) * kept.unsqueeze(1)
    return p.flatten(2), g.flatten(2).to(p.dtype)


def gradients(values, logits):
    """Gradient on the logits of each value times a weight of its own."""
    factors = [torch.linspace(0.5, 2, v.numel(), dtype=v.dtype).view_as(v) for v in values]
    total = sum((v * f).sum() for v, f in zip(values, factors, strict=True))
    return torch.autograd.grad(total, logits)[0]


@pytest.mark.usefixtures("_size_of_pieces")
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("ignored", [False, True])
def test_counts_are_sums_over_one_hot_maps(ignored, squared):
    logits, labels, valid = case(ignored=ignored)
    p, g = literal(logits, labels, valid)
    predicted = (p.square() if squared else p).sum(2)
    counts = soft_counts(logits, labels, valid, squared=squared)
    assert_close(tuple(counts), ((p * g).sum(2), predicted, g.sum(2)))
    assert not counts.reference.requires_grad
    expected = gradients([(p * g).sum(2), predicted], logits)
    assert_close(gradients(counts[:2], logits), expected)


@pytest.mark.usefixtures("_size_of_pieces")
@pytest.mark.parametrize("ignored", [False, True])
def test_confusion_sums_the_probabilities_of_the_voxels_of_each_label(ignored):
    logits, labels, valid = case(ignored=ignored)
    p, g = literal(logits, labels, valid)
    expected = torch.einsum("bkn,bcn->bkc", g, p)
    confusion = soft_confusion(logits, labels, valid)
    assert_close(confusion, expected)
    assert_close(gradients([confusion], logits), gradients([expected], logits))
    assert_close(confusion.diagonal(dim1=1, dim2=2), soft_counts(logits, labels, valid).overlap)
    assert_close(confusion.sum(1), soft_counts(logits, labels, valid).predicted)


@pytest.mark.parametrize("classes", [255, 256, 257])
def test_as_many_classes_as_a_byte_holds_and_more(classes):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, classes, 50, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    labels = torch.randint(0, classes, (2, 50), generator=generator)
    labels[:, :4] = torch.tensor([0, classes - 1, 0, classes - 1])
    valid = torch.rand(2, 50, generator=generator) > 0.3
    valid[:, :4] = torch.tensor([True, True, False, False])
    p, g = literal(logits, labels, valid)
    counts = soft_counts(logits, labels, valid)
    assert_close(counts.overlap, (p * g).sum(2))
    assert_close(counts.reference, g.sum(2))
    expected = gradients([(p * g).sum(2)], logits)
    assert_close(gradients([counts.overlap], logits), expected)
    cross = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    expected = gradients([cross], logits)
    assert_close(gradients([cross_entropies(logits, labels)], logits), expected)


def test_masks_are_one_hot():
    _, labels, _ = case()
    assert torch.equal(class_masks(labels, 4), one_hot(labels, 4).movedim(-1, 1).flatten(2) == 1)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_log_odds_are_those_of_the_softmax(classes):
    logits, _ = sample(5, 4, classes=classes, dtype=torch.float64)
    logits.requires_grad_()
    p = logits.softmax(1)
    expected = (p / (1 - p)).log()
    assert_close(log_odds(logits), expected)
    assert_close(gradients([log_odds(logits)], logits), gradients([expected], logits))


@pytest.mark.parametrize("gap", [20.0, 90.0, 1e4])
def test_log_odds_keep_value_and_gradient_where_a_probability_rounds_to_one(gap):
    logits = torch.tensor([gap, 0.0, 0.0]).view(1, 3, 1).requires_grad_()
    odds = log_odds(logits)
    assert_close(odds[0, 0, 0], torch.tensor(gap - math.log(2)))
    (slope,) = torch.autograd.grad(odds[0, 0, 0], logits)
    assert_close(slope.flatten(), torch.tensor([1.0, -0.5, -0.5]))


def test_cross_entropies_are_those_of_torch():
    logits, labels, _ = case()
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    assert_close(cross_entropies(logits, labels), expected)
    assert_close(
        gradients([cross_entropies(logits, labels)], logits), gradients([expected], logits)
    )


@pytest.mark.parametrize("squared", [False, True])
def test_the_gradients_of_the_sums_are_numerically_right(squared):
    logits, labels, valid = case()
    logits, labels, valid = (
        logits[..., :2].detach().requires_grad_(),
        labels[..., :2],
        valid[..., :2],
    )
    check = torch.autograd.gradcheck
    assert check(lambda z: tuple(soft_counts(z, labels, valid, squared=squared))[:2], logits)
    assert check(lambda z: soft_confusion(z, labels, valid), logits)
    assert check(lambda z: cross_entropies(z, labels), logits)
