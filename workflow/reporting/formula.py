"""LaTeX formulas as MathML, which every browser draws without a script or a font, and as SVG."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import matplotlib
from latex2mathml.converter import convert
from markupsafe import Markup, escape
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import math_to_image

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

ACTIVE = ("href", "src", "style", "actiontype")


def mathml(latex: str) -> Markup:
    """A formula as MathML; as escaped source code where it cannot be converted.

    The converter passes angle brackets in text through as they are, so they are replaced before
    it sees them, and what it returns is used only if it is well-formed XML of MathML elements
    without a link or a handler, which LaTeX can ask for too.
    """
    source = latex.strip().strip("$")
    try:
        code = convert(source.replace("<", r"\lt ").replace(">", r"\gt "), display="block")
        code = re.sub(r"&(?!#?\w+;)", "&amp;", code)
        tree = ElementTree.fromstring(code)
    except Exception:  # any formula that the converter or the parser does not know
        return Markup("<code>{}</code>").format(escape(latex))
    if not all(_harmless(element) for element in tree.iter()):
        return Markup("<code>{}</code>").format(escape(latex))
    return Markup(code)


def svg(latex: str, points: float) -> bytes | None:
    """A formula as a picture with letters of this size; None where it cannot be drawn."""
    picture = io.BytesIO()
    style: dict[RcKeyType, Any] = {
        "mathtext.fontset": "stix",
        "svg.fonttype": "path",
        "svg.hashsalt": "formula",
    }
    try:
        with matplotlib.rc_context(style):
            source = f"${latex.strip().strip('$')}$"
            math_to_image(source, picture, prop=FontProperties(size=points), dpi=72, format="svg")
    except ValueError:  # a formula that mathtext does not know
        return None
    return picture.getvalue()


def _harmless(element: ElementTree.Element) -> bool:
    inside = element.tag.startswith("{http://www.w3.org/1998/Math/MathML}")
    names = [name.rpartition("}")[2].lower() for name in element.attrib]
    return inside and not any(name in ACTIVE or name.startswith("on") for name in names)
