"""From a file of ``config/`` to a study: YAML, ``extends``, and what lies beside the file."""

from __future__ import annotations

import csv
import os
import re
import reprlib
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from workflow.study.keys import merge
from workflow.study.model import Study, StudyError, faults
from workflow.study.shards import shard


def load(path: Path | str, overrides: dict[str, Any] | None = None) -> Study:
    """The study of a YAML file, single keys replaced by ``overrides`` (nested as in the file).

    Lists of ``losses``, ``seeds`` and ``arms`` among the overrides choose from those of the study:
    a shard of it (see :func:`_shard`). A loss of the user's own is found beside the file. Raises
    :class:`StudyError` with one line for each fault.
    """
    path = Path(path)
    data = _read_file(path)
    overrides = dict(overrides or {})
    if "losses" in overrides:
        overrides["losses"] = typed(overrides["losses"])
    try:
        data = merge(*shard(data, overrides))
    except ValueError as error:
        raise StudyError(f"{path}: {error}") from None
    data = _found_beside(data, path)
    arms = {} if data.get("arms") is None else data["arms"]
    if isinstance(arms, dict):
        data["arms"] = {name: _found_beside(changes, path) for name, changes in arms.items()}
    try:
        return Study.model_validate(data)
    except ValidationError as error:
        raise StudyError(_explain(path, error)) from None


def _read_file(path: Path, below: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The keys of a study file, and those of the study beside it that it ``extends``."""
    if path in below:
        raise StudyError(f"{path}: extends: the studies {', '.join(map(str, below))} are a circle")
    try:
        data = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"{path}: no such study file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        words = " ".join(str(error).replace('in "<unicode string>", ', "in ").split())
        raise StudyError(f"{path}: cannot be read as YAML, correct it: {words}") from None
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror})") from None
    if not isinstance(data, dict):
        raise StudyError(f"{path}: a study is a mapping of keys, this is {type(data).__name__}")
    base = data.pop("extends", None)
    if base is None:
        return data
    if not isinstance(base, str) or Path(base).name != base:
        raise StudyError(f"{path}: extends: expected a study file in the same folder, got {base!r}")
    merged = merge(_read_file(path.parent / base, (*below, path)), data)
    # of losses a study has its own, or those of the other study
    return merged | {key: data[key] for key in ("losses", "rates") if key in data}


def _found_beside(keys: Any, study: Path) -> Any:
    """The keys of a study or an arm, with what they name of the files beside the study."""
    if not isinstance(keys, dict):
        return keys
    found = {}
    if isinstance(entries := keys.get("losses"), dict):
        found["losses"] = {label: _beside(entry, study.parent) for label, entry in entries.items()}
    if isinstance(keys.get("rates"), str):
        found["rates"] = _read_rates(study, keys["rates"])
    return keys | found


def _read_rates(study: Path, name: str) -> dict[str, Any]:
    """Learning rates from a CSV file beside the study, with the columns loss and learning_rate."""
    file = study.parent / name
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            return {row["loss"]: row["learning_rate"] for row in csv.DictReader(lines)}
    except KeyError as error:
        raise StudyError(f"{study}: rates: {file} has no column {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{study}: rates: {file} cannot be read: {error}") from None


def _beside(entry: Any, folder: Path) -> Any:
    """A loss of the user's own that lies beside the study, named by its path from here.

    The resolved study lies elsewhere, so a name relative to the study would be lost.
    """
    if not (isinstance(entry, dict) and isinstance(entry.get("name"), str)):
        return entry
    module, colon, cls = entry["name"].rpartition(":")
    if not colon:
        return entry
    file = folder / (module if module.endswith(".py") else module.replace(".", "/") + ".py")
    return entry | {"name": f"{os.path.relpath(file)}:{cls}"} if file.is_file() else entry


class _UniqueKeys(yaml.SafeLoader):
    """Safe YAML in which a key that stands twice is an error instead of the last one's victory."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.YAMLError(f"a key must be a word{key_node.start_mark}")
            key = key_node.value
            if key in seen:
                raise yaml.YAMLError(f"the key '{key}' stands twice{key_node.start_mark}")
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError):  # 2024-13-45, !!bool x, !!timestamp x
            kind = node.tag.rpartition(":")[2]
            raise yaml.YAMLError(
                f"{reprlib.repr(node.value)} is no {kind}{node.start_mark}"
            ) from None


# PyYAML takes 1e-5 for text, because YAML 1.1 wants a dot in it
_UniqueKeys.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_yaml(text: str) -> Any:
    """Raises ``yaml.YAMLError`` and nothing else, whatever the text."""
    try:
        return yaml.load(text, Loader=_UniqueKeys)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None


def typed(value: Any) -> Any:
    """Options of losses as YAML types them; from the command line they arrive as text.

    Every other key is typed by its model.
    """
    if isinstance(value, str):
        try:
            return read_yaml(value)
        except yaml.YAMLError:
            return value
    if isinstance(value, list):
        return [typed(item) for item in value]
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    return value


def _explain(path: Path, error: ValidationError) -> str:
    # those of the arms are lines of one message
    return "\n".join(f"{path}: {line}" for fault in faults(error) for line in fault.split("\n"))
