# Do the runs say what the committed reference says; and the reference told again, without a run.

REFERENCE = CODE / "results" / "reference" / NAME
RETOLD = f"results/reference-report/{NAME}"


rule reproduce:
    input:
        TABLES,
        config=CONFIG,
        # a function: only these two targets need a reference to be there
        reference=lambda wildcards: reference_files(),
    output:
        CERTIFICATE,
    log:
        f"{RESULTS}/logs/reproduce.log",
    params:
        reference=str(REFERENCE),
        code=code("workflow/comparison", "workflow/files.py"),
    shell:
        "python -m workflow reproduce {input.config:q} {params.reference:q} {output:q} --log {log:q}"


# it leaves nothing, so that every call tells the verdict, and fails unless it is "reproduced"
rule verify:
    input:
        certificate=rules.reproduce.output,
        report=f"{RESULTS}/report.html",
    log:
        f"{RESULTS}/logs/verify.log",
    shell:
        "python -m workflow certify {input.certificate:q} --log {log:q}"


rule reference_report:
    input:
        reference=lambda wildcards: reference_files(),
        templates=[str(f) for f in sorted((CODE / "workflow/reporting/templates").iterdir())],
        paper=paper_files(),
        source=CODE / "paper" / "paper.typ",
    output:
        f"{RETOLD}/report.html",
        f"{RETOLD}/paper.pdf",
    log:
        f"{RETOLD}/logs/retell.log",
    params:
        reference=str(REFERENCE),
        folder=lambda wildcards, output: str(Path(output[0]).parent),
        code=code("workflow/reporting", "workflow/files.py"),
    shell:
        "python -m workflow retell {params.reference:q} {input.source:q} {params.folder:q} "
        "--log {log:q}"
