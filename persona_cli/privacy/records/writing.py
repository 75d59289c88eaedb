"""Writing the records, and comparing what is on disk with what it would be now."""

from __future__ import annotations

import json
from pathlib import Path

from persona_cli.privacy.records.documents import Doc, documents
from persona_cli.privacy.records.pages import page
from persona_cli.workspace import artifacts
from persona_cli.workspace.home import Home

FOLDER = ("privacy", "records")


def rendered(whole: dict[str, Doc]) -> dict[str, str]:
    """File name → content: Markdown and JSON of every document, sorted."""
    made = {}
    for name, document in sorted(whole.items()):
        made[f"{name}.json"] = (
            json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n"
        )
        made[f"{name}.md"] = page(name, document)
    return made


def records(home: Home) -> tuple[dict[str, str], list[str]]:
    """What the files would be now, and the open points."""
    whole = documents(home)
    return rendered(whole), list(whole["index"]["open_points"])


def folder_of(home: Home, out: Path | None = None) -> Path:
    return home.path(*FOLDER) if out is None else out


def outdated(folder: Path, files: dict[str, str]) -> list[str]:
    """Files of the records that are missing in a folder or differ, sorted."""
    return sorted(name for name, content in files.items() if not _same(folder / name, content))


def write(folder: Path, files: dict[str, str]) -> list[str]:
    """Write what differs, each file whole or not at all; answers the names of what was written."""
    changed = outdated(folder, files)
    for name in changed:
        artifacts.write_text(folder / name, files[name])
    return changed


def _same(path: Path, content: str) -> bool:
    try:
        return path.read_bytes() == content.encode()
    except (FileNotFoundError, NotADirectoryError):
        return False
