"""Risks to the people in the data, measured on the data: what a leak, an export or a model would tell of single people.

Nothing here is an estimate of harm; it is what can be counted, so that whoever assesses the harm need not guess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from persona_cli.events.catalogue import current
from persona_cli.models.gram import gram_of_rows, threads_of
from persona_cli.models.stored import load_items
from persona_cli.privacy.anonymity import anonymity
from persona_cli.privacy.data_map import QUASI
from persona_cli.privacy.pseudonymize import unicity_of
from persona_cli.privacy.records.props import PREFIX, values
from persona_cli.profiles import SMALLEST_CELL, segments
from persona_cli.profiles.fold import profile_rows
from persona_cli.profiles.people import people
from persona_cli.workspace import runs, tables
from persona_cli.workspace.home import Home

Doc = dict[str, Any]
FEW = (1, 4, 9, SMALLEST_CELL - 1)
"""Co-occurrences by at most so many people are counted."""


def risks(home: Home, props: Mapping[str, Mapping[str, float]]) -> Doc:
    """Every measured risk; a part is None where there is nothing to measure. `props`: what `props.keys` found."""
    return {
        "unicity": uniqueness(home),
        "quasi_identifiers": quasi_identifiers(home, [key for key in props.get("users", ()) if key != "*"]),
        "co_occurrences": co_occurrences(home),
        "segments": small_segments(home),
        "scan": last_scan(home),
    }


def uniqueness(home: Home) -> Doc | None:
    """Users who are the only ones with 4 random items of theirs (`privacy/anonymity.py`), with a 95 % interval."""
    if not tables.exists(home, "events"):
        return None
    found = unicity_of(home)
    if found is None or not found.sampled:
        return None
    return {
        "items": found.items,
        "users": found.users,
        "eligible": found.eligible,
        "sampled": found.sampled,
        "unique": found.unique,
        "share": found.share,
        "low": found.low,
        "high": found.high,
    }


def quasi_identifiers(home: Home, props: Sequence[str] = ()) -> list[Doc]:
    """How many people share what could recognise them (k-anonymity), of each set of columns in `QUASI`, and of the
    first with the keys `props` of users.

    Columns without any value are left out; a set without columns is.
    """
    found = []
    own = [("users", (*QUASI[0][1], *(f"{PREFIX}{key}" for key in props)))] if props else []
    for table, columns in (*QUASI, *own):
        rows = _rows(home, table)
        if rows is not None and table == "users":
            rows = rows.with_columns(values(rows["props"], list(props)))
        if rows is None or not rows.height:
            continue
        used = [name for name in columns if rows[name].null_count() < rows.height]
        if not used:
            continue
        classes = anonymity(rows.select("user_id", *used), used, person="user_id")
        sizes = classes.classes["people"]
        found.append(
            {
                "table": table,
                "columns": used,
                "people": classes.people,
                "classes": len(sizes),
                "k": classes.k,
                "alone": int((sizes == 1).sum()),
                "under_5": int(sizes.filter(sizes < 5).sum()),
                "under_20": int(sizes.filter(sizes < SMALLEST_CELL).sum()),
            }
        )
    return found


def _rows(home: Home, table: str) -> pl.DataFrame | None:
    if not tables.exists(home, table):
        return None
    if table == "users":
        return current(home, "users")
    columns = sorted({name for place, names in QUASI if place == table for name in names})
    return profile_rows(home, ("user_id", *columns), purpose=None)


def co_occurrences(home: Home) -> Doc | None:
    """Of the pairs of items that somebody has both of, by the newest item sums: how many rest on few people.

    A pair of a single person in a model's numbers says that one person had both. None where nothing was trained.
    """
    rows = _summed(home)
    if rows is None:
        return None
    values, items = rows
    cells = gram_of_rows(values, items, threads_of(home.settings)).cells  # entries are 1, so that a cell counts people
    pairs = sparse.triu(cells, k=1).data
    users = np.diff(values.indptr)
    held = np.bincount(values.indices, minlength=values.shape[1])
    return {
        "users": int((users > 0).sum()),
        "items": len(items),
        "items_of_one": int((held == 1).sum()),
        "pairs": len(pairs),
        "by_at_most": [{"people": few, "pairs": int((pairs <= few).sum())} for few in FEW],
    }


def _summed(home: Home) -> tuple[sparse.csr_array, pl.Series] | None:
    """Who is in the newest item sums with which item: ones (n_users, n_items), and the items."""
    folder = home.path("models", "gram")
    versions = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()] if folder.is_dir() else []
    if not versions:
        return None
    newest = folder / str(max(versions))
    items = load_items(newest)
    parts = [pl.read_parquet(path, columns=["items"]) for path in sorted((newest / "rows").glob("*.parquet"))]
    lists = pl.concat(parts)["items"] if parts else pl.Series([], dtype=pl.List(pl.Int32))
    ends: NDArray[np.int64] = np.concatenate(([0], np.cumsum(lists.list.len().to_numpy().astype(np.int64))))
    places = lists.explode().drop_nulls().to_numpy()
    ones = np.ones(len(places), dtype=np.int64)
    return sparse.csr_array((ones, places, ends), shape=(len(lists), len(items))), items


def small_segments(home: Home) -> Doc | None:
    """Segments of persona.toml that have fewer than 20 people: their figures are not shown. None without segments."""
    if not home.settings.values["segments"] or not tables.exists(home, "profiles"):
        return None
    sizes = segments.sizes(people(home, purpose=None), home)
    return {
        "segments": sizes.height,
        "small": sizes.filter(pl.col("users").is_null())["segment"].sort().to_list(),
        "minimum": SMALLEST_CELL,
    }


def last_scan(home: Home) -> Doc | None:
    """What the last `persona privacy scan` of the workspace counted; None where there was none."""
    for run in runs.read_runs(home):
        counts = run.get("counts") or {}
        if run.get("command") == "privacy scan" and run.get("status") == "done" and "findings" in counts:
            return {"at": run["started"], "rows": counts["rows"], "findings": counts["findings"]}
    return None
