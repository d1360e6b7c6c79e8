"""What the JSON files of this package hold, as types, and the way into nested ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Record = Mapping[str, Any]
"""An object of a JSON file that is read and never changed: a COCO image, annotation, category or result."""
Metrics = dict[str, Any]
"""A nested mapping of numbers, with texts where there is nothing to measure."""


def look_up(metrics: Record, path: str) -> Any:
    """The value under a dotted path, or None."""
    value: Any = metrics
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def pick(metrics: Record, paths: Mapping[str, str]) -> dict[str, float]:
    """The numbers at dotted paths, by other names; those that are not there are left out."""
    found = {name: look_up(metrics, path) for name, path in paths.items()}
    return {name: value for name, value in found.items() if value is not None}
