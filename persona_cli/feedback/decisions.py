"""Decisions that were served: what was chosen for whom, by what, and how likely; kept so that outcomes can be judged.

The table `decisions` has one row a decision. Its id is random and says nothing of the person; whoever acts on the
decision sends it back in the events that answer to it (`outcomes`). Logged are people whom analytics cover: without
that nobody may look at what became of a decision, so there is nothing to keep it for. Those who were erased and not
let in again are not logged either. Both get what they get without an id.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from persona_cli.consent.subjects import suppressed
from persona_cli.errors import BadData, UsageError
from persona_cli.events.schema import UTC_MICROSECONDS
from persona_cli.events.store import iso
from persona_cli.profiles.permitted import ANALYTICS, Purpose, allowed
from persona_cli.workspace import locks, tables
from persona_cli.workspace.home import Home
from persona_cli.workspace.runs import Run
from persona_cli.workspace.tables import File

NAME = "decisions"
ITEM = pa.struct(
    [pa.field("item_id", pa.string()), pa.field("position", pa.int32()), pa.field("propensity", pa.float64())]
)
SCHEMA = pa.schema(
    [
        pa.field("decision_id", pa.string()),
        pa.field("user_id", pa.string()),
        pa.field("at", UTC_MICROSECONDS),
        pa.field("surface", pa.string()),
        pa.field("policy", pa.string()),
        pa.field("model", pa.string()),
        pa.field("variant", pa.string()),
        pa.field("context", pa.string()),
        pa.field("choice", pa.string()),
        pa.field("items", pa.list_(ITEM)),
        pa.field("propensity", pa.float64()),
        pa.field("stage", pa.string()),
        pa.field("rules", pa.list_(pa.string())),
        pa.field("holdout", pa.bool_()),
        pa.field("run", pa.string()),
        pa.field("month", pa.string()),
    ]
)
"""`context`: JSON of what was known of the moment; `choice`: JSON of what was chosen, where it is no list, or of the
`teams` of a merged one; `items`: the list, `position` from 1; `propensity`: the chance with which the policy chooses
this, here or of each item; `variant`: "EXPERIMENT:VARIANT", several joined by commas."""
PARTITION = ("month",)
TYPES = pl.Schema(SCHEMA)
GIVEN = tuple(name for name in SCHEMA.names if name not in ("decision_id", "at", "run", "month"))
"""Columns that may be given to `log`."""
LISTS, RANKING = "recommend", "ranking"
"""The surface of the lists that `persona recommend` makes, and the policy that orders them: the best first."""
MERGED = "interleaved"
"""The variant of lists that were merged from those of two variants."""
TEAMS = ("credit", "rank_a", "rank_b")
"""Of merged lists: what methods of interleaving tell of an entry beside its team."""
_HEX = 32
_ROWS_A_FILE = 250_000
_REPEATED = [
    *("surface", "policy", "model", "variant", "context", "choice", "propensity", "stage", "holdout", "run"),
    *("rules.list.element", "items.list.element.item_id", "items.list.element.position"),
    "items.list.element.propensity",
]
"""Columns whose values repeat: a dictionary of ids would cost time and save nothing."""

Served = Callable[[Iterable[pl.DataFrame], pl.DataFrame], AbstractContextManager[Iterator[pl.DataFrame]]]
Add = Callable[[pl.DataFrame], pl.Series]


def new_ids(n: int) -> pl.Series:
    """Random ids of 128 bits, as 32 hexadecimal digits each (n,)."""
    digits = pa.py_buffer(secrets.token_bytes(n * _HEX // 2).hex().encode())
    ends = pa.py_buffer(np.arange(0, (n + 1) * _HEX, _HEX, dtype=np.int64))
    return pl.Series("decision_id", pl.from_arrow(pa.LargeStringArray.from_buffers(n, ends, digits)), dtype=pl.String)


def log(home: Home, frame: pl.DataFrame, *, run: str = "", at: datetime | None = None, wait: float = 0.0) -> pl.Series:
    """Log one row a decision; answers their ids in the order of the rows, null where a person is not logged.

    `frame` has `user_id` and whatever else of `GIVEN` there is. All are in the table in one commit, or none. Raises
    BadData for a column of another type, Busy while another run holds the tables for longer than `wait` seconds.
    """
    with log_blocks(home, run=run, at=at, wait=wait) as add:
        return add(frame)


@contextmanager
def log_blocks(home: Home, *, run: str = "", at: datetime | None = None, wait: float = 0.0) -> Iterator[Add]:
    """Log block by block: the function given takes a frame as `log` does, and what it took is there when the body ends.

    Nothing of it is where the body fails. The tables are held all the while, so that nobody is erased in between.
    """
    now = (at or datetime.now(UTC)).astimezone(UTC)
    with locks.hold(home, "tables", "log decisions", wait):
        table = tables.open_or_create(home, NAME, SCHEMA, PARTITION, time="at")
        files: list[File] = []
        held: list[pl.DataFrame] = []

        def flush() -> None:
            if held:
                rows = pl.concat(held)
                files.append(table.write(rows, {"month": f"{now:%Y-%m}"}, statistics=["at"], dictionaries=_REPEATED))
                held.clear()

        def add(frame: pl.DataFrame) -> pl.Series:
            rows = _rows(frame, now, run)
            there = loggable(home, rows["user_id"])
            ids = pl.select(pl.when(there).then(new_ids(rows.height))).to_series().alias("decision_id")
            held.append(rows.with_columns(ids).filter(there).select(SCHEMA.names))
            if sum(block.height for block in held) >= _ROWS_A_FILE:
                flush()
            return ids

        try:
            yield add
            flush()
            if files:
                table.commit(files, metadata={"run": run} if run else {})
        except BaseException:
            table.discard()
            raise


def loggable(home: Home, ids: pl.Series) -> pl.Series:
    """Whether decisions for each id (n,) are logged: analytics cover the person, who was not erased. Boolean (n,)."""
    return allowed(home, ANALYTICS, ids).of(ids) & ~suppressed(home, ids)


def read(
    home: Home,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    as_of: datetime | None = None,
    purpose: Purpose = ANALYTICS,
) -> pl.LazyFrame:
    """Decisions made from `since` on and before `until` and `as_of`, of those whom the purpose covers; in no order.

    `user_id` is the id that was asked for; who the person is, `profiles.identity.persons` says.
    """
    table = tables.open_table(home, NAME)
    if table is None:
        return tables.scan(home, NAME, SCHEMA, PARTITION)
    before = min((moment for moment in (until, as_of) if moment is not None), default=None)
    files = [
        file
        for file in table.files
        if (before is None or file.first is None or file.first < iso(before))
        and (since is None or file.last is None or file.last >= iso(since))
    ]
    rows = table.scan(files)
    if since is not None:
        rows = rows.filter(pl.col("at") >= since)
    if before is not None:
        rows = rows.filter(pl.col("at") < before)
    return allowed(home, purpose).rows(rows)


def logged_by(home: Home, run: str) -> int:
    """How many decisions the newest commit added, where it is of this run: by the log alone; else 0."""
    table = tables.open_table(home, NAME)
    if table is None or table.metadata.get("run") != run:
        return 0
    changed = table.changed_by(table.version)
    return sum(file.rows for file in changed[0]) if changed else 0


def context_text(given: Mapping[str, Any]) -> str | None:
    """What is known of a moment as JSON, without what is not; None where nothing is."""
    known = {name: value for name, value in sorted(given.items()) if value is not None}
    return json.dumps(known, ensure_ascii=False, separators=(",", ":")) if known else None


def contexts_as_text(known: pl.DataFrame) -> pl.Series:
    """Each row of a frame of context columns (n, d) as `context_text` has it (n,)."""
    names = known.columns
    cells = known.unique()
    texts = [context_text(row) for row in cells.iter_rows(named=True)]
    cells = cells.with_columns(pl.Series("context", texts, dtype=pl.String))
    return known.join(cells, on=names, how="left", nulls_equal=True, maintain_order="left")["context"]


@contextmanager
def serving(home: Home, run: Run, log: bool, past: bool = False, wait: float = 0.0) -> Iterator[Served]:
    """Serve lists within: what is answered takes blocks and contexts as `logged_lists` does, and logs only with `log`.

    The tables are held from before anybody's data is read, so that nobody is erased before what is served is logged.
    UsageError for lists of the `past`.
    """
    if not log:
        yield lambda blocks, known: nullcontext(iter(blocks))
        return
    if past:
        raise UsageError(
            "--log keeps what is served, and lists as of another moment are not: nobody can have answered to them",
            "leave --log or --as-of away",
        )
    with locks.hold(home, "tables", "recommend --log", wait):
        yield lambda blocks, known: logged_lists(home, blocks, known, surface=LISTS, run=run.id)
        if run.counts.get("users"):
            run.counts["logged"] = logged_by(home, run.id)


@contextmanager
def logged_lists(
    home: Home,
    blocks: Iterable[pl.DataFrame],
    known: pl.DataFrame,
    *,
    surface: str,
    run: str = "",
    at: datetime | None = None,
    wait: float = 0.0,
) -> Iterator[Iterator[pl.DataFrame]]:
    """Blocks of lists as `serving.recommend` makes them, with a `decision_id` each; logged when the body ends well.

    `known` has the context of every user of all blocks (n_users, d). Raises what `log` raises.
    """
    with log_blocks(home, run=run, at=at, wait=wait) as add:
        yield _numbered(blocks, known, surface, add)


def _numbered(blocks: Iterable[pl.DataFrame], known: pl.DataFrame, surface: str, add: Add) -> Iterator[pl.DataFrame]:
    start = 0
    for block in blocks:
        rows = of_lists(block, contexts_as_text(known.slice(start, block.height)), surface)
        start += block.height
        yield block.clone().insert_column(1, add(rows))


def of_lists(block: pl.DataFrame, context: pl.Series, surface: str) -> pl.DataFrame:
    """Lists of users as rows for `log`: a ranking shows the best, so it has propensity 1 unless an entry says less."""
    from persona_cli.serving.recommend import nested  # there already, where there are lists

    lengths = block["items"].list.len().to_numpy().astype(np.int64)
    ends = np.concatenate(([0], np.cumsum(lengths)))
    entries = block["items"].explode(empty_as_null=False).struct.unnest()
    places = np.arange(ends[-1]) - np.repeat(ends[:-1], lengths)
    items = pl.DataFrame(
        {
            "item_id": entries["item_id"],
            "position": pl.Series(places + 1, dtype=pl.Int32),
            "propensity": _chances(entries),
        }
    )
    lists = nested([*items], ends)
    there: list[str] = [name for name in ("rules", "variant") if name in block.columns]
    if "team" in entries.columns:
        there.append("choice")
        merged = pl.col("variant").str.ends_with(f":{MERGED}")
        block = block.with_columns(choice=pl.when(merged).then(_teams(entries, lengths)))
    share = pl.col("share").fill_null(1.0) if "share" in block.columns else pl.lit(1.0)
    return block.select(
        "user_id", "model", "stage", *there, pl.col("holdout").fill_null(False), items=lists, context=context,
        surface=pl.lit(surface), policy=pl.lit(RANKING), propensity=share,
    )  # fmt: skip


def _teams(entries: pl.DataFrame, lengths: NDArray[np.int64]) -> pl.Series:
    """JSON of whom each entry of merged lists is credited to, and what the method needs besides (n_lists,)."""
    rows = pl.Series(np.repeat(np.arange(len(lengths)), lengths))
    told = entries.select(pl.col("team").alias("teams"), *(name for name in TEAMS if name in entries.columns))
    by_list = told.group_by(rows.alias("row"), maintain_order=True).all()
    text = by_list.select("row", choice=pl.struct(told.columns).struct.json_encode())
    every = pl.DataFrame({"row": np.arange(len(lengths))})
    return every.join(text, on="row", how="left", maintain_order="left")["choice"]


def _chances(entries: pl.DataFrame) -> pl.Series:
    if "propensity" in entries.columns:
        return entries["propensity"].cast(pl.Float64).fill_null(1.0)
    return pl.repeat(1.0, entries.height, dtype=pl.Float64, eager=True)


def _rows(frame: pl.DataFrame, at: datetime, run: str) -> pl.DataFrame:
    """All columns but the id's."""
    if "user_id" not in frame.columns or frame["user_id"].null_count():
        raise BadData("a decision without a user_id cannot be logged")
    for name in GIVEN:
        if name in frame.columns and frame.schema[name] not in (TYPES[name], pl.Null):
            raise BadData(f"decisions: {name} is of type {frame.schema[name]}; expected {TYPES[name]}")
    rows = frame.select(
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(TYPES[name]).alias(name) for name in GIVEN
    )
    stamped = pl.lit(at).cast(TYPES["at"]).alias("at")
    return rows.with_columns(stamped, run=pl.lit(run or None, pl.String), month=pl.lit(f"{at:%Y-%m}"))
