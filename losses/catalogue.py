"""The losses by name: what there is, how to build one, and its card.

A loss is found by being there: a subclass of SegmentationLoss with a ``name``, in any module of
this package. A loss of the user's own is named ``package.module:Class`` or
``path/to/file.py:Class``.
"""

from __future__ import annotations

import ast
import csv
import importlib
import importlib.util
import inspect
import pkgutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any
from zlib import crc32

from torch import Tensor

from .base import About, SegmentationLoss

_FOLDER = Path(__file__).resolve().parent
_PACKAGE = __package__
_NOT_LOSSES = {"base", "catalogue", "contract"}
_MEASURED = _FOLDER / "measured.csv"  # written by python -m benchmarks.cards

# The 20 losses that Ma et al. compare: doi:10.1016/j.media.2021.102035
_LOSS_ODYSSEY = (
    "cross_entropy",
    "weighted_cross_entropy",
    "topk_cross_entropy",
    "focal",
    "distance_penalised_cross_entropy",
    "sensitivity_specificity",
    "dice",
    "jaccard",
    "tversky",
    "generalized_dice",
    "penalty_generalized_dice",
    "asymmetric_similarity",
    "focal_tversky",
    "lovasz_softmax",
    "exponential_logarithmic",
    "dice_ce",
    "dice_focal",
    "dice_topk",
    "dice_boundary",
    "dice_hausdorff",
)

Loss = Callable[[Tensor, Tensor], Tensor]


class _Required:
    def __repr__(self) -> str:
        return "required"


REQUIRED = _Required()
"""Stands in ``options(name)`` for the default of an option that must be given."""


@dataclass(frozen=True, kw_only=True)
class Card(About):
    """What a loss is: what it says about itself, its name and its options.

    ``twin`` is the name of the corrected loss for a published one, and a tuple of the names of its
    published ones, if any, for every other loss.

    Two numbers are measured, and None for a loss of the user's own: ``gradient_scale``, the sum
    over voxels and classes of the absolute gradient on the logits of one image of 32^3 voxels and
    4 classes before training (nested balls of radius 8, 4 and 2; logits normal, of standard
    deviation 0.1), and ``cost``, the time of the loss and its gradient over that of softmax and
    its gradient alone (2 x 4 x 64^3 voxels, one thread of a CPU).
    """

    name: str
    defaults: Mapping[str, Any]
    gradient_scale: float | None = None
    cost: float | None = None

    @property
    def published(self) -> bool:
        """Whether the loss behaves as a document published it."""
        return self.seed is not None

    def text(self, width: int = 88) -> str:
        """The card as plain text, wrapped for a terminal."""
        twins = (self.twin,) if isinstance(self.twin, str) else self.twin or ()
        rows = {
            "title": self.title,
            "family": self.family,
            "document": self.seed,
            "corrected" if isinstance(self.twin, str) else "published": ", ".join(twins),
            "why corrected": self.reason,
            "runs as is": self.runs_as_is,
            "formula": self.formula,
            "source": self.paper,
            "reduction": self.reduction,
            "smoothing": self.smoothing,
            "background": self.background,
            "absent class": self.absent_class,
            "value": self.value_range,
            "options": ", ".join(f"{name}={value!r}" for name, value in self.defaults.items()),
            "defaults from": self.defaults_from,
            "gradient scale": self.gradient_scale and f"{self.gradient_scale:.2g}, before training",
            "cost": self.cost and f"{self.cost:g} times softmax and its gradient",
        }
        lines = [self.name, "-" * len(self.name)]
        for label, value in rows.items():
            if value:
                lines += textwrap.wrap(
                    value,
                    width,
                    initial_indent=f"{label:<15}",
                    subsequent_indent=" " * 15,
                    break_long_words=False,
                    break_on_hyphens=False,
                )
        return "\n".join(lines)


@cache
def _classes() -> Mapping[str, type[SegmentationLoss]]:
    """Every named loss of this package."""
    found: dict[str, type[SegmentationLoss]] = {}
    for info in pkgutil.iter_modules([str(_FOLDER)]):
        if info.name in _NOT_LOSSES:
            continue
        module = importlib.import_module(f"{_PACKAGE}.{info.name}")
        for value in vars(module).values():
            if (
                inspect.isclass(value)
                and issubclass(value, SegmentationLoss)
                and value.__module__ == module.__name__
                and (name := vars(value).get("name"))
            ):
                if name in found:
                    raise RuntimeError(f"two losses are named {name!r}")
                found[name] = value
    return MappingProxyType(dict(sorted(found.items())))


def available() -> list[str]:
    """Names of all losses of the catalogue, sorted."""
    return list(_classes())


def create(name: str, **options: Any) -> Loss:
    """Build a loss by its name in the catalogue, or a user's own by ``module:Class``.

    Errors:
        ValueError: no such loss, module, file or class; an option out of range.
        TypeError: an option that the loss does not have, lacks or that has the wrong type; a
            user's class whose instances cannot be called with (logits, labels).
    """
    loss_class = _find(name)
    _check_options(name, loss_class, options)
    loss = loss_class(**options)
    if not isinstance(loss, SegmentationLoss):
        _check_callable(name, loss)
    return loss


def options(name: str) -> Mapping[str, Any]:
    """Options of a loss and their defaults; REQUIRED for an option that must be given."""
    return MappingProxyType(_parameters(_find(name))[0])


def card(name: str) -> Card:
    """The card of a loss; for a user's own loss without ``about``, little more than its name."""
    loss_class = _find(name)
    about = getattr(loss_class, "about", None)
    if about is None:
        first_line = (inspect.getdoc(loss_class) or loss_class.__name__).splitlines()[0]
        about = About(title=first_line, family="user's own")
    texts: dict[str, Any] = {entry.name: getattr(about, entry.name) for entry in fields(about)}
    if about.twin is None:
        twins = ((key, value.about.twin) for key, value in _classes().items() if value.about)
        texts["twin"] = tuple(key for key, twin in twins if twin == name)
    texts.update(_measured().get(name, {}))
    return Card(**texts, name=name, defaults=options(name))


@cache
def _measured() -> Mapping[str, Mapping[str, float]]:
    """The measured values of the cards, by the name of the loss."""
    with _MEASURED.open(encoding="utf-8", newline="") as table:
        rows = {row.pop("name"): row for row in csv.DictReader(table)}
    return {name: {key: float(value) for key, value in row.items()} for name, row in rows.items()}


def _collections() -> Mapping[str, tuple[str, ...]]:
    published = {name: card(name).twin for name in available() if card(name).published}
    return MappingProxyType(
        {
            "loss_odyssey": _LOSS_ODYSSEY,
            "seeds_as_published": tuple(published),
            "seeds_corrected": tuple(
                sorted({twin for twin in published.values() if isinstance(twin, str)})
            ),
        }
    )


def sources(name: str) -> tuple[Path, ...]:
    """Source files whose code a loss consists of: its own, and those of this package it imports.

    For rerunning what an edit affects, and nothing else; the catalogue is not part of any loss.
    """
    loss_class = _find(name)
    own = Path(inspect.getfile(sys.modules[loss_class.__module__])).resolve()
    found: list[Path] = []
    pending = [own]
    while pending:
        path = pending.pop()
        if path not in found:
            found.append(path)
            pending += _imported(path)
    return (own, *sorted(set(found) - {own}))


def _imported(path: Path) -> list[Path]:
    """Modules of this package that a source file imports."""
    inside = path.parent == _FOLDER
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if inside and node.level == 1:
                module = f"{_PACKAGE}.{module}"
            names.add(module)
            names.update(f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    modules = {name.removeprefix(f"{_PACKAGE}.") for name in names if name.startswith(_PACKAGE)}
    paths = [_FOLDER / f"{module}.py" for module in modules - {"catalogue", "__init__"}]
    return [path for path in paths if path.is_file()]


def _find(name: str) -> type:
    """The class behind a name."""
    if not isinstance(name, str):
        raise TypeError(f"a loss is named by a string, got {name!r}")
    if ":" in name:
        return _find_own(name)
    if name not in _classes():
        raise ValueError(
            f"unknown loss {name!r}{_nearest(name, _classes())}; "
            f"available: {', '.join(_classes())}; or package.module:Class for your own"
        )
    return _classes()[name]


def _find_own(name: str) -> type:
    """The class behind ``package.module:Class`` or ``path/to/file.py:Class``."""
    place, _, class_name = name.rpartition(":")
    try:
        module = (
            _load_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        )
    except FileNotFoundError:
        raise ValueError(f"loss {name!r}: there is no file {place}") from None
    except ModuleNotFoundError as error:
        raise ValueError(f"loss {name!r}: module {error.name!r} is not found") from error
    except Exception as error:
        raise ValueError(
            f"loss {name!r}: {place} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    found = getattr(module, class_name, None)
    if not inspect.isclass(found):
        own = [
            key
            for key, value in vars(module).items()
            if inspect.isclass(value) and value.__module__ == module.__name__
        ]
        what = "has no class" if found is None else "has something that is not a class, called"
        raise ValueError(
            f"loss {name!r}: {place} {what} {class_name!r}{_nearest(class_name, own)}; "
            f"its classes: {', '.join(own) or 'none'}"
        )
    return found


def _load_file(path: Path) -> ModuleType:
    """The module in a file, loaded once as long as the file does not change."""
    path = path.resolve()
    return _load_version(path, path.stat().st_mtime_ns)


@cache
def _load_version(path: Path, _changed: int) -> ModuleType:
    name = f"_own_loss_{path.stem}_{crc32(str(path).encode()):08x}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # None only where the ending is not .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pickling and dataclasses look the module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _parameters(loss_class: type) -> tuple[dict[str, Any], bool]:
    """Options of a class with their defaults, and whether it takes any others.

    A constructor that ends in ``**options`` passes them on: its base class is asked as well.
    """
    found: dict[str, Any] = {}
    for base in loss_class.__mro__:
        if "__init__" not in vars(base) or base.__module__ == "torch.nn.modules.module":
            continue
        if base is object:
            return found, False
        parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        for parameter in parameters:
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                default = REQUIRED if parameter.default is parameter.empty else parameter.default
                found.setdefault(parameter.name, default)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return found, False
    return found, True


def _check_options(name: str, loss_class: type, given: Mapping[str, Any]) -> None:
    known, takes_others = _parameters(loss_class)
    for option in given:
        if option not in known and not takes_others:
            raise TypeError(
                f"loss {name!r} has no option {option!r}{_nearest(option, known)}; "
                f"its options: {', '.join(known) or 'none'}"
            )
    missing = [key for key, value in known.items() if value is REQUIRED and key not in given]
    if missing:
        raise TypeError(f"loss {name!r} needs the option {', '.join(missing)}")


def _check_callable(name: str, loss: object) -> None:
    wanted = f"loss {name!r}: an instance must be callable as loss(logits, labels)"
    if not callable(loss):
        raise TypeError(wanted)
    try:
        inspect.signature(getattr(loss, "forward", loss)).bind(None, None)
    except TypeError as error:
        raise TypeError(f"{wanted}, but: {error}") from None


def _nearest(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


collections: Mapping[str, tuple[str, ...]] = _collections()
"""Names of losses that belong together, under one name that a study can use for all of them."""
