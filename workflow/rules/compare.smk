# From all runs to the tables of the study.

NAMES = (
    "dataset runs curves cases summary comparisons absent collapse reliability cost slices".split()
)
NAMES += "improvement equivalence ranks friedman rankings stability volumes".split()
TABLES = expand(f"{RESULTS}/tables/{{name}}.csv", name=NAMES)
TABLES += expand(f"{RESULTS}/tables/{{file}}", file=("slices.npz", "volumes.npz", "cards.json"))


rule compare:
    input:
        runs=runs(""),
        rates=rules.rates.output if STUDY.tuning else [],
        prepared=prepared(""),
        splits=expand(rules.split.output, arm=""),
        config=CONFIG,
    output:
        # `update`, because the old tables stay until each new one is whole
        tables=update(report(TABLES, category="Tables")),
        environment=f"{RESULTS}/environment.json",
        preparation=f"{RESULTS}/preparation.json",
    log:
        f"{RESULTS}/logs/compare.log",
    resources:
        mem_mb=needed(to_compare, "mem_mb"),
        runtime=needed(to_compare, "minutes"),
    params:
        code=code("workflow/comparison", "workflow/evaluation", "losses", "workflow/files.py"),
    shell:
        "python -m workflow tables {input.config:q} {input.splits:q} "
        "--prepared {input.prepared:q} --log {log:q}"
