"""What a result was made with: versions, machine, commit, and the code behind a run."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

PACKAGES = (
    "torch", "monai", "numpy", "scipy", "pandas", "nibabel", "nilearn", "matplotlib",
    "snakemake", "surface-distance", "pydantic", "typst",
)  # fmt: skip


def code_sha256(files: Iterable[Path]) -> str:
    """Digest of what Python files *do*: comments, docstrings, cards and layout do not count.

    So a touched, reformatted or better explained module retrains nothing. The card of a loss is
    its class attribute ``about``.
    """
    digest = hashlib.sha256()
    for file in map(Path, sorted(files)):
        does = _what_it_does(file.read_text(encoding="utf-8"))
        digest.update(f"{file.name}:{does}".encode())
    return digest.hexdigest()[:16]


@cache  # most files count for several rules, and parsing them is most of a call that does nothing
def _what_it_does(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
                node.body = node.body[1:]
        if isinstance(node, ast.ClassDef):
            node.body = [part for part in node.body if not _is_card(part)]
    return ast.dump(tree)


def _is_card(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == ["about"]


def environment() -> dict[str, str]:
    """Versions, machine and commit, for ``environment.json`` and the report."""
    return {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        **{name: _version(name) for name in PACKAGES},
    }


def commit() -> str:
    """The commit of the project's checkout, ``+ changes`` when the tree differs from it."""

    def git(*words: str) -> str:
        root = Path(__file__).resolve().parent
        answer = subprocess.run(
            ["git", *words], cwd=root, capture_output=True, text=True, check=True
        )
        return answer.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + (" + changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown (not a git checkout)"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
