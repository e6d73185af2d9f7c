"""A finished study against a committed reference, as a user meets it."""

import json
import shutil

import pytest


@pytest.fixture
def committed(changed):
    """The finished study, whose own results were made its reference."""
    reference = changed.root / "results" / "reference" / "tiny"
    shutil.copytree(changed.results / "tables", reference / "tables")
    shutil.copy2(changed.results / "config.yaml", reference)
    sealed = changed.workflow("seal")
    assert sealed.returncode == 0, sealed.stdout
    changed.reference = reference
    return changed


def test_finished_runs_are_verified_without_a_run_and_told_in_the_report(committed):
    jobs = committed.planned("--cores", "1", "verify")
    assert "train" not in jobs and {"reproduce", "report", "verify"} <= set(jobs)
    done = committed.snakemake("verify")
    assert done.returncode == 0, done.stdout
    assert "Reproduced, compared with the reference tiny" in done.stdout
    certificate = json.loads((committed.results / "reproduction.json").read_text())
    assert certificate["verdict"] == "reproduced"
    assert 'id="reproduction"' in (committed.results / "report.html").read_text()
    assert set(committed.planned()) == set()
    # a number of the reference is changed by hand
    summary = committed.reference / "tables" / "summary.csv"
    summary.write_text(summary.read_text().replace("0.", "0.1", 1))
    tampered = committed.snakemake("verify")
    assert tampered.returncode != 0
    assert "tables/summary.csv: changed" in tampered.stdout
    told = (committed.results / "report.html").read_text()
    assert "is not as it was committed" in told


def test_the_reference_is_told_without_data_or_runs(committed):
    shutil.rmtree(committed.results)
    shutil.rmtree(committed.root / "resources")
    assert set(committed.planned("--cores", "1", "reference_report")) == {"reference_report"}
    done = committed.snakemake("reference_report")
    assert done.returncode == 0, done.stdout
    folder = committed.root / "results" / "reference-report" / "tiny"
    assert (folder / "report.html").exists() and (folder / "paper.pdf").exists()
    assert sorted(p.name for p in committed.reference.iterdir()) == [
        "SHA256SUMS", "config.yaml", "tables",
    ]  # fmt: skip


def test_a_study_without_a_reference_says_so(changed):
    done = changed.snakemake("verify")
    assert done.returncode != 0
    assert "tiny: no reference results are committed for this study" in done.stdout
