"""What a workspace holds, and the next command worth trying."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from persona_cli.workspace import runs
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
