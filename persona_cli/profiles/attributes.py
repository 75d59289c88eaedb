"""What the tables of users and accounts say of people beside their events: role, plan, industry, size."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from persona_cli.events.catalogue import current
from persona_cli.events.schema import Kind
from persona_cli.profiles.identity import persons
from persona_cli.profiles.permitted import Purpose, allowed
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

ATTRIBUTES: dict[str, str] = {"role": "text", "plan": "text", "industry": "text", "size": "whole"}
"""Columns and their kinds, as conditions name them."""
_READ: dict[Kind, tuple[str, ...]] = {
    "users": ("user_id", "role", "account_id"),
    "accounts": ("account_id", "plan", "industry", "size"),
}


def attributes(home: Home, as_of: datetime | None = None, *, purpose: Purpose = None) -> pl.DataFrame:
    """user_id (the person) and `ATTRIBUTES` as they are at the moment: of the user's row, and of the account's."""
    users, accounts = (
        current(home, kind, as_of).select(columns)
        if tables.exists(home, kind)
        else pl.DataFrame(schema={name: pl.Int64 if name == "size" else pl.String for name in columns})
        for kind, columns in _READ.items()
    )
    found = allowed(home, purpose).rows(users).join(accounts, on="account_id", how="left", maintain_order="left")
    person = persons(home, as_of).of(found["user_id"]).alias("user_id")
    return found.drop("account_id").with_columns(person).unique("user_id", keep="first", maintain_order=True)
