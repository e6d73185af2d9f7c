"""Optimiser and learning rate schedule of a run."""

from __future__ import annotations

from typing import Any

import torch

from workflow.study import Training


def optimizer(network: torch.nn.Module, training: Training, rate: float) -> torch.optim.Optimizer:
    """The optimiser that ``training.optimizer`` names."""
    options: dict[str, Any] = {
        "lr": rate,
        "weight_decay": training.weight_decay,
        # not there on Apple's GPUs
        "fused": next(network.parameters()).device.type != "mps",
    }
    if training.optimizer == "adamw":
        return torch.optim.AdamW(network.parameters(), **options)
    return torch.optim.SGD(
        network.parameters(), momentum=training.momentum, nesterov=training.momentum > 0, **options
    )


def schedule(
    optimizer: torch.optim.Optimizer, kind: str, peak: float, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The schedule of so many steps that ``training.schedule`` names; ``peak`` is its highest."""
    if kind == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=peak, total_steps=steps + 1)
    return torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=steps, power=0.9)
