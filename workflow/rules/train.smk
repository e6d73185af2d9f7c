# One job is one run: a loss, a learning rate and a seed.

from losses import sources as loss_sources

RUN = f"{RESULTS}/runs/{STUDY.dataset.name}/{{loss}}/lr-{{rate}}/seed-{{seed}}"
TRAINING_CODE = code(
    "workflow/training",
    "workflow/evaluation",
    "workflow/data/patches.py",
    "workflow/data/prepare.py",
)
LOSS_CODE = {
    label: provenance.code_sha256(loss_sources(loss.name)) for label, loss in STUDY.losses.items()
}


# the parameters are all that the result depends on: a change of any, and of nothing else, retrains
rule train:
    input:
        prepared=rules.prepare.output,
        splits=rules.split.output,
    output:
        curve=f"{RUN}/curve.csv",
        cases=f"{RUN}/cases.csv",
        reliability=f"{RUN}/reliability.csv",
        predictions=f"{RUN}/predictions.npz",
        status=f"{RUN}/status.json",
    log:
        f"{RESULTS}/logs/train/{{loss}}-lr-{{rate}}-seed-{{seed}}.log",
    threads: 1
    resources:
        mem_mb=2000,
        gpu=int(GPU),
    params:
        settings=lambda wildcards: STUDY.run_settings(wildcards.loss).model_dump_json(),
        loss_code=lambda wildcards: LOSS_CODE[wildcards.loss],
        code=TRAINING_CODE,
    shell:
        "python -m workflow train {params.settings:q} {input.prepared:q} {input.splits:q} "
        "{output.status:q} --loss {wildcards.loss:q} --rate {wildcards.rate} "
        "--seed {wildcards.seed} --log {log:q}"
