# One job is one run: a loss, a learning rate and a seed.

from losses import sources as loss_sources
from workflow.training.network import accelerator

RUN_FILES = ("curve.csv", "cases.csv", "predictions.npz", "status.json")
RUNS = [
    f"{RESULTS}/runs/{paths.run(STUDY, loss, seed)}"
    for seed in STUDY.seeds
    for loss in STUDY.losses
]
TRAINING_CODE = code(
    "workflow/training",
    "workflow/evaluation",
    "workflow/data/patches.py",
    "workflow/data/prepare.py",
)


def run_settings(wildcards):
    """A change of any of it, and of nothing else, retrains the run."""
    loss_code = provenance.code_sha256(loss_sources(STUDY.losses[wildcards.loss].name))
    return f"{STUDY.run_fingerprint(wildcards.loss)} {loss_code}"


rule train:
    input:
        prepared=rules.prepare.output,
        splits=rules.split.output,
        config=ancient(rules.configure.output.config),
    output:
        expand(
            f"{RESULTS}/runs/{STUDY.dataset.name}/{{{{loss}}}}/lr-{{{{rate}}}}/seed-{{{{seed}}}}/{{file}}",
            file=RUN_FILES,
        ),
    params:
        settings=run_settings,
        code=TRAINING_CODE,
        prepared=f"{RESOURCES}/prepared",
        out=lambda wildcards, output: str(Path(output[0]).parent),
    log:
        f"{RESULTS}/logs/train/{{loss}}-lr-{{rate}}-seed-{{seed}}.log",
    threads: 1
    resources:
        mem_mb=2000,
        gpu=int(accelerator(STUDY.training.accelerator).type == "cuda"),
    shell:
        "{PYTHON} -m workflow train {input.config:q} {params.prepared:q} {input.splits:q} "
        "{params.out:q} --loss {wildcards.loss:q} --rate {wildcards.rate} "
        "--seed {wildcards.seed} --log {log:q}"
