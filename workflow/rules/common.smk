# What a result depends on, beyond its input files.

from losses import sources as loss_sources


def code(*places):
    """What the sources of these folders or files do; comments and layout do not count."""
    files = [
        f
        for place in places
        for f in ([CODE / place] if place.endswith(".py") else (CODE / place).glob("*.py"))
    ]
    return provenance.code_sha256(files)


def run_settings(wildcards):
    """A change of any of it, and of nothing else, retrains the run."""
    loss_code = provenance.code_sha256(loss_sources(STUDY.losses[wildcards.loss].name))
    return f"{STUDY.run_fingerprint(wildcards.loss)} {loss_code}"


def raw_files(study):
    """Every file of the data set, so that a replaced image or label is prepared again."""
    root = paths.raw(study)
    if study.dataset.source != "folder":
        return [str(root / "dataset.json")]
    return [str(f) for f in sorted(root.glob("**/*")) if f.is_file()]
