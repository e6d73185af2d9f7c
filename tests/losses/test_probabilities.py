"""Cross-entropies and focal terms, and gradients that take the place of what forward kept."""

from __future__ import annotations

import pytest
import torch
from loss_samples import sample
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

import losses
from losses.counts import soft_confusion, soft_counts
from losses.distribution import focal_terms
from losses.probabilities import cross_entropies, probabilities

SUMS = {
    "counts": lambda z, y: torch.cat(soft_counts(z, y)[:2]),
    "squared counts": lambda z, y: torch.cat(soft_counts(z, y, squared=True)[:2]),
    "counts with ignored voxels": lambda z, y: torch.cat(soft_counts(z, y, y != 2)[:2]),
    "confusion": soft_confusion,
    "cross-entropies": cross_entropies,
}


@pytest.mark.parametrize("name", SUMS)
def test_a_retained_graph_gives_its_gradient_again(name):
    logits, labels = sample(4, 5, dtype=torch.float64)
    logits.requires_grad_()
    values = SUMS[name](logits, labels)
    factors = torch.linspace(-1, 1, values.numel(), dtype=values.dtype).view_as(values)
    first, again, twice = (
        torch.autograd.grad(values, logits, factor * factors, retain_graph=True)[0]
        for factor in (1, 1, 2)
    )
    assert first.any()
    assert torch.equal(again, first)
    assert_close(twice, 2 * first)


def test_the_terms_are_the_users_to_change():
    logits, labels = sample(4, 5)
    logits.requires_grad_()
    for name in ("cross_entropy", "focal"):
        terms = losses.create(name, reduction="none")(logits, labels)
        (expected,) = torch.autograd.grad((2 * terms).sum(), logits, retain_graph=True)
        terms *= 2
        assert_close(torch.autograd.grad(terms.sum(), logits)[0], expected)


def test_cross_entropies_of_soft_labels_are_those_of_torch():
    logits, _ = sample(4, 5, dtype=torch.float64)
    soft = probabilities(logits.flip(1))
    expected = cross_entropy(logits, soft, reduction="none")
    assert_close(cross_entropies(logits, soft), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.5])
def test_the_slope_of_focal_is_numerically_right(gamma):
    cross = torch.logspace(-3, 1.5, 30, dtype=torch.float64).requires_grad_()
    labels = torch.arange(30) % 3
    for alpha in (None, 0.25):
        assert torch.autograd.gradcheck(lambda x: focal_terms(x, labels, gamma, alpha), cross)  # noqa: B023


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_focal_keeps_value_and_slope_at_both_ends(gamma, dtype):
    cross = torch.tensor([0.0, 1e-30, 1e-9, 100.0, 1e4], dtype=dtype).requires_grad_()
    terms = focal_terms(cross, torch.zeros(5, dtype=torch.long), gamma, None)
    (slopes,) = torch.autograd.grad(terms.sum(), cross)
    x = cross.detach().double()
    small = x[:3].pow(gamma)  # there 1 - exp(-x) is x
    assert_close(terms.detach().double(), torch.cat([x[:3] * small, x[3:]]), rtol=1e-6, atol=1e-40)
    expected = torch.cat([(1 + gamma) * small, torch.ones(2, dtype=torch.float64)])
    assert_close(slopes.double(), expected, rtol=1e-6, atol=1e-18)
