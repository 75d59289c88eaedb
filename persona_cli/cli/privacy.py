"""Commands: privacy: what protects the people in the data.

Commands that live in files of their own join the group here, in `register`.
"""

from __future__ import annotations

import typer

from persona_cli.cli import pseudonyms
from persona_cli.cli.common import group


def register(app: typer.Typer) -> None:
    privacy = group(app, "privacy", "What protects the people in the data.", panel="Privacy")
    pseudonyms.register(privacy)
