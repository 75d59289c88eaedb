"""The trained models of a workspace: saved as versions, found by name, and the one that is served.

    models/<name>/<version>/manifest.json    name, version, settings, recipe, trained_until, parts, hashes of its files
    models/latest.json                       {"model": "layered", "version": 7}: written last, names what is served

Versions are whole numbers from 1 and never change. A model that is equal in every file and every word of its manifest
to a version that is there is not saved again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from persona_cli.errors import BadData, MissingInput, Unavailable, UsageError
from persona_cli.models.base import Model
from persona_cli.models.kinds import MODELS, distribution_of, known
from persona_cli.workspace import artifacts
from persona_cli.workspace.doctor import STALE_FILE, model_versions, stale_models
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import Settings

log = logging.getLogger("persona")
PROPENSITY = "propensity"
"""Saved among the models, and makes no lists: chances of what users will do (`feedback.propensity`)."""


@dataclass(frozen=True)
class Saved:
    """A model as it was saved."""

    name: str
    version: int
    model: Model
    manifest: Mapping[str, Any]

    @property
    def reference(self) -> str:
        return f"{self.name}/{self.version}"

    @property
    def parts(self) -> dict[str, str]:
        """Models inside by role, as `ease/3`; of a layered one `popular` and (unless it is that alone) `individual`."""
        return dict(self.manifest.get("parts", {}))

    @property
    def trained_until(self) -> datetime:
        """Only events before this instant were learned from (UTC)."""
        return datetime.fromisoformat(self.manifest["trained_until"]).astimezone(UTC)

    def recipe(self, settings: Settings) -> Settings:
        """`settings` with the model settings that it was trained by, before "auto" was resolved."""
        return settings.with_flags(self.manifest["recipe"])


def save_model(home: Home, model: Model, manifest: Mapping[str, Any]) -> int:
    """Save a fitted model and answer its version, an older one where that is the same; call it under the lock `models`.

    `manifest` is what else is to be known of it; it must not hold anything that differs between equal trainings.
    """
    versions = [int(version) for version in model_versions(home).get(model.name, ())]
    version = max(versions, default=0) + 1
    said = {"kind": "model", "name": model.name, "settings": dict(model.settings()), "exact": model.exact, **manifest}
    if (maker := distribution_of(model.name)) is not None:
        said["distribution"] = maker
    folder = home.path("models", model.name)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with artifacts.scratch(folder) as trial:
        model.save(trial)
        stated = json.loads(json.dumps(artifacts.write_manifest(trial, said)))
        for number in reversed(versions):
            if _said_of(folder / str(number)) == stated:
                return number
        (trial / artifacts.MANIFEST).unlink()
        with artifacts.publish(folder / str(version)) as beside:
            for path in sorted(trial.iterdir()):
                path.rename(beside / path.name)
            text = json.dumps({"version": version, **stated}, indent=2, ensure_ascii=False) + "\n"
            (beside / artifacts.MANIFEST).write_text(text, encoding="utf-8")
    return version


def _said_of(folder: Path) -> dict[str, Any] | None:
    """The manifest of a version without its number; None where it or a file of it is damaged."""
    try:
        manifest = artifacts.verify(folder, contents=False)
    except (BadData, MissingInput):
        return None
    return {key: value for key, value in manifest.items() if key != "version"}


def load_model(home: Home, reference: str | None = None) -> Saved:
    """The model that `reference` names: `ease` (its newest version), `ease/3`, or None for what is served.

    `UsageError` for a name that no model has, `MissingInput` for one that was not trained, `BadData` where a file has
    another size than the manifest states.
    """
    return load_folder(find(home, reference))


def find(home: Home, reference: str | None = None) -> Path:
    """The folder of that version."""
    if reference is None:
        reference = latest(home)
        if reference is None:
            raise MissingInput("no model has been trained yet", "persona train")
        if reference in stale_models(home):
            log.warning("%s was made with data of people who were erased since; persona train makes it anew", reference)
    name, slash, version = reference.partition("/")
    versions = model_versions(home).get(name if name == PROPENSITY else known(name), [])
    if slash and not (version.isascii() and version.isdigit()):
        raise UsageError(
            f"{reference!r} is not a model; expected a name such as {name}, or {name}/3", "persona model list"
        )
    if not versions:
        raise MissingInput(f"no {name} model has been trained yet", f"persona train --model {name}")
    if slash and str(int(version)) not in versions:
        shown = ", ".join(f"{name}/{number}" for number in versions[-5:])
        raise MissingInput(f"there is no model {reference}; there are {shown}", "persona model list")
    return home.path("models", name, str(int(version)) if slash else versions[-1])


def load_folder(folder: Path) -> Saved:
    """The model in a version's folder; models inside it are those that its manifest names in the folders beside."""
    manifest = artifacts.verify(folder, contents=False)
    if manifest.get("name") not in MODELS and "distribution" in manifest:
        maker = manifest["distribution"]
        raise Unavailable(
            f"{folder.parent.name}/{folder.name} was made by {maker}, which is not installed",
            f"pip install {maker.replace(' ', '==')}, or persona train",
        )
    try:
        name, version, settings = str(manifest["name"]), int(manifest["version"]), manifest["settings"]
        kind, references = MODELS[name], dict(manifest.get("parts", {}))
    except (KeyError, TypeError, ValueError) as error:
        raise BadData(f"{folder / artifacts.MANIFEST} does not describe a model ({error})", "persona train") from error
    if not references:
        return Saved(name, version, kind.load(folder, settings), manifest)
    parts = {role: load_folder(folder.parents[1] / reference).model for role, reference in references.items()}
    return Saved(name, version, kind.load(folder, settings, parts), manifest)


def mark_stale(home: Home, references: Collection[str]) -> None:
    """Say of these versions that they were made with data that is gone: `status`, `doctor` and `recommend` tell it."""
    _write_stale(home, {*stale_models(home), *references})


def clear_stale(home: Home, references: Collection[str] | None = None) -> None:
    """Take that back (None: of all)."""
    if known := stale_models(home):
        _write_stale(home, set() if references is None else set(known) - set(references))


def _write_stale(home: Home, references: Collection[str]) -> None:
    path = home.path("models", STALE_FILE)
    if references:
        artifacts.write_text(path, json.dumps({"erased": sorted(references)}) + "\n")
    else:
        path.unlink(missing_ok=True)


def latest(home: Home) -> str | None:
    """What is served, as `layered/7`; None where nothing was trained."""
    path = home.path("models", "latest.json")
    try:
        named = json.loads(path.read_bytes())
        return f"{named['model']}/{int(named['version'])}"
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise BadData(f"{path} is damaged ({error})", "persona train") from error


def set_latest(home: Home, version: int) -> None:
    """Serve layered/`version` from now on; nothing is written where that is so already."""
    if not home.path("models", "layered", str(version), artifacts.MANIFEST).is_file():
        raise MissingInput(f"there is no model layered/{version}", "persona model list")
    clear_stale(home, [f"layered/{version}"])
    if latest_or_none(home) != f"layered/{version}":
        text = json.dumps({"model": "layered", "version": version}) + "\n"
        artifacts.write_text(home.path("models", "latest.json"), text)


def prune(home: Home, keep: int) -> list[str]:
    """Remove all but the newest `keep` versions of every model, and answer what went; call it under the lock `models`.

    What is served, and the parts of every model that stays, stay whatever their number.
    """
    there = {f"{name}/{version}" for name, versions in model_versions(home).items() for version in versions}
    staying = {f"{name}/{version}" for name, versions in model_versions(home).items() for version in versions[-keep:]}
    if serving := latest_or_none(home):
        staying.add(serving)
    staying = with_parts(home, staying)
    return _remove(home, [one for one in sorted(there - staying) if one.partition("/")[0] in MODELS])


def keep_only(home: Home, references: Collection[str]) -> list[str]:
    """Remove every version but these and the parts inside them, and answer what went; under the lock `models`."""
    there = {f"{name}/{version}" for name, versions in model_versions(home).items() for version in versions}
    staying = with_parts(home, references)
    return _remove(home, sorted(one for one in there - staying if one.partition("/")[0] != "gram"))


def with_parts(home: Home, references: Collection[str]) -> set[str]:
    """These versions and those inside them."""
    staying, left = set[str](), set(references)
    while left:
        staying |= left
        folders = [home.path("models", one) for one in left]
        manifests = [artifacts.read_manifest(folder) for folder in folders if folder.is_dir()]
        left = {str(part) for said in manifests for part in said.get("parts", {}).values()} - staying
    return staying


def _remove(home: Home, gone: Sequence[str]) -> list[str]:
    # Models before their parts, so that none is ever there without these.
    for reference in sorted(gone, key=lambda reference: _depth(home, reference), reverse=True):
        folder = home.path("models", reference)
        going = folder.with_name(artifacts.temporary_name())
        folder.rename(going)  # at once: no half of a version is ever seen
        artifacts.remove(going)
    return list(gone)


def _depth(home: Home, reference: str) -> int:
    """How many levels of parts are below a version."""
    parts = artifacts.read_manifest(home.path("models", reference)).get("parts", {}).values()
    there = [part for part in parts if home.path("models", part).is_dir()]
    return 1 + max((_depth(home, part) for part in there), default=0)


def latest_or_none(home: Home) -> str | None:
    """As `latest`, where a damaged file counts as none: it is about to be replaced."""
    try:
        return latest(home)
    except BadData:
        return None


def list_models(home: Home) -> list[dict[str, Any]]:
    """One record a version, by name and version: model, version, latest, trained_until, parts, settings, bytes."""
    serving = latest_or_none(home)
    records = []
    for name, versions in model_versions(home).items():
        if name not in MODELS and name != PROPENSITY:
            continue
        for version in versions:
            manifest = artifacts.read_manifest(home.path("models", name, version))
            records.append(
                {
                    "model": name,
                    "version": int(version),
                    "latest": f"{name}/{version}" == serving,
                    "trained_until": manifest.get("trained_until"),
                    "parts": list(manifest.get("parts", {}).values()),
                    "settings": manifest.get("settings", {}),
                    "bytes": sum(int(entry["bytes"]) for entry in manifest["files"].values()),
                }
            )
    return records


def recipe_of(settings: Settings, names: Sequence[str]) -> dict[str, Any]:
    """The settings that models of these names follow from, as JSON types: `model.gram.*` and `model.<name>.*`."""
    prefixes = ("model.gram.", *(f"model.{name}." for name in names))
    return {key: value for key, value in sorted(settings.values.items()) if key.startswith(prefixes)}
