"""Log-odds of the softmax: each class against the rest, accurate where a probability nears 1."""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor


def log_odds(logits: Tensor) -> Tensor:
    """log(p / (1 - p)) of softmax(logits): each logit minus the logsumexp of the others.

    The others are summed before and after each class, so nothing cancels, whatever the gap
    between the logits. logsigmoid of it is log p, logsigmoid of its negative log(1 - p).

    Shape: (B, C, *spatial), C >= 2, the same for the result.
    """
    classes = logits.unbind(1)
    before = list(accumulate(classes[:-1], torch.logaddexp))
    after = list(accumulate(classes[:0:-1], torch.logaddexp))[::-1]
    middle = [torch.logaddexp(b, a) for b, a in zip(before[:-1], after[1:], strict=True)]
    return logits - torch.stack([after[0], *middle, before[-1]], 1)
