"""Who takes an exam: models refitted by a recipe, or as they were saved; the popular list is always among them.

A recipe is a name and settings: those of the saved version that is named (`ease/3`), else of the newest version of that
name, else the settings in force. Settings given for one run win over the recipe's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from persona_cli.errors import MissingInput
from persona_cli.models import kinds, registry
from persona_cli.models.base import Model
from persona_cli.models.gram_store import weights_digest
from persona_cli.models.popular import Popular
from persona_cli.models.registry import Saved
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import Settings, is_setting

BASELINE = "popular"


@dataclass(frozen=True)
class Recipe:
    """What a contender is made by."""

    label: str
    """What it is called in results: the name as it was asked for."""
    name: str
    settings: Settings
    individual: str | None = None
    """The model inside a layered one."""
    saved: Saved | None = None
    """Whose recipe it is; None where it follows from the settings in force."""
    chosen: tuple[str, ...] = ()
    """What of it was chosen on data, and not by rule or by hand."""

    unchanged: bool = False
    """The settings are those of `saved`, with none given for this run."""

    def chosen_after(self, moment: datetime | None) -> bool:
        """Whether something of it was chosen with events from `moment` on; None: a moment later than all."""
        return bool(self.chosen) and self.saved is not None and moment is not None and self.saved.trained_until > moment

    def is_saved_from(self, n_events: int, until: datetime) -> bool:
        """Whether the saved model is what fitting this recipe on that many events, all before `until`, would make.

        Equal counts and a last event at the same instant stand for equal events; signals and row settings are compared
        by their digest.
        """
        found = self.saved
        if found is None or found.trained_until != until or found.manifest.get("events") != n_events:
            return False
        return self.unchanged and found.manifest.get("weights_digest") == weights_digest(self.settings)

    def unfitted(self) -> Model:
        return kinds.unfitted(self.name, self.settings, self.individual)


@dataclass(frozen=True)
class Contender:
    """A model that takes the exam."""

    recipe: Recipe
    model: Model

    @property
    def title(self) -> str:
        return self.recipe.saved.reference if self.recipe.saved else self.recipe.label


def recipes(home: Home, names: Sequence[str], overrides: Mapping[str, Any] | None = None) -> list[Recipe]:
    """The recipes of `names` (none: of latest), in their order and once each, the popular list last.

    `overrides` are full setting keys. MissingInput where nothing is named and nothing was trained.
    """
    given = dict(overrides or {})
    wanted = list(dict.fromkeys(names))
    if not wanted:
        if registry.latest(home) is None:
            raise MissingInput(
                "no model has been trained yet, so there is no recipe to evaluate",
                "persona train, or name one: persona evaluate --model ease",
            )
        wanted = ["layered"]
        found = [_of_saved(home, registry.load_model(home), "layered", given)]
    else:
        found = [_of_name(home, name, given) for name in wanted]
    if BASELINE not in wanted:
        found.append(_of_name(home, BASELINE, given))
    return found


def as_saved(wanted: Sequence[Recipe]) -> tuple[list[Contender], datetime]:
    """The saved models of these recipes as they are, and the instant until which any of them was trained.

    MissingInput where one was never trained.
    """
    contenders, until = [], []
    for recipe in wanted:
        if recipe.saved is None:
            raise MissingInput(f"no {recipe.name} model has been trained yet", f"persona train --model {recipe.name}")
        contenders.append(Contender(recipe, recipe.saved.model))
        until.append(recipe.saved.trained_until)
    return contenders, max(until)


def baseline_of(contenders: Sequence[Contender]) -> Popular:
    """The popular list among them."""
    model = next(one.model for one in contenders if one.recipe.label == BASELINE)
    assert isinstance(model, Popular)
    return model


def full_keys(given: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Settings by their full keys: `ease.lambda` is model.ease.lambda, and so is `lambda` beside one --model ease."""
    found = {}
    for key, value in given.items():
        candidates = [key, f"model.{key}"]
        if len(set(names)) == 1:
            candidates.append(f"model.{names[0].partition('/')[0]}.{key}")
        found[next((name for name in candidates if is_setting(name)), key)] = value
    return found


def _of_name(home: Home, name: str, given: Mapping[str, Any]) -> Recipe:
    plain = kinds.known(name.partition("/")[0])
    try:
        return _of_saved(home, registry.load_model(home, name), name, given)
    except MissingInput:
        if "/" in name:
            raise
    # As `persona train --model layered` does where nothing was chosen.
    individual = "knn" if plain == "layered" else None
    return Recipe(name, plain, home.settings.with_flags(given), individual)


def _with_parts(home: Home, saved: Saved, settings: Settings) -> Settings:
    """The settings with those that the models inside, and inside these, were trained by."""
    for reference in saved.parts.values():
        part = registry.load_model(home, reference)
        settings = _with_parts(home, part, part.recipe(settings))
    return settings


def _of_saved(home: Home, found: Saved, label: str, given: Mapping[str, Any]) -> Recipe:
    settings = _with_parts(home, found, found.recipe(home.settings))
    individual = found.parts.get("individual", "").partition("/")[0] or None
    chosen = tuple(what for what in found.manifest.get("chosen", ()) if what not in given)
    final = settings.with_flags(given)
    return Recipe(label, found.name, final, individual, found, chosen, final.values == settings.values)
