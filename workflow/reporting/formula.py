"""LaTeX formulas as MathML, which every browser draws without a script or a font."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from latex2mathml.converter import convert
from markupsafe import Markup, escape


def mathml(latex: str) -> Markup:
    """A formula as MathML; as escaped source code where it cannot be converted.

    The converter passes angle brackets in text through as they are, so they are replaced before
    it sees them, and what it returns is used only if it is well-formed XML of MathML elements.
    """
    source = latex.strip().strip("$")
    try:
        code = convert(source.replace("<", r"\lt ").replace(">", r"\gt "), display="block")
        code = re.sub(r"&(?!#?\w+;)", "&amp;", code)
        tree = ElementTree.fromstring(code)
    except Exception:  # any formula that the converter or the parser does not know
        return Markup("<code>{}</code>").format(escape(latex))
    namespace = "{http://www.w3.org/1998/Math/MathML}"
    if not all(element.tag.startswith(namespace) for element in tree.iter()):
        return Markup("<code>{}</code>").format(escape(latex))
    return Markup(code)
