# A study of several arms, or one with a question of its own: from its runs to its report.

RAW = expand(
    f"{RESULTS}/tables/{{name}}.csv.gz",
    name=["arms", "dataset", "runs", "cases", "curves"]
    + (["signals"] if STUDY.training.signals_every else []),
)


rule collect:
    input:
        runs=[runs(name) for name in STUDY.variants],
        prepared=sorted({data for arm in ARMS for data in prepared(arm)}),
        splits=expand(rules.split.output, arm=list(ARMS)),
        config=CONFIG,
    output:
        # `update`, because the old tables stay until each new one is whole
        tables=update(RAW),
        environment=f"{RESULTS}/environment.json",
        preparation=f"{RESULTS}/preparation.json",
    log:
        f"{RESULTS}/logs/collect.log",
    resources:
        mem_mb=needed(to_compare, "mem_mb"),
        runtime=needed(to_compare, "minutes"),
    params:
        code=code("workflow/comparison", "workflow/evaluation", "workflow/files.py"),
    shell:
        "python -m workflow collect {input.config:q} --log {log:q}"


rule analyse:
    input:
        rules.collect.output,
        config=CONFIG,
    output:
        tables=directory(f"{RESULTS}/tables/answers"),
    log:
        f"{RESULTS}/logs/analyse.log",
    resources:
        mem_mb=needed(to_tell, "mem_mb"),
        runtime=needed(to_tell, "minutes"),
    params:
        code=code("workflow/comparison", "losses", "workflow/files.py"),
    shell:
        "python -m workflow analyse {input.config:q} --log {log:q}"


rule experiment_report:
    input:
        rules.analyse.output,
        templates=[str(f) for f in sorted((CODE / "workflow/reporting/templates").iterdir())],
        config=CONFIG,
    output:
        update(f"{RESULTS}/report.html"),
        directory(f"{RESULTS}/figures"),
    log:
        f"{RESULTS}/logs/report.log",
    resources:
        mem_mb=needed(to_tell, "mem_mb"),
        runtime=needed(to_tell, "minutes"),
    params:
        code=code("workflow/reporting", "workflow/files.py"),
    shell:
        "python -m workflow tell {input.config:q} --log {log:q}"
