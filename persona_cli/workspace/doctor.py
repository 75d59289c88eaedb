"""A look over a workspace and its surroundings: what it holds, the next command worth trying, what killed runs left.

Repaired is only what is certain: temporary names whose writer is gone (the kernel released its lock), files that no
table names, manifests of runs whose process has ended. Everything else is reported with what to do.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persona_cli import __version__
from persona_cli.errors import Busy, PersonaError
from persona_cli.workspace import artifacts, locks, runs
from persona_cli.workspace.home import Home

STALE_FILE = "stale.json"
TABLES = ("events", "quarantine", "items", "users", "accounts", "profiles", "history", "decisions")


def overview(home: Home) -> dict[str, Any]:
    """Rows of every table, models with their newest version, the latest model, the last run, the next command."""
    rows = _rows(home)
    models = {name: versions[-1] for name, versions in model_versions(home).items()}
    latest = latest_model(home)
    recent = runs.read_runs(home, limit=1)
    return {
        "workspace": str(home.root),
        "tables": rows,
        "models": models,
        "latest": latest,
        "stale": stale_models(home),
        "last_run": recent[0] if recent else None,
        "next": next_command(home, rows, latest),
    }


def has_tables(home: Home) -> bool:
    """Whether any table was ever begun: without one, nothing needs the table engine, which is slow to load."""
    return any(home.path(name).is_dir() for name in TABLES)


def _rows(home: Home) -> dict[str, int]:
    if not has_tables(home):
        return {}
    from persona_cli.workspace import tables

    return {name: tables.row_count(home, name) for name in TABLES if tables.exists(home, name)}


def next_command(home: Home, rows: dict[str, int], latest: str | None) -> str:
    """The first step of the main job that has not been done."""
    if not rows.get("events"):
        return "persona ingest FILE"
    if pending_erasures(home):
        return "persona privacy forget"
    if latest is None or latest in stale_models(home):
        return "persona train"
    if not _has_entries(home.path("evaluations")):
        return "persona evaluate"
    return "persona recommend > out.jsonl"


def model_versions(home: Home) -> dict[str, list[str]]:
    """The finished versions of every model, oldest first."""
    found: dict[str, list[str]] = {}
    for manifest in sorted(home.root.glob("models/*/*/manifest.json")):
        version = manifest.parent
        if not version.name.startswith("."):
            found.setdefault(version.parent.name, []).append(version.name)
    return {name: sorted(versions, key=_by_number) for name, versions in found.items()}


def stale_models(home: Home) -> list[str]:
    """Versions that were made with data of people who were erased since, as `layered/7`: to be trained again."""
    try:
        return [str(one) for one in json.loads(home.path("models", STALE_FILE).read_bytes())["erased"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def pending_erasures(home: Home) -> list[str]:
    """Requests of erasure that were begun and not completed: a run was killed."""
    folder = home.path("privacy", "pending")
    return sorted(path.stem for path in folder.glob("R-*.json")) if folder.is_dir() else []


def latest_model(home: Home) -> str | None:
    """What models/latest.json names, as `layered/7`."""
    try:
        named = json.loads(home.path("models", "latest.json").read_bytes())
    except (OSError, ValueError):
        return None
    if isinstance(named, dict):
        if "version" in named:
            return f"{named.get('model', 'layered')}/{named['version']}"
        named = named.get("latest") or named.get("model")
    return named if isinstance(named, str) else None


def _by_number(version: str) -> tuple[int, str]:
    return (int(version), "") if version.isdigit() else (-1, version)


def _has_entries(folder: Path) -> bool:
    return folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir())


DEPENDENCIES = (
    "typer",
    "rich",
    "polars",
    "pyarrow",
    "deltalake",
    "duckdb",
    "numpy",
    "scipy",
    "scikit-learn",
    "joblib",
    "msgspec",
    "implicit",
    "threadpoolctl",
)
OPTIONAL = ("lightfm-next",)
LOCKS = ("tables", "models", "signals")
_LOW_DISK = 2**30
_READERS_WAIT = 60.0  # seconds


@dataclass(frozen=True)
class Finding:
    """One line of the report. `state`: ok, note (worth knowing), repaired, problem (needs somebody)."""

    check: str
    state: str
    detail: str


def surroundings() -> Iterator[Finding]:
    """What does not need a workspace: versions of everything that persona stands on."""
    yield Finding("persona", "ok", f"{__version__} on Python {platform.python_version()}, {platform.platform()}")
    missing = []
    versions = []
    for name in (*DEPENDENCIES, *OPTIONAL):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            if name in DEPENDENCIES:
                missing.append(name)
    yield Finding("packages", "ok", ", ".join(versions))
    if missing:
        yield Finding("packages", "problem", f"missing: {', '.join(missing)}; run: pip install --upgrade persona-cli")


def examine(home: Home, *, repair: bool) -> Iterator[Finding]:
    """Every check of a workspace; with `repair` what is certain to be rubbish is removed."""
    yield from _space(home)
    yield from _locks(home)
    yield from _leftovers(home, repair)
    yield from _orphans(home, repair)
    yield from _runs(home, repair)
    yield from _models(home)
    yield from _signals(home)
    yield from _erasures(home)


def _space(home: Home) -> Iterator[Finding]:
    try:
        probe = home.path(artifacts.temporary_name("probe"))
        probe.touch(mode=0o600)
        probe.unlink()
        yield Finding("workspace", "ok", f"{home.root} can be written")
    except OSError as error:
        yield Finding("workspace", "problem", f"{home.root} cannot be written: {error.strerror}")
    free = shutil.disk_usage(home.root).free
    state = "ok" if free >= _LOW_DISK else "problem"
    yield Finding("disk", state, f"{free / 2**30:.1f} GiB free")


def _locks(home: Home) -> Iterator[Finding]:
    for name in LOCKS:
        who = locks.holder(home, name)
        if who is None:
            yield Finding(f"lock {name}", "ok", "free")
        else:
            yield Finding(f"lock {name}", "note", f"held by pid {who.get('pid')} ({who.get('command')})")


def _leftovers(home: Home, repair: bool) -> Iterator[Finding]:
    found = artifacts.leftovers(home.root)
    for path in found:
        name = str(path.relative_to(home.root))
        if not repair:
            yield Finding("leftover", "problem", f"{name}, of a run that was killed")
            continue
        try:
            artifacts.remove(path)
            yield Finding("leftover", "repaired", f"removed {name}, of a run that was killed")
        except OSError as error:
            yield Finding("leftover", "problem", f"{name} cannot be removed: {error.strerror}")
    if not found:
        yield Finding("leftovers", "ok", "none")


def _orphans(home: Home, repair: bool) -> Iterator[Finding]:
    if not has_tables(home):
        yield Finding("tables", "ok", "none yet")
        return
    from persona_cli.workspace import tables

    try:
        # Under the lock, since the files of an ingest under way are orphans until it commits.
        with locks.hold(home, "tables", "doctor"):
            found = tables.orphans(home)
            if found and repair:
                with locks.unread(home, _READERS_WAIT):
                    tables.vacuum(home)
    except Busy as busy:
        yield Finding("tables", "note", f"not checked: {busy.message}")
        return
    except (PersonaError, OSError) as error:
        yield Finding("tables", "problem", str(error))
        return
    if not found:
        yield Finding("tables", "ok", "no file outside a table")
    elif repair:
        yield Finding("tables", "repaired", f"removed {len(found)} files that belong to no table")
    else:
        yield Finding("tables", "problem", f"{len(found)} files belong to no table, such as {found[0]}")


def _runs(home: Home, repair: bool) -> Iterator[Finding]:
    recorded = runs.read_runs(home)
    killed = runs.unmarked(home)
    yield Finding("runs", "ok", f"{len(recorded)} recorded")
    for run in killed if repair else ():
        runs.write_manifest(home, run)
    if killed and repair:
        yield Finding("runs", "repaired", f"{len(killed)} that ended without a word are marked killed")
    elif killed:
        yield Finding(
            "runs", "note", f"{len(killed)} ended without a word, last {killed[0]['id']} ({killed[0]['command']})"
        )


def _models(home: Home) -> Iterator[Finding]:
    checked = 0
    for name, versions in model_versions(home).items():
        for version in versions:
            checked += 1
            try:
                artifacts.verify(home.path("models", name, version))
            except (PersonaError, OSError) as error:
                yield Finding("models", "problem", f"{error}; run: persona train --model {name}")
    yield Finding("models", "ok", f"{checked} versions checked against their manifests")
    unfinished = [
        folder
        for folder in home.root.glob("models/*/*")
        if folder.is_dir() and not folder.name.startswith(".") and not (folder / artifacts.MANIFEST).exists()
    ]
    for folder in unfinished:
        yield Finding("models", "problem", f"{folder.relative_to(home.root)} has no manifest: remove the folder")


def _erasures(home: Home) -> Iterator[Finding]:
    for request in pending_erasures(home):
        yield Finding("erasure", "problem", f"{request} was begun and not completed; run: persona privacy forget")
    for reference in stale_models(home):
        detail = f"{reference} was made with data of people who were erased since; run: persona train"
        yield Finding("models", "note", detail)


def _signals(home: Home) -> Iterator[Finding]:
    if home.settings.fitted is None:
        return
    try:
        artifacts.verify(home.settings.fitted.folder)
        yield Finding("signals", "ok", f"fit {home.settings.fitted.folder.name} checked against its manifest")
    except (PersonaError, OSError) as error:
        yield Finding("signals", "problem", f"{error}; run: persona signals fit")
