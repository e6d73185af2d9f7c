"""The certificate in words and rows: what of a committed reference new runs reproduce."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from workflow.reporting.wording import count, listing, number, percent, readable, shortened

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
KINDS = {
    "score": ("scores", "Scores, within the spread of runs"),
    "collapse": ("collapse patterns", "Collapse, by what most runs lost"),
    "correction": ("signs of corrections", "Corrected \u2212 published"),
    "tier": ("tiers", "Tiers"),
}
ENDPOINTS = {"mean_dice": "mean Dice", "rarest_dice": "rarest class"}
SAME = 1e-6  # tables keep nine digits


def holds(found: Mapping[str, Any]) -> bool:
    """Whether the new runs say what the reference says, as far as they say anything."""
    return found["verdict"] == REPRODUCED


def section(found: Mapping[str, Any]) -> dict[str, Any]:
    """What the report shows: sentences, and the rows of each kind; empty without a certificate."""
    if not found:
        return {}
    # what was judged first: in a slice most claims are not comparable
    order = (NOT_REPRODUCED, REPRODUCED)
    claims = sorted(
        found["claims"],
        key=lambda row: order.index(row["verdict"]) if row["verdict"] in order else len(order),
    )
    kinds = {kind: [_row(row) for row in claims if row["kind"] == kind] for kind in KINDS}
    kinds = {kind: rows for kind, rows in kinds.items() if rows}
    titles = {kind: title for kind, (_, title) in KINDS.items()}
    return {"sentences": summary(found), "kinds": kinds, "titles": titles}


def summary(found: Mapping[str, Any]) -> list[str]:
    """The verdict, what contradicts it, how sharp the comparison is, and what it leaves out."""
    if found["changed"]:
        return [
            f"The reference {found['reference']} is not as it was committed, so nothing was "
            f"compared with it: {'; '.join(found['changed'])}."
        ]
    told = [_counts(found), _missed(found), _sharpness(found)]
    return [sentence for sentence in told if sentence] + _left_out(found)


def _counts(found: Mapping[str, Any]) -> str:
    parts, open_ = [], 0
    for kind, counts in found["counts"].items():
        judged = counts.get(REPRODUCED, 0) + counts.get(NOT_REPRODUCED, 0)
        open_ += sum(counts.values()) - judged
        if judged:
            parts.append(f"{counts.get(REPRODUCED, 0)} of {judged} {KINDS[kind][0]}")
    told = f"{found['verdict'].capitalize()}, compared with the reference {found['reference']}"
    told += f": {listing(parts)} hold" if parts else ""
    return f"{told}; {count(open_, 'claim')} cannot be compared." if open_ else f"{told}."


def _missed(found: Mapping[str, Any]) -> str:
    rows = [row for row in found["claims"] if row["verdict"] == NOT_REPRODUCED]
    if not rows:
        return ""
    return f"Not reproduced: {shortened(list(map(_claim, rows)), 8)}."


def _claim(row: Mapping[str, Any]) -> str:
    name = readable(row["loss"])
    if row["kind"] == "score":
        place = f"{ENDPOINTS[row['endpoint']]} of {name}"
    elif row["kind"] == "correction":
        place = f"{ENDPOINTS[row['endpoint']]}, {name} over {readable(row['against'])}"
    else:
        place = f"{row['kind']} of {name}"
    return f"{place} ({_value(row['found'])} instead of {_value(row['reference'])})"


def _value(value: float | str) -> str:
    return value if isinstance(value, str) else number(value, 3)


def _sharpness(found: Mapping[str, Any]) -> str:
    """How alike the runs are, and what change would have been found."""
    rows = [row for row in found["claims"] if row["kind"] == "score" and "p" in row]
    if not rows:
        return ""
    means = [row for row in rows if row["endpoint"] == "mean_dice"]
    same = sum(row["largest_run_difference"] <= SAME for row in means)
    told = (
        f"Run by run, {same or 'none'} of {count(len(means), 'loss', 'losses')} "
        f"{'has' if same == 1 else 'have'} the very scores of the reference"
    )
    sizes = sorted(row["detectable"] for row in means if "detectable" in row)
    if sizes:
        told += (
            "; before Holm's correction a power of 80 % needs a change in mean Dice of "
            f"{number(sizes[0], 3)}"
        )
        if len(sizes) > 1:
            told += f" to {number(sizes[-1], 3)} (median {number(sizes[len(sizes) // 2], 3)})"
    return f"{told}."


def _left_out(found: Mapping[str, Any]) -> list[str]:
    told = []
    if found["losses_left_out"]:
        names = shortened([readable(label) for label in found["losses_left_out"]])
        told.append(f"Not compared, because these runs leave them out: {names}.")
    if found["seeds_left_out"]:
        seeds = listing(map(str, found["seeds_left_out"]))
        told.append(f"Seeds of the reference that were not run: {seeds}.")
    if found["losses_unknown"]:
        names = shortened([readable(label) for label in found["losses_unknown"]])
        told.append(f"The reference does not know: {names}.")
    if found["settings_of_one"]:
        told.append(
            "Settings that only one of the two studies knows, and that are not compared: "
            f"{listing(found['settings_of_one'])}."
        )
    told.append(
        f"A score is not reproduced where it differs by more than the spread of runs (moderated t "
        f"test, {percent(found['confidence'])}, Holm's correction over the losses); collapse "
        "where the pattern of all losses differs by more than redrawn runs; a correction where "
        "its sign turned, if the reference separates it from zero; a tier where score or collapse "
        "behind it are not reproduced."
    )
    return told


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A claim with every column, missing numbers as NaN."""
    columns = ("reference", "found", "difference", "low", "high", "p_holm", "detectable")
    words = {name: row.get(name, "") for name in ("against", "endpoint", "reason")}
    words["endpoint"] = ENDPOINTS.get(words["endpoint"], "")
    return {**{name: row.get(name, math.nan) for name in columns}, **row, **words}
