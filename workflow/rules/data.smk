# From a study to prepared arrays and splits.


def code(*places):
    """What the sources of these folders or files do; comments and layout do not count."""
    files = [f for place in places for f in ([CODE / place] if place.endswith(".py") else (CODE / place).glob("*.py"))]
    return provenance.code_sha256(files)


rule configure:
    output:
        config=f"{RESULTS}/config.yaml",
        environment=f"{RESULTS}/environment.json",
    params:
        # a function, because braces in a plain string would be taken for wildcards
        study=lambda wildcards: STUDY.as_yaml(),
    log:
        f"{RESULTS}/logs/configure.log",
    shell:
        "{PYTHON} -m workflow configure {params.study:q} $(dirname {output.config:q}) 2> {log:q} || (cat {log:q} >&2; false)"


if STUDY.dataset.source != "folder":

    rule dataset:
        input:
            config=ancient(rules.configure.output.config),
        output:
            f"{paths.raw(STUDY)}/dataset.json",
        params:
            settings=STUDY.fingerprint("dataset"),
            code=code("workflow/data/phantom.py"),
            root=str(paths.raw(STUDY)),
        log:
            f"{RESULTS}/logs/dataset.log",
        shell:
            "{PYTHON} -m workflow dataset {input.config:q} {params.root:q} --log {log:q}"


def raw_files(wildcards):
    """Every file of the data set, so that a replaced image or label is prepared again."""
    if STUDY.dataset.source != "folder":
        return rules.dataset.output
    root = paths.raw(STUDY)
    return [str(f) for f in sorted(root.glob("**/*")) if f.is_file()]


rule prepare:
    input:
        raw_files,
        config=ancient(rules.configure.output.config),
    output:
        f"{RESOURCES}/prepared/prepared.json",
    params:
        settings=STUDY.data_fingerprint(),
        code=code(
            *(f"workflow/data/{m}.py" for m in ("dataset", "faults", "layout", "nifti", "prepare"))
        ),
        root=str(paths.raw(STUDY)),
        out=f"{RESOURCES}/prepared",
    log:
        f"{RESULTS}/logs/prepare.log",
    shell:
        "{PYTHON} -m workflow prepare {input.config:q} {params.root:q} {params.out:q} --log {log:q}"


rule split:
    input:
        prepared=rules.prepare.output,
        config=ancient(rules.configure.output.config),
    output:
        f"{RESULTS}/splits.csv",
    params:
        settings=STUDY.fingerprint("splits"),
        code=code("workflow/data/splits.py"),
        prepared=f"{RESOURCES}/prepared",
    log:
        f"{RESULTS}/logs/split.log",
    shell:
        "{PYTHON} -m workflow split {input.config:q} {params.prepared:q} {output:q} --log {log:q}"
