"""A study whose runs are not all done has a report that says so."""

import shutil
import subprocess
import sys


def interim(project):
    return subprocess.run(
        [sys.executable, "-m", "workflow", "interim", "results/tiny/config.yaml"],
        cwd=project.root, capture_output=True, text=True,
    )  # fmt: skip


def test_runs_that_are_missing_are_named_and_the_others_told(changed):
    shutil.rmtree(changed.results / "runs" / "tiny" / "lovasz_softmax")
    before = (changed.results / "report.html").read_bytes()
    done = interim(changed)
    assert done.returncode == 0, done.stderr
    page = (changed.results / "interim" / "report.html").read_text()
    assert "1 run of the study is missing" in page
    assert "1 run of the study, of 1 loss, left no result yet; 1 of these lack every run." in page
    assert "no such idea" in page  # the log of the run that failed, too
    assert "End of its log" in page
    assert (changed.results / "report.html").read_bytes() == before
    shutil.rmtree(changed.results / "runs")
    nothing = interim(changed)
    assert nothing.returncode == 1 and "no run has finished yet" in nothing.stderr
