# One job is one run: a loss, a learning rate and a seed.

from losses import sources as loss_sources
from workflow.training.network import accelerator

RUN = f"{RESULTS}/runs/{STUDY.dataset.name}/{{loss}}/lr-{{rate}}/seed-{{seed}}"
TRAINING_CODE = code(
    "workflow/training",
    "workflow/evaluation",
    "workflow/data/patches.py",
    "workflow/data/prepare.py",
)
# a change of any of it, and of nothing else, retrains the runs of a loss
SETTINGS = {
    label: f"{STUDY.run_fingerprint(label)} {provenance.code_sha256(loss_sources(loss.name))}"
    for label, loss in STUDY.losses.items()
}


# what would fail in every run of a loss fails here, before the first
rule trial:
    input:
        prepared=rules.prepare.output,
        splits=rules.split.output,
        config=ancient(CONFIG),
    output:
        f"{RESULTS}/trial.json",
    log:
        f"{RESULTS}/logs/trial.log",
    params:
        settings=list(SETTINGS.values()),
    shell:
        "python -m workflow trial {input.config:q} {input.prepared:q} {input.splits:q} "
        "{output:q} --log {log:q}"


rule train:
    input:
        prepared=rules.prepare.output,
        splits=rules.split.output,
        trial=ancient(f"{RESULTS}/trial.json"),
        config=ancient(CONFIG),
    output:
        curve=f"{RUN}/curve.csv",
        cases=f"{RUN}/cases.csv",
        predictions=f"{RUN}/predictions.npz",
        status=f"{RUN}/status.json",
    log:
        f"{RESULTS}/logs/train/{{loss}}-lr-{{rate}}-seed-{{seed}}.log",
    threads: 1
    resources:
        mem_mb=2000,
        gpu=int(accelerator(STUDY.training.accelerator).type == "cuda"),
    params:
        settings=lambda wildcards: SETTINGS[wildcards.loss],
        code=TRAINING_CODE,
    shell:
        "python -m workflow train {input.config:q} {input.prepared:q} {input.splits:q} "
        "{output.status:q} --loss {wildcards.loss:q} --rate {wildcards.rate} "
        "--seed {wildcards.seed} --log {log:q}"
