"""The profiles: where a study runs, and nothing of what it is."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROFILES = {
    path.parent.name: yaml.safe_load(path.read_text())
    for path in (ROOT / "profiles").glob("*/config.yaml")
}


def test_there_is_one_for_each_place():
    assert set(PROFILES) == {"default", "gpu", "slurm"}


@pytest.mark.parametrize("name", PROFILES)
def test_a_failed_or_killed_job_stops_no_other_and_is_made_again(name):
    """A profile replaces the default one as a whole, so each must say it."""
    profile = PROFILES[name]
    assert profile["keep-going"] and profile["rerun-incomplete"]


def test_a_gpu_is_used_by_one_run_unless_it_is_shared():
    assert PROFILES["default"]["resources"] == {"gpu_slots": 1}
    assert PROFILES["gpu"]["resources"]["gpu_slots"] > 1
    # a limit here would be one for the whole cluster
    assert "resources" not in PROFILES["slurm"]


def test_every_job_that_trains_asks_for_memory_minutes_and_a_slot_of_the_gpu():
    rules = (ROOT / "workflow" / "rules" / "train.smk").read_text()
    training = rules.count("python -m workflow train") + rules.count("python -m workflow choose")
    assert training == 3
    for request in (
        'mem_mb=needed(to_train, "mem_mb")', 'runtime=needed(to_train, "minutes")', "gpu=int(GPU)",
        "gpu_slots=int(GPU)",
    ):  # fmt: skip
        assert rules.count(f" {request}") == training, request


def test_every_other_job_whose_work_grows_asks_for_what_it_needs():
    heavy = (
        "prepare", "tables", "figures", "report", "paper", "retell", "reproduce", "collect",
        "analyse", "tell",
    )  # fmt: skip
    rules = "".join(f.read_text() for f in sorted((ROOT / "workflow" / "rules").glob("*.smk")))
    for command in heavy:
        (before,) = re.findall(rf"rule \w+:(?:(?!rule \w+:)[\s\S])*?-m workflow {command} ", rules)
        assert before.count("needed(to_") == 2, command


def test_killed_jobs_of_slurm_are_tried_again():
    assert PROFILES["slurm"]["executor"] == "slurm"
    assert PROFILES["slurm"]["retries"] >= 1


def test_the_executor_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (plugin,) = project["optional-dependencies"]["slurm"]
    name = plugin.partition(">")[0]
    pins = [line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()]
    assert {name, f"{name}-jobstep"} <= set(pins)
