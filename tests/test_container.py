"""The image is made by the steps of the README, of all that is tracked."""

import fnmatch
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def instructions():
    """(word, argument) of each instruction of the Dockerfile, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def test_its_steps_are_those_of_the_readme(instructions):
    always = [step for word, step in instructions if word == "RUN" and not step.startswith("if ")]
    command = next(json.loads(words) for word, words in instructions if word == "CMD")
    assert (always, command) == (["make install"], ["make"])
    assert re.search(r"^make +# installs into .venv, runs the default study", readme(), re.M)
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^all: install\n\t\S+snakemake --cores all$", makefile, re.M)
    # what the readme's commands without `make` need
    assert ("ENV", 'PATH="/rareclass/.venv/bin:$PATH"') in instructions
    assert re.search(r"^VENV := \.venv$", makefile, re.M)


def readme():
    return (ROOT / "README.md").read_text()


def test_another_index_serves_torch_alone_and_the_pinned_one(instructions):
    condition, *commands = next(
        re.split(r"; then|&&|; +fi", step)
        for word, step in instructions
        if word == "RUN" and step.startswith("if ")
    )
    assert ("ARG", 'TORCH_INDEX=""') in instructions
    assert "-n " in condition
    assert [" ".join(command.split()) for command in commands if command.strip()] == [
        "python3 -m venv .venv",
        ".venv/bin/python -m pip install --constraint constraints.txt "
        '--index-url "$TORCH_INDEX" torch',
    ]


def test_its_python_is_one_that_the_project_supports(instructions):
    image = next(name for word, name in instructions if word == "FROM")
    version = tuple(map(int, re.match(r"python:(\d+)\.(\d+)-", image).groups()))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    low, high = re.findall(r"(\d+)\.(\d+)", project["requires-python"])
    assert tuple(map(int, low)) <= version < tuple(map(int, high))
    assert f'container: "docker://{image}"' in (ROOT / "Snakefile").read_text()


def test_all_that_is_tracked_comes_along_and_nothing_that_is_written():
    patterns = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]

    def left_out(path):
        names = [str(path), *map(str, path.parents)]
        verdict = False
        for pattern in patterns:
            glob = pattern.removeprefix("!").removeprefix("**/")
            anywhere = "**/" in pattern
            if any(fnmatch.fnmatch(Path(n).name if anywhere else n, glob) for n in names):
                verdict = not pattern.startswith("!")
        return verdict

    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    tracked = [Path(name) for name in listed.stdout.split("\0") if name]
    assert tracked
    assert not [str(path) for path in tracked if left_out(path)]
    for written in (
        ".venv/bin/python", ".git/config", "results/mine/report.html", "resources/x/a.npy",
        "data/acdc/a.nii.gz", "losses/__pycache__/base.pyc", ".snakemake/locks/0.lock",
    ):  # fmt: skip
        assert left_out(Path(written)), written
