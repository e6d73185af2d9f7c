"""Time, memory and the busiest operator of one step: the loss and its gradient on the logits."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.patches import Patch

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler tells whenever it starts and stops

Step = Callable[[Patch], object]

ROUNDS = range(3, 41)
_PROCESS = Path("/proc/self")
_MMAP_THRESHOLD = -3  # glibc's M_MMAP_THRESHOLD


def step(loss: Callable[[Tensor, Tensor], Tensor], channel: bool = False) -> Step:
    """Forward and backward of a loss; ``channel``: its labels have one."""

    def run(patch: Patch) -> Tensor:
        logits = patch.logits.detach().requires_grad_()
        labels = patch.labels.unsqueeze(1) if channel else patch.labels
        return torch.autograd.grad(loss(logits, labels), logits)[0]

    return run


def softmax_step(upstream: Tensor) -> Step:
    """Forward and backward of softmax alone: the floor under every loss of the probabilities."""

    def run(patch: Patch) -> Tensor:
        logits = patch.logits.detach().requires_grad_()
        return torch.autograd.grad(logits.softmax(1), logits, upstream)[0]

    return run


def seconds(
    steps: Sequence[Step], patch: Patch, budget: float, same_patch: bool = False
) -> NDArray[np.float64]:
    """(rounds, len(steps)): wall time of every step in every round.

    The steps of a round follow each other, in an order that turns from round to round, so what
    else the machine does meets all of them. Unless ``same_patch``, every round has another patch.
    Rounds go on for ``budget`` seconds, at least 3 and at most 40 of them, after one to warm up.
    """
    times = []
    start = perf_counter()
    for index in range(ROUNDS.stop):
        moved = patch if same_patch else patch.moved(index)
        row = [0.0] * len(steps)
        for place in range(len(steps)):
            which = (index + place) % len(steps)
            begin = perf_counter()
            steps[which](moved)
            row[which] = perf_counter() - begin
        times.append(row)
        if index == 0:
            start = perf_counter()
        elif index >= ROUNDS.start and perf_counter() - start > budget:
            break
    return np.array(times[1:])


def busiest(run: Step, patch: Patch, same_patch: bool = False) -> tuple[str, float]:
    """The operator that a step spends most time in, and its share of the step.

    Time in which no operator of PyTorch runs is that of NumPy or SciPy, and is called
    "outside PyTorch".
    """
    moved = patch if same_patch else patch.moved(ROUNDS.stop)
    run(patch)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        begin = perf_counter()
        run(moved)
        wall = 1e6 * (perf_counter() - begin)
    own: dict[str, float] = {}
    for event in profiled.key_averages():
        name = event.key.removeprefix("aten::")
        own[name] = own.get(name, 0) + event.self_cpu_time_total
    own["outside PyTorch"] = wall - sum(own.values())
    name = max(own, key=own.get)
    return name, own[name] / wall


class MemoryMeter:
    """Peak extra memory of steps, measured in a process of its own, with one thread.

    It is the peak of the process's resident memory during a step, less what was resident before
    it: tensors, temporaries inside operators and arrays of NumPy and SciPy alike, the gradient
    included. A first step loads what is loaded once. The allocator of the process is told to give
    every block of 64 KiB or more back when it is freed, so nothing is hidden by reuse. Linux only.
    """

    def __enter__(self) -> MemoryMeter:
        if not (_PROCESS / "clear_refs").exists():
            raise OSError("peak memory is read from /proc/self, which only Linux has")
        self._process = ProcessPoolExecutor(
            1, mp_context=get_context("spawn"), initializer=_give_memory_back
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.shutdown()

    def mebibytes(self, make: Callable[..., tuple[Step, Patch]], *arguments: object) -> float:
        """Of the step that ``make(*arguments)`` builds there; both must be picklable."""
        return self._process.submit(_peak, make, *arguments).result()


def _give_memory_back() -> None:
    torch.set_num_threads(1)
    ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, 2**16)


def _peak(make: Callable[..., tuple[Step, Patch]], *arguments: object) -> float:
    run, patch = make(*arguments)
    run(patch)
    moved = patch.moved(1)
    (_PROCESS / "clear_refs").write_text("5")  # the peak starts again from here
    before = _resident("VmRSS")
    run(moved)
    return (_resident("VmHWM") - before) / 2**10


def _resident(which: str) -> int:
    """KiB."""
    return int(re.search(rf"{which}:\s+(\d+)", (_PROCESS / "status").read_text())[1])
