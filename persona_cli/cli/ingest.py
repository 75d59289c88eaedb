"""Commands: ingest and quarantine: events and catalogues into the workspace."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    pass
