"""``python -m workflow COMMAND``: the only place that parses arguments.

The rules of the Snakefile call these commands; each can be called by hand to enter a room.
Imports stand inside the commands, because a job should load only what it needs.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from workflow.comparison.reproduction import Tables
    from workflow.data.prepare import Prepared

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; a fault is one clear message and exit code 1, never a traceback."""
    parser = argparse.ArgumentParser(prog="python -m workflow", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        _add_check, _add_losses, _add_gallery, _add_schema, _add_configure, _add_dataset,
        _add_prepare, _add_split, _add_train, _add_choose, _add_rates, _add_tables, _add_figures,
        _add_report, _add_interim, _add_paper, _add_compare, _add_agreement, _add_reproduce,
        _add_certify, _add_seal, _add_retell, _add_collect, _add_merge, _add_analyse, _add_tell,
    ):  # fmt: skip
        add(commands)
    options = parser.parse_args(arguments)
    _log_to(getattr(options, "log", None))
    try:
        return options.run(options) or 0
    except Exception as error:
        return _fault(error)


def _fault(error: Exception) -> int:
    """Tells a fault of the input in one line a fault; a defect of ours with its traceback."""
    from workflow.data.faults import DataError
    from workflow.study import StudyError

    log = logging.getLogger("rareclass")
    if isinstance(error, StudyError | DataError | MemoryError):
        log.error("%s", error)
    elif isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        log.error("%s%s", place, error.strerror or error)
    else:
        log.error("this should not have happened:", exc_info=error)
    return 1


def _log_to(path: str | None) -> None:
    """Progress goes to the terminal and, for jobs, to their log file as well."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(path, mode="w", encoding="utf-8"))
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=handlers)
    logging.getLogger("rareclass").setLevel(logging.INFO)


def _say(text: str, *values: object) -> None:
    logging.getLogger("rareclass").info(text, *values)


def _key_value(flag: str, setting: str, example: str) -> tuple[str, str]:
    key, equals, value = setting.partition("=")
    if not equals:
        raise SystemExit(f"{flag} {setting}: expected KEY=VALUE, e.g. {example}")
    return key, value


def _overrides(settings: list[str]) -> dict:
    """``dataset.root=/data`` as the nested mapping of a study."""
    import yaml

    nested: dict = {}
    for setting in settings:
        key, value = _key_value("--set", setting, "training.steps=200")
        place = nested
        *parents, last = key.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise SystemExit(f"--set {setting}: '{parent}' was given a value before")
        try:  # as Snakemake reads `--config`: structure, but no types
            place[last] = yaml.load(value, Loader=yaml.BaseLoader)
        except yaml.YAMLError:
            place[last] = value
    return nested


def _job(commands: Commands, name: str, run: Callable, help: str) -> argparse.ArgumentParser:
    """A command of a rule: it reads the resolved study and keeps a log."""
    parser = commands.add_parser(name, help=help, description=help)
    parser.add_argument("study", type=Path, help="study file or resolved config.yaml")
    parser.add_argument("--log", help="file that keeps what is printed")
    parser.set_defaults(run=run)
    return parser


def _add_check(commands: Commands) -> None:
    parser = _job(commands, "check", _check, "check a study and its data before anything runs")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")


def _check(options: argparse.Namespace) -> None:
    from workflow import check

    for line in check.check(options.study, _overrides(options.set)):
        _say("%s", line)


def _add_losses(commands: Commands) -> None:
    help = "list the losses, print the card of one, or check one"
    parser = commands.add_parser("losses", help=help, description=help)
    parser.add_argument("name", nargs="?", help="print its card; or the word check")
    parser.add_argument(
        "loss",
        nargs="?",
        help="after check: package.module:Class, path/to/file.py:Class or a name of the catalogue",
    )
    listing = parser.add_argument_group("for the list")
    listing.add_argument("--family", help="only this family, e.g. region")
    listing.add_argument("--collection", help="only this collection, e.g. loss_odyssey")
    kinds = listing.add_mutually_exclusive_group()
    kinds.add_argument("--published", action="store_true", help="only losses as published")
    kinds.add_argument("--corrected", action="store_true", help="only losses that correct another")
    listing.add_argument("--sort", metavar="FIELD", help="a field of the card, e.g. name")
    checks = parser.add_argument_group("for check")
    checks.add_argument("--option", action="append", default=[], metavar="KEY=VALUE")
    checks.add_argument("--classes", type=int, help="the only number of classes it is meant for")
    checks.add_argument(
        "--skip", action="append", default=[], metavar="CHECK", help="not meant to hold"
    )
    parser.set_defaults(run=_losses)


def _losses(options: argparse.Namespace) -> int:
    import losses

    if options.name == "check":
        return _check_loss(options)
    if options.loss:
        raise SystemExit(f"losses {options.name} {options.loss}: expected one name, or check LOSS")
    if not options.name:
        _list_losses(options)
        return 0
    try:
        print(losses.card(options.name).text())
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _list_losses(options: argparse.Namespace) -> None:
    from dataclasses import fields

    import losses

    cards = [losses.card(name) for name in losses.available()]
    names = [field.name for field in fields(losses.Card)]
    for flag, given, known in (
        ("--family", options.family, sorted({card.family for card in cards})),
        ("--collection", options.collection, sorted(losses.collections)),
        ("--sort", options.sort, names),
    ):
        if given is not None and given not in known:
            raise SystemExit(f"{flag} {given}: there is {', '.join(known)}")
    shown = [
        card
        for card in cards
        if options.family in (None, card.family)
        and (options.collection is None or card.name in losses.collections[options.collection])
        and (not options.published or card.published)
        and (not options.corrected or (isinstance(card.twin, tuple) and card.twin))
    ]

    def order(card: losses.Card) -> tuple:
        if options.sort is None:
            return card.published, card.family, card.name
        value = getattr(card, options.sort)
        return value is None, value if isinstance(value, int | float) else str(value), card.name

    width = max((len(card.name) for card in shown), default=0)
    for card in sorted(shown, key=order):
        twin = f"  -> {card.twin}" if isinstance(card.twin, str) else ""
        value = getattr(card, options.sort or "name")
        number = f"{value:<10.3g}  " if isinstance(value, int | float) else ""
        print(f"{card.name:{width}}  {number}{card.family:13}  {card.title}{twin}")


def _check_loss(options: argparse.Namespace) -> int:
    from dataclasses import replace

    from losses import contract
    from workflow.study import typed

    if not options.loss:
        raise SystemExit("losses check: expected a loss, e.g. config/my_loss.py:MyLoss")
    for name in options.skip:
        if name not in contract.CHECKS:
            raise SystemExit(f"--skip {name}: there is {', '.join(contract.CHECKS)}")
    given = {}
    for setting in options.option:
        key, value = _key_value("--option", setting, "gamma=2")
        given[key] = typed(value)
    try:
        subject = contract.subject(options.loss, classes=options.classes, **given)
    except (TypeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    skipped = {name: "skipped, as asked" for name in options.skip}
    subject = replace(subject, excepted={**subject.excepted, **skipped})
    failed = 0
    for result in contract.check(subject):
        print(result, flush=True)
        failed += result.verdict == "FAILS"
    return 1 if failed else 0


def _add_gallery(commands: Commands) -> None:
    help = "draw how every loss and its gradient answer a prediction that gets worse"
    parser = commands.add_parser("gallery", help=help, description=help)
    parser.add_argument("out", type=Path, nargs="?", default=Path("results/losses"))
    parser.set_defaults(run=_gallery)


def _gallery(options: argparse.Namespace) -> None:
    from workflow import files
    from workflow.comparison import gallery
    from workflow.reporting import figures_gallery

    responses = gallery.responses()
    files.write_table(options.out / "gallery.csv", responses)
    for path in figures_gallery.write_gallery(responses, gallery.pictures(), options.out):
        _say("%s", path)


def _add_schema(commands: Commands) -> None:
    parser = commands.add_parser("schema", help="print the JSON schema of a study file")
    parser.set_defaults(run=_schema)


def _schema(_options: argparse.Namespace) -> None:
    from workflow.study import json_schema

    print(json.dumps(json_schema(), indent=1))


def _add_configure(commands: Commands) -> None:
    parser = commands.add_parser("configure", help="write the resolved study")
    parser.add_argument("content", help="the resolved study as YAML text")
    parser.add_argument("out", type=Path)
    parser.add_argument("--log")
    parser.set_defaults(run=_configure)


def _configure(options: argparse.Namespace) -> None:
    from workflow import files

    files.write_text(options.out, options.content)


def _settings_job(
    commands: Commands, name: str, run: Callable, help: str
) -> argparse.ArgumentParser:
    """A command of a rule that gets what its result depends on, and nothing else of the study.

    So a changed study reruns what it affects, and studies share what they agree in.
    """
    parser = commands.add_parser(name, help=help, description=help)
    parser.add_argument("settings", help="as JSON, see the models of workflow/study/model.py")
    parser.add_argument("--log", help="file that keeps what is printed")
    parser.set_defaults(run=run)
    return parser


def _add_dataset(commands: Commands) -> None:
    help = "write the phantom or download a Decathlon task"
    parser = _settings_job(commands, "dataset", _dataset, help)
    parser.add_argument("out", type=Path, help="the file that says that it is there")


def _dataset(options: argparse.Namespace) -> None:
    from workflow import files, paths
    from workflow.data import decathlon, phantom
    from workflow.study import Data

    settings = Data.model_validate_json(options.settings)
    dataset, folder = settings.dataset, paths.raw(settings)
    if dataset.source == "phantom":
        phantom.write(dataset.phantom, folder, progress=_progress("subjects written"))
    else:
        assert dataset.task is not None  # the model refuses a decathlon without it
        decathlon.fetch(dataset.task, folder.parent)
        files.write_json(options.out, {"folder": str(folder)})


def _progress(what: str) -> Callable[[int, int], None]:
    """A line for every tenth part of the work."""

    def report(done: int, total: int) -> None:
        if done * 10 // total > (done - 1) * 10 // total:
            _say("%d of %d %s", done, total, what)

    return report


def _add_prepare(commands: Commands) -> None:
    help = "verify a data set and write its arrays"
    parser = _settings_job(commands, "prepare", _prepare, help)
    parser.add_argument("out", type=Path, help="prepared.json; the arrays go beside it")
    parser.add_argument(
        "--like", type=Path, nargs="*", help="prepared.json whose choices are taken, if any"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes")


def _prepare(options: argparse.Namespace) -> None:
    from workflow import check, paths
    from workflow.data.prepare import load_prepared
    from workflow.study import Data

    settings = Data.model_validate_json(options.settings)
    data = check.read_dataset(settings.dataset, paths.raw(settings))
    prepared = check.prepare_data(
        settings,
        data,
        options.out.parent,
        like=load_prepared(options.like[0].parent) if options.like else None,
        jobs=options.jobs,
        progress=_progress("cases verified and prepared"),
    )
    for warning in prepared.warnings:
        _say("warning: %s", warning)


def _add_split(commands: Commands) -> None:
    help = "assign subjects to train, validation and test"
    parser = _settings_job(commands, "split", _split, help)
    parser.add_argument("out", type=Path)
    _add_prepared(parser)


def _split(options: argparse.Namespace) -> None:
    from workflow import check, files
    from workflow.data.prepare import load_prepared
    from workflow.study import Splits

    settings = Splits.model_validate_json(options.settings)
    prepared = [load_prepared(path.parent) for path in options.prepared]
    files.write_table(options.out, check.split(settings, *prepared))


def _add_prepared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--prepared", type=Path, nargs="+", required=True, metavar="PREPARED.JSON",
        help="the data set, and the external test set if there is one",
    )  # fmt: skip


def _add_train(commands: Commands) -> None:
    parser = _settings_job(commands, "train", _train, "train and score one run")
    parser.add_argument("splits", type=Path)
    parser.add_argument("out", type=Path, help="status.json; the other files go beside it")
    parser.add_argument("--loss", required=True, help="label of the loss in the study")
    parser.add_argument("--rate", required=True, help="learning rate, or 'tuned'")
    parser.add_argument("--seed", required=True, type=int)
    _add_prepared(parser)
    parser.add_argument("--trial", action="store_true", help="leave the test cases alone")
    parser.add_argument("--trials", type=Path, nargs="*", help="table whose chosen rate is 'tuned'")
    _add_time_limit(parser)


def _train(options: argparse.Namespace) -> None:
    from workflow import files
    from workflow.study import RunSettings
    from workflow.training import train

    prepared, splits = _prepared_splits(options)
    rate = options.rate
    if rate == "tuned":
        trials = files.read_table(options.trials[0])
        rate = trials.loc[trials["chosen"], "learning_rate"].item()
    run = train.Run(options.loss, float(rate), options.seed)
    settings = RunSettings.model_validate_json(options.settings)
    out, limit = options.out.parent, _limit(options)
    train.train(settings, prepared, splits, run, out, trial=options.trial, limit=limit)


def _add_time_limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--time-limit", type=float, default=0, help="minutes of a run; 0: none")


def _limit(options: argparse.Namespace) -> float | None:
    """In seconds."""
    return 60 * options.time_limit or None


def _prepared_splits(options: argparse.Namespace) -> tuple[Prepared, pd.DataFrame]:
    """The prepared cases and the table of splits, which belong to each other."""
    from workflow import files
    from workflow.data.prepare import load_all
    from workflow.data.splits import check_splits

    prepared = load_all(path.parent for path in options.prepared)
    splits = files.read_table(options.splits)
    check_splits(splits, prepared)
    return prepared, splits


def _add_choose(commands: Commands) -> None:
    help = "choose the learning rate of a loss from its trials"
    parser = _settings_job(commands, "choose", _choose, help)
    parser.add_argument("tuning", help="as JSON, see Tuning in workflow/study/model.py")
    parser.add_argument("splits", type=Path)
    parser.add_argument("out", type=Path, help="table of trials; the trials lie beside it")
    _add_prepared(parser)
    parser.add_argument("--loss", required=True, help="label of the loss in the study")
    _add_time_limit(parser)


def _choose(options: argparse.Namespace) -> None:
    from workflow import files
    from workflow.study import RunSettings, Tuning
    from workflow.training import tuning

    settings = RunSettings.model_validate_json(options.settings)
    grid = Tuning.model_validate_json(options.tuning)
    prepared, splits = _prepared_splits(options)
    trials = tuning.choose(
        settings, prepared, splits, grid, options.loss, options.out.parent, _limit(options)
    )
    files.write_table(options.out, trials)


def _add_rates(commands: Commands) -> None:
    parser = commands.add_parser("rates", help="collect the trials and chosen rates of all losses")
    parser.add_argument("trials", type=Path, nargs="+")
    parser.add_argument("--all", type=Path, required=True, help="table of all trials")
    parser.add_argument("--chosen", type=Path, required=True, help="table of the chosen ones")
    parser.set_defaults(run=_rates)


def _rates(options: argparse.Namespace) -> None:
    import pandas as pd

    from workflow import files

    trials = pd.concat([files.read_table(path) for path in options.trials], ignore_index=True)
    files.write_table(options.all, trials)
    files.write_table(options.chosen, trials[trials["chosen"]].drop(columns="chosen"))


def _add_tables(commands: Commands) -> None:
    parser = _job(commands, "tables", _tables, "make the tables of a study from its runs")
    parser.add_argument("splits", type=Path)
    _add_prepared(parser)


def _tables(options: argparse.Namespace) -> None:
    from workflow import files, paths, provenance, study
    from workflow.comparison import examples, tables

    configuration = study.load(options.study)
    prepared, splits = _prepared_splits(options)
    folder = options.study.parent
    runs = {
        (loss, seed): folder / "runs" / paths.run(configuration, loss, seed)
        for loss in configuration.losses
        for seed in configuration.seeds
    }
    tables.write_all(configuration, prepared, splits, runs.values(), folder / "tables")
    examples.write(configuration, prepared, runs, folder / "tables")
    files.write_json(folder / "preparation.json", configuration.plan(prepared))
    files.write_json(folder / "environment.json", provenance.environment())


def _add_figures(commands: Commands) -> None:
    _job(commands, "figures", _figures, "draw the figures of a study's folder")


def _figures(options: argparse.Namespace) -> None:
    from workflow.reporting import figures

    figures.write_all(options.study.parent)


def _add_report(commands: Commands) -> None:
    parser = _job(commands, "report", _report, "write the report of a study's folder")
    parser.add_argument(
        "--reference", type=Path, help="committed results: the fixed rate and the gallery"
    )


def _report(options: argparse.Namespace) -> None:
    from workflow.reporting import report

    _say("report: %s", report.build(options.study.parent, options.reference))


def _add_interim(commands: Commands) -> None:
    help = "report of the runs that have finished so far, in interim/ of the study's folder"
    parser = _job(commands, "interim", _interim, help)
    parser.add_argument(
        "--reference", type=Path, help="committed results: the fixed rate and the gallery"
    )


def _interim(options: argparse.Namespace) -> None:
    import shutil

    from workflow import files, paths, provenance, study
    from workflow.comparison import examples, tables
    from workflow.data.faults import DataError
    from workflow.reporting import report

    configuration = study.load(options.study)
    folder = options.study.parent
    out = folder / "interim"
    options.splits = folder / "splits.csv"
    options.prepared = [
        paths.resources(data) / "prepared" / "prepared.json" for data in configuration.data_sets()
    ]
    runs = {
        (loss, seed): run
        for loss in configuration.losses
        for seed in configuration.seeds
        if (run := folder / "runs" / paths.run(configuration, loss, seed))
        and (run / "status.json").is_file()
    }
    if not runs:
        raise DataError([f"{folder}: no run has finished yet"])
    prepared, splits = _prepared_splits(options)
    shutil.rmtree(out, ignore_errors=True)  # its figures would be those of fewer runs
    tables.write_all(configuration, prepared, splits, runs.values(), out / "tables")
    shown = [loss for loss in configuration.losses if (loss, configuration.seeds[0]) in runs]
    pictured = {loss: configuration.losses[loss] for loss in shown}
    examples.write(
        configuration.model_copy(update={"losses": pictured}), prepared, runs, out / "tables"
    )
    shutil.copyfile(options.study, out / "config.yaml")
    files.write_json(out / "environment.json", provenance.environment())
    _say("report: %s", report.build(out, options.reference, folder / "logs"))


def _add_paper(commands: Commands) -> None:
    parser = _job(commands, "paper", _paper, "compile the paper from a study's folder")
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)


def _paper(options: argparse.Namespace) -> None:
    from workflow.reporting import paper

    paper.compile(options.source, options.study.parent, options.out)


def _add_compare(commands: Commands) -> None:
    help = "one report across studies or data sets: what holds in all, and how alike they rank"
    parser = commands.add_parser("compare", help=help, description=help)
    parser.add_argument("studies", type=Path, nargs="+", help="folders, e.g. results/default")
    parser.add_argument("--out", type=Path, default=Path("results/compare"), help="folder to write")
    parser.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> None:
    from workflow import files
    from workflow.comparison.across import Finished, stability
    from workflow.comparison.tables import rarest_class
    from workflow.data.faults import DataError
    from workflow.reporting import across

    folders = [folder.resolve() for folder in options.studies]
    if len(set(folders)) < 2:
        raise DataError(["compare: give the folders of two studies or more"])
    names = [folder.name for folder in folders]
    called = {
        folder.name if names.count(folder.name) == 1 else f"{folder.parent.name}/{folder.name}":
        folder for folder in folders
    }  # fmt: skip
    finished = {}
    for name, folder in called.items():
        if files.read_table(folder / "tables" / "summary.csv").empty:
            raise DataError([f"{folder}: there is no tables/summary.csv of a finished study"])
        settings, tables = _finished(folder)
        rarest = rarest_class(files.read_table(folder / "tables" / "dataset.csv"))
        finished[name] = Finished(tables.cases, rarest)
    table = stability(finished, settings["comparison"]["confidence"])
    files.write_table(options.out / "tables" / "stability.csv", table)
    _say("report: %s", across.build(options.out, called))


def _add_agreement(commands: Commands) -> None:
    help = "do two studies rank the losses alike? prints Kendall's tau"
    parser = commands.add_parser("agreement", help=help, description=help)
    parser.add_argument("study", type=Path, help="folder of a study, e.g. results/default")
    parser.add_argument("other", type=Path, help="folder of another study with the same losses")
    parser.add_argument("--out", type=Path, help="write the table here as well")
    parser.set_defaults(run=_agreement)


def _agreement(options: argparse.Namespace) -> None:
    from workflow import files
    from workflow.comparison.agreement import agreement
    from workflow.comparison.tables import rarest_class
    from workflow.study import load

    comparison = load(options.study / "config.yaml").comparison
    found = []
    for folder in (options.study, options.other):
        cases = files.read_table(folder / "tables" / "cases.csv")
        if cases.empty:
            raise SystemExit(f"{folder}: there is no tables/cases.csv of a finished study")
        chosen = cases["checkpoint"] == comparison.checkpoint
        found.append(cases[chosen & cases["learning_rate"].notna()])  # without the floor
    rarest = rarest_class(files.read_table(options.study / "tables" / "dataset.csv"))
    table = agreement(found[0], found[1], rarest, comparison.confidence)
    table.insert(0, "study", options.study.name)
    table.insert(1, "other", options.other.name)
    print(table.to_string(index=False, float_format="{:.3f}".format))
    if options.out:
        files.write_table(options.out, table)


def _finished(folder: Path) -> tuple[dict, Tables]:
    """The settings of a study and what it reports."""
    import yaml

    from workflow import files
    from workflow.comparison import reproduction

    # as plain keys: those of a reference may be older than the models of a study
    study = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    names = reproduction.Tables._fields
    tables = {name: files.read_table(folder / "tables" / f"{name}.csv") for name in names}
    return study, reproduction.chosen(study, tables)


def _add_reproduce(commands: Commands) -> None:
    help = "compare a finished study with its committed reference tables"
    parser = _job(commands, "reproduce", _reproduce, help)
    parser.add_argument("reference", type=Path, help="folder of the reference")
    parser.add_argument("out", type=Path, help="reproduction.json")


def _reproduce(options: argparse.Namespace) -> None:
    from workflow import files
    from workflow.comparison import reproduction
    from workflow.comparison.tables import rarest_class

    changed = reproduction.changed_files(options.reference)
    if changed:
        files.write_json(options.out, reproduction.refusal(options.reference.name, changed))
        return
    (reference, ours), (new, theirs) = map(_finished, (options.reference, options.study.parent))
    rarest = rarest_class(files.read_table(options.reference / "tables" / "dataset.csv"))
    files.write_json(
        options.out,
        reproduction.certificate(options.reference.name, reference, ours, new, theirs, rarest),
    )


def _add_certify(commands: Commands) -> None:
    help = "tell what reproduction.json says; exit code 1 unless the study is reproduced"
    parser = commands.add_parser("certify", help=help, description=help)
    parser.add_argument("certificate", type=Path)
    parser.add_argument("--log", help="file that keeps what is printed")
    parser.set_defaults(run=_certify)


def _certify(options: argparse.Namespace) -> int:
    from workflow import files
    from workflow.reporting import reproduction

    found = files.read_json(options.certificate)
    for sentence in reproduction.summary(found):
        _say("%s", sentence)
    return 0 if reproduction.holds(found) else 1


def _add_seal(commands: Commands) -> None:
    help = "write SHA256SUMS into every reference folder with tables; prints what had changed"
    parser = commands.add_parser("seal", help=help, description=help)
    parser.add_argument(
        "references", type=Path, nargs="?", default=Path("results/reference"),
        help="folder of the references",
    )  # fmt: skip
    parser.set_defaults(run=_seal)


def _seal(options: argparse.Namespace) -> None:
    from workflow.comparison import reproduction
    from workflow.data.faults import DataError

    folders = sorted(tables.parent for tables in options.references.glob("*/tables"))
    if not folders:
        raise DataError([f"{options.references}: no folder with tables/ here"])
    for folder in folders:
        if (folder / reproduction.MANIFEST).is_file():
            for line in reproduction.changed_files(folder):
                _say("%s/%s", folder, line)
        reproduction.seal(folder)
    _say("sealed: %s", ", ".join(folder.name for folder in folders))


def _add_retell(commands: Commands) -> None:
    help = "copy committed reference tables and tell them: figures, report, paper; no training"
    parser = commands.add_parser("retell", help=help, description=help)
    parser.add_argument("reference", type=Path, help="folder of the reference")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--paper", type=Path, nargs="?", help="source of the paper, if one is made")
    parser.add_argument("--log", help="file that keeps what is printed")
    parser.set_defaults(run=_retell)


def _retell(options: argparse.Namespace) -> None:
    import shutil

    from workflow import files
    from workflow.comparison.reproduction import changed_files
    from workflow.data.faults import DataError
    from workflow.reporting import experiment, figures, paper, report

    if changed := changed_files(options.reference):
        raise DataError([f"{options.reference}/{line} since it was committed" for line in changed])
    out = options.out
    if out.resolve().is_relative_to(options.reference.resolve()):
        raise DataError([f"{out}: choose a folder outside the reference, which stays as it is"])
    is_experiment = (options.reference / "tables" / "answers").is_dir()
    comparisons = files.read_table(options.reference / "tables" / "comparisons.csv")
    if not is_experiment and "minimum_detectable_difference" not in comparisons:
        raise DataError([f"{options.reference}: these tables lack columns that reports now read"])
    shutil.rmtree(out / "tables", ignore_errors=True)  # an earlier reference may have had more
    shutil.copytree(options.reference, out, dirs_exist_ok=True)
    if is_experiment:
        _say("report: %s", experiment.build(out))
        return
    figures.write_all(out)
    if not (out / "tables" / "slices.npz").is_file():
        # nothing to draw them from: the pictures of voxels that were committed stay
        for name in report.RASTER:
            if (picture := options.reference / "figures" / f"{name}.png").is_file():
                shutil.copyfile(picture, out / "figures" / f"{name}.png")
    _say("report: %s", report.build(out, options.reference.parent))
    if options.paper:
        _say("paper: %s", paper.compile(options.paper, out, out / "paper.pdf"))


def _add_collect(commands: Commands) -> None:
    _job(commands, "collect", _collect, "gather the runs of an experiment into its raw tables")


def _collect(options: argparse.Namespace) -> None:
    from workflow import files, paths, provenance, study
    from workflow.comparison import experiment
    from workflow.data.prepare import load_all

    configuration = study.load(options.study)
    folder = options.study.parent
    arms = {}
    for name, variant in configuration.variants.items():
        place = Path(f"{folder}{paths.arm(name)}")
        arms[name] = experiment.Arm(
            study=variant,
            prepared=load_all(paths.resources(data) / "prepared" for data in variant.data_sets()),
            splits=files.read_table(place / "splits.csv"),
            runs=[
                Path(f"{folder}{paths.arm(configuration.home(name, loss))}")
                / "runs"
                / paths.run(variant, loss, seed)
                for loss in variant.losses
                for seed in variant.seeds
            ],
        )
    experiment.write(experiment.collect(configuration, arms), folder / "tables", ".csv.gz")
    plans = {name: arm.study.plan(arm.prepared) for name, arm in arms.items()}
    files.write_json(folder / "preparation.json", plans)
    files.write_json(folder / "environment.json", provenance.environment())


def _add_merge(commands: Commands) -> None:
    help = "merge the raw tables of an experiment's shards, then tell what they show"
    parser = _job(commands, "merge", _merge, help)
    parser.add_argument(
        "shards", type=Path, nargs="+", metavar="SHARD",
        help="folder of a shard's results, with config.yaml and tables/",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="folder of the whole study")


def _merge(options: argparse.Namespace) -> None:
    from workflow import files, study
    from workflow.comparison import experiment

    configuration = study.load(options.study)
    shards = [
        experiment.Shard(
            str(folder), study.load(folder / "config.yaml"), experiment.read(folder / "tables")
        )
        for folder in options.shards
    ]
    raw = experiment.merge(configuration, shards)
    for row in experiment.outcomes(configuration, raw["runs"]).itertuples():
        if row.missing:
            arm = f"arm {row.arm}: " if row.arm else ""
            _say("%s%d of %d runs are in no shard", arm, row.missing, row.runs)
    experiment.write(raw, options.out / "tables", ".csv.gz")
    plans = [folder / "preparation.json" for folder in options.shards]
    if plans := [plan for plan in plans if plan.is_file()]:  # earlier versions wrote none
        of_arms = {arm: plan for file in plans for arm, plan in files.read_json(file).items()}
        files.write_json(options.out / "preparation.json", of_arms)
    files.write_text(options.out / "config.yaml", configuration.as_yaml())
    options.study = options.out / "config.yaml"
    _analyse(options)
    _tell(options)


def _add_analyse(commands: Commands) -> None:
    _job(commands, "analyse", _analyse, "answer an experiment's question from its raw tables")


def _analyse(options: argparse.Namespace) -> None:
    from workflow import study
    from workflow.comparison import experiment

    folder = options.study.parent / "tables"
    answers = experiment.answers(study.load(options.study), experiment.read(folder))
    experiment.write(answers, folder / "answers", ".csv")


def _add_tell(commands: Commands) -> None:
    _job(commands, "tell", _tell, "write the figures and the report of an experiment's folder")


def _tell(options: argparse.Namespace) -> None:
    from workflow import paths, study
    from workflow.reporting import experiment

    configuration, folder = study.load(options.study), options.study.parent

    def logs(arm: str, loss: str) -> Path:
        return Path(f"{folder}{paths.arm(configuration.home(arm, loss))}") / "logs"

    _say("report: %s", experiment.build(folder, logs))


if __name__ == "__main__":
    sys.exit(main())
