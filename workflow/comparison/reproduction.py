"""Do new runs of a study give what its committed reference tables say? Claim by claim.

Every claim is ``reproduced``, ``not reproduced`` or ``not comparable`` (with the reason):

- **score**: the mean over seeds of a loss's mean Dice (or Dice of the rarest class) differs from
  the reference by no more than its runs differ among themselves. Same seeds on the same machine
  agree to the last digit; elsewhere training amplifies rounding until a run is no closer to its
  namesake than to another seed. So the difference, over the seeds that both have, is compared with
  the spread of runs within reference and new runs, the spread of a loss drawn towards that of the
  others (:func:`statistics.moderated_variances`: three seeds alone say too little of it), by a t
  test. Held-out cases are the same in both and no source of the difference. Not reproduced where p
  is below 1 - confidence after Holm's correction over the losses of an endpoint.
- **collapse**: which classes a loss lost, and whether it diverged, in most of its runs. Three runs
  cannot contradict three others (two unanimous halves have p = .1), but the pattern of all losses
  can: runs of each loss are drawn anew into reference and new ones, and the pattern differs where
  that seldom gives changes as large. Only then a loss whose majority changed is not reproduced.
- **correction**: the sign of corrected - published, where the reference separates it from zero.
- **tier**: as in ``summary``, if the new study has the losses and seeds of the reference. A loss
  at the border of two tiers changes by chance; a change counts where the score or collapse that it
  rests on is not reproduced either.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from workflow import files
from workflow.comparison import statistics
from workflow.comparison.arrays import ENDPOINTS, case_scores
from workflow.study import FLOOR

MANIFEST = "SHA256SUMS"
SEALED = ("config.yaml", "splits.csv", "rates.csv", "preparation.json")
"""Files of a reference that its digests are of, beside those in tables/."""
REPRODUCED, NOT_REPRODUCED, NOT_COMPARABLE = "reproduced", "not reproduced", "not comparable"
COLUMNS = (
    "kind", "loss", "against", "endpoint", "reference", "found", "difference", "low", "high", "p",
    "p_holm", "detectable", "seeds", "largest_run_difference", "verdict", "reason",
)  # fmt: skip
DECIDING = ("dataset", "external", "splits", "network", "training", "evaluation")
"""Parts of a resolved study that decide all its runs."""
ELSEWHERE = ("training.learning_rate", "training.accelerator")
"""Compared in the tables of runs; where a run is computed, which is no setting."""
DIVERGED = "diverged"
DRAWS = 9999
SEED = 20


class Tables(NamedTuple):
    """Tables of a study, of the reported checkpoint and its own test set, and without the floor."""

    runs: pd.DataFrame
    cases: pd.DataFrame
    summary: pd.DataFrame
    comparisons: pd.DataFrame


def chosen(study: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]) -> Tables:
    """What is compared of a resolved study's tables; older ones have no column ``test_set``."""
    test_set = (study.get("external") or study["dataset"])["name"]
    kept = {}
    for name in Tables._fields:
        table = tables[name]
        if "checkpoint" in table:
            table = table[table["checkpoint"] == study["comparison"]["checkpoint"]]
        if "test_set" in table:
            table = table[table["test_set"] == test_set]
        kept[name] = table[table["loss"] != FLOOR]
    return Tables(**kept)


def sealed_files(folder: Path) -> list[str]:
    """Names of the files of a reference folder that its ``SHA256SUMS`` has to list."""
    tables = (file for file in sorted((folder / "tables").rglob("*")) if file.is_file())
    return [name for name in SEALED if (folder / name).is_file()] + [
        file.relative_to(folder).as_posix() for file in tables
    ]


def seal(folder: Path) -> None:
    """Writes the ``SHA256SUMS`` of a reference folder, which ``sha256sum --check`` reads too."""
    lines = [f"{_sha256(folder / name)}  {name}\n" for name in sealed_files(folder)]
    files.write_text(folder / MANIFEST, "".join(lines))


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def changed_files(folder: Path) -> list[str]:
    """What in a reference folder is not as its ``SHA256SUMS`` says: one line for each file.

    Raises ``FileNotFoundError`` where the folder has no such list.
    """
    told, listed = [], set()
    for line in (folder / MANIFEST).read_text(encoding="utf-8").splitlines():
        digest, name = line.split(maxsplit=1)
        listed.add(name)
        file = folder / name
        if not file.is_file():
            told.append(f"{name}: missing")
        elif _sha256(file) != digest:
            told.append(f"{name}: changed")
    # a file that nobody listed could be read in place of one that is
    return told + [f"{name}: not listed" for name in sealed_files(folder) if name not in listed]


def differing_settings(
    reference: Mapping[str, Any], new: Mapping[str, Any]
) -> tuple[dict[str, str], list[str]]:
    """Losses whose runs two resolved studies make unlike, with why, and keys that one study lacks.

    A key that came or went with a version of the project cannot be compared, so it is only told.
    The learning rate is compared in the tables of runs.
    """
    ours, theirs = (
        {
            key: value
            for key, value in _dotted({part: study.get(part) for part in DECIDING}).items()
            if key not in ELSEWHERE
        }
        for study in (reference, new)
    )
    common = sorted(key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key])
    found = {}
    for label in reference["losses"].keys() & new["losses"].keys():
        options = [_dotted(study["losses"][label]) for study in (reference, new)]
        keys = common + [k for k in {**options[0], **options[1]}
                         if options[0].get(k) != options[1].get(k)]  # fmt: skip
        if keys:
            found[label] = f"other settings: {', '.join(keys)}"
    return found, sorted(ours.keys() ^ theirs.keys())


def _dotted(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _dotted(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def claims(
    reference: Tables,
    new: Tables,
    rarest: str,
    confidence: float,
    incomparable: Mapping[str, str],
) -> pd.DataFrame:
    """One row a claim of the reference, with the verdict; ``incomparable``: losses and why."""
    why = {label: _why_not(reference, new, label) for label in reference.runs["loss"].unique()}
    why |= incomparable
    if reason := _other_cases(reference.cases, new.cases):
        why = dict.fromkeys(why, reason)
    why = {label: reason for label, reason in why.items() if reason}
    level = 1 - confidence
    rows = [
        row
        for endpoint in ENDPOINTS
        for row in scores(
            run_scores(reference.cases, endpoint, rarest),
            run_scores(new.cases, endpoint, rarest),
            confidence,
            endpoint,
            why,
        )
    ]
    rows += collapses(reference.runs, new.runs, level, why)
    rows += _corrections(reference.comparisons, new.comparisons, level, why)
    rows += _tiers(reference, new, rows, why)
    # as objects, so that a count stays one beside rows without it
    return pd.DataFrame(rows, columns=COLUMNS, dtype=object)


def verdict(claimed: pd.DataFrame) -> str:
    """Of all claims: one that is not reproduced decides, then one that is."""
    found = set(claimed["verdict"])
    return next((v for v in (NOT_REPRODUCED, REPRODUCED) if v in found), NOT_COMPARABLE)


def _why_not(reference: Tables, new: Tables, label: str) -> str:
    ours, theirs = (tables.runs[tables.runs["loss"] == label] for tables in (reference, new))
    if theirs.empty:
        return "not among the new runs"
    rates = [sorted(runs["learning_rate"].unique()) for runs in (ours, theirs)]
    if rates[0] != rates[1]:
        return "learning rate {} instead of {}".format(
            *(", ".join(f"{rate:g}" for rate in found) for found in reversed(rates))
        )
    if not set(ours["seed"]) & set(theirs["seed"]):
        return "no seed in common"
    return ""


def _other_cases(reference: pd.DataFrame, new: pd.DataFrame) -> str:
    """Why the held-out cases are not the same, by their names and volumes; empty if they are."""
    key = ["case", "class", "reference_voxels"]
    ours, theirs = (set(map(tuple, table[key].to_numpy())) for table in (reference, new))
    if not theirs or ours == theirs:
        return ""  # without any score the reason is the loss's own
    cases = {name for name, *_ in ours ^ theirs}
    return f"{len(cases)} held-out cases are not those of the reference"


def run_scores(cases: pd.DataFrame, endpoint: str, rarest: str) -> pd.DataFrame:
    """Score of each run, the mean over its cases: a row a loss, a column a seed."""
    scored = case_scores(cases, endpoint, rarest)
    return scored.groupby(["loss", "seed"])["dice"].mean().unstack("seed")


def scores(
    reference: pd.DataFrame,
    new: pd.DataFrame,
    confidence: float,
    endpoint: str,
    why: Mapping[str, str],
) -> list[dict[str, object]]:
    """A row for each loss of ``reference``; both tables have a row a loss and a column a seed.

    Studies of 22 losses, 3 reference runs each, in which nothing but the noise of runs changed and
    that hold a false alarm all the same (%, 4,000 simulated), and how often a shift of .1 is found
    in a loss whose runs have a standard deviation of .01, .018 or .02 (%, 1,000 simulated; in the
    lognormal studies .02 is the median):

    =========================================  ======  ======  =====  ==================
    standard deviation of runs                 3 new   2 new   1 new  .1 found, 3 new; 1
    =========================================  ======  ======  =====  ==================
    .02 in all losses                             3.7     2.7    1.2              99; 44
    .01, in 6 losses .1                           4.6     5.0    6.6             100; 27
    .01, in 2 losses .1                           4.6     4.6    8.6             100; 68
    lognormal, SD of the logarithm .8             5.7     5.1    4.1              67; 18
    lognormal, SD of the logarithm 1.2            6.8     4.8    3.8              58; 18
    those of mean Dice in the default study       6.1     4.8    4.7              78; 10
    =========================================  ======  ======  =====  ==================

    Runs of the same seed that are alike make it stricter: fewer false alarms.
    """
    pairs = {
        label: reference.loc[[label]].T.join(new.loc[[label]].T, rsuffix=" new").dropna()
        for label in reference.index
        if label in new.index and label not in why
    }
    variances = _variances(reference, new[new.index.isin(list(pairs))])
    rows = []
    for label in reference.index:
        row = {"kind": "score", "loss": label, "endpoint": endpoint, "p": math.nan}
        row |= {"reason": why.get(label, "no scores"), "reference": reference.loc[label].mean()}
        if label in pairs and len(pairs[label]):
            row |= _score(pairs[label].to_numpy(), *variances[label], confidence)
        rows.append(row)
    for row, adjusted in zip(rows, statistics.holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = adjusted
        row["verdict"] = _judged(adjusted < 1 - confidence, row["reason"])
    return rows


def _variances(reference: pd.DataFrame, new: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Variance of the runs of each loss within reference and new ones, and its freedom."""
    squares, freedom = [], []
    for label in reference.index:
        own = [table.loc[label].dropna() for table in (reference, new) if label in table.index]
        freedom.append(sum(max(len(group) - 1, 0) for group in own))
        squares.append(sum(float(((group - group.mean()) ** 2).sum()) for group in own))
    known = np.maximum(freedom, 1)  # no square without a freedom
    found = statistics.moderated_variances(np.array(squares) / known, np.array(freedom))
    return dict(
        zip(reference.index, zip(found.values, found.degrees_of_freedom, strict=True), strict=True)
    )


def _score(
    pairs: np.ndarray, variance: float, freedom: float, confidence: float
) -> dict[str, object]:
    """The difference of two means over the same seeds; ``pairs`` (seeds, reference and new)."""
    reference, found = pairs.mean(axis=0)
    row = {"reference": reference, "found": found, "difference": found - reference}
    row |= {"seeds": len(pairs), "largest_run_difference": np.abs(np.diff(pairs)).max()}
    if not (freedom > 0 and variance >= 0):
        return row | {"reason": "nothing is known of the spread of runs"}
    error = math.sqrt(2 * variance / len(pairs))
    difference = found - reference
    half = error * special.stdtrit(freedom, (1 + confidence) / 2)
    if error > 0:
        p = 2 * special.stdtr(freedom, -abs(difference) / error)
    else:
        p = float(difference == 0)
    estimate = statistics.Estimate(
        difference, difference - half, difference + half, freedom, p, error
    )
    detectable = statistics.detectable_difference(estimate, confidence)
    return row | {"low": estimate.low, "high": estimate.high, "p": p, "reason": "",
                  "detectable": detectable}  # fmt: skip


def _judged(contradicted: bool, reason: str) -> str:
    """The verdict; a ``reason`` is one why there is none."""
    return NOT_COMPARABLE if reason else NOT_REPRODUCED if contradicted else REPRODUCED


def collapses(
    reference: pd.DataFrame, new: pd.DataFrame, level: float, why: Mapping[str, str]
) -> list[dict[str, object]]:
    """A row for each loss of the table of runs ``reference``; ``p`` is that of the pattern."""
    kept = [label for label in reference["loss"].unique() if label not in why]
    fates = sorted({fate for runs in (reference, new) for fate in _all_fates(runs)})
    lost = {
        label: [_fates(t[t["loss"] == label], fates) for t in (reference, new)] for label in kept
    }
    lost = {label: both for label, both in lost.items() if all(len(half) for half in both)}
    p = _pattern_p(list(lost.values()))
    rows = []
    for label in reference["loss"].unique():
        row = {"kind": "collapse", "loss": label, "p": math.nan}
        ours = _fates(reference[reference["loss"] == label], fates)
        row["reference"] = _told(ours, fates)
        if label not in lost:
            row |= {"reason": why.get(label, "no finished run"), "verdict": NOT_COMPARABLE}
            rows.append(row)
            continue
        theirs = lost[label][1]
        changed = [
            fate
            for fate, before, now in zip(fates, ours.mean(axis=0), theirs.mean(axis=0), strict=True)
            if (before > 0.5) != (now > 0.5)
        ]
        reason = ""
        if changed and p >= level:
            reason = f"most runs differ ({', '.join(changed)}), as a few do by chance"
        row |= {"found": _told(theirs, fates), "p": p, "seeds": len(theirs), "reason": reason}
        rows.append(row | {"verdict": _judged(bool(changed), reason)})
    return rows


def _all_fates(runs: pd.DataFrame) -> set[str]:
    classes = runs["collapsed_classes"].fillna("")
    return {DIVERGED, *(name for names in classes for name in names.split(";") if name)}


def _fates(runs: pd.DataFrame, fates: Sequence[str]) -> np.ndarray:
    """(runs, fates): which classes a run lost, and whether it diverged; failed runs say nothing."""
    runs = runs[runs["status"] != "failed"]
    rows = [
        [fate in names.split(";") or fate == status == DIVERGED for fate in fates]
        for names, status in zip(runs["collapsed_classes"].fillna(""), runs["status"], strict=True)
    ]
    return np.array(rows, dtype=bool).reshape(len(rows), len(fates))


def _told(lost: np.ndarray, fates: Sequence[str]) -> str:
    """``enhancing rim 3/3; edema 1/3``, or ``none`` of so many runs."""
    told = [f"{fate} {n}/{len(lost)}" for fate, n in zip(fates, lost.sum(axis=0), strict=True) if n]
    return "; ".join(told) or f"none of {len(lost)}"


def _pattern_p(lost: Sequence[Sequence[np.ndarray]]) -> float:
    """p of "in each loss reference and new runs are alike": a permutation test over its runs.

    The statistic is the change of the share of runs, summed over fates and losses.
    """
    generator = np.random.default_rng(SEED)
    observed, drawn = 0.0, np.zeros(DRAWS)
    for before, now in lost:
        runs, size = np.concatenate([before, now]).astype(float), len(before)
        observed += np.abs(before.mean(axis=0) - now.mean(axis=0)).sum()
        order = generator.random((DRAWS, len(runs))).argsort(axis=1)
        halves = runs[order[:, :size]].mean(axis=1), runs[order[:, size:]].mean(axis=1)
        drawn += np.abs(halves[0] - halves[1]).sum(axis=1)
    # sums of the same changes in another order
    return float((1 + (drawn >= observed - 1e-9).sum()) / (1 + DRAWS))


def _corrections(
    reference: pd.DataFrame, new: pd.DataFrame, level: float, why: Mapping[str, str]
) -> list[dict[str, object]]:
    """A row for each pair and endpoint; ``low`` and ``high`` are those of the new difference."""
    key = ["loss", "against", "endpoint"]
    reference, new = (t[t["contrast"] == "correction"] for t in (reference, new))
    there = {tuple(row[name] for name in key): row for row in new.to_dict("records")}
    rows = []
    for ours in reference.to_dict("records"):
        row = {"kind": "correction", "reference": ours["difference"]}
        row |= {name: ours[name] for name in key}
        theirs = there.get(tuple(ours[name] for name in key), {"difference": math.nan})
        found = theirs["difference"]
        reason = why.get(ours["loss"], "") or why.get(ours["against"], "")
        if not ours["p_holm"] < level:
            reason = reason or "the reference does not separate it from zero"
        if not reason and math.isnan(found):
            reason = "no scores"
        if not math.isnan(found):
            row |= {"found": found, "low": theirs["low"], "high": theirs["high"],
                    "seeds": theirs["seeds"], "difference": found - ours["difference"]}  # fmt: skip
        contradicted = np.sign(found) != np.sign(ours["difference"])
        rows.append(row | {"reason": reason, "verdict": _judged(contradicted, reason)})
    return rows


def _tiers(
    reference: Tables, new: Tables, judged: Sequence[Mapping[str, object]], why: Mapping[str, str]
) -> list[dict[str, object]]:
    """A row for each loss, judged by what was ``judged`` of scores and collapse before."""
    missed = {
        row["loss"]
        for row in judged
        if row["verdict"] == NOT_REPRODUCED
        and (row["kind"] == "collapse" or row.get("endpoint") == "mean_dice")
    }
    halves = [set(map(tuple, t.runs[["loss", "seed"]].to_numpy())) for t in (reference, new)]
    partial = "" if halves[0] == halves[1] else "tiers are those of all losses and seeds together"
    tiers = [dict(zip(t.summary["loss"], t.summary["tier"], strict=True)) for t in (reference, new)]
    tops = {top for t in (reference, new) if (top := _top(t.summary))}
    rows = []
    for label, tier in tiers[0].items():
        row = {"kind": "tier", "loss": label, "reference": tier}
        reason = why.get(label, "") or partial
        if not reason:
            row["found"] = tiers[1][label]
            if row["found"] != tier and not missed & {label, *tops}:
                reason = "at the border of two tiers: scores and collapse are within the spread"
        contradicted = row.get("found") != tier
        rows.append(row | {"reason": reason, "verdict": _judged(contradicted, reason)})
    return rows


def _top(summary: pd.DataFrame) -> str:
    """The best of the losses that hold, with which tiers compare."""
    best = summary[summary["tier"] == "best"].dropna(subset=["mean_dice"])
    return best.loc[best["mean_dice"].idxmax(), "loss"] if len(best) else ""


def refusal(name: str, changed: Sequence[str]) -> dict[str, Any]:
    """The certificate where the reference is not as it was committed: nothing is compared."""
    return {"reference": name, "changed": list(changed), "verdict": NOT_COMPARABLE, "claims": []}


def certificate(
    name: str,
    reference: Mapping[str, Any],
    ours: Tables,
    new: Mapping[str, Any],
    theirs: Tables,
    rarest: str,
) -> dict[str, Any]:
    """What ``reproduction.json`` holds: verdict, what was left out, and every claim.

    ``reference`` and ``new`` are the resolved studies, ``ours`` and ``theirs`` their tables.
    """
    other, unknown = differing_settings(reference, new)
    if reference["comparison"]["checkpoint"] != new["comparison"]["checkpoint"]:
        other = dict.fromkeys(reference["losses"], "another checkpoint is reported")
    confidence = float(reference["comparison"]["confidence"])
    claimed = claims(ours, theirs, rarest, confidence, other)
    kinds = claimed.groupby("kind", sort=False)["verdict"]
    seeds = [set(map(int, tables.runs["seed"])) for tables in (ours, theirs)]
    return {
        "reference": name,
        "changed": [],
        "verdict": verdict(claimed),
        "confidence": confidence,
        "counts": {kind: found.value_counts().to_dict() for kind, found in kinds},
        "losses": sorted(set(ours.runs["loss"]) & set(theirs.runs["loss"])),
        "losses_left_out": sorted(set(ours.runs["loss"]) - set(theirs.runs["loss"])),
        "losses_unknown": sorted(set(theirs.runs["loss"]) - set(ours.runs["loss"])),
        "seeds": sorted(seeds[0] & seeds[1]),
        "seeds_left_out": sorted(seeds[0] - seeds[1]),
        "settings_of_one": unknown,
        "claims": [
            {key: value for key, value in row.items() if not _missing(value)}
            for row in claimed.to_dict("records")
        ],
    }


def _missing(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))
