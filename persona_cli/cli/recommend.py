"""Commands: recommend, similar and score: lists, neighbours and given pairs."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    pass
