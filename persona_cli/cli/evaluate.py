"""Commands: evaluate: how good the models are on what they have not seen."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    pass
