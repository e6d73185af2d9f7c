"""Where the numbers come from: versions, machine, hashes, times, and how to make them again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, Protocol

import pandas as pd
import yaml

from workflow.reporting import downloads
from workflow.reporting.study_tables import Study
from workflow.reporting.wording import DASH, count, number

MACHINE = ("platform", "processor", "cores")
ORIGIN = ("written", "commit")


class Made(Protocol):
    """A study or an experiment: what was run under which name, by what."""

    name: str
    config: dict[str, Any]
    environment: dict[str, Any]


def section(study: Study) -> dict[str, Any]:
    """All that a page says of where a study's numbers come from."""
    return {
        "facts": facts(study),
        "again": again(study),
        "versions": versions(study),
        "seeds": seeds(study),
    }


def again(made: Made) -> dict[str, Any]:
    """The resolved study, inside the page, and the commands that run it."""
    configuration = yaml.safe_dump(made.config, sort_keys=False, allow_unicode=True)
    return {
        "file": f"{made.name}.yaml",
        "configuration": configuration,
        "link": downloads.address(configuration.encode(), "text/plain"),
        "commands": rerun(made.name, made.environment),
    }


def facts(study: Study) -> dict[str, str]:
    """Commit, machine and times in one line each."""
    environment = flat(study.environment)
    told = {
        "Commit": environment.get("commit", "not recorded"),
        "Tables written": environment.get("written", "not recorded"),
        "Machine": _machine(environment),
        "Training time": times(study),
        "Runs made by": _commits(study.runs),
    }
    return {name: value for name, value in told.items() if value}


def _machine(environment: Mapping[str, str]) -> str:
    parts = [environment[key] for key in MACHINE if environment.get(key)]
    if environment.get("cores"):
        parts[-1] = f"cores: {parts[-1]}"
    return ", ".join(parts) or "not recorded"


def times(study: Study) -> str:
    """How long the runs took together and one by one."""
    if study.runs.empty or study.runs["seconds"].notna().sum() == 0:
        return ""
    seconds = study.runs["seconds"].dropna()
    return (
        f"{number(seconds.sum() / 3600, 1)} hours of runs in all ({count(len(seconds), 'run')}; "
        f"median {number(seconds.median(), 0)} s, longest {number(seconds.max(), 0)} s)"
    )


def _commits(runs: pd.DataFrame) -> str:
    """The commits and versions of torch that the runs were made by, where they are known."""
    parts = []
    for column, name in (("commit", "commit"), ("torch", "torch")):
        values = [v for v in dict.fromkeys(runs.get(column, ())) if isinstance(v, str) and v]
        parts += [f"{name} {value}" for value in values]
    return ", ".join(parts)


def versions(study: Study) -> dict[str, str]:
    """What was installed, by name."""
    environment = flat(study.environment)
    return {k: v for k, v in environment.items() if k not in (*MACHINE, *ORIGIN)}


def rerun(name: str, environment: Mapping[str, Any]) -> list[str]:
    """Commands that make a study again from its resolved file."""
    commit = str(environment.get("commit") or "").partition(" ")[0]
    lines = [f"git checkout {commit}"] if commit.isalnum() else []
    return [
        *lines,
        f"snakemake --cores all --configfile {shlex.quote(f'{name}.yaml')}",
    ]


def seeds(study: Study) -> list[dict[str, str]]:
    """For each seed the digests of its first weights and of its patches, where all losses agree."""
    rows = []
    for seed, runs in study.runs.groupby("seed") if len(study.runs) else ():
        row = {"seed": str(seed)}
        for column in ("initial_weights_sha256", "patch_order_sha256"):
            runs = runs[runs["status"] == "ok"]  # one that stopped early saw fewer patches
            found = {x for x in runs.get(column, ()) if isinstance(x, str) and x}
            row[column] = found.pop() if len(found) == 1 else DASH if not found else "not the same"
        rows.append(row)
    return rows


def digests(study: Study) -> dict[str, str]:
    """What identifies the cases of each split; empty for tables that are older than it."""
    if "sha256" not in study.dataset:
        return {}
    by_split = study.dataset[study.dataset["split"] != "all"].groupby("split", sort=False)
    return by_split["sha256"].first().to_dict()


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested dictionary as dotted names and their values."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = str(value)
    return found
