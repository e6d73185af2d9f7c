# What a result depends on, beyond its input files.

CERTIFICATE = f"{RESULTS}/reproduction.json"


def code(*places):
    """What the sources of these folders or files do; comments and layout do not count."""
    files = [
        f
        for place in places
        for f in ([CODE / place] if place.endswith(".py") else (CODE / place).glob("*.py"))
    ]
    return provenance.code_sha256(files)


def prepared(arm):
    """The data set of an arm, and its external test set if it has one."""
    return [f"{paths.resources(data)}/prepared/prepared.json" for data in ARMS[arm].data_sets()]


def raw_files(data):
    """Every file of the data set, so that a replaced image or label is prepared again."""
    if data.dataset.source != "folder":
        return [str(paths.written(data))]
    return [str(f) for f in sorted(paths.raw(data).glob("**/*")) if f.is_file()]


# at once, because what an input function raises is told with a traceback
try:
    for data in DATA.values():
        paths.refuse_misread(data)
except StudyError as error:
    raise WorkflowError(str(error)) from None


def runs(name):
    """What the runs of an arm leave."""
    study = STUDY.variants[name]
    return [
        expand(
            rules.train.output,
            arm=paths.arm(STUDY.home(name, loss)),
            dataset=study.dataset.name,
            loss=loss,
            rate=study.rate(loss),
            seed=study.seeds,
        )
        for loss in study.losses
    ]


def reference_files():
    """The committed tables of this study, its list of digests among them."""
    if not (REFERENCE / "SHA256SUMS").is_file():
        raise WorkflowError(f"{NAME}: no reference results are committed for this study")
    return [str(f) for f in sorted(REFERENCE.glob("**/*")) if f.is_file()]


def paper_files():
    """What the paper is made of beside a study: its text and, for the project's own study, the
    tables of the reference."""
    text = sorted((CODE / "paper").iterdir())
    tables = sorted((CODE / "results" / "reference").glob("*/tables/**/*.*"))
    return [str(f) for f in text + (tables if NAME == "default" else [])]


def certified():
    """Whether this call verifies the study, or an earlier one did."""
    return "verify" in workflow.dag_settings.targets or Path(CERTIFICATE).exists()
