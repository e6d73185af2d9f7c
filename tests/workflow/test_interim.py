"""A study whose runs are not all done has a report that says so."""

import shutil


def test_runs_that_are_missing_are_named_and_the_others_told(changed):
    interim = ("interim", "results/tiny/config.yaml")
    shutil.rmtree(changed.results / "runs" / "tiny" / "lovasz_softmax")
    before = (changed.results / "report.html").read_bytes()
    done = changed.workflow(*interim)
    assert done.returncode == 0, done.stdout
    page = (changed.results / "interim" / "report.html").read_text()
    assert "1 run of the study is missing" in page
    assert "1 run of the study, of 1 loss, left no result yet; 1 of these lack every run." in page
    assert "no such idea" in page and "End of its log" in page  # of the run that failed
    assert (changed.results / "report.html").read_bytes() == before
    shutil.rmtree(changed.results / "runs")
    nothing = changed.workflow(*interim)
    assert nothing.returncode == 1 and "no run has finished yet" in nothing.stdout
