"""A shard: what lists of losses, seeds and arms on the command line leave of a study."""

from __future__ import annotations

from typing import Any

from workflow.study.keys import chosen, merge
from workflow.study.model import REFERENCE, entries_of


def shard(data: dict[str, Any], overrides: dict[str, Any]) -> tuple[dict, dict]:
    """The study without what the lists in ``overrides`` leave out, and the other overrides.

    An arm keeps what is left of its own losses and seeds, and goes if nothing is left. Where the
    reference loss is left out, the first one left takes its place. Losses of which the study has
    none are no choice but other losses.
    """
    data, rest = dict(data), dict(overrides)
    entries, words, labels = entries_of(data.get("losses")), rest.get("losses"), None
    if isinstance(words, list) and isinstance(entries, dict):
        entries = {str(label): entry for label, entry in entries.items()}
        if any(str(word) in entries for word in words):
            data["losses"] = chosen(entries, rest.pop("losses"), "losses")
            labels = list(data["losses"])
            if _reference(data) in entries:
                data = _comparable(data, _reference(data), labels)
    arms = data.get("arms")
    arms = {str(name): arm for name, arm in arms.items()} if isinstance(arms, dict) else {}
    if isinstance(rest.get("arms"), list):
        arms = chosen(arms, rest.pop("arms"), "arms")
    if arms:
        left = {
            name: _cut(arm, labels, rest.get("seeds"), _reference(data))
            for name, arm in arms.items()
        }
        data["arms"] = {name: arm for name, arm in left.items() if arm is not None}
        if not data["arms"]:
            raise ValueError("arms: none of them has these losses and seeds")
    return data, rest


def _cut(arm: Any, labels: list[str] | None, seeds: Any, reference: str) -> Any:
    """What these losses and seeds, None for all, leave of an arm; None where nothing is left."""
    if not isinstance(arm, dict):
        return {} if arm is None else arm
    arm = dict(arm)
    for key, kept in (("losses", labels), ("seeds", seeds)):
        own = arm.get(key)
        if isinstance(kept, list) and isinstance(own, list | dict):
            wanted = {str(item) for item in kept}
            if isinstance(own, dict):  # options that the arm changes
                arm[key] = {label: entry for label, entry in own.items() if str(label) in wanted}
            elif left := [item for item in own if str(item) in wanted]:
                arm[key] = left
            else:
                return None
    if labels is not None and isinstance(arm.get("losses"), list):
        arm = _comparable(arm, reference, list(map(str, arm["losses"])))
    return arm


def _reference(keys: dict[str, Any], default: str = REFERENCE) -> str:
    comparison = keys.get("comparison")
    return comparison.get("reference_loss", default) if isinstance(comparison, dict) else default


def _comparable(keys: dict[str, Any], reference: str, labels: list[str]) -> dict[str, Any]:
    """The keys of a study or an arm, whose reference loss must be one of these labels."""
    if _reference(keys, reference) in labels:
        return keys
    return merge(keys, {"comparison": {"reference_loss": labels[0]}})
