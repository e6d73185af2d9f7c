"""Checkpoints of a run: whatever kills it, the next call goes on where the last validation was.

A run's folder holds the newest checkpoint and the one before it, and the scores of each batch of
test cases that is done, beside the tables and unknown to the workflow engine, which deletes what an
unfinished job has declared. A file is one line,
``rareclass checkpoint <fingerprint> <SHA-256 of the rest>``, and what ``torch.save`` writes. It is
used only if both digests are right, and read without unpickling code. Nothing here ends a process
gently: to be killed is the only way a run stops early, so it is the one that is tested.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import losses
from workflow import files, provenance
from workflow.data.prepare import Prepared, PreparedCase
from workflow.study import RunSettings

LOG = logging.getLogger("rareclass")

NEWEST, PREVIOUS, PART = "checkpoint.bin", "checkpoint-previous.bin", "checkpoint-scores-*.bin"
ANY = "checkpoint*.bin"
MAGIC = b"rareclass checkpoint "


def training_code() -> str:
    """Digest of the code behind a run, that of its loss aside."""
    root = Path(__file__).parent.parent
    return provenance.code_sha256(
        [
            *(root / "training").glob("*.py"),
            *(root / "evaluation").glob("*.py"),
            *(root / "data" / f"{m}.py" for m in ("choices", "patches", "prepare", "transform")),
        ]
    )


def fingerprint(
    settings: RunSettings,
    rate: float,
    seed: int,
    prepared: Prepared,
    splits: pd.DataFrame,
    device: torch.device,
) -> str:
    """SHA-256 of all that the state of a run depends on, except the machine.

    Settings, code of the loss and of training, learning rate, seed, version of torch and kind of
    device; names of the classes, what was done to the cases, and each one of training and
    validation.
    """
    digest = hashlib.sha256()
    for part in (
        settings.model_dump_json(),
        provenance.code_sha256(losses.sources(settings.loss.name)),
        training_code(),
        repr((rate, seed, torch.__version__, device.type, prepared.classes)),
        repr((prepared.choices, settings.geometry(prepared))),
    ):
        digest.update(f"{part}\n".encode())
    split_of = dict(zip(splits["case"], splits["split"], strict=True))
    for case in prepared.cases:
        if split_of[case.name] in ("train", "validation"):
            digest.update(f"{split_of[case.name]} {case_sha256(case)}\n".encode())
    return digest.hexdigest()


def case_sha256(case: PreparedCase) -> str:
    """Digest of what training and scoring see of a case, wherever its files lie."""
    known = (
        case.name, case.subject, case.dataset, case.shape, case.spacing, case.image_sha256,
        case.label_sha256,
    )  # fmt: skip
    return hashlib.sha256(repr(known).encode()).hexdigest()


class Checkpoints:
    """The checkpoints in the folder of a run that have its fingerprint."""

    def __init__(self, folder: Path, fingerprint: str):
        self.folder, self.fingerprint = folder, fingerprint

    def save(self, state: dict[str, Any]) -> None:
        """Writes the newest checkpoint; the one before it is kept until the next."""
        newest = self.folder / NEWEST
        with files.replacing(newest) as temporary:
            _write(temporary, self.fingerprint, _saved(state))
            if newest.exists():
                os.replace(newest, self.folder / PREVIOUS)

    def load(self) -> dict[str, Any] | None:
        """The newest whole checkpoint, tensors on the CPU; None if there is none.

        Files that are damaged or of another fingerprint are removed: no later checkpoint may push
        a good one out for them.
        """
        for name in (NEWEST, PREVIOUS):
            if content := _read(self.folder / name, self.fingerprint):
                return _loaded(content)
        return None

    def part(self, key: str) -> dict[str, Any] | None:
        """What :meth:`keep` has kept under this key; None if there is nothing."""
        content = _read(*self._place(key))
        return _loaded(zlib.decompress(content)) if content else None

    def keep(self, key: str, part: dict[str, Any]) -> None:
        """Writes a part of the run's results that need not be computed again.

        ``key`` tells all that it depends on and the fingerprint does not.
        """
        path, fingerprint = self._place(key)
        with files.replacing(path) as temporary:
            # label maps are nearly empty
            _write(temporary, fingerprint, zlib.compress(_saved(part), 1))

    def retire(self, *, keep_newest: bool) -> None:
        """Tidies up after the run, which may keep its newest checkpoint for now.

        Until the workflow engine has noted that the job is done it would repeat it after a kill;
        then neither training nor scoring is repeated.
        """
        if keep_newest:
            (self.folder / PREVIOUS).unlink(missing_ok=True)
        else:
            clear(self.folder)

    def _place(self, key: str) -> tuple[Path, str]:
        """File and fingerprint of a part."""
        digest = hashlib.sha256(f"{self.fingerprint} {key}".encode()).hexdigest()
        return self.folder / PART.replace("*", digest[:16]), digest


def clear(folder: Path) -> None:
    """Removes the checkpoints of a run: it is over, or shall start anew."""
    for path in folder.glob(ANY):
        path.unlink(missing_ok=True)


def _saved(state: dict[str, Any]) -> memoryview:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getbuffer()


def _loaded(content: bytes) -> dict[str, Any]:
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _write(path: Path, fingerprint: str, content: bytes | memoryview) -> None:
    with open(path, "wb") as file:
        file.write(_head(fingerprint, content))
        file.write(content)


def _read(path: Path, fingerprint: str) -> bytes | None:
    """The content of a whole file of this fingerprint; another one is removed."""
    if not path.exists():
        return None
    head, _, content = path.read_bytes().partition(b"\n")
    if head + b"\n" == _head(fingerprint, content):
        return content
    other = head.startswith(MAGIC) and fingerprint.encode() not in head
    LOG.warning("%s: %s, ignored", path, "of another configuration" if other else "damaged")
    path.unlink()
    return None


def _head(fingerprint: str, content: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(content).hexdigest()
    return MAGIC + f"{fingerprint} {digest}\n".encode()


@contextmanager
def alone(folder: Path) -> Iterator[float]:
    """Waits until no other process trains in this folder, and removes what a killed one left.

    Gives the seconds that it waited.

    A job outlives a workflow engine that is killed; the job that the next call starts must not
    train beside it. On a file system without locks both train, and write the same.
    """
    started = time.monotonic()
    with files.locked(folder, "trains this run") as held:
        if held:
            try:
                files.remove_leftovers(folder)
            except OSError as error:
                LOG.warning("%s: what a killed process left stays (%s)", folder, error)
        yield time.monotonic() - started
