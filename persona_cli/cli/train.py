"""Commands: train and model: from history to models, and what was trained."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    pass
