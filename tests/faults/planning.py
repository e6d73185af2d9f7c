"""What Snakemake would do again after a change of a study, without training anything.

``python -m tests.faults.planning`` reads ``{"before": study, "after": {name: study}}`` as JSON,
pretends in the working directory that the first study has been done (``snakemake --touch``), and
prints for each other one ``{rule: [jobs to be done, all jobs]}``. It is one process for all,
because one start of Snakemake takes longer than all its plans.
"""

import json
import logging
import sys
from collections import Counter
from pathlib import Path

import yaml
from snakemake.api import SnakemakeApi
from snakemake.io import is_flagged
from snakemake.settings.enums import Quietness
from snakemake.settings.types import (
    ConfigSettings,
    DAGSettings,
    OutputSettings,
    ResourceSettings,
)

SNAKEFILE = Path(__file__).parent.parent.parent / "Snakefile"
STUDY = Path("changed.yaml")
REPORT = f"results/{STUDY.stem}/report.html"


def jobs(study: dict, executor: str = "dryrun") -> list:
    """``(job, whether it is to be done)`` of all that the report of the study stands on."""
    touch = executor == "touch"
    STUDY.write_text(yaml.safe_dump(study))
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL}, dryrun=not touch)) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(configfiles=[STUDY]),
            snakefile=SNAKEFILE,
            workdir=Path.cwd(),
        )
        settings = DAGSettings(targets={REPORT}, forceall=touch)
        workflow.dag(settings).execute_workflow(executor=executor)
        dag = workflow._workflow.dag
        return [(job, dag.needrun(job)) for job in dag.jobs]


def pretend(study: dict) -> None:
    """Leaves what a finished study does: files, and Snakemake's notes of how they were made."""
    for job, _ in jobs(study):
        for name in job.output:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            (Path.mkdir if is_flagged(name, "directory") else Path.touch)(Path(name))
    jobs(study, "touch")


def plan(study: dict) -> dict[str, list[int]]:
    found = jobs(study)
    everything = Counter(job.rule.name for job, _ in found)
    again = Counter(job.rule.name for job, needed in found if needed)
    return {rule: [again[rule], number] for rule, number in everything.items()}


if __name__ == "__main__":
    logging.disable()
    work = json.load(sys.stdin)
    # Snakemake prints the plans as well
    answers, sys.stdout = sys.stdout, sys.stderr
    pretend(work["before"])
    json.dump({name: plan(study) for name, study in work["after"].items()}, answers)
