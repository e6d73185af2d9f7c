"""The shell of the project: versions in step, floors in order, nothing of one machine inside."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent


def canonical(name):
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", name).group(0)).lower()


@pytest.fixture(scope="module")
def constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    return {canonical(name): version for name, version in pins.items()}


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_constraints_pin_every_dependency(project, constraints):
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    assert {canonical(name) for name in wanted} <= set(constraints)
    assert constraints["torch"] == "2.13.0"
    assert "torchvision" not in constraints


def test_conda_users_get_the_same_versions(project, constraints):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    listed = environment["dependencies"][-1]["pip"]
    pins = {canonical(entry): entry.rpartition("==")[2] for entry in listed}
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    assert set(pins) == {canonical(name) for name in wanted}
    assert pins == {name: constraints[name] for name in pins}
    assert f"python{project['requires-python']}" in environment["dependencies"]


FLOORS = {
    # a room may import itself and what is listed, nothing else of the project
    "losses": set(),
    "workflow.files": set(),
    "workflow.provenance": set(),
    "workflow.data": {"workflow.files", "workflow.provenance"},
    "workflow.evaluation": set(),
    "workflow.study": {"losses", "workflow.data"},
    "workflow.paths": {"workflow.study"},
    "workflow.check": {
        "workflow.study", "workflow.paths", "workflow.data", "workflow.training",
    },
    "workflow.training": {
        "losses", "workflow.study", "workflow.data", "workflow.evaluation", "workflow.files",
        "workflow.provenance",
    },
    "workflow.needs": {
        "workflow.study", "workflow.data", "workflow.training", "workflow.evaluation",
    },
    "workflow.comparison": {
        "losses", "workflow.study", "workflow.data", "workflow.evaluation", "workflow.files",
    },
    "workflow.reporting": {"workflow.files"},
}  # fmt: skip


def room(module):
    parts = module.split(".")
    return parts[0] if parts[0] == "losses" else ".".join(parts[:2])


def imports(path):
    """Imports of a file; relative ones stay within its room, which has no rooms of its own."""
    for node in ast.walk(ast.parse(path.read_text())):
        assert getattr(node, "level", 0) < 2, f"{path} imports relatively from above"
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            if node.module == "workflow":
                yield from (f"workflow.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("name", FLOORS)
def test_no_import_runs_upwards(name):
    place = ROOT / name.replace(".", "/")
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    assert files
    for file in files:
        for module in imports(file):
            assert module.partition(".")[0] != "snakemake", f"{file} knows Snakemake"
            if module.partition(".")[0] in ("losses", "workflow"):
                assert room(module) in FLOORS[name] | {name}, f"{file} imports {module}"


def test_every_room_has_a_floor():
    rooms = {f"workflow.{p.stem}" for p in (ROOT / "workflow").iterdir()} - {
        "workflow.__init__", "workflow.__main__", "workflow.__pycache__", "workflow.rules",
    }  # fmt: skip
    assert rooms <= set(FLOORS)


def test_types_are_clean():
    found = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_tracked_files_hold_no_path_of_a_machine_and_stay_small():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert files
    for file in files:
        content = file.read_bytes()
        assert len(content) < 2 * 2**20, f"{file} is larger than 2 MiB"
        found = re.search(rb"/(?:home|root|work|tmp)/", content)
        assert not found, f"{file} holds a path of a machine"
