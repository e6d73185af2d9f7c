"""The fingerprint of a data set and what was chosen from it, in rows that the report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

AXES = ("x", "y", "z")
NORMALISATIONS = {
    "percentiles": "clipped to the 0.5 and 99.5 percentile of each image, then mean 0, deviation 1",
    "zscore": "mean 0 and deviation 1 in each image",
    "zscore_nonzero": "mean 0 and deviation 1 in the voxels of each image that are not zero",
    "ct": "clipped and scaled by the annotated voxels of the data set, the same for every image",
}


def section(found: Mapping[str, Any]) -> dict[str, Any]:
    """What the report shows; empty for results that are older than it."""
    if not found:
        return {}
    asked, chosen, fingerprint = (found[key] for key in ("asked", "chosen", "fingerprint"))
    # a window that nobody asked for is the patch
    asked = {**asked, "window": asked["window"] or "patch_size"}
    names = [channel["name"] for channel in fingerprint["channels"]]
    said = {
        "Spacing of the arrays": (
            "spacing",
            "that of each image"
            if chosen["spacing"] == "native"
            else f"{_times(chosen['spacing'])} mm",
        ),
        "Crop": (
            "crop",
            "the box of what is not zero" if chosen["crop"] == "nonzero" else "none",
        ),
        "Normalisation": ("normalisation", _normalisation(names, chosen["normalisation"])),
        "Patch": ("patch_size", f"{_times(chosen['patch_size'])} voxels"),
        "Strides of the network": (
            "strides",
            ", ".join(_times(s) if isinstance(s, list) else str(s) for s in chosen["strides"]),
        ),
        "Window of prediction": ("window", f"{_times(chosen['window'])} voxels"),
    }
    return {
        "source": source(found),
        "cases": fingerprint["cases"],
        "choices": [
            {
                "name": name,
                "value": value,
                "origin": ORIGINS.get(str(asked[key]), "set in the study"),
            }
            for name, (key, value) in said.items()
        ],
        "grid": [
            {
                "axis": axis,
                **{
                    f"{what}_{level}": fingerprint[what][level][index]
                    for what in ("spacing", "size")
                    for level in ("median", "minimum", "maximum")
                },
            }
            for index, axis in enumerate(AXES)
        ],
        "kept": fingerprint["kept"],
        "channels": fingerprint["channels"],
        "classes": fingerprint["classes"],
    }


def source(found: Mapping[str, Any]) -> str:
    """Whose data, and under which licence, as far as they say it."""
    told = found.get("reference", "")
    if licence := found.get("licence", ""):
        told = f"{told} ({licence})" if told else f"licence {licence}"
    return f"{found['dataset']}: {told}" if told else ""


def of_arms(plans: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Sources and choices of an experiment: once for all arms that are alike, with their names."""
    found: list[dict[str, Any]] = []
    for arm, plan in plans.items():
        shown = section(plan)
        told = {key: shown[key] for key in ("source", "choices")}
        alike = next((group for group in found if told.items() <= group.items()), None)
        if alike:
            alike["arms"].append(arm)
        else:
            found.append({"arms": [arm], **told})
    return found


ORIGINS = {
    "auto": "from the fingerprint",
    "native": "as the files are",
    "none": "as the files are",
    "patch_size": "the patch",
}


def _times(lengths: Sequence[float]) -> str:
    return " × ".join(f"{length:.4g}" for length in lengths)


def _normalisation(names: Sequence[str], words: Sequence[str]) -> str:
    """One sentence if all channels have the same rule, else one a channel."""
    if len(set(words)) == 1:
        return NORMALISATIONS[words[0]]
    return "; ".join(
        f"{name}: {NORMALISATIONS[word]}" for name, word in zip(names, words, strict=True)
    )
