"""Models of other distributions: which there are, by the entry point group `persona.models`, without importing any."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

GROUP = "persona.models"


@cache
def plugin_models() -> dict[str, tuple[EntryPoint, ...]]:
    """Name → who offers a model of that name, names sorted; more than one where two distributions do."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, owner(point))):
        found[point.name] = (*found.get(point.name, ()), point)
    return found


def owner(point: EntryPoint) -> str:
    """The distribution that an entry point is of."""
    return point.dist.name if point.dist is not None else point.value


def plugin_of(key: str) -> str | None:
    """The plug-in whose setting `model.NAME.key` is; None where it is of none."""
    parts = key.split(".")
    return parts[1] if len(parts) == 3 and parts[0] == "model" and parts[2] and parts[1] in plugin_models() else None
