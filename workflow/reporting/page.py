"""What every page of ours is made with: the templates, and pictures inside the file."""

from __future__ import annotations

import base64
from pathlib import Path

import jinja2

TEMPLATES = Path(__file__).parent / "templates"
KINDS = {".svg": "image/svg+xml", ".png": "image/png"}


def environment() -> jinja2.Environment:
    """Templates that escape all text and stop at a name that is not there."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def address(picture: Path) -> str:
    """A picture as a data address: an image keeps the SVGs' identifiers apart."""
    data = base64.b64encode(picture.read_bytes()).decode("ascii")
    return f"data:{KINDS[picture.suffix]};base64,{data}"
