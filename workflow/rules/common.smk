# What a result depends on, beyond its input files.


def code(*places):
    """What the sources of these folders or files do; comments and layout do not count."""
    files = [
        f
        for place in places
        for f in ([CODE / place] if place.endswith(".py") else (CODE / place).glob("*.py"))
    ]
    return provenance.code_sha256(files)


def raw_files(data):
    """Every file of the data set, so that a replaced image or label is prepared again."""
    if data.dataset.source != "folder":
        return [str(paths.written(data))]
    return [str(f) for f in sorted(paths.raw(data).glob("**/*")) if f.is_file()]
