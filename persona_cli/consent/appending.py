"""Adding rows to a table that only grows, beside others who do the same."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pyarrow as pa

from persona_cli.errors import Busy
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

_TRIES = 20


def append(home: Home, name: str, schema: pa.Schema, new: Callable[[pl.LazyFrame], pl.DataFrame]) -> pl.DataFrame:
    """Add what `new` makes of the stored rows, in one commit; answers what was added.

    Where another writer was faster it is asked again, with the other's rows. Raises Busy when that happens too often.
    """
    for _ in range(_TRIES):
        there = tables.open_table(home, name)
        rows = new(tables.scan_files(home.path(name), schema, (), []) if there is None else there.scan())
        if not rows.height:
            return rows
        table = there or tables.open_or_create(home, name, schema)
        try:
            table.commit([table.write(rows)])
        except Busy:
            continue
        return rows
    raise Busy(f"others keep writing to {name}; nothing was written", "run the same command again")
