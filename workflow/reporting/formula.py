"""LaTeX formulas as MathML, which every browser draws without a script or a font."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from latex2mathml.converter import convert
from markupsafe import Markup, escape

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


def _harmless(element: ElementTree.Element) -> bool:
    inside = element.tag.startswith("{http://www.w3.org/1998/Math/MathML}")
    names = [name.rpartition("}")[2].lower() for name in element.attrib]
    return inside and not any(name in ACTIVE or name.startswith("on") for name in names)
