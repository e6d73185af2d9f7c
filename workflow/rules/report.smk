# What people read: figures, the report and the paper.

FIGURES = (
    "ranking",
    "published_corrected",
    "validation_curves",
    "heldout_dice",
    "collapse",
    "equivalence",
    "rank_stability",
    "absent",
    "reliability",
    "learning_rates",
    "cost",
    "cases_median",
    "cases_worst",
    "dataset",
)


rule figures:
    input:
        TABLES,
        config=CONFIG,
    output:
        svg=report(expand(f"{RESULTS}/figures/{{figure}}.svg", figure=FIGURES), category="Figures"),
        png=expand(f"{RESULTS}/figures/{{figure}}.png", figure=FIGURES),
    log:
        f"{RESULTS}/logs/figures.log",
    resources:
        mem_mb=needed(to_tell, "mem_mb"),
        runtime=needed(to_tell, "minutes"),
    params:
        code=code("workflow/reporting", "workflow/files.py"),
    shell:
        "python -m workflow figures {input.config:q} --log {log:q}"


rule report:
    input:
        TABLES,
        rules.figures.output,
        templates=[str(f) for f in sorted((CODE / "workflow/reporting/templates").iterdir())],
        config=CONFIG,
        environment=rules.compare.output.environment,
        preparation=rules.compare.output.preparation,
        # in the report once it was asked for
        certificate=lambda wildcards: CERTIFICATE if certified() else [],
    output:
        update(f"{RESULTS}/report.html"),
    log:
        f"{RESULTS}/logs/report.log",
    resources:
        mem_mb=needed(to_tell, "mem_mb"),
        runtime=needed(to_tell, "minutes"),
    params:
        # beside the study's own tables: losses at one rate for all, and their gradients
        reference=str(CODE / "results" / "reference"),
        code=code("workflow/reporting", "workflow/files.py"),
    shell:
        "python -m workflow report {input.config:q} --reference {params.reference:q} --log {log:q}"


rule paper:
    input:
        TABLES,
        paper_files(),
        source=CODE / "paper" / "paper.typ",
        config=CONFIG,
    output:
        update(f"{RESULTS}/paper.pdf"),
    log:
        f"{RESULTS}/logs/paper.log",
    resources:
        mem_mb=needed(to_tell, "mem_mb"),
        runtime=needed(to_tell, "minutes"),
    params:
        code=code("workflow/reporting", "workflow/files.py"),
    shell:
        "python -m workflow paper {input.config:q} {input.source:q} {output:q} --log {log:q}"
