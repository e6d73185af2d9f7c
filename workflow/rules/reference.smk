# The committed reference of a study told again in a copy, without data or a run.

RETOLD = f"results/reference-report/{NAME}"


rule reference_report:
    input:
        # a function: only this target needs a reference to be there
        reference=lambda wildcards: reference_files(),
        templates=[str(f) for f in sorted((CODE / "workflow/reporting/templates").iterdir())],
        paper=[] if STUDY.is_experiment else paper_files(),
        source=[] if STUDY.is_experiment else CODE / "paper" / "paper.typ",
    output:
        f"{RETOLD}/report.html",
        [] if STUDY.is_experiment else f"{RETOLD}/paper.pdf",
    log:
        f"{RETOLD}/logs/retell.log",
    resources:
        mem_mb=needed(to_tell, "mem_mb"),
        runtime=needed(to_tell, "minutes"),
    params:
        reference=str(REFERENCE),
        folder=lambda wildcards, output: str(Path(output[0]).parent),
        code=code("workflow/reporting", "workflow/files.py"),
    shell:
        "python -m workflow retell {params.reference:q} {params.folder:q} "
        "--paper {input.source:q} --log {log:q}"
