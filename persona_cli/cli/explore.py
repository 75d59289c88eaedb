"""Commands: demo and sql: look around."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    pass
