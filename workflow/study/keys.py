"""Nested mappings of keys, before they are a study."""

from __future__ import annotations

from typing import Any


def merge(base: dict, overrides: dict) -> dict:
    """``base`` with the keys of ``overrides``, nested mappings key by key."""
    merged = dict(base)
    for key, value in overrides.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def chosen(entries: dict[str, Any], words: list[Any], key: str) -> dict[str, Any]:
    """The entries with these names, in the order of the words."""
    if unknown := [str(word) for word in words if str(word) not in entries]:
        there = ", ".join(entries) or "none"
        raise ValueError(f"{key}: no {', '.join(unknown)} here, there is {there}")
    return {str(word): entries[str(word)] for word in words}
