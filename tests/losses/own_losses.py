"""Losses as users write them: one that keeps the contract, and one for each way to break it.

``python -m workflow losses check tests/losses/own_losses.py:Sharp``
"""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from losses.overlap import Dice


class Sharp(nn.Module):
    """A power of the mean cross-entropy of the voxels that are not ignored."""

    def __init__(self, power=2.0, ignore_index=-100):
        super().__init__()
        self.power = power
        self.ignore_index = ignore_index

    def forward(self, logits, labels):
        labels = labels.long()
        valid = labels != self.ignore_index
        logits = logits.float() if logits.dtype != torch.float64 else logits
        logits = logits.masked_fill(~valid.unsqueeze(1), 0)
        voxels = cross_entropy(logits, labels, ignore_index=self.ignore_index, reduction="none")
        return (voxels.sum() / valid.sum().clamp_min(1)) ** self.power


class NoMean(nn.Module):
    """Forgets to reduce."""

    def forward(self, logits, labels):
        return cross_entropy(logits, labels, reduction="none")


class Hard(nn.Module):
    """Counts errors of the argmax, which has no gradient."""

    def forward(self, logits, labels):
        return (logits.argmax(1) != labels).float().mean()


class OneHot(nn.Module):
    """Expects a channel for each class in the labels."""

    def forward(self, logits, labels):
        return 1 - (logits.softmax(1) * labels).sum(1).mean()


class InPlace(nn.Module):
    """Shifts the logits it was given."""

    def forward(self, logits, labels):
        logits -= logits.detach().amax(1, keepdim=True)
        return cross_entropy(logits, labels)


class Present(nn.Module):
    """Averages over all classes, so that an absent one is 0 / 0."""

    def forward(self, logits, labels):
        p = logits.softmax(1)
        return torch.stack([1 - p[:, c][labels == c].mean() for c in range(p.shape[1])]).mean()


class CountsIgnored(nn.Module):
    """Takes ignored voxels for background."""

    def __init__(self, ignore_index=255):
        super().__init__()
        self.ignore_index = ignore_index

    def forward(self, logits, labels):
        return cross_entropy(logits, labels.masked_fill(labels == self.ignore_index, 0))


class Noisy(nn.Module):
    """Smooths the labels by a random share."""

    def forward(self, logits, labels):
        return cross_entropy(logits, labels, label_smoothing=0.1 * torch.rand(()).item())


class Overflows(nn.Module):
    """Takes the logarithm of a probability that rounds to 0."""

    def forward(self, logits, labels):
        return -logits.softmax(1).gather(1, labels.unsqueeze(1)).log().mean()


class WrongGradient(torch.autograd.Function):
    """The value of x^2 with the derivative of x^2 / 2."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, slope):
        return slope * ctx.saved_tensors[0]


class HandWritten(nn.Module):
    """Has a backward pass of its own, and a mistake in it."""

    def forward(self, logits, labels):
        return WrongGradient.apply(cross_entropy(logits, labels))


class Item(nn.Module):
    """Gives a number of Python."""

    def forward(self, logits, labels):
        return cross_entropy(logits, labels).item()


class Steep(nn.Module):
    """Takes a root, whose slope at 0 is infinite."""

    def forward(self, logits, labels):
        p = logits.softmax(1).gather(1, labels.unsqueeze(1))
        return (1 - p).clamp_min(0).sqrt().mean()


class Flat(nn.Module):
    """Weighs the logits by 0."""

    def forward(self, logits, labels):
        return 1 + 0 * logits.sum()


class Product(nn.Module):
    """Multiplies ignored voxels by 0, which NaN survives."""

    def __init__(self, ignore_index=255):
        super().__init__()
        self.ignore_index = ignore_index

    def forward(self, logits, labels):
        valid = labels != self.ignore_index
        voxels = cross_entropy(logits, labels.masked_fill(~valid, 0), reduction="none")
        return (voxels * valid).sum() / valid.sum().clamp_min(1)


class Where(Product):
    """Chooses the valid voxels after the fact, when NaN is in the slope already."""

    def forward(self, logits, labels):
        valid = labels != self.ignore_index
        voxels = cross_entropy(logits, labels.masked_fill(~valid, 0), reduction="none")
        return voxels.where(valid, 0).sum() / valid.sum().clamp_min(1)


class NoisySlope(nn.Module):
    """Pushes the logits at random, and says nothing of it in its value."""

    def forward(self, logits, labels):
        push = torch.rand(()).item() * logits.sum()
        return cross_entropy(logits, labels) + (push - push.detach())


class Narrow(Dice):
    """Built on the library's, and refuses what the library promises."""

    def forward(self, logits, labels):
        if labels.ndim == logits.ndim:
            raise ValueError("labels have a channel")
        return super().forward(logits, labels)


class Plain:
    """No module, and without a constructor."""

    def __call__(self, logits, labels):
        return cross_entropy(logits, labels)
