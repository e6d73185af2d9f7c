"""Losses and inputs that the tests of the losses share."""

from __future__ import annotations

import torch

import losses
from losses import contract

CLASSES = 4
NAMES = losses.available()
PUBLISHED = [name for name in NAMES if losses.card(name).published]
HISTORIC = [name for name in NAMES if losses.card(name).family == "historic"]
CORRECTED = [n for n in NAMES if not losses.card(n).published and n not in HISTORIC]


def build(name, classes=CLASSES, **options):
    """The loss with its defaults and a value for every option that must be given."""
    for option, default in losses.options(name).items():
        if default is losses.REQUIRED and option not in options:
            options[option] = contract.FOR_CLASSES[option](classes)
    return losses.create(name, **options)


def sample(*spatial, batch=2, classes=CLASSES, seed=0, dtype=torch.float32):
    """Random logits and labels in which every image holds every class."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, *spatial, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, (batch, *spatial), generator=generator)
    labels.flatten(1)[:, :classes] = torch.arange(classes)
    return logits.to(dtype), labels


def gradient(loss, logits, labels):
    """Value and gradient on the logits."""
    logits = logits.detach().clone().requires_grad_()
    value = loss(logits, labels)
    (slope,) = torch.autograd.grad(value, logits)
    return value.detach(), slope
