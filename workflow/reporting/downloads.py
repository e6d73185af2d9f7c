"""The tables inside the page: small ones as links, large ones compressed."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PLAIN = 40_000  # bytes up to which a table is a link that works without a script
BUDGET = 6_000_000  # characters that all tables together may take of the page


@dataclass(frozen=True)
class Download:
    """A file of the study: its name, its size, and how the page holds it.

    ``link`` is a data address; ``packed`` is base64 of gzip; with neither the page leaves it out.
    """

    name: str
    size: int
    link: str = ""
    packed: str = ""


def tables(folder: Path) -> list[Download]:
    """Every CSV table of a study's folder by name, the largest left out where all are too large."""
    files = [folder / "splits.csv", *sorted((folder / "tables").rglob("*.csv*"))]
    return pack((file for file in files if file.is_file()), BUDGET)


def pack(files: Iterable[Path], budget: int) -> list[Download]:
    """Files as the page holds them, in their order; the budget goes to the smallest first."""
    found = list(files)
    held: dict[Path, Download] = {}
    for file in sorted(found, key=lambda file: (file.stat().st_size, file.name)):
        content = file.read_bytes()
        name = file.name
        if name.endswith(".gz"):
            name, content = name.removesuffix(".gz"), gzip.decompress(content)
        if len(content) <= PLAIN:
            download = Download(name, len(content), link=address(content, "text/csv"))
        else:
            download = Download(name, len(content), packed=packed(content))
        used = len(download.link) + len(download.packed)
        if used > budget:
            download = Download(name, len(content))
        else:
            budget -= used
        held[file] = download
    return [held[file] for file in found]


def address(content: bytes, kind: str) -> str:
    """Bytes as a data address of this kind."""
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(content).decode('ascii')}"


def packed(content: bytes) -> str:
    """Base64 of gzip, the same for the same bytes."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode("ascii")
