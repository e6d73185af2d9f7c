"""What every page of ours is made with: the templates, and pictures inside the file."""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Any

import jinja2

from workflow.reporting import drawn, wording
from workflow.reporting.formula import mathml

TEMPLATES = Path(__file__).parent / "templates"
KINDS = {".svg": "image/svg+xml", ".png": "image/png"}


def render(template: str, **values: Any) -> str:
    """The page of a template, which writes numbers and names as all pages do.

    All text is escaped, and a name that is not there is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=wording.number,
        signed=wording.signed,
        percent=wording.percent,
        p_value=wording.p_value,
        readable=wording.readable,
        listing=wording.listing,
        volume=_volume,
        mathml=mathml,
        finite=lambda value: value is not None and math.isfinite(value),
    )
    environment.globals.update(
        estimate=wording.estimate,
        interval=wording.interval,
        count=wording.count,
        bar=drawn.interval_bar,
        tier_names={"separable": "below"},
    )
    return environment.get_template(template).render(values)


def _volume(value: float) -> str:
    """A volume, of which no digit behind the point is of use where it is large."""
    return f"{value:,.0f}" if math.isfinite(value) and value >= 100 else wording.number(value, 1)


def address(picture: Path) -> str:
    """A picture as a data address: an image keeps the SVGs' identifiers apart."""
    data = base64.b64encode(picture.read_bytes()).decode("ascii")
    return f"data:{KINDS[picture.suffix]};base64,{data}"
