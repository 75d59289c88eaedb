"""The kinds of models there are: built in, and of other distributions by the entry point group `persona.models`.

Classes are imported when they are asked for: some stand on libraries that take a second to load. A model made of others
(a `Composite`) says by the settings which ones it holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, cast

from persona_cli.errors import BadSettings, Unavailable, UsageError, nearest
from persona_cli.models.base import Model
from persona_cli.workspace.settings import Settings, owner, plugin_models

_PACKAGE = "persona_cli.models"
_POPULAR = {"popular": "popular:Popular"}
# Models that a layered model can be around, simplest first.
_INDIVIDUAL = {
    "cohort": "cohort:Cohort",
    "content": "content:Content",
    "knn": "knn:Knn",
    "als": "als:Als",
    "ease": "ease:Ease",
    "spectral": "spectral:Spectral",
    "hybrid": "hybrid:Hybrid",
    "cold": "cold:Cold",
    "ranker": "ranker:Ranker",
    "sequence": "sequence:Sequence",
    "blend": "blend:Blend",
}
_LAYERED = {"layered": "layered:Layered"}


class Kinds(Mapping[str, Any]):
    """Name → class, imported on access; in order of simplicity."""

    def __init__(self, *built_in: Mapping[str, str], plugins: bool) -> None:
        self._built_in = {name: path for paths in built_in for name, path in paths.items()}
        self._plugins = plugins

    def __getitem__(self, name: str) -> Any:
        if name in self._built_in:
            return _imported(self._built_in[name])
        if self._plugins and name in plugins():
            return plugged(name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        yield from self._built_in
        if self._plugins:
            yield from (name for name in plugins() if name not in ALL_BUILT_IN)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in self._built_in or (self._plugins and name in plugins())


ALL_BUILT_IN = {**_POPULAR, **_INDIVIDUAL, **_LAYERED}
INDIVIDUAL = Kinds(_INDIVIDUAL, plugins=True)
MODELS = Kinds(_POPULAR, _INDIVIDUAL, _LAYERED, plugins=True)


def plugins() -> list[str]:
    """Models of other distributions, sorted; a name that is built in stays what it is."""
    return [name for name in plugin_models() if name not in ALL_BUILT_IN]


def plugged(name: str) -> Any:
    """The class of a plug-in; Unavailable where it cannot be imported, is no model of that name, or is one of two."""
    points = plugin_models()[name]
    owners = [owner(point) for point in points]
    if len(points) > 1:
        raise Unavailable(
            f"{' and '.join(owners)} both have a model {name!r}", f"pip uninstall {' (or) '.join(owners)}"
        )
    try:
        kind = points[0].load()
    except Exception as error:  # whatever another distribution does on import
        raise Unavailable(
            f"the model {name!r} of {owners[0]} cannot be loaded ({type(error).__name__}: {error})",
            f"pip install --upgrade {owners[0]}, or pip uninstall {owners[0]}",
        ) from error
    missing = [
        part for part in ("from_settings", "fit", "scores", "settings", "save", "load") if not hasattr(kind, part)
    ]
    if missing or getattr(kind, "name", None) != name:
        wrong = f"has no {', '.join(missing)}" if missing else f"calls itself {getattr(kind, 'name', None)!r}"
        raise Unavailable(f"the model {name!r} of {owners[0]} {wrong}", "see docs/plugins.md")
    return kind


def distribution_of(name: str) -> str | None:
    """Whose model it is, as `persona-mine 1.0`; None of persona's own."""
    point = None if name in ALL_BUILT_IN else next(iter(plugin_models().get(name, ())), None)
    return None if point is None or point.dist is None else f"{point.dist.name} {point.dist.version}"


def known(name: str, names: Mapping[str, Any] = MODELS) -> str:
    """`name`, if a model is called so; `UsageError` with the nearest name if not."""
    if name not in names:
        raise UsageError(f"there is no model {name!r}{nearest(name, names)}", "persona train --help")
    return name


def unfitted(name: str, settings: Settings, individual: str | None = None) -> Model:
    """A model by the settings; `individual` names the one inside a layered model."""
    kind = MODELS[known(name)]
    if name == "layered":
        inside = None if individual is None else unfitted(known(individual, INDIVIDUAL), settings)
        return cast(Model, kind.from_settings(settings, inside))
    if is_composite(kind):
        return cast(
            Model, kind.from_settings(settings, {one: unfitted(one, settings) for one in kind.inside(settings)})
        )
    try:
        return cast(Model, kind.from_settings(settings))
    except (TypeError, ValueError) as error:
        if name in ALL_BUILT_IN:
            raise
        raise BadSettings(
            f"[model.{name}] does not suit the model of {owner(plugin_models()[name][0])}: {error}",
            f"persona config show model.{name}",
        ) from error


def is_composite(kind: Any) -> bool:
    """Whether models of this class hold others, which `inside(settings)` names."""
    return hasattr(kind, "inside")


def ordered(name: str, settings: Settings) -> bool:
    """Whether a model of this name reads when things happened, and not only what."""
    kind = MODELS[known(name)]
    if is_composite(kind) and any(ordered(one, settings) for one in kind.inside(settings)):
        return True
    return bool(getattr(kind, "ordered", False))


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(f"{_PACKAGE}.{module}"), name)
