"""``kill -9`` of Snakemake: the next call asks for nothing and makes the same tables."""

import contextlib
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable

import pandas as pd
import psutil
import pytest

from tests.workflow.conftest import Project, copy, environment

pytestmark = pytest.mark.faults

TABLES = "results/tiny/tables/runs.csv"
TIMES = re.compile("second|memory|share|hours|commit")


SLOW = """
import time
from collections.abc import Callable
class Slow(torch.nn.Module):
    def forward(self, logits, labels):
        time.sleep(0.1)
        return torch.nn.functional.cross_entropy(logits, labels)
"""


def short(folder) -> Project:
    """The tiny study with runs of some seconds: one fails, one leaves the time to be hit."""
    project = copy(folder)
    mine = project.root / "mine.py"
    mine.write_text(mine.read_text() + SLOW)
    text = project.study.read_text()
    text = text.replace("steps: 6,", "steps: 60,").replace("validate_every: 3", "validate_every: 5")
    for loss in ("lovasz_softmax", "weighted_cross_entropy", "published_generalized_dice_graph"):
        text = re.sub(rf"  {loss}: .*\n", "", text)
    project.study.write_text(text + '  slow: {name: "mine.py:Slow"}\n')
    return project


def start(project: Project, *words: str) -> subprocess.Popen:
    command = ["snakemake", TABLES, "--cores", "2", *words, "--configfile", str(project.study)]
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=project.root,
        env=environment(project.root),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(process: subprocess.Popen, pattern: str) -> None:
    """Reads what it prints until a line has the pattern."""
    for line in process.stdout:
        if re.search(pattern, line):
            return
    raise AssertionError(f"ended without a line like {pattern}")


def tell(jobs: list[psutil.Process], what: Callable[[psutil.Process], None]) -> None:
    for job in jobs:
        with contextlib.suppress(psutil.NoSuchProcess):  # a job may end just now
            what(job)


def kill(process: subprocess.Popen, *, with_jobs: bool) -> list[psutil.Process]:
    """Kills Snakemake, and its jobs or not; returns the jobs that are alive."""
    jobs = psutil.Process(process.pid).children(recursive=True)
    victims = [psutil.Process(process.pid), *(jobs if with_jobs else [])]
    tell(victims, psutil.Process.kill)
    process.wait()
    if with_jobs:
        psutil.wait_procs(jobs)
    return [job for job in jobs if job.is_running()]


def finish(process: subprocess.Popen) -> str:
    text = process.communicate(timeout=900)[0]
    assert process.returncode == 0, text
    return text


def tables(project: Project) -> dict[str, pd.DataFrame]:
    """All of a study's tables, times aside; equal frames were equal bits to nine digits."""
    found = {}
    for path in sorted((project.results / "tables").glob("*.csv")):
        table = pd.read_csv(path)
        found[path.name] = table[[name for name in table if not TIMES.search(name)]]
    return found


def predictions(project: Project) -> dict[str, bytes]:
    runs = project.results / "runs"
    return {str(path.relative_to(runs)): path.read_bytes() for path in runs.rglob("*.npz")}


def assert_equal(project: Project, expected: Project) -> None:
    ours, theirs = tables(project), tables(expected)
    assert set(ours) == set(theirs)
    for name, table in theirs.items():
        pd.testing.assert_frame_equal(ours[name], table, check_exact=True, obj=name)
    assert predictions(project) == predictions(expected)
    assert not list(project.results.rglob("checkpoint*"))


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    project = short(tmp_path_factory.mktemp("expected") / "project")
    finish(start(project))
    return project


@pytest.fixture
def project(tmp_path):
    return short(tmp_path / "project")


def test_the_same_study_twice_gives_the_same_tables(expected, project):
    finish(start(project, "--cores", "1"))
    assert_equal(project, expected)


MOMENTS = (
    "subjects written",
    "cases verified",
    "^dice seed 1: step 20/",
    "^slow seed 1: step 10/",
    "raises seed 1 failed",
    "^slow seed 1: step 45/",
    "generalized_dice seed 1: step 10/",
    "generalized_dice seed 1: step 60/",
    "rule compare",
)


def test_a_study_killed_with_its_jobs_again_and_again_ends_the_same(expected, project):
    draw = random.Random(6)
    text = ""
    for moment in MOMENTS:
        process = start(project)
        try:
            wait_for(process, moment)
        except AssertionError:  # a later call finds the work of that moment done
            continue
        time.sleep(draw.random())
        if process.poll() is None:
            kill(process, with_jobs=True)
    text = finish(start(project))
    assert "unlock" not in text
    assert_equal(project, expected)


def test_a_killed_snakemake_whose_jobs_live_on_is_followed_at_once(expected, project):
    process = start(project)
    wait_for(process, "^slow seed 1: step 20/")
    jobs = kill(process, with_jobs=False)
    tell(jobs, psutil.Process.suspend)  # or they would be done before Snakemake has begun
    process = start(project)
    wait_for(process, "waiting for another process that trains this run")
    tell(jobs, psutil.Process.resume)
    finish(process)
    assert_equal(project, expected)


def test_what_a_job_finished_after_snakemake_was_killed_is_not_trained_again(expected, project):
    process = start(project)
    wait_for(process, "^slow seed 1: step 20/")
    psutil.wait_procs(kill(process, with_jobs=False))
    text = finish(start(project))
    assert "slow seed 1: goes on at step 60" in text
    assert_equal(project, expected)


def test_a_second_snakemake_on_the_same_study_is_refused_and_harms_nothing(expected, project):
    first = start(project)
    wait_for(first, "^slow seed 1: step 10/")
    second = start(project)
    text = second.communicate(timeout=300)[0]
    assert second.returncode != 0
    assert "cannot be locked" in text
    finish(first)
    assert_equal(project, expected)


def test_a_run_that_is_forced_starts_anew(project):
    process = start(project)
    wait_for(process, "^slow seed 1: step 20/")
    kill(process, with_jobs=True)
    status = "results/tiny/runs/tiny/slow/lr-0.003/seed-1/status.json"
    assert list(project.results.rglob("slow/**/checkpoint.bin"))
    text = finish(start(project, "--forcerun", status))
    assert "slow seed 1: step 5/60" in text
    assert "slow seed 1: goes on" not in text
