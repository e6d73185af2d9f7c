"""Names and texts of a study that are code in some language stay names, from data to paper."""

import contextlib
import os
import re
from pathlib import Path

import pytest
import yaml

from tests.faults.faulty import described, renamed, write
from tests.workflow.conftest import copy
from workflow.__main__ import _overrides
from workflow.study import StudyError, load

SHELL = "$(touch pwned) `touch pwned` ; touch pwned | 'q' \"d\" \\"
HTML = "</title></td><script>alert(1)</script><img src=x onerror=alert(1)>"
TYPST = '#panic("evaluated") $panic("math")$ ] } *bold* @missing <label>'
TEMPLATE = "{{ 7 * 7 }} {% raise %} {input} {nothing}"
MATPLOTLIB = r"$\frac{$"
CLASS = f"{SHELL} {HTML} {TYPST} {TEMPLATE}"
CASE = "$(touch pwned) `touch pwned` ; 'q' <img src=x onerror=alert(1)> #panic(1) {} {{"
FOLDER = "my data; touch pwned 'q' {} $(touch pwned)"
LOSS = "it's $(touch pwned) {input}.py"

STUDY = """
dataset: {source: folder, name: hostile, subject: '.*'}
splits: {train: 0.5, validation: 0.25, test: 0.25}
network: {channels: [4, 8], strides: [2]}
training: {steps: 4, validate_every: 2, patch_size: [8, 8, 8]}
evaluation: {window: [16, 16, 16], nsd_tolerance: 2.0}
comparison: {reference_loss: dice}
seeds: [1]
losses: {dice: }
"""
OWN = """
import torch
class Own(torch.nn.Module):
    calls = 0
    def forward(self, logits, labels):
        self.calls += 1
        if self.calls > 3:  # the trial before the study is passed
            raise ValueError(TEXT)
        return torch.nn.functional.cross_entropy(logits, labels)
"""


OBJECTS = (
    "!!python/object/apply:os.system ['touch pwned']",
    "!!python/object/new:subprocess.Popen [['touch', 'pwned']]",
    "!!python/name:os.system",
)


@pytest.mark.parametrize("tagged", OBJECTS)
def test_a_study_makes_no_objects_of_python(tagged, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = tmp_path / "study.yaml"
    study.write_text(f"title: {tagged}\n{STUDY}")
    with pytest.raises(StudyError, match=r"study\.yaml: cannot be read as YAML, .*python/"):
        load(study)
    study.write_text(f"title: sound\n{STUDY}")
    # from the command line a tag is text at most
    for overrides in (_overrides([f"title={tagged}"]), {"losses": tagged}):
        with contextlib.suppress(StudyError):
            load(study, overrides)
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


def test_a_study_that_is_a_template_for_snakemake_is_refused_by_the_check(tmp_path, monkeypatch):
    """Snakemake itself would run it, so this is what somebody else's study is checked with."""
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(
        f"__use_yte__: true\ntitle: ?__import__('os').mkdir('pwned')\n{STUDY}"
    )
    with pytest.raises(StudyError, match=r"study\.yaml: __use_yte__: unknown key"):
        load("study.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


def test_snakemake_makes_no_objects_of_a_study(tmp_path):
    project = copy(tmp_path / "project")
    project.study.write_text(f"title: {OBJECTS[0]}\n{STUDY}")
    done = project.snakemake("--dry-run")
    assert done.returncode != 0
    assert "not valid JSON or YAML" in done.stdout
    assert not (project.root / "pwned").exists()


@pytest.mark.faults
@pytest.mark.parametrize("name", ["{data}", "a\nb", os.fsdecode(b"\xff")])
def test_a_name_that_snakemake_would_misread_is_refused_by_name(name, tmp_path):
    project = copy(tmp_path / "project")
    renamed(f"{name}.nii.gz")(write(project.root / "data"))
    study = yaml.safe_load(STUDY) | {"title": "misread"}
    study["dataset"]["root"] = "data"
    project.study.write_text(yaml.safe_dump(study))
    for done in (project.workflow("check", "tiny.yaml"), project.snakemake("--dry-run")):
        assert done.returncode != 0, done.stdout
        assert repr(name)[1:-1] in done.stdout
        assert "rename" in done.stdout
        assert "Traceback" not in done.stdout


@pytest.mark.faults
def test_code_in_names_and_texts_is_never_run(tmp_path):
    project = copy(tmp_path / "project")
    data = write(project.root / FOLDER)
    renamed(f"{CASE}.nii.gz")(data)
    described(lambda declared: declared["labels"].update({"1": CLASS, "2": MATPLOTLIB}))(data)
    reason = f"{HTML} {TYPST} {TEMPLATE}"
    (project.root / LOSS).write_text(f"TEXT = {reason!r}\n{OWN}")
    study = yaml.safe_load(STUDY)
    study["title"] = f"{SHELL} {HTML} {TYPST} {TEMPLATE} {MATPLOTLIB}"
    study["dataset"]["root"] = FOLDER
    study["losses"]["own"] = {"name": f"{LOSS}:Own"}
    project.study.write_text(yaml.safe_dump(study))
    done = project.snakemake()
    assert done.returncode == 0, done.stdout
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith("pwned")]
    page = (project.results / "report.html").read_text()
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "{{ 7 * 7 }}" in page
    assert re.search(r"&lt;script&gt;alert\(1\)", page)
    assert "evaluated" in page
    assert (project.results / "paper.pdf").stat().st_size
