"""What ends a run from outside: its time is over, or the machine has no memory left."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


class TimeOver(BaseException):
    """The time limit was reached; no `except Exception` of a user's loss may catch it."""


@contextmanager
def time_limit(seconds: float | None) -> Iterator[Callable[[float], None]]:
    """Raises :class:`TimeOver` in the block after so many seconds; None is no limit.

    Gives a function that takes seconds off what is left: spent earlier, as turns out later.
    Python code is interrupted wherever it is, a loop without end included; a single call into
    compiled code that never returns is not.
    """
    if seconds is None:
        yield lambda spent: None
        return

    def over(*_: object) -> None:
        raise TimeOver

    def start(left: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, max(left, 1e-6))  # 0 would switch it off

    before = signal.signal(signal.SIGALRM, over)
    start(seconds)
    try:
        yield lambda spent: start(signal.getitimer(signal.ITIMER_REAL)[0] - spent)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: of Python, of a GPU, or of PyTorch on the CPU, which has no class."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = ("DefaultCPUAllocator", "std::bad_alloc", "could not create a memory object")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
