"""How the words of the paper are set: quotes, powers, signs and numbers that open a sentence."""

from __future__ import annotations

import re
from typing import Any

from workflow.reporting.wording import MINUS

LEFT_ALONE = ("file", "source", "keys")
"""What is no prose: paths, formulas and keys of the bibliography."""
RAISED = str.maketrans("0123456789-+w", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ʷ")
UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def typeset(text: str) -> str:
    """Signs as printers write them: ``1e-16`` is a power, an apostrophe is no tick."""
    text = re.sub(r"(?<!\w)'([^']+)'(?!\w)", "‘\\1’", text).replace("'", "’")
    text = re.sub(r"(?<![\w.])(\d+(?:\.\d+)?)e([+-]?)0*(\d+)\b", _power, text)
    text = re.sub(r"(?<=[\w)])\^(-?\d+|w\b)", lambda found: found[1].translate(RAISED), text)
    text = re.sub(r"(?<=[\w)]) - (?=[\w(])", f" {MINUS} ", text)
    return re.sub(r"(?<=\d) x (?=\d)|(?<=[a-z]) x (?=[a-z])", " × ", text)


def _power(found: re.Match[str]) -> str:
    size = found[2].replace("+", "") + found[3]
    power = f"10{size.translate(RAISED)}"
    return power if found[1] == "1" else f"{found[1]} × {power}"


def sentences(text: str) -> str:
    """A number that opens a sentence as a word: ``9 losses hold.`` is ``Nine losses hold.``"""
    return re.sub(
        r"(?:^|(?<=[.!?] ))\d{1,2}(?= [A-Za-z])",
        lambda found: spelled(int(found[0])).capitalize(),
        text,
    )


def spelled(number: int) -> str:
    """A whole number below 100 in words."""
    if number < len(UNITS):
        return UNITS[number]
    tens, unit = divmod(number, 10)
    return TENS[tens - 2] + (f"-{UNITS[unit]}" if unit else "")


def everywhere(said: Any) -> Any:
    """All that is said, however deep it lies, as it is printed; keys stay as they are."""
    if isinstance(said, dict):
        return {k: v if k in LEFT_ALONE else everywhere(v) for k, v in said.items()}
    if isinstance(said, list | tuple):
        return [everywhere(item) for item in said]
    if not isinstance(said, str):
        return said
    # a cell of a table is no sentence
    return sentences(typeset(said)) if said.endswith(".") else typeset(said)
