"""rareclass: which segmentation loss survives class imbalance? A table of contents."""

import os
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

# the form `import workflow.x` would overwrite Snakemake's own name `workflow`
from workflow import paths, provenance
from workflow.data.faults import DataError
from workflow.study import StudyError, load

# a study replaces the default one as a whole, so Snakemake's merging `configfile:` is not used
study_files = list(map(Path, workflow.config_settings.configfiles)) or [
    Path(workflow.basedir) / "config" / "default.yaml"
]
if len(study_files) > 1:
    raise WorkflowError("one study at a time: give a single file with --configfile")
NAME = study_files[0].stem
if NAME in ("reference", "reference-report") or not re.fullmatch(r"[\w.+ -]+", NAME):
    raise WorkflowError(f"{study_files[0]}: call it otherwise, its name is a folder of results/")
try:
    STUDY = load(study_files[0], workflow.config_settings.config)
    # a job that a scheduler starts reads this file again: then it need not check, nor load, as much
    if workflow.is_main_process:
        from workflow import check

        check.losses_work(STUDY)
    # jobs of a scheduler run elsewhere, and whether there is a GPU cannot be seen from here
    SCHEDULED = workflow.remote_exec or workflow.resource_settings.nodes is not None
    if SCHEDULED:
        GPU = STUDY.training.accelerator == "cuda"
    else:
        from workflow.training.network import accelerator

        GPU = accelerator(STUDY.training.accelerator).type == "cuda"
except (StudyError, DataError) as error:
    raise WorkflowError(str(error)) from None

RESULTS = str(paths.results(NAME))
CONFIG = f"{RESULTS}/config.yaml"
# folder of an arm below that of the study -> its study; a plain study is the only arm, without one
ARMS = {paths.arm(name): study for name, study in STUDY.variants.items()}
FOLDER = f"{RESULTS}{{arm}}"
# folder below resources/ -> the data set that is prepared there
DATA = {paths.resources(data).name: data for study in ARMS.values() for data in study.data_sets()}
# relative, so that a moved project reruns nothing
CODE = Path(os.path.relpath(workflow.basedir))

# `python` in a rule is the interpreter that runs Snakemake, also where no environment is activated
shell.prefix(f'export PATH="{Path(sys.executable).parent}:$PATH"; ')


# Jobs run in the environment that Snakemake itself runs in, whose packages environment.yml and
# constraints.txt pin. This names the system they were tested on; with `--sdm apptainer` give an
# image in which they are installed.
container: "docker://python:3.11-bookworm"


wildcard_constraints:
    arm="(/arms/[^/]+)?",
    data="[^/]+",
    dataset="[^/]+",
    loss="[^/]+",
    rate="[^/]+",
    seed=r"\d+",


localrules:
    all,
    configure,


rule all:
    default_target: True
    input:
        f"{RESULTS}/report.html",
        [] if STUDY.is_experiment else f"{RESULTS}/paper.pdf",


include: "workflow/rules/resume.smk"
include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/reference.smk"


if STUDY.is_experiment:

    include: "workflow/rules/experiment.smk"

else:

    include: "workflow/rules/compare.smk"
    include: "workflow/rules/report.smk"
    include: "workflow/rules/certificate.smk"


onsuccess:
    forget_finished_runs()
    for made in (f"{RESULTS}/report.html", f"{RESULTS}/paper.pdf"):
        if Path(made).exists():
            print(f"{Path(made).stem}: {made}")
