"""How numbers and names are written: one way for figures, report and paper."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from workflow.reporting.study_tables import FLOOR

MINUS = "\u2212"
DASH = "\u2013"
SPELLED = {
    "bce": "BCE",
    "ce": "CE",
    "dice": "Dice",
    "iou": "IoU",
    "jaccard": "Jaccard",
    "tversky": "Tversky",
    "lovasz": "Lovász",
    "topk": "TopK",
    "hd": "HD",
    "nll": "NLL",
    "gdl": "GDL",
    "fbeta": "F-beta",
    "dou": "DoU",
    "dt": "DT",
    "hausdorff": "Hausdorff",
    "liviaets": "LIVIAETS",
    "mcc": "MCC",
    "monai": "MONAI",
    "nacl": "NACL",
    "niftynet": "NiftyNet",
    "nnunet": "nnU-Net",
    "odyssey": "Odyssey",
    "wasserstein": "Wasserstein",
}


def learning_rates(runs: pd.DataFrame, tuned: bool = False) -> str:
    """How the runs of a study came by their learning rates, as the end of a sentence.

    ``tuned``: the study found the rates itself, on its validation cases.
    """
    rates = runs["learning_rate"].dropna() if len(runs) else pd.Series(dtype=float)
    if rates.empty:
        return ""
    if rates.nunique() == 1:
        return f"at a peak learning rate of {rates.iloc[0]:g}"
    own = f"at a peak learning rate of its own ({rates.min():g} to {rates.max():g})"
    if tuned:
        return f"{own}, chosen on validation from the same grid for each loss"
    return f"{own}, given in the configuration and not tuned in this study"


def number(value: float, digits: int = 2) -> str:
    """A number for people: fixed digits, a real minus sign, a dash where there is none."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("-", MINUS)


def signed(value: float, digits: int = 2) -> str:
    """A difference, with its sign."""
    text = number(value, digits)
    positive = value is not None and math.isfinite(value) and float(f"{value:.{digits}f}") > 0
    return f"+{text}" if positive else text


def interval(low: float, high: float, digits: int = 2, sign: bool = False) -> str:
    """`[low, high]`, or nothing where no interval could be computed."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    show = signed if sign else number
    return f"[{show(low, digits)}, {show(high, digits)}]"


def estimate(value: float, low: float, high: float, sign: bool = False) -> str:
    """`0.62 [0.58, 0.66]`."""
    shown = signed(value) if sign else number(value)
    return f"{shown} {interval(low, high, sign=sign)}".strip()


def percent(value: float, digits: int = 0) -> str:
    """A share as a percentage, with as many digits as keep it from reading zero."""
    if value is None or not math.isfinite(value):
        return DASH
    while value > 0 and digits < 4 and float(f"{100 * value:.{digits}f}") == 0:
        digits += 1
    return f"{100 * value:.{digits}f} %"


def p_value(value: float) -> str:
    if value is None or not math.isfinite(value):
        return DASH
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def count(amount: int, noun: str, plural: str = "") -> str:
    """`1 run`, `3 runs`, `no run`."""
    if amount == 0:
        return f"no {noun}"
    return f"{amount} {noun if amount == 1 else plural or noun + 's'}"


def listing(names: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    names = list(names)
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def shortened(names: Sequence[str], limit: int = 6) -> str:
    """A list that stays readable: the first names, then how many more."""
    if len(names) <= limit:
        return listing(names)
    return f"{', '.join(names[:limit])} and {len(names) - limit} more"


def readable(label: str) -> str:
    """A loss's label as people write it, still recognisable.

    `published_generalized_dice_graph` becomes `Generalized Dice graph (published)`.
    """
    if label == FLOOR:
        return "all background"
    if not label.strip("_"):
        return label
    published = label.startswith("published_")
    words = [SPELLED.get(word, word) for word in label.removeprefix("published_").split("_")]
    name = " ".join(word for word in words if word) or label
    name = name[0].upper() + name[1:]
    return f"{name} (published)" if published else name
