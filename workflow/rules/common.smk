# What a result depends on, beyond its input files; and what a job needs.

import errno
from functools import cache

from workflow import needs
from workflow.data.prepare import load_all

CERTIFICATE = f"{RESULTS}/reproduction.json"
REFERENCE = CODE / "results" / "reference" / NAME


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
    return [found for data in ARMS[arm].data_sets() for found in prepared_json(data)]


def prepared_json(data):
    """That of one data set, of none if there is none."""
    return [f"{paths.resources(data)}/prepared/prepared.json"] if data else []


def raw_files(data):
    """Every file of the data set, so that a replaced image or label is prepared again."""
    if data.dataset.source != "folder":
        return [str(paths.written(data))]
    return [str(f) for f in sorted(paths.raw(data).glob("**/*")) if f.is_file()]


# at once, because what an input function raises is told with a traceback
if faults := [fault for data in DATA.values() for fault in paths.misread(data)]:
    raise WorkflowError(str(DataError(faults)))


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
    if not (REFERENCE / "tables").is_dir():
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


def there(files):
    """Snakemake puts the question off until these files are there."""
    for file in files:
        Path(file).stat()


@cache
def loaded(files):
    """The prepared data of these files."""
    there(files)
    try:
        return load_all(Path(file).parent for file in files)
    except DataError:  # broken, or of an earlier version: it is made again before it is used
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), files[0]) from None


@cache
def needs_of_run(arm, files):
    from workflow.needs import run  # MONAI with it, which few calls need

    study = ARMS[arm]
    return run.of_run(
        study.run_settings(next(iter(study.losses))), study.splits, loaded(files)
    )


def to_train(wildcards, input, threads):
    """A run or a trial."""
    return needs_of_run(getattr(wildcards, "arm", ""), tuple(input.prepared))


@cache
def images(data, files):
    """By their headers, which are read once and not for each resource and attempt."""
    there(files)
    return needs.images(paths.raw(DATA[data]))


def to_prepare(wildcards, input, threads):
    return needs.of_preparation(images(wildcards.data, tuple(input.raw)), threads)


def to_compare(wildcards, input, threads):
    count = sum(len(study.losses) * len(study.seeds) for study in STUDY.variants.values())
    return needs.of_comparison(count, loaded(tuple(input.prepared)))


def to_tell(wildcards, input, threads):
    there(input)
    return needs.of_telling(map(Path, input))


def needed(need, what):
    """For `resources`; each attempt gets more than the one before."""

    def value(wildcards, input, threads, attempt):
        found = need(wildcards, input, threads)
        return attempt * getattr(found.scheduled() if SCHEDULED else found, what)

    return value
