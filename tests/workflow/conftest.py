"""The real workflow on a study that trains for seconds, in a copy of the project."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflow import forked

ROOT = Path(__file__).parent.parent.parent
TIMEOUT = 900
PARTS = ("Snakefile", "workflow", "losses", "paper", "profiles", "config")
STUDY = """
title: A tiny study
dataset:
  source: phantom
  name: tiny
  phantom:
    subjects: 8
    shape: [24, 24, 24]
    spacing: 8.0
    prevalence: {edema: 1.0, necrotic core: 0.5, enhancing rim: 0.5}
splits: {train: 0.5, validation: 0.25, test: 0.25}
network: {channels: [4, 8], strides: [2]}
training: {steps: 6, patch_size: [16, 16, 16], validate_every: 3}
evaluation: {window: [24, 24, 24], nsd_tolerance: 8.0}
comparison: {reference_loss: dice}
seeds: [1]
losses:
  dice: {}
  lovasz_softmax: {}
  weighted_cross_entropy: {weight: inverse_frequency}
  generalized_dice: {}
  published_generalized_dice_graph: {}
  raises: {name: "mine.py:Raises"}
"""
MINE = """
import torch
class Raises(torch.nn.Module):
    calls = 0
    def forward(self, logits, labels):
        self.calls += 1
        if self.calls > 3:
            raise RuntimeError("no such idea")
        return torch.nn.functional.cross_entropy(logits, labels)
"""


def environment(root: Path) -> dict[str, str]:
    """Of a process in a copy of the project: its code, one thread, and no network."""
    places = os.pathsep.join([str(root), str(forked.OFFLINE)])
    return os.environ | {"PYTHONPATH": places, "OMP_NUM_THREADS": "1"}


class Project:
    """A copy of the project with a study in it.

    The first call of a study is that of a user, a Python of its own; later ones, most of which
    only plan, are forked.
    """

    def __init__(self, root: Path):
        self.root = root
        self.study = root / "tiny.yaml"
        self.results = root / "results" / "tiny"

    def run(self) -> subprocess.CompletedProcess:
        return self.python("-m", "snakemake", "--cores", "2", "--configfile", str(self.study))

    def snakemake(self, *words: str, study: Path | None = None) -> subprocess.CompletedProcess:
        return self._forked(
            "snakemake", "--cores", "2", *words, "--configfile", str(study or self.study)
        )

    def workflow(self, *words: str) -> subprocess.CompletedProcess:
        return self._forked("workflow", *words)

    def python(self, *words: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *words],
            cwd=self.root,
            env=environment(self.root),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT,
        )

    def _forked(self, *words: str) -> subprocess.CompletedProcess:
        return forked.run(*words, cwd=self.root, env=environment(self.root), timeout=TIMEOUT)

    def planned(self, *words: str) -> dict[str, set[str]]:
        """The jobs that Snakemake would run: rule -> labels of losses ('' without one)."""
        done = self.snakemake("--dry-run", "--quiet", "host", *words)
        assert done.returncode == 0, done.stdout
        jobs: dict[str, set[str]] = {}
        for block in re.split(r"\n(?=\[|(?:local)?rule )", done.stdout):
            if rule := re.search(r"^(?:local)?rule (\w+):", block, re.M):
                loss = re.search(r"wildcards: .*\bloss=([^,]+)", block)
                jobs.setdefault(rule.group(1), set()).add(loss.group(1) if loss else "")
        return jobs


def copy(folder: Path) -> Project:
    folder.mkdir()
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / part)
    (folder / "tiny.yaml").write_text(STUDY)
    (folder / "mine.py").write_text(MINE)
    return Project(folder)


@pytest.fixture
def fresh(tmp_path):
    """A copy in which nothing has run."""
    return copy(tmp_path / "project")


@pytest.fixture(scope="session")
def finished(tmp_path_factory, worker_id):
    """A copy whose study has run to its report; tests must leave it as it is.

    The first worker that needs it makes it, the others wait for it.
    """
    folder = tmp_path_factory.getbasetemp()
    folder = (folder if worker_id == "master" else folder.parent) / "finished"
    folder.mkdir(exist_ok=True)
    printed = folder / "first.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if printed.exists():
            project = Project(folder / "project")
        else:
            project = copy(folder / "project")
            done = project.run()
            printed.write_text(json.dumps([done.returncode, done.stdout]))
    project.returncode, project.printed = json.loads(printed.read_text())
    return project


@pytest.fixture
def changed(finished, tmp_path):
    """A copy of the finished project that a test may change."""
    shutil.copytree(finished.root, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")
