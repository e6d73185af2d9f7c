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


# paths.written() of the two sources
for source, written in (("phantom", "phantom/dataset.json"), ("decathlon", "downloaded.json")):

    rule:
        name:
            f"dataset_{source}"
        output:
            f"resources/{{data}}/{written}",
        log:
            "resources/{data}/dataset.log",
        params:
            settings=lambda wildcards: DATA[wildcards.data].model_dump_json(),
            code=code("workflow/data/phantom.py", "workflow/data/decathlon.py"),
        shell:
            "python -m workflow dataset {params.settings:q} {output:q} --log {log:q}"


rule prepare:
    input:
        # a function of the data set; names with braces, which would be filled in, are refused before
        raw=lambda wildcards: raw_files(DATA[wildcards.data]),
        like=lambda wildcards: prepared_json(DATA[wildcards.data].like),
    output:
        "resources/{data}/prepared/prepared.json",
    log:
        "resources/{data}/prepare.log",
    # as many as there are, one process each
    threads: 16
    resources:
        mem_mb=needed(to_prepare, "mem_mb"),
        runtime=needed(to_prepare, "minutes"),
    params:
        settings=lambda wildcards: DATA[wildcards.data].model_dump_json(),
        code=code(
            *(
                f"workflow/data/{name}.py"
                for name in "choices dataset evidence faults fingerprint".split()
                + "layout nifti prepare transform".split()
            )
        ),
    shell:
        "python -m workflow prepare {params.settings:q} {output:q} --like {input.like:q} "
        "--jobs {threads} --log {log:q}"


rule split:
    input:
        prepared=lambda wildcards: prepared(wildcards.arm),
    output:
        f"{FOLDER}/splits.csv",
    log:
        f"{FOLDER}/logs/split.log",
    params:
        settings=lambda wildcards: ARMS[wildcards.arm].splits.model_dump_json(),
        code=code("workflow/data/splits.py"),
    shell:
        "python -m workflow split {params.settings:q} {output:q} --prepared {input.prepared:q} "
        "--log {log:q}"
