# From a study to prepared arrays and splits. What studies share knows nothing of any of them.


rule configure:
    output:
        config=CONFIG,
    log:
        f"{RESULTS}/logs/configure.log",
    params:
        # a function, because braces in a plain string would be taken for wildcards
        study=lambda wildcards: STUDY.as_yaml(),
    shell:
        "python -m workflow configure {params.study:q} {output.config:q} --log {log:q}"


if STUDY.dataset.source != "folder":

    rule dataset:
        output:
            str(paths.written(DATA)),
        log:
            f"{RESOURCES}/dataset.log",
        params:
            settings=lambda wildcards: DATA.model_dump_json(),
            code=code("workflow/data/phantom.py", "workflow/data/decathlon.py"),
        shell:
            "python -m workflow dataset {params.settings:q} {output:q} --log {log:q}"


rule prepare:
    input:
        # a function, because braces in a user's path would be taken for wildcards
        lambda wildcards: raw_files(DATA),
    output:
        f"{RESOURCES}/prepared/prepared.json",
    log:
        f"{RESOURCES}/prepare.log",
    params:
        settings=lambda wildcards: DATA.model_dump_json(),
        code=code(
            *(f"workflow/data/{m}.py" for m in ("dataset", "faults", "layout", "nifti", "prepare"))
        ),
    shell:
        "python -m workflow prepare {params.settings:q} {output:q} --log {log:q}"


rule split:
    input:
        prepared=rules.prepare.output,
    output:
        f"{RESULTS}/splits.csv",
    log:
        f"{RESULTS}/logs/split.log",
    params:
        settings=lambda wildcards: STUDY.splits.model_dump_json(),
        code=code("workflow/data/splits.py"),
    shell:
        "python -m workflow split {params.settings:q} {input.prepared:q} {output:q} --log {log:q}"
