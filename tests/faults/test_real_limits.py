"""Runs under real limits of the operating system: a clear stop, and the next call goes on."""

import json
import os
import resource

import pytest

from tests.faults.killing import PROCESSES, STEPS
from workflow.training.checkpoint import NEWEST

LEAKS = """
import torch
class Leaks(torch.nn.Module):
    kept = []
    def forward(self, logits, labels):
        if torch.is_grad_enabled():
            self.kept.append(torch.ones(2**24))
        return torch.nn.functional.cross_entropy(logits, labels)
"""


def work(job, log, limit, room) -> None:
    """The command of the rule, with so much more of a resource than is used already."""
    import workflow.training.train  # noqa: F401  what it loads does not count
    from workflow.__main__ import main

    if limit == resource.RLIMIT_AS:
        with open("/proc/self/statm") as sizes:
            room += int(sizes.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(limit, (room, resource.RLIM_INFINITY))
    words = ["train", job.settings, job.splits, job.out / "status.json", "--loss", job.loss]
    words += ["--rate", "3e-3", "--seed", job.seed, "--log", log]
    words += ["--prepared", job.prepared / "prepared.json"]
    os._exit(main(list(map(str, words))))


def command(job, log, limit, room) -> tuple[int, str]:
    """Exit code and log."""
    process = PROCESSES.Process(target=work, args=(job, log, limit, room))
    process.start()
    process.join()
    return process.exitcode, log.read_text()


@pytest.mark.faults
def test_a_run_without_memory_stops_with_one_line_and_is_no_row(make_job, tmp_path):
    (tmp_path / "leaks.py").write_text(LEAKS)
    job = make_job("adamw", "dice_ce", tmp_path / "run")
    settings = json.loads(job.settings) | {
        "loss": {"name": f"{tmp_path}/leaks.py:Leaks", "options": {}}
    }
    object.__setattr__(job, "settings", json.dumps(settings))
    code, log = command(job, tmp_path / "log", resource.RLIMIT_AS, 5 * 2**26 + 2**28)
    assert code == 1
    assert "seed 1: out of memory; a smaller training.batch_size" in log
    assert "Traceback" not in log
    assert not (job.out / "status.json").exists()


def test_a_full_disk_stops_a_run_by_name_and_the_next_call_ends_it(make_job, tmp_path):
    job = make_job("adamw", "dice_ce", tmp_path / "run")
    code, log = command(job, tmp_path / "log", resource.RLIMIT_FSIZE, 10_000)
    assert code == 1
    assert log.splitlines()[-1] == f"{job.out / NEWEST}: File too large"
    assert not list(job.out.iterdir())
    code, log = command(job, tmp_path / "log", resource.RLIMIT_FSIZE, 2**30)
    assert code == 0
    assert json.loads((job.out / "status.json").read_text())["steps"] == STEPS
