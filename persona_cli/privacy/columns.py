"""Columns to examine: of a file, or of a table of the workspace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from persona_cli.errors import UsageError, nearest
from persona_cli.events.catalogue import current
from persona_cli.privacy import files
from persona_cli.profiles.permitted import person_events
from persona_cli.profiles.read import profiles
from persona_cli.workspace.home import Home

TABLES = ("users", "accounts", "events", "profiles")


def columns_of(what: str, names: Sequence[str], home: Home | None) -> pl.DataFrame:
    """Those of the columns `names` that there are, of the file `what`, or (with a workspace) of its table `what`.

    Of users and accounts the rows that hold now; of events all, with the person as user_id. Raises UsageError for a
    table that there is not.
    """
    if home is None:
        return files.columns_of(files.input_of(Path(what)), names)
    if what in ("users", "accounts"):
        rows = current(home, what).lazy()  # type: ignore[arg-type]
    elif what == "events":
        rows = person_events(home, purpose=None)
    elif what == "profiles":
        rows = profiles(home, purpose=None)
    else:
        raise UsageError(f"{what!r} is neither a file nor a table{nearest(what, TABLES)}")
    there = set(rows.collect_schema().names())
    return rows.select([name for name in dict.fromkeys(names) if name in there]).collect()
