"""LaTeX formulas as MathML, which every browser draws without a script or a font, and as SVG."""

from __future__ import annotations

import difflib
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
NAMESPACE = "{http://www.w3.org/1998/Math/MathML}"


def mathml(latex: str) -> Markup:
    """A formula as MathML; as escaped source code where it cannot be converted."""
    tree = _tree(latex)
    return _source(latex) if tree is None else _code(tree)


def compared(before: str, after: str) -> tuple[Markup, Markup]:
    """Two formulas as MathML; symbols that only one of them has are of the class ``changed``."""
    first, second = _tree(before), _tree(after)
    if first is None or second is None:
        return mathml(before), mathml(after)
    leaves = [[e for e in tree.iter() if not len(e) and _symbol(e)[1]] for tree in (first, second)]
    symbols = [[_symbol(element) for element in row] for row in leaves]
    matcher = difflib.SequenceMatcher(a=symbols[0], b=symbols[1], autojunk=False)
    for kind, start, end, other_start, other_end in matcher.get_opcodes():
        if kind != "equal":
            for element in leaves[0][start:end] + leaves[1][other_start:other_end]:
                element.set("class", "changed")
    return _code(first), _code(second)


def _tree(latex: str) -> ElementTree.Element | None:
    """The MathML of a formula; None where it cannot be converted or could do harm.

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
        return None
    return tree if all(_harmless(element) for element in tree.iter()) else None


def _code(tree: ElementTree.Element) -> Markup:
    for element in tree.iter():  # a page needs no namespace, and would show its prefix
        element.tag = element.tag.removeprefix(NAMESPACE)
    return Markup(ElementTree.tostring(tree, encoding="unicode"))


def _source(latex: str) -> Markup:
    return Markup("<code>{}</code>").format(escape(latex))


def _symbol(element: ElementTree.Element) -> tuple[str, str]:
    return element.tag, (element.text or "").strip()


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
    inside = element.tag.startswith(NAMESPACE)
    names = [name.rpartition("}")[2].lower() for name in element.attrib]
    return inside and not any(name in ACTIVE or name.startswith("on") for name in names)
