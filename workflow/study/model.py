"""Every key of a study, its type, its range and its default: here and nowhere else.

``config/README.md`` is checked against this module.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_serializer,
    model_validator,
)

import losses
from workflow.data.choices import (
    Geometry,
    Normalisation,
    Wishes,
    check_multiples,
    geometry,
    multiples,
    typical,
)
from workflow.data.phantom import PhantomSettings
from workflow.study.keys import chosen, merge

if TYPE_CHECKING:
    from workflow.data.prepare import Prepared

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Triple = tuple[Count, Count, Count]
Auto = Literal["auto"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=80)]

ArmName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+=,-]*$", max_length=80)]
Experiment = Literal["mechanism", "absence", "imbalance", "published", "factorial", "sgd"]

REFERENCE = "dice_ce"
"""The loss that others are compared with where a study names none."""

FLOOR = "all_background"
"""Label of the row that no run stands behind: the score of predicting nothing."""

TRAINING_SET_WORDS = {"weight": "inverse_frequency", "volumes": "training_set"}
"""Options of a loss, and the word for a value that is computed from the study's training cases."""

ARMS_SHARE = {"title", "experiment", "arms", "tuning"}
"""Keys that the arms of a study have in common."""


class StudyError(Exception):
    """A fault of a study file: one line a fault, each naming the key and what was expected."""


class Section(BaseModel):
    """A part of a study: immutable, and every unknown key is refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, coerce_numbers_to_str=True
    )


class Dataset(Section):
    """Where the volumes come from; see ``workflow/data``."""

    source: Literal["phantom", "folder", "decathlon"]
    name: Name
    root: str | None = Field(None, description="folder in the MSD, nnU-Net v2 or ACDC layout")
    task: str | None = Field(None, description="Decathlon task, e.g. Task04_Hippocampus")
    subject: str | None = Field(None, description="regular expression: case name -> subject")
    labels: dict[str, list[int]] | None = Field(None, description="classes merged from labels")
    phantom: PhantomSettings = Field(default_factory=PhantomSettings)

    @model_validator(mode="after")
    def _source_is_complete(self) -> Dataset:
        if self.source == "folder" and not self.root:
            raise ValueError("source 'folder' needs the key 'root': the folder of the data set")
        if self.source == "decathlon" and not (self.task and self.root):
            raise ValueError("source 'decathlon' needs the keys 'task' and 'root'")
        if self.subject is not None:
            try:
                re.compile(self.subject)
            except re.error as error:
                raise ValueError(
                    f"subject: '{self.subject}' is no regular expression: {error}"
                ) from None
        return self


class Preparation(Section):
    """What is done to the volumes before training; ``auto`` follows from their fingerprint."""

    spacing: Literal["native", "auto"] | tuple[Positive, Positive, Positive] = Field(
        "native", description="of the arrays along x, y and z in mm"
    )
    crop: Literal["none", "nonzero", "auto"] = "none"
    normalisation: Auto | Normalisation | tuple[Normalisation, ...] = Field(
        "percentiles", description="of all channels, or a list of one a channel"
    )
    patch_voxels: Count = Field(32**3, description="most voxels of a patch_size that is auto")

    def wishes(self) -> Wishes:
        """The same for the data room, which knows nothing of studies."""
        return Wishes(**self.model_dump())


class Splits(Section):
    """Fractions of the subjects."""

    train: Annotated[float, Field(gt=0, lt=1)] = 0.45
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    test: Annotated[float, Field(ge=0, lt=1)] = 0.45
    seed: int = 0

    @model_validator(mode="after")
    def _fractions_sum_to_one(self) -> Splits:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + validation + test must be 1, they are {total:g}")
        return self


class Network(Section):
    """MONAI ``UNet``."""

    channels: tuple[Count, ...] = (8, 16, 32, 64)
    strides: tuple[Count | Triple, ...] | Auto = (2, 2, 2)
    num_res_units: Annotated[int, Field(ge=0)] = 1
    norm: Literal["batch", "instance"] = "batch"

    @model_validator(mode="after")
    def _lengths_match(self) -> Network:
        if len(self.channels) < 2:
            raise ValueError(f"channels needs two levels or more, not {len(self.channels)}")
        if self.strides != "auto" and len(self.strides) != len(self.channels) - 1:
            raise ValueError(
                f"strides must be one shorter than channels ({len(self.channels)}), "
                f"it has {len(self.strides)}"
            )
        return self


class Training(Section):
    """The optimisation, the same for every loss."""

    steps: Count = 800
    batch_size: Count = 2
    patch_size: Triple | Auto = (32, 32, 32)
    foreground_share: Share = 2 / 3
    flips: bool = True
    intensity_jitter: Annotated[float, Field(ge=0, lt=1)] = 0.1
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.99, description="of sgd, which is Nesterov's"
    )
    learning_rate: Positive = 3e-3
    schedule: Literal["one_cycle", "polynomial"] = "one_cycle"
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    output_bias: Literal["random", "class_frequencies"] = Field(
        "random", description="start of the output layer's bias"
    )
    validate_every: Count = 100
    signals_every: Annotated[int, Field(ge=0)] = Field(
        0, description="steps between records of each class's gradient; 0: none"
    )
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"


class Tuning(Section):
    """A learning rate for each loss, chosen on validation from trials that all losses share."""

    grid: tuple[Positive, ...] = (1e-3, 3e-3, 1e-2)
    seed: Annotated[int, Field(ge=0)] = 1000
    steps: Count | None = Field(None, description="of a trial; default: training.steps")

    @model_validator(mode="after")
    def _grid_rises(self) -> Tuning:
        if len(self.grid) < 3 or list(self.grid) != sorted(set(self.grid)):
            raise ValueError(f"grid must be three rates or more, rising, not {list(self.grid)}")
        return self


class Evaluation(Section):
    """How a trained network is scored."""

    window: Triple | None = Field(None, description="sliding window; default: the patch size")
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.25
    nsd_tolerance: Positive = Field(2.0, description="tolerance of the surface Dice in mm")


class Comparison(Section):
    """How runs are compared."""

    checkpoint: Literal["best", "last"] = "best"
    reference_loss: str = REFERENCE
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    margin: Positive = Field(0.02, description="losses within it are called equivalent, in Dice")


def _loss_schema(schema: dict[str, Any]) -> None:
    """In a file, options stand beside the name, and the name defaults to the label."""
    schema.update(required=[], additionalProperties=True, type=["object", "null"])
    schema["properties"].pop("options")


class Loss(Section):
    """A loss of the study: a name of the catalogue (or ``package.module:Class``) and options."""

    model_config = ConfigDict(json_schema_extra=_loss_schema)

    name: str
    options: dict[str, Any] = {}

    def check(self) -> None:
        """Raises ``TypeError`` or ``ValueError`` for an unknown name, option, type or range."""
        options = dict(self.options)
        for name, word in TRAINING_SET_WORDS.items():
            if options.get(name) == word:
                options[name] = [1.0, 1.0]  # known only once the training cases are counted
        losses.create(self.name, **options)


class Data(Section):
    """What decides the data set and its prepared arrays, shared by all studies that agree in it.

    The patch size takes part because volumes smaller than it are reported. An external test set is
    prepared ``like`` the data set of training, where the study asks for a preparation.
    """

    dataset: Dataset
    patch_size: Triple | Auto
    preparation: Preparation = Preparation()
    like: Data | None = None

    @model_serializer(mode="wrap")
    def _without_defaults(self, serialise: Callable[[Data], dict[str, Any]]) -> dict[str, Any]:
        """So that a key which is not used gives no data set another digest."""
        content = serialise(self)
        if self.preparation == Preparation():
            del content["preparation"]
        if self.like is None:
            del content["like"]
        return content

    def fingerprint(self) -> str:
        """Eight letters that name it among the prepared data sets."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:8]


class RunSettings(Section):
    """What decides the result of a run, its data, learning rate and seed aside.

    A job gets this and no more, so that a change of the study reruns what it affects.
    """

    loss: Loss
    network: Network
    training: Training
    evaluation: Evaluation
    checkpoint: Literal["best", "last"]

    def geometry(self, prepared: Prepared) -> Geometry:
        """Patch, strides and window, ``auto`` decided from the fingerprint of the data set.

        Raises :class:`StudyError` where they do not fit each other.
        """
        try:
            return geometry(
                *typical(prepared.fingerprint, prepared.choices),
                levels=len(self.network.channels),
                patch_size=self.training.patch_size,
                strides=self.network.strides,
                window=self.evaluation.window,
                patch_voxels=prepared.patch_voxels,
            )
        except ValueError as error:
            raise StudyError(str(error)) from None

    def sha256(self) -> str:
        """Digest by which a run tells what it was made with."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class Study(Section):
    """One study."""

    title: str = "Which segmentation loss survives class imbalance?"
    experiment: Experiment | None = None
    dataset: Dataset
    external: Dataset | None = Field(None, description="another data set, all of it for testing")
    preparation: Preparation = Preparation()
    splits: Splits = Splits()
    network: Network = Network()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    comparison: Comparison = Comparison()
    tuning: Tuning | None = None
    rates: dict[str, Positive] | None = Field(
        None, description="learning rate of each loss, or a CSV file with them"
    )
    time_limit: Positive | None = Field(
        None, description="minutes, after which a run is failed; changing it repeats no run"
    )
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (1, 2, 3)
    losses: dict[Name, Loss]
    arms: dict[ArmName, dict[str, Any]] = Field(
        {}, description="variants of the study: the keys that each replaces"
    )

    @model_validator(mode="before")
    @classmethod
    def _losses_are_names_with_options(cls, data: Any) -> Any:
        """``label: {name: dice, batch: true}``; the name defaults to the label."""
        if not isinstance(data, dict) or "losses" not in data:
            return data
        entries = entries_of(data["losses"])
        if isinstance(entries, dict):
            entries = {label: _named(str(label), entry) for label, entry in entries.items()}
        return data | {"losses": entries}

    @model_validator(mode="after")
    def _is_consistent(self) -> Study:
        if not self.losses:
            raise ValueError("losses: at least one loss is needed")
        if FLOOR in self.losses:
            raise ValueError(f"losses.{FLOOR}: this label is taken by the floor of every table")
        if not self.seeds:
            raise ValueError("seeds: at least one seed is needed")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: {list(self.seeds)} lists a seed twice")
        if not (self.splits.test or self.external):
            raise ValueError("splits.test: 0 leaves no test case; it needs the key external")
        if self.external and self.external.name == self.dataset.name:
            raise ValueError(f"external.name: '{self.external.name}' is the name of dataset too")
        if self.tuning and self.rates:
            raise ValueError("rates: tuning finds the rates; a study has one of the two keys")
        if self.tuning and self.tuning.seed in self.seeds:
            raise ValueError(
                f"tuning.seed: {self.tuning.seed} is a seed of the study; rates must be chosen "
                "on another"
            )
        if self.rates and (missing := [n for n in self.losses if n not in self.rates]):
            raise ValueError(f"rates: no learning rate for {', '.join(missing)}")
        if self.comparison.reference_loss not in self.losses:
            raise ValueError(
                f"comparison.reference_loss: '{self.comparison.reference_loss}' is no label of "
                f"this study's losses: {', '.join(self.losses)}"
            )
        if self.network.strides != "auto":  # else it is known only with the data
            patch = self.training.patch_size
            divisor = multiples(self.network.strides)
            check_multiples("training.patch_size", divisor if patch == "auto" else patch, divisor)
            check_multiples("evaluation.window", self.evaluation.window or divisor, divisor)
        for label, loss in self.losses.items():
            try:
                loss.check()
            except (TypeError, ValueError) as error:
                raise ValueError(f"losses.{label}: {error}") from None
            except Exception as error:  # a user's own class may raise anything
                reason = f"{type(error).__name__}: {error}"
                raise ValueError(f"losses.{label}: cannot be made: {reason}") from None
        if self.arms and self.tuning:
            raise ValueError("tuning: rates are found by a study without arms")
        if faults := [fault for name in self.arms for fault in self._faults_of_arm(name)]:
            raise ValueError("\n".join(faults))
        return self

    def _faults_of_arm(self, name: str) -> list[str]:
        where = f"arms.{name}."
        if own := sorted(ARMS_SHARE & set(self.arms[name])):
            return [f"{where}{key}: all arms share this key" for key in own]
        try:
            arm = self._arm(name)
        except ValidationError as error:
            return faults(error, where)
        except ValueError as error:
            return [f"{where}{error}"]
        if arm.training.signals_every != self.training.signals_every:
            return [f"{where}training.signals_every: all arms share this key"]
        return []

    def _arm(self, name: str) -> Study:
        changes = dict(self.arms[name])
        base = self._as_data()
        if isinstance(changes.get("losses"), list):
            changes["losses"] = chosen(base.pop("losses"), changes["losses"], "losses")
        return Study.model_validate(merge(base, changes) | {"arms": {}, "experiment": None})

    @functools.cached_property
    def variants(self) -> dict[str, Study]:
        """The study of each arm, without arms of its own; a study without arms is its only one."""
        return {name: self._arm(name) for name in self.arms} or {"": self}

    def home(self, arm: str, label: str) -> str:
        """The arm whose folder has the runs of an arm with the loss of this label.

        It is the first whose runs depend on the same: a run that stands in two arms is trained
        once.
        """
        wanted = self.variants[arm]._run_identity(label)
        return next(
            name
            for name, variant in self.variants.items()
            if label in variant.losses and variant._run_identity(label) == wanted
        )

    def _run_identity(self, label: str) -> tuple:
        return (
            self.run_settings(label).model_dump_json(),
            self.data(),
            self.external_data(),
            self.splits,
            bool(self.tuning),
        )

    @property
    def is_experiment(self) -> bool:
        """Whether it is told by what its arms show, not as one ranking of its losses."""
        return bool(self.arms or self.experiment)

    @property
    def test_set(self) -> str:
        """Name of the data set whose cases decide: the external one, if there is one."""
        return (self.external or self.dataset).name

    def run_settings(self, label: str) -> RunSettings:
        """What a run with the loss of this label depends on."""
        return RunSettings(
            loss=self.losses[label],
            network=self.network,
            # each run is told its own rate: that of the study must not tell runs apart
            training=self.training.model_copy(update={"learning_rate": Training().learning_rate}),
            evaluation=self.evaluation,
            checkpoint=self.comparison.checkpoint,
        )

    def trial_settings(self, label: str) -> RunSettings:
        """What a trial of a learning rate depends on: a run of the tuning's length."""
        assert self.tuning is not None  # a study without tuning has no trials
        steps = self.tuning.steps or self.training.steps
        run = self.run_settings(label)
        training = run.training.model_copy(update={"steps": steps})
        return run.model_copy(update={"training": training})

    def rate(self, label: str) -> str:
        """The learning rate of a loss as its folder names it; "tuned" if it is yet to be found."""
        if self.tuning:
            return "tuned"
        return repr(self.rates[label] if self.rates else self.training.learning_rate)

    def data(self) -> Data:
        """What the data set and its preparation depend on."""
        return Data(
            dataset=self.dataset,
            patch_size=self.training.patch_size,
            preparation=self.preparation,
        )

    def external_data(self) -> Data | None:
        """The same of the external test set."""
        if self.external is None:
            return None
        own = self.data()
        like = None if self.preparation == Preparation() else own
        return own.model_copy(update={"dataset": self.external, "like": like})

    def plan(self, prepared: Prepared) -> dict[str, Any]:
        """``preparation.json``: whose data, their fingerprint, what was asked and chosen."""
        geometry = self.run_settings(next(iter(self.losses))).geometry(prepared)
        asked = {"preparation": self.preparation, "training": self.training,
                 "network": self.network, "evaluation": self.evaluation}  # fmt: skip
        keys = {"preparation": {"spacing", "crop", "normalisation", "patch_voxels"},
                "training": {"patch_size"}, "network": {"strides"},
                "evaluation": {"window"}}  # fmt: skip
        chosen = dataclasses.asdict(prepared.choices) | dataclasses.asdict(geometry)
        return {
            "dataset": prepared.name,
            "reference": prepared.reference,
            "licence": prepared.licence,
            "asked": {
                key: value
                for name, section in asked.items()
                for key, value in section.model_dump(mode="json", include=keys[name]).items()
            },
            "chosen": chosen | {"spacing": prepared.choices.spacing or "native"},
            "fingerprint": prepared.fingerprint,
        }

    def data_sets(self) -> list[Data]:
        """That of training, and the external test set if there is one."""
        external = self.external_data()
        return [self.data()] if external is None else [self.data(), external]

    def _as_data(self) -> dict[str, Any]:
        """The keys as a file holds them."""
        data = self.model_dump(mode="json")
        data["losses"] = {
            label: {"name": loss.name} | loss.options for label, loss in self.losses.items()
        }
        return data

    def as_yaml(self) -> str:
        """The resolved study, readable by :func:`load` again."""
        return yaml.safe_dump(self._as_data(), sort_keys=False, allow_unicode=True)


def json_schema() -> dict[str, Any]:
    """The JSON schema of a study file, for editors."""
    schema = Study.model_json_schema()
    schema["properties"]["extends"] = {
        "type": "string",
        "description": "a study in the same folder whose keys this one takes over",
    }
    schema["properties"]["rates"]["anyOf"].append({"type": "string"})
    schema["anyOf"] = [{"required": ["extends"]}, {"required": schema.pop("required")}]
    # a study that extends another may replace some keys of its data set
    del schema["$defs"]["Dataset"]["required"]
    return schema


def entries_of(named: Any) -> Any:
    """The mapping of losses, also where they are named by a word or a list of words.

    A word names a loss with its defaults, or a collection such as ``loss_odyssey``.
    """
    if isinstance(named, str):
        named = [named]
    if isinstance(named, list):
        names = [n for word in named for n in losses.collections.get(str(word), (str(word),))]
        return {name: _defaults(name) for name in names}
    return named


def _named(label: str, entry: Any) -> Any:
    if isinstance(entry, Loss):
        return entry
    if entry is None:
        entry = {}
    if not isinstance(entry, dict):
        raise ValueError(
            f"losses.{label}: expected a mapping of options such as {{name: dice, batch: true}}, "
            f"not {entry!r}"
        )
    options = dict(entry)
    return {"name": str(options.pop("name", label)), "options": options}


def _defaults(name: str) -> dict[str, Any]:
    """Options of a loss that is only named.

    Class weights that it, or the loss that corrects it, must have come from the training cases.
    """
    if name not in losses.available():
        return {}
    twin = losses.card(name).twin
    names = [name, twin] if isinstance(twin, str) else [name]
    required = any(losses.options(n).get("weight") is losses.REQUIRED for n in names)
    return {"weight": TRAINING_SET_WORDS["weight"]} if required else {}


def faults(error: ValidationError, prefix: str = "") -> list[str]:
    lines = []
    for fault in error.errors():
        where = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            known = _known_keys(fault["loc"][:-1])
            near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1, cutoff=0)
            message = f"unknown key; did you mean '{near[0]}'? known here: {', '.join(known)}"
        elif fault["type"] != "missing" and not isinstance(fault["input"], dict):
            message = f"{message}, got {fault['input']!r}"
        lines.append(f"{prefix}{where + ': ' if where else ''}{message}")
    return lines


def _known_keys(location: tuple) -> list[str]:
    """The keys that the section at ``location`` knows."""
    section: Any = Study
    for part in location:
        if part == "phantom":
            return [field.name for field in dataclasses.fields(PhantomSettings)]
        field = getattr(section, "model_fields", {}).get(part)
        section = field.annotation if field else section
    return list(section.model_fields)
