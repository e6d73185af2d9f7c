# Do the runs say what the committed reference says?


rule reproduce:
    input:
        TABLES,
        config=CONFIG,
        # a function: only this target needs a reference to be there
        reference=lambda wildcards: reference_files(),
    output:
        CERTIFICATE,
    log:
        f"{RESULTS}/logs/reproduce.log",
    resources:
        mem_mb=needed(to_tell, "mem_mb"),
        runtime=needed(to_tell, "minutes"),
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
