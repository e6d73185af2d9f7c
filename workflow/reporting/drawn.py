"""Small drawings inside the page's tables and cards: no picture file, the page's own colours."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

WIDTH, HEIGHT = 104, 14  # of an interval in a row
PLOT = (220, 104)  # of a small plot
MARGIN = 4
LEFT, BELOW = 46, 14  # room of a small plot for what its axes say


def interval_bar(
    value: float, low: float, high: float, ends: tuple[float, float] = (0.0, 1.0), tone: str = ""
) -> Markup:
    """A value and its interval on the scale ``ends``, cut at both; nothing without a value.

    The numbers stand beside it, so it is hidden from those who are read to.
    """
    if value is None or not math.isfinite(value):
        return Markup()
    middle = HEIGHT / 2
    parts = [_line(_x(ends[0], ends), _x(ends[1], ends), middle, "scale")]
    if ends[0] < 0 < ends[1]:
        parts.append(Markup('<line class="zero" x1="{0}" x2="{0}" y1="1" y2="{1}"/>').format(
            _x(0, ends), HEIGHT - 1))  # fmt: skip
    if math.isfinite(low) and math.isfinite(high):
        parts.append(_line(_x(low, ends), _x(high, ends), middle, "range"))
    parts.append(Markup('<circle cx="{}" cy="{}" r="3.2"/>').format(_x(value, ends), middle))
    return Markup(
        '<svg class="bar {}" viewBox="0 0 {} {}" width="{}" height="{}" aria-hidden="true">{}</svg>'
    ).format(tone, WIDTH, HEIGHT, WIDTH, HEIGHT, Markup().join(parts))


def _line(first: float, last: float, height: float, name: str) -> Markup:
    return Markup('<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
        name, first, last, height, height
    )


def _x(value: float, ends: tuple[float, float]) -> float:
    share = (min(max(value, ends[0]), ends[1]) - ends[0]) / (ends[1] - ends[0])
    return round(MARGIN + share * (WIDTH - 2 * MARGIN), 1)


def lines(
    curves: Sequence[tuple[str, Sequence[float]]], words: str, ends: tuple[str, str]
) -> Markup:
    """Curves over the same equal steps, from 0 to the highest value of all; one class each.

    The axes name 0, the highest value, and the ``ends`` of the steps.
    """
    width, height = PLOT
    right, bottom = width - MARGIN, height - BELOW
    top = max((max(values, default=0.0) for _, values in curves), default=0.0)
    drawn = [
        Markup('<path class="axis" d="M{0} {1}V{2}H{3}"/>').format(LEFT, MARGIN, bottom, right)
    ]
    for name, values in curves:
        if top > 0 and len(values) > 1:
            points = " ".join(
                f"{LEFT + i * (right - LEFT) / (len(values) - 1):.1f},"
                f"{bottom - value / top * (bottom - MARGIN):.1f}"
                for i, value in enumerate(values)
            )
            drawn.append(Markup('<polyline class="{}" points="{}"/>').format(name, points))
    drawn += [
        Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(x, y, anchor, said)
        for x, y, anchor, said in (
            (LEFT - 4, MARGIN + 6, "end", short(top) if top > 0 else ""),
            (LEFT - 4, bottom + 3, "end", "0"),
            (LEFT, height - 3, "start", ends[0]),
            (right, height - 3, "end", ends[1]),
        )
    ]
    code = '<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    return Markup(code).format(width, height, words, Markup().join(drawn))


def short(value: float) -> str:
    """A number of two digits, where it is tiny as `4 × 10⁻⁶`."""
    if value == 0 or abs(value) >= 0.001:
        return f"{value:.2g}"
    digits, exponent = f"{value:.0e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{digits} × 10{raised}"
