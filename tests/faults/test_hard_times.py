"""What a study meets on somebody's machine: every loss breaks in its way, disks fill up or refuse.

The faults of the machine are real: file systems in memory, mounted where this user may do so.
"""

import html
import re
import subprocess
import sys

import pytest

from tests.faults.test_kill_workflow import assert_equal, short
from tests.workflow.conftest import Project, copy, environment
from workflow import files

pytestmark = pytest.mark.faults

UNSHARE = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
MAY_MOUNT = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]


def may_mount() -> bool:
    try:
        return subprocess.run(MAY_MOUNT, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


needs_mounts = pytest.mark.skipif(not may_mount(), reason="this user may mount nothing")

BREAKS = """
import signal
class NaN(Raises):
    def forward(self, logits, labels):
        self.calls += 1
        value = torch.nn.functional.cross_entropy(logits, labels)
        return value * float("nan") if self.calls > 5 else value
class Map(Raises):
    def forward(self, logits, labels):
        self.calls += torch.is_grad_enabled()  # in training; validation has words of its own
        reduction = "none" if self.calls > 3 else "mean"
        return torch.nn.functional.cross_entropy(logits, labels, reduction=reduction)
class Endless(Raises):
    def forward(self, logits, labels):
        self.calls += 1
        if self.calls > 5:  # the time is over now, not in ten hours
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        while self.calls > 5:
            pass
        return torch.nn.functional.cross_entropy(logits, labels)
"""


def test_each_loss_breaks_in_its_way_and_the_report_tells_of_all(tmp_path):
    project = copy(tmp_path / "project")
    mine = project.root / "mine.py"
    mine.write_text(mine.read_text() + BREAKS)
    text = project.study.read_text().partition("  lovasz_softmax")[0] + "time_limit: 600\n"
    for name in ("Raises", "NaN", "Map", "Endless"):
        text = text.replace("  dice: {}\n", f'  dice: {{}}\n  {name}: {{name: "mine.py:{name}"}}\n')
    project.study.write_text(text)
    done = project.snakemake()
    assert done.returncode == 0, done.stdout
    runs = files.read_table(project.results / "tables" / "runs.csv").set_index("loss")
    assert runs["status"].drop("all_background").to_dict() == {
        "dice": "ok", "Raises": "failed", "NaN": "diverged", "Map": "failed", "Endless": "failed",
    }  # fmt: skip
    assert runs.loc["Map", "reason"].startswith("ValueError: the loss must be a scalar, its shape")
    assert runs.loc["NaN", "reason"] == "the loss is nan at step 4"
    assert runs.loc["Endless", "reason"].endswith("time limit of 600 minutes")
    page = html.unescape((project.results / "report.html").read_text())
    for loss in ("Raises", "NaN", "Map", "Endless"):
        assert loss in page
        assert runs.loc[loss, "reason"] in page
    cases = files.read_table(project.results / "tables" / "cases.csv")
    assert set(cases["loss"]) == {"dice", "NaN", "all_background"}


def in_mounts(project: Project, script: str) -> str:
    """What a shell prints that may mount; ``$SNAKEMAKE`` is the call for the study's tables."""
    words = [sys.executable, "-m", "snakemake", "results/tiny/tables/runs.csv", "--cores", "2"]
    call = " ".join([*words, "--configfile", str(project.study)])
    return subprocess.run(
        [*UNSHARE, script],
        cwd=project.root,
        env=environment(project.root) | {"SNAKEMAKE": call},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    ).stdout


@needs_mounts
@pytest.mark.parametrize("room", ["60k", "300k"])
def test_a_full_disk_stops_the_study_and_the_next_call_ends_it_as_if_nothing_had_been(
    tmp_path, room, expected
):
    project = short(tmp_path / "project")
    (project.root / "results").mkdir()
    said = in_mounts(
        project,
        f"mount -t tmpfs -o size={room} none results && $SNAKEMAKE; echo FIRST $?;"
        "mount -o remount,size=1g results && $SNAKEMAKE; echo SECOND $?;"
        "cp -r results kept",
    )
    assert "FIRST 1" in said
    assert re.search(r"results/\S+: No space left on device", said), said
    assert "this should not have happened" not in said
    assert "SECOND 0" in said, said
    (project.root / "results").rmdir()
    (project.root / "kept").rename(project.root / "results")
    assert_equal(project, expected)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    project = short(tmp_path_factory.mktemp("expected") / "project")
    done = project.snakemake("results/tiny/tables/runs.csv")
    assert done.returncode == 0, done.stdout
    return project


@needs_mounts
def test_results_that_cannot_be_written_stop_the_study_by_name(tmp_path):
    project = copy(tmp_path / "project")
    (project.root / "results").mkdir()
    said = in_mounts(
        project,
        "mount -t tmpfs -o ro none results && $SNAKEMAKE; echo ENDED $?;"
        f"{sys.executable} -m workflow check tiny.yaml; echo CHECKED $?",
    )
    assert "ENDED 1" in said
    assert re.search(r"results\S*: Read-only file system|Read-only file system: '\S*results", said)
    assert "Traceback" not in said
    assert "results: not writable" in said
    assert "CHECKED 1" in said
