"""Commands: profile: what is known of a user, now and at any past moment."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    pass
