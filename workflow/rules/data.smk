# From a study to prepared arrays and splits.


rule configure:
    output:
        config=f"{RESULTS}/config.yaml",
        environment=f"{RESULTS}/environment.json",
    log:
        f"{RESULTS}/logs/configure.log",
    params:
        # a function, because braces in a plain string would be taken for wildcards
        study=lambda wildcards: STUDY.as_yaml(),
    shell:
        "python -m workflow configure {params.study:q} {output.config:q} {output.environment:q} "
        "--log {log:q}"


if STUDY.dataset.source != "folder":

    rule dataset:
        input:
            config=ancient(rules.configure.output.config),
        output:
            f"{paths.raw(STUDY)}/dataset.json",
        log:
            f"{RESULTS}/logs/dataset.log",
        params:
            settings=STUDY.fingerprint("dataset"),
            code=code("workflow/data/phantom.py"),
        shell:
            "python -m workflow dataset {input.config:q} {output:q} --log {log:q}"


rule prepare:
    input:
        raw_files(STUDY),
        config=ancient(rules.configure.output.config),
    output:
        f"{RESOURCES}/prepared/prepared.json",
    log:
        f"{RESULTS}/logs/prepare.log",
    params:
        settings=STUDY.data_fingerprint(),
        code=code(
            *(f"workflow/data/{m}.py" for m in ("dataset", "faults", "layout", "nifti", "prepare"))
        ),
    shell:
        "python -m workflow prepare {input.config:q} {output:q} --log {log:q}"


rule split:
    input:
        prepared=rules.prepare.output,
        config=ancient(rules.configure.output.config),
    output:
        f"{RESULTS}/splits.csv",
    log:
        f"{RESULTS}/logs/split.log",
    params:
        settings=STUDY.fingerprint("splits"),
        code=code("workflow/data/splits.py"),
    shell:
        "python -m workflow split {input.config:q} {input.prepared:q} {output:q} --log {log:q}"
