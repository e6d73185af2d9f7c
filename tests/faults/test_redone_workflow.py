"""Snakemake redoes after each change what the table of the docs says, and nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_redone import ARMS, CHANGES, FIXED, RATED, TUNED, changed, documented, how_many
from tests.workflow.conftest import environment

ROOT = Path(__file__).parent.parent.parent
RULES = {"data set": "prepare", "splits": "split", "trials": "trial", "runs": "train"}
# what else a change may redo: writing the study, choosing rates, and all that comes after training
BESIDE = {"dataset_phantom", "dataset_decathlon", "configure", "choose", "rates", "compare"}
BESIDE |= {"figures", "report", "collect", "analyse", "experiment_report"}
BASES = {"tuned": TUNED, "rated": RATED, "arms": ARMS, "fixed": FIXED}
DECIDES = {"rates": "rated", "arms": "arms", "training.learning_rate": "fixed"}
SAMPLE = (
    "title", "time_limit", "seeds", "losses", "dataset.phantom.noise", "external.name",
    "splits.seed", "training.steps", "training.patch_size", "evaluation.nsd_tolerance",
    "comparison.margin", "comparison.checkpoint", "tuning.grid",
)  # fmt: skip


def plans(folder: Path, base: str, keys) -> dict:
    """Of each change: the jobs to be done and all jobs, by rule."""
    after = {key: changed(BASES[base], key) for key in keys}
    work = {"before": BASES[base], "after": {"nothing": BASES[base]} | after}
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.planning"],
        cwd=folder,
        env=environment(ROOT),
        input=json.dumps(work),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def amounts(plan: dict) -> dict[str, str]:
    """None, some or all of the jobs of each step."""
    jobs = {step: plan.get(rule, (0, 0)) for step, rule in RULES.items()}
    return {step: how_many(*counts) for step, counts in jobs.items()}


def assert_as_documented(found: dict) -> None:
    assert not any(again for again, _ in found.pop("nothing").values())
    said = {key: documented(key) for key in found}
    assert {key: amounts(plan) for key, plan in found.items()} == said
    for key, plan in found.items():
        again = {rule for rule, (number, _) in plan.items() if number}
        assert again <= BESIDE | set(RULES.values()), key
        assert {"configure"} < again, key
        assert again & {"report", "experiment_report"}, key


def test_a_sample_of_keys_redoes_what_the_docs_say(tmp_path):
    assert_as_documented(plans(tmp_path, "tuned", SAMPLE))


@pytest.mark.faults
@pytest.mark.parametrize("base", BASES)
def test_each_key_redoes_what_the_docs_say(base, tmp_path):
    keys = [key for key in CHANGES if DECIDES.get(key, "tuned") == base]
    assert keys
    assert_as_documented(plans(tmp_path, base, keys))
