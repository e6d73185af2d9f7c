# From all runs to the tables of the study.

TABLES = (
    "dataset", "runs", "curves", "cases", "summary", "comparisons", "absent", "cost", "slices",
)


rule compare:
    input:
        runs=expand("{run}/{file}", run=RUNS, file=RUN_FILES),
        prepared=rules.prepare.output,
        splits=rules.split.output,
        config=rules.configure.output.config,
    output:
        # `update`: the old tables stay until each new one is whole
        tables=update(expand(f"{RESULTS}/tables/{{table}}.csv", table=TABLES)),
        slices=update(f"{RESULTS}/tables/slices.npz"),
        cards=update(f"{RESULTS}/tables/cards.json"),
    params:
        code=code("workflow/comparison", "workflow/evaluation", "losses"),
        prepared=f"{RESOURCES}/prepared",
        runs=f"{RESULTS}/runs",
        out=f"{RESULTS}/tables",
    log:
        f"{RESULTS}/logs/compare.log",
    shell:
        "{PYTHON} -m workflow compare {input.config:q} {params.prepared:q} {input.splits:q} "
        "{params.runs:q} {params.out:q} --log {log:q}"
