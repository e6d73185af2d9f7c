# What people read: figures, the report and the paper.

FIGURES = (
    "ranking", "published_corrected", "validation_curves", "heldout_dice", "collapse", "cost",
    "cases_median", "cases_worst", "dataset",
)


rule figures:
    input:
        rules.compare.output,
        config=rules.configure.output.config,
    output:
        svg=report(
            expand(f"{RESULTS}/figures/{{figure}}.svg", figure=FIGURES), category="Figures"
        ),
        png=expand(f"{RESULTS}/figures/{{figure}}.png", figure=FIGURES),
    params:
        code=code("workflow/reporting"),
        study=RESULTS,
    log:
        f"{RESULTS}/logs/figures.log",
    shell:
        "{PYTHON} -m workflow figures {params.study:q} --log {log:q}"


rule report:
    input:
        rules.compare.output,
        rules.figures.output,
        templates=[str(f) for f in sorted((CODE / "workflow/reporting/templates").iterdir())],
        config=rules.configure.output.config,
        environment=rules.configure.output.environment,
    output:
        update(f"{RESULTS}/report.html"),
    params:
        code=code("workflow/reporting"),
        study=RESULTS,
    log:
        f"{RESULTS}/logs/report.log",
    shell:
        "{PYTHON} -m workflow report {params.study:q} --log {log:q}"


rule paper:
    input:
        rules.compare.output,
        rules.figures.output,
        source=CODE / "paper" / "paper.typ",
    output:
        update(f"{RESULTS}/paper.pdf"),
    params:
        code=code("workflow/reporting"),
        study=RESULTS,
    log:
        f"{RESULTS}/logs/paper.log",
    shell:
        "{PYTHON} -m workflow paper {params.study:q} {input.source:q} {output:q} --log {log:q}"
