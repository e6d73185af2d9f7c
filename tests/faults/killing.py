"""Runs that are killed at a chosen moment, in a process of their own."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.processes import PROCESSES

STEPS, EVERY = 12, 3
"""Steps of a run, and of the interval between its checkpoints."""


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

    ``step``: the loss is about to be computed; ``score``: a case is about to be scored;
    ``rename``: a file is about to take its place; ``write``: a file has been written in part.
    """

    what: str
    number: int
    share: float = 0.5

    def __str__(self) -> str:
        return f"{self.what}-{self.number}"


class Done(NamedTuple):
    """Exit code of a process (``-SIGKILL`` where it was killed), and what it has done."""

    code: int
    steps: int
    scores: int


def run(job: Job, kill: Kill | None = None) -> Done:
    """What a process has done of the job."""
    receiver, sender = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=_work, args=(job, kill, sender))
    process.start()
    sender.close()
    process.join()
    done = Counter()
    with contextlib.suppress(EOFError):
        while True:
            done[receiver.recv()] += 1
    return Done(process.exitcode, done["step"], done["score"])


def _work(job: Job, kill: Kill | None, sender) -> None:
    from workflow import files
    from workflow.data.prepare import load_prepared
    from workflow.evaluation import predict
    from workflow.study import RunSettings
    from workflow.training import scoring, train

    predict.VOXELS_PER_BATCH = 1  # each case is a batch
    _count(train.Trainer, "_loss", lambda: sender.send("step"))
    _count(scoring, "score_case", lambda: sender.send("score"))
    if kill is not None:
        _arm(kill, train, scoring)
    train.train(
        RunSettings.model_validate_json(job.settings),
        load_prepared(job.prepared),
        files.read_table(job.splits),
        train.Run(job.loss, 3e-3, job.seed),
        job.out,
    )


def _count(place, name: str, tell) -> None:
    """Tells each time that the function has done its work."""
    original = getattr(place, name)

    def counted(*arguments, **options):
        value = original(*arguments, **options)
        tell()
        return value

    setattr(place, name, counted)


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
