"""Where a workspace is, and what makes a folder one: `persona.toml` beside a `workspace.json` with the holdout salt.

A workspace that was named (`--workspace` or `$PERSONA_WORKSPACE`) and is not there is an error; otherwise the nearest
folder upwards that is a workspace, or has one named `persona-workspace` in it, is taken.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from persona_cli.errors import BadData, CannotWrite, MissingInput
from persona_cli.workspace import artifacts
from persona_cli.workspace.settings import Fitted, Settings, load, render_default

FORMAT = 1
DEFAULT_NAME = "persona-workspace"
SETTINGS_FILE = "persona.toml"
IDENTITY_FILE = "workspace.json"
FITTED_FOLDER = "derived/signals"
log = logging.getLogger("persona")


@dataclass(frozen=True)
class Home:
    """An existing workspace. `salt` (16 bytes) decides the permanent holdout and must never change."""

    root: Path
    settings: Settings
    salt: bytes

    def path(self, *parts: str) -> Path:
        return self.root.joinpath(*parts)


def locate(named: str | Path | None = None) -> Home:
    """The workspace to use; `MissingInput` when a named one is not there or none is found."""
    wanted = _named(named)
    if wanted is not None:
        return open_home(wanted)
    found = find()
    if found is None:
        raise MissingInput(f"no workspace in {Path.cwd()} or above it", f"persona init {DEFAULT_NAME}")
    return open_home(found)


def locate_if_any(named: str | Path | None = None) -> Home | None:
    """As `locate`, but None where none is named and none is found."""
    return locate(named) if _named(named) is not None or find() is not None else None


def find_or_create(named: str | Path | None = None) -> Home:
    """As `locate`, but where none is named and none is found, `./persona-workspace` is created, with a notice."""
    if (there := locate_if_any(named)) is not None:
        return there
    root = Path.cwd() / DEFAULT_NAME
    home = create(root)
    log.info("created the workspace %s", root)
    return home


def find(start: Path | None = None) -> Path | None:
    """The nearest workspace at or above `start` (default: the current folder)."""
    here = (start or Path.cwd()).absolute()
    for folder in (here, *here.parents):
        for candidate in (folder, folder / DEFAULT_NAME):
            if (candidate / SETTINGS_FILE).is_file():
                return candidate
    return None


def new_salt() -> str:
    """16 random bytes in hexadecimal."""
    return secrets.token_hex(16)


def create(root: str | Path) -> Home:
    """Make `root` a workspace; one that is there stays as it is, one half made by a killed run is completed."""
    root = Path(root).absolute()
    if root.exists() and not root.is_dir():
        raise CannotWrite(f"{root} is a file; a workspace is a folder")
    made = not root.exists()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if made:
        artifacts.sync_folder(root.parent)
    # The settings file is what makes the folder count as a workspace: it is written last.
    if not (root / IDENTITY_FILE).exists():
        if (root / "events").exists():
            raise _without_identity(root)
        identity = {
            "format": FORMAT,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "holdout_salt": new_salt(),
        }
        artifacts.write_new(root / IDENTITY_FILE, json.dumps(identity, indent=2) + "\n")
    if not (root / SETTINGS_FILE).exists():
        artifacts.write_new(root / SETTINGS_FILE, render_default())
    return open_home(root)


def open_home(root: Path) -> Home:
    """The workspace in exactly this folder."""
    root = root.absolute()
    if not (root / SETTINGS_FILE).is_file():
        state = "is not a workspace (it has no persona.toml)" if root.exists() else "does not exist"
        raise MissingInput(f"the workspace {root} {state}", f"persona init {root}")
    try:
        identity = json.loads((root / IDENTITY_FILE).read_bytes())
        written, salt = int(identity["format"]), bytes.fromhex(identity["holdout_salt"])
    except FileNotFoundError as error:
        raise _without_identity(root) from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadData(f"{root / IDENTITY_FILE} is damaged ({error})", "restore workspace.json from a backup") from error
    if written > FORMAT:
        raise BadData(
            f"the workspace {root} has format {written}; this version of persona reads up to {FORMAT}",
            "pip install --upgrade persona-cli",
        )
    settings = dataclasses.replace(load(root / SETTINGS_FILE, os.environ), fitted=_fitted(root))
    return Home(root, settings, salt)


def _fitted(root: Path) -> Fitted | None:
    latest = root / FITTED_FOLDER / "latest.json"
    try:
        said = json.loads(latest.read_bytes())
        return Fitted(latest.parent / str(said["version"]), str(said["digest"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise BadData(f"{latest} is damaged ({error})", f"rm {latest} and then: persona signals fit") from error


def _named(named: str | Path | None) -> Path | None:
    chosen = named or os.environ.get("PERSONA_WORKSPACE")
    return Path(chosen).expanduser() if chosen else None


def _without_identity(root: Path) -> MissingInput:
    if (root / "events").exists():
        # A new salt would reshuffle the holdout, so this cannot be repaired quietly.
        return MissingInput(
            f"{root / IDENTITY_FILE} is missing; it holds the salt of the permanent holdout",
            "restore workspace.json from a backup",
        )
    return MissingInput(f"{root} is only half a workspace: {IDENTITY_FILE} is missing", f"persona init {root}")
