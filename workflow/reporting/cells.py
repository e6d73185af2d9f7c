"""A table as people read it: an estimate and its interval in one cell, losses by their names."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import Any, NamedTuple

import pandas as pd

from workflow.reporting.wording import DASH, MINUS, interval, number, p_value, readable, signed

DIGITS = 3
WIDEST = 9  # columns that a page has room for
P_VALUE = re.compile(r"p|p_.*|.*_p|.*_p_holm")
# what stands behind a result: how many, how fine, and what came before its correction
BACKING = re.compile(
    r"p|.*_p|degrees_of_freedom|minimum_detectable_difference|(.*_)?(margin|seeds|cases|runs)"
    r"|batches|holding|complete"
)
SPELLED = {"dice": "Dice", "auc": "AUC", "holm": "(Holm)", "ml": "mL"}
SIGNED = ("difference", "deviation")


class Cell(NamedTuple):
    """What is shown, and the number to sort by: "" where it is text or missing."""

    text: str
    sort: str = ""


class Column(NamedTuple):
    """``more``: only shown once the reader asks for all columns."""

    heading: str
    numeric: bool
    cells: list[Cell]
    more: bool = False


def columns(table: pd.DataFrame, losses: Collection[str]) -> list[Column]:
    """The columns of a table for a page.

    A column that is followed by the ends of its interval (``..low`` and ``..high``, which its
    values lie between) takes them in. ``losses`` are the labels to be shown by their names.
    Of more than ``WIDEST`` columns the first and those that tell most are shown: words and
    estimates before other numbers, these before what only backs them up, and last a column that
    is the same in every row.
    """
    found: list[Column] = []
    weights: list[int] = []
    names = list(table.columns)
    while names:
        name = names.pop(0)
        ends = names[:2]
        if merged := _is_interval(table, name, ends):
            column = _estimates(table, name, ends)
            names = names[2:]
        else:
            column = _plain(table[name], losses)
        weights.append(_weight(name, column, merged) if found else 0)
        found.append(column)
    kept = set(sorted(range(len(found)), key=lambda place: (weights[place], place))[:WIDEST])
    return [column._replace(more=place not in kept) for place, column in enumerate(found)]


def _weight(name: str, column: Column, estimate: bool) -> int:
    """How soon a column gives way where there is no room for all: the higher, the sooner."""
    if len(column.cells) > 1 and len({cell.text for cell in column.cells}) == 1:
        return 3
    if BACKING.fullmatch(name):
        return 2
    return 1 if column.numeric and not estimate else 0


def _is_interval(table: pd.DataFrame, name: str, ends: list[str]) -> bool:
    if len(ends) < 2 or ends[0].removesuffix("low") != ends[1].removesuffix("high"):
        return False
    if not all(_numeric(table[column]) for column in (name, *ends)):
        return False
    value, low, high = (table[column] for column in (name, *ends))
    # rounding may push an estimate past the end that it equals
    near = 1e-3 * table[[name, *ends]].abs().max(axis=1)
    outside = (value < low - near) | (value > high + near)
    return not outside.any()


def _estimates(table: pd.DataFrame, name: str, ends: list[str]) -> Column:
    sign = _is_difference(name)
    shown = [
        Cell(f"{_number(value, sign)} {_interval(low, high, sign)}".strip(), _sort(value))
        for value, low, high in table[[name, *ends]].itertuples(index=False)
    ]
    return Column(heading(name), True, shown)


def _interval(low: float, high: float, sign: bool) -> str:
    if max(abs(low), abs(high)) < 10:
        return interval(low, high, DIGITS, sign)
    return f"[{_number(low, sign)}, {_number(high, sign)}]" if math.isfinite(low + high) else ""


def _plain(column: pd.Series, losses: Collection[str]) -> Column:
    name = str(column.name)
    if not _numeric(column):
        return Column(heading(name), False, [Cell(_text(value, losses)) for value in column])
    if P_VALUE.fullmatch(name):
        shown = [p_value(value) for value in column]
    elif pd.api.types.is_integer_dtype(column):
        shown = [str(value) for value in column]
    elif _is_difference(name):
        shown = [_number(value, True) for value in column]
    else:
        # settings and counts among them: as they are, and no digit that they have not
        shown = [_number(value, False, trim=True) for value in column]
    cells = [Cell(text, _sort(value)) for text, value in zip(shown, column, strict=True)]
    return Column(heading(name), True, cells)


def _number(value: float, sign: bool, trim: bool = False) -> str:
    if math.isnan(value):
        return DASH
    if abs(value) < 10 and not trim:
        return signed(value, DIGITS) if sign else number(value, DIGITS)
    # never as 1.23e+04
    kind = f".{DIGITS}g" if abs(value) < 1000 else ".0f"
    return f"{value:{'+' if sign else ''}{kind}}".replace("-", MINUS)


def _text(value: Any, losses: Collection[str]) -> str:
    if value in ("", None) or (isinstance(value, float) and math.isnan(value)):
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    return readable(value) if value in losses else str(value)


def _numeric(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _is_difference(name: str) -> bool:
    return any(word in SIGNED for word in name.split("_"))


def _sort(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))


def heading(name: str) -> str:
    """A column's name in words; a key of the study, which has a dot, stays as it is written."""
    if "." in name:
        return name
    return " ".join(SPELLED.get(word, word) for word in name.split("_"))
