# From all runs to the tables of the study.

TABLES = (
    "dataset",
    "runs",
    "curves",
    "cases",
    "summary",
    "comparisons",
    "absent",
    "cost",
    "slices",
)


rule compare:
    input:
        runs=expand(
            rules.train.output,
            loss=STUDY.losses,
            rate=f"{STUDY.training.learning_rate:g}",
            seed=STUDY.seeds,
        ),
        prepared=rules.prepare.output,
        splits=rules.split.output,
        config=rules.configure.output.config,
    output:
        # `update`: the old tables stay until each new one is whole
        tables=update(expand(f"{RESULTS}/tables/{{table}}.csv", table=TABLES)),
        slices=update(f"{RESULTS}/tables/slices.npz"),
        cards=update(f"{RESULTS}/tables/cards.json"),
    log:
        f"{RESULTS}/logs/compare.log",
    params:
        code=code("workflow/comparison", "workflow/evaluation", "losses"),
    shell:
        "python -m workflow compare {input.config:q} {input.prepared:q} {input.splits:q} "
        "{output.cards:q} --log {log:q}"
