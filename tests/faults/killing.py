"""Runs that are killed at a chosen moment, in a process of their own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from dataclasses import dataclass
from pathlib import Path

STEPS, EVERY = 12, 3
"""Steps of a run, and of the interval between its checkpoints."""

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["workflow.training.train"])


@dataclass(frozen=True)
class Job:
    """A run as ``python -m workflow train`` would get it; ``settings`` is JSON."""

    settings: str
    prepared: Path
    splits: Path
    loss: str
    seed: int
    out: Path


@dataclass(frozen=True)
class Kill:
    """``kill -9`` at the n-th time (from 1) that something happens.

    ``step``: the loss is about to be computed; ``score``: a test case is about to be scored;
    ``rename``: a file is about to take its place; ``write``: a file has been written in part.
    """

    what: str
    number: int
    share: float = 0.5

    def __str__(self) -> str:
        return f"{self.what}-{self.number}"


def run(job: Job, kill: Kill | None = None) -> tuple[int, int]:
    """Exit code and steps of a process that does the job, ``-SIGKILL`` where it was killed."""
    receiver, sender = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=_work, args=(job, kill, sender))
    process.start()
    sender.close()
    process.join()
    steps = 0
    with contextlib.suppress(EOFError):
        while True:
            steps = receiver.recv()
    return process.exitcode, steps


def _work(job: Job, kill: Kill | None, sender) -> None:
    from workflow import files
    from workflow.data.prepare import load_prepared
    from workflow.study import RunSettings
    from workflow.training import scoring, train

    steps = 0
    loss = train.Trainer._loss

    def counted(trainer, logits, labels):
        nonlocal steps
        value = loss(trainer, logits, labels)
        steps += 1
        sender.send(steps)
        return value

    train.Trainer._loss = counted
    if kill is not None:
        _arm(kill, train, scoring)
    train.train(
        RunSettings.model_validate_json(job.settings),
        load_prepared(job.prepared),
        files.read_table(job.splits),
        train.Run(job.loss, 3e-3, job.seed),
        job.out,
    )


def _arm(kill: Kill, train, scoring) -> None:
    """Has this process killed at the moment."""
    place, name = {
        "step": (train.Trainer, "_loss"),
        "score": (scoring, "score_case"),
        "rename": (os, "replace"),
        "write": (os, "fsync"),
    }[kill.what]
    original, calls = getattr(place, name), 0

    def deadly(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == kill.number:
            if kill.what == "write":
                # what the disk holds if the machine stops now
                path = os.readlink(f"/proc/self/fd/{arguments[0]}")
                os.truncate(path, int(os.path.getsize(path) * kill.share))
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(place, name, deadly)
