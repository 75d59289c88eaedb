"""What is decided for a user beside lists: a surface of persona.toml (`[surface.NAME]`), one module a kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from persona_cli.errors import MissingInput, nearest
from persona_cli.workspace.home import Home


@dataclass(frozen=True)
class Surface:
    """One `[surface.NAME]`."""

    name: str
    kind: str
    options: Mapping[str, Any]
    """Its keys with their defaults; checked when the settings were read (`workspace.surface_declarations`)."""


def surface_of(home: Home, name: str) -> Surface:
    """The surface of that name; `MissingInput` names the nearest where there is none."""
    defined: Mapping[str, dict[str, Any]] = home.settings.values["surface"]
    if name not in defined:
        close = nearest(name, defined) if defined else "; persona.toml defines none"
        raise MissingInput(
            f"no surface is named {name!r}{close}", f'write a section [surface.{name}] with kind = "content" …'
        )
    return Surface(name, defined[name]["kind"], defined[name])
