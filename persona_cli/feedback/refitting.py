"""Models anew after an erasure: what is served is fitted again by its own recipe, and no version from before stays.

What was chosen once (which model, its evidence, a blend) stands; it was not learned from one person. A model that
follows from integer sums alone is the one that training by name would have made had the person never been. Chances
(`propensity`) are learned again for each event and horizon. A model that cannot be made any more, since too little is
left to learn from, or its library is missing, makes room for the popular list.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from persona_cli.errors import BadData, MissingInput, PersonaError
from persona_cli.feedback import training
from persona_cli.feedback.choosing import Choice
from persona_cli.feedback.propensity import train_propensity
from persona_cli.models import registry
from persona_cli.profiles.sync import sync
from persona_cli.workspace import artifacts, locks
from persona_cli.workspace.doctor import model_versions
from persona_cli.workspace.home import Home

log = logging.getLogger("persona")


@dataclass(frozen=True)
class Refitted:
    """Models after an erasure."""

    latest: str | None
    """What is served now; None: nothing."""
    current: tuple[str, ...]
    """Versions that stay, beside the parts inside them; all others are to be removed."""
    stale: tuple[str, ...] = ()
    """Those of `current` that hold what they had learned before."""


def current(home: Home) -> Refitted:
    """What is served, and the newest model of chances of each event and horizon, as they are."""
    served = registry.latest_or_none(home)
    if served is not None and not home.path("models", served, artifacts.MANIFEST).is_file():
        served = None
    found = tuple(one for one in (served, *_propensities(home)) if one is not None)
    return Refitted(served, found, found)


def unfitted(home: Home) -> Refitted:
    """As `current`, where nothing is fitted again for now."""
    found = current(home)
    return Refitted(found.latest, found.current, found.current)


def refit(home: Home, wait: float = 0.0) -> Refitted:
    """Fit again what `current` names; the versions before are there until `registry.keep_only`.

    Raises Busy where another run holds the models or tables after `wait` seconds.
    """
    with locks.hold(home, "models", "forget", wait):
        sync(home, wait=wait)
        before = current(home)
        latest = None if before.latest is None else _served(home, before.latest)
        chances = []
        for reference, manifest in _propensities(home).items():
            try:
                within = timedelta(days=float(manifest["settings"]["within_days"]))
                chances.append(train_propensity(home, manifest["settings"]["event"], within, _as_of(manifest)).model)
            except PersonaError as error:
                log.warning("%s is not made again: %s", reference, error.message)
        return Refitted(latest, tuple(one for one in (latest, *chances) if one is not None))


def remove_others(home: Home, models: Refitted) -> list[str]:
    """Remove every version that is not current, and mark what is stale; answers what went."""
    if models.latest is None:
        home.path("models", "latest.json").unlink(missing_ok=True)
    gone = registry.keep_only(home, models.current)
    registry.clear_stale(home)
    registry.mark_stale(home, models.stale)
    return gone


def _served(home: Home, reference: str) -> str | None:
    try:
        manifest = artifacts.read_manifest(home.path("models", reference))
        individual = str(manifest["parts"].get("individual", "")).partition("/")[0] or None
        recipe = dict(_recipes(home, reference))
    except (BadData, MissingInput, KeyError, AttributeError) as error:
        log.warning("%s cannot be read (%s): the popular list takes its place", reference, error)
        manifest, individual, recipe = {}, None, {}
    settings = home.settings.with_flags(recipe)
    names = [] if individual is None else [individual]
    as_of = _as_of(manifest)
    try:
        events, material = training.material(home, settings, names, as_of)
    except MissingInput as error:
        log.warning("nothing is served any more: %s", error.message)
        return None
    chosen = [str(key) for key in manifest.get("chosen", ())]

    def made(names: list[str]) -> str:
        evidence = settings.number_or_word("model.layered.evidence")
        choice = Choice(names[0] if names else None, evidence, {}, 0, "", "as it was chosen before an erasure")
        return training.saved(home, settings, material, events, as_of, names, {}, choice, chosen).latest

    try:
        return made(names)
    except (PersonaError, ValueError, ArithmeticError) as error:
        if not names:
            raise
        log.warning("%s is not made again (%s): the popular list takes its place", names[0], error)
        return made([])


def _recipes(home: Home, reference: str) -> Iterable[tuple[str, Any]]:
    """Settings by which a model and those inside it were made, the outer ones last."""
    manifest = artifacts.read_manifest(home.path("models", reference))
    for part in manifest.get("parts", {}).values():
        yield from _recipes(home, str(part))
    yield from manifest["recipe"].items()


def _propensities(home: Home) -> dict[str, Mapping[str, Any]]:
    """The newest version of chances of each event and horizon, with its manifest."""
    found: dict[tuple[str, float], tuple[str, Mapping[str, Any]]] = {}
    for version in model_versions(home).get(registry.PROPENSITY, []):
        reference = f"{registry.PROPENSITY}/{version}"
        try:
            manifest = artifacts.read_manifest(home.path("models", reference))
            key = (str(manifest["settings"]["event"]), float(manifest["settings"]["within_days"]))
        except (BadData, MissingInput, KeyError, TypeError, ValueError):
            continue  # nobody can use it
        found[key] = (reference, manifest)
    return dict(found.values())


def _as_of(manifest: Mapping[str, Any]) -> datetime | None:
    given = manifest.get("as_of")
    return None if given is None else datetime.fromisoformat(given)
