# One job is one run: a loss, a learning rate and a seed. A study that tunes runs trials first.

from losses import sources as loss_sources
from workflow.training.checkpoint import training_code

RUN = f"{FOLDER}/runs/{{dataset}}/{{loss}}/lr-{{rate}}/seed-{{seed}}"
TUNED = f"{RESULTS}/tuning/{STUDY.dataset.name}"
TRAINING_CODE = training_code()
LOSS_CODE = {
    loss.name: provenance.code_sha256(loss_sources(loss.name))
    for study in ARMS.values()
    for loss in study.losses.values()
}


# the parameters are all that the result depends on: a change of any, and of nothing else, retrains
rule train:
    input:
        prepared=lambda wildcards: prepared(wildcards.arm),
        splits=rules.split.output,
        trials=lambda wildcards: f"{TUNED}/{wildcards.loss}/trials.csv" if STUDY.tuning else [],
    output:
        **({"signals": f"{RUN}/signals.csv"} if STUDY.training.signals_every else {}),
        curve=f"{RUN}/curve.csv",
        cases=f"{RUN}/cases.csv",
        reliability=f"{RUN}/reliability.csv",
        predictions=f"{RUN}/predictions.npz",
        status=f"{RUN}/status.json",
    log:
        f"{FOLDER}/logs/train/{{dataset}}/{{loss}}-lr-{{rate}}-seed-{{seed}}.log",
    threads: 1
    resources:
        mem_mb=needed(to_train, "mem_mb"),
        runtime=needed(to_train, "minutes"),
        gpu=int(GPU),
        gpu_slots=int(GPU),
        # no parameter: another limit repeats no run
        time_limit=lambda wildcards: str(ARMS[wildcards.arm].time_limit or 0),
    params:
        settings=lambda wildcards: ARMS[wildcards.arm]
        .run_settings(wildcards.loss)
        .model_dump_json(),
        loss_code=lambda wildcards: LOSS_CODE[ARMS[wildcards.arm].losses[wildcards.loss].name],
        code=TRAINING_CODE,
    shell:
        "python -m workflow train {params.settings:q} {input.splits:q} {output.status:q} "
        "--prepared {input.prepared:q} --loss {wildcards.loss:q} --rate {wildcards.rate} "
        "--seed {wildcards.seed} --trials {input.trials:q} "
        "--time-limit {resources.time_limit} --log {log:q}"


if STUDY.tuning:

    rule trial:
        input:
            prepared=prepared(""),
            splits=expand(rules.split.output, arm=""),
        output:
            curve=f"{TUNED}/{{loss}}/lr-{{rate}}/curve.csv",
            status=f"{TUNED}/{{loss}}/lr-{{rate}}/status.json",
        log:
            f"{RESULTS}/logs/trial/{{loss}}-lr-{{rate}}.log",
        threads: 1
        resources:
            mem_mb=needed(to_train, "mem_mb"),
            runtime=needed(to_train, "minutes"),
            gpu=int(GPU),
            gpu_slots=int(GPU),
            time_limit=str(STUDY.time_limit or 0),
        params:
            settings=lambda wildcards: STUDY.trial_settings(wildcards.loss).model_dump_json(),
            seed=STUDY.tuning.seed,
            loss_code=lambda wildcards: LOSS_CODE[STUDY.losses[wildcards.loss].name],
            code=TRAINING_CODE,
        shell:
            "python -m workflow train {params.settings:q} {input.splits:q} {output.status:q} "
            "--prepared {input.prepared:q} --loss {wildcards.loss:q} --rate {wildcards.rate} "
            "--seed {params.seed} --trial --time-limit {resources.time_limit} --log {log:q}"

    # beyond an end of the grid it runs one trial itself: what that is, only the others can tell
    rule choose:
        input:
            prepared=prepared(""),
            splits=expand(rules.split.output, arm=""),
            trials=expand(
                f"{TUNED}/{{{{loss}}}}/lr-{{rate}}/status.json",
                rate=map(repr, STUDY.tuning.grid),
            ),
        output:
            f"{TUNED}/{{loss}}/trials.csv",
        log:
            f"{RESULTS}/logs/choose/{{loss}}.log",
        threads: 1
        resources:
            mem_mb=needed(to_train, "mem_mb"),
            runtime=needed(to_train, "minutes"),
            gpu=int(GPU),
            gpu_slots=int(GPU),
            time_limit=str(STUDY.time_limit or 0),
        params:
            settings=lambda wildcards: STUDY.trial_settings(wildcards.loss).model_dump_json(),
            tuning=lambda wildcards: STUDY.tuning.model_dump_json(),
            loss_code=lambda wildcards: LOSS_CODE[STUDY.losses[wildcards.loss].name],
            code=TRAINING_CODE,
        shell:
            "python -m workflow choose {params.settings:q} {params.tuning:q} {input.splits:q} "
            "{output:q} --prepared {input.prepared:q} --loss {wildcards.loss:q} "
            "--time-limit {resources.time_limit} --log {log:q}"

    rule rates:
        input:
            expand(f"{TUNED}/{{loss}}/trials.csv", loss=STUDY.losses),
        output:
            all=f"{RESULTS}/tables/trials.csv",
            chosen=f"{RESULTS}/rates.csv",
        log:
            f"{RESULTS}/logs/rates.log",
        shell:
            "python -m workflow rates {input:q} --all {output.all:q} --chosen {output.chosen:q}"
