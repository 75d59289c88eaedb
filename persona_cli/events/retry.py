"""Quarantined lines, judged again by the rules and the mapping of now.

What passes is committed to the table first and leaves the quarantine after, so that a run killed in between loses
nothing: the next retry finds the rows there as duplicates and lets the lines go. The lines of one source are read as
one file, in their order; one that says the same as a stored event of that file therefore counts as its duplicate.

Lines of a dialect are read by the dialect that their file was read by, or by the one named now.

Not to be judged again: a line that was cut (longer than 64 KiB), a row of CSV, TSV or Parquet that means nothing
without its header, the damaged end of a compressed file, a line whose dialect is not there any more, and one of which
nothing was kept (privacy.collect.quarantine_raw).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pyarrow as pa

from persona_cli.errors import BadData, PersonaError
from persona_cli.events import opening, reading
from persona_cli.events.catalogue import Attributes
from persona_cli.events.consenting import Consenting
from persona_cli.events.dialects import choose
from persona_cli.events.dialects.dialect import Choice
from persona_cli.events.door import DoorRules, admit
from persona_cli.events.ingest import DAY_US, open_store
from persona_cli.events.opening import Input
from persona_cli.events.quarantine import NAME, release
from persona_cli.events.schema import MAX_RAW_BYTES, Kind
from persona_cli.workspace import artifacts, locks, runs, tables
from persona_cli.workspace.home import Home

# Which dialects lines may be of, by (kind, what they were read as).
Choices = dict[tuple[str, str], Choice]


@dataclass
class Retried:
    """`read` lines were judged again: accepted + duplicates + rejected + dropped.

    Those of `impossible` could not be, by reason. `about` counts the new rows of users and accounts that came from
    traits, `removed` the rows that lost what is not collected, by column.
    """

    run: str
    read: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    dropped: int = 0
    impossible: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    about: dict[str, int] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)


def retry(
    home: Home,
    *,
    maps: Sequence[str] = (),
    dialect: str | None = None,
    where: Mapping[str, str | None] | None = None,
    wait: float = 0.0,
    run: str | None = None,
) -> Retried:
    """Judge the lines picked by `where` (exact kind, source, run, reason) again; `run` is the id to take it back by.

    `dialect` is by which all of them are read, instead of the one that each line was read by. Raises Busy where the
    tables are in use after `wait` seconds, and what the mapping raises.
    """
    now = datetime.now(UTC)
    run = run or runs.new_id(now)
    done = Retried(run)
    with locks.hold(home, "tables", "quarantine retry", wait):
        table = tables.open_table(home, NAME)
        if table is None:
            return done
        files = table.files
        rows = table.scan(files).collect().with_row_index("row")
        chosen = rows if "dialect" in rows.columns else rows.with_columns(pl.lit(None, pl.String).alias("dialect"))
        spoken = pl.col("dialect").fill_null("auto") if dialect is None else pl.lit(dialect)
        chosen = chosen.with_columns(spoken.alias("dialect"))
        for name, wanted in (where or {}).items():
            chosen = chosen if wanted is None else chosen.filter(pl.col(name) == wanted)
        choices = _choices(home, chosen, named=dialect is not None)
        chosen = _possible(chosen, choices, done)
        passed: list[int] = []
        for kind in chosen["kind"].unique().sort().to_list():
            passed += _retry_kind(home, kind, chosen.filter(pl.col("kind") == kind), choices, maps, now, run, done)
        if passed:
            rest = rows.filter(~pl.col("row").is_in(passed))
            release(home, rest, files, table, run)
    return done


def _choices(home: Home, rows: pl.DataFrame, *, named: bool) -> Choices:
    """By (kind, dialect); without those whose dialect is not there any more (an error if it is `named` now)."""
    choices: Choices = {}
    for kind, name in rows.select("kind", "dialect").unique().sort("kind", "dialect").iter_rows():
        try:
            choices[kind, name] = choose(name, kind, home.settings)
        except PersonaError:
            if named:
                raise
    return choices


def _possible(rows: pl.DataFrame, choices: Choices, done: Retried) -> pl.DataFrame:
    """The rows that can be judged, with the `format` that they are read as."""
    headerless = {key for key, choice in choices.items() if any(one.columns for one in choice.dialects)}
    impossible = (
        pl.when(pl.col("raw").bin.size() >= MAX_RAW_BYTES)
        .then(pl.lit("longer than 64 KiB: only its beginning was kept"))
        .when((pl.col("raw").bin.size() == 0) & (pl.col("reason") != "blank line"))
        .then(pl.lit("nothing of it was kept (privacy.collect.quarantine_raw)"))
        .when(pl.col("reason").str.contains(r" stream (ends early|damaged)$"))
        .then(pl.lit("the damaged end of a compressed file"))
        .when(~_among(choices))
        .then(pl.format("the dialect {} is not there any more (--dialect names another)", "dialect"))
        .when(pl.col("format") == "")
        .then(pl.lit("a row of a table, which means nothing without its header"))
        .otherwise(None)
        .alias("impossible")
    )
    by_name = pl.col("source").map_elements(_is_json, return_dtype=pl.Boolean)
    told = (
        pl.when(by_name | ((pl.col("dialect") != "native") & pl.col("raw").bin.starts_with(b"{")))
        .then(pl.lit("jsonl"))
        .when(_among(headerless))
        .then(pl.lit("tsv"))
        .otherwise(pl.lit(""))
    )
    rows = rows.with_columns(told.alias("format")).with_columns(impossible)
    counted = rows.filter(pl.col("impossible").is_not_null())["impossible"].value_counts(sort=True)
    done.impossible = dict(counted.iter_rows())
    return rows.filter(pl.col("impossible").is_null())


def _among(keys: Collection[tuple[str, str]]) -> pl.Expr:
    """Rows whose (kind, dialect) is one of these."""
    return pl.any_horizontal(
        pl.lit(False), *((pl.col("kind") == kind) & (pl.col("dialect") == name) for kind, name in sorted(keys))
    )


def _is_json(source: str) -> bool:
    return (opening.format_of(source) or "jsonl") == "jsonl"


def _retry_kind(
    home: Home,
    kind: Kind,
    rows: pl.DataFrame,
    choices: Choices,
    maps: Sequence[str],
    now: datetime,
    run: str,
    done: Retried,
) -> list[int]:
    """Take in what passes; answers the numbers of the rows that may leave the quarantine."""
    sources = rows["source"].unique().sort().to_list()
    store = open_store(home, kind, "keep-first", now, sources)
    attributes = Attributes(home, now, sources)
    passed: list[int] = []
    rules = DoorRules.of(home.settings)
    consenting = Consenting.of(home, run, now)
    latest_us = int(now.timestamp() * 1_000_000) + DAY_US
    try:
        with artifacts.scratch(home.root) as folder:
            ways = rows.select("source", "dialect", "format").unique().sort("source", "dialect", "format")
            for source, name, format in ways.iter_rows():
                number = sources.index(source)
                same = {"source": source, "dialect": name, "format": format}
                lines = rows.filter(*(pl.col(key) == value for key, value in same.items())).sort("line", "rejected_at")
                # The same line of the same source, quarantined by several runs under other circumstances, counts once.
                first = lines.unique(["line", "offset", "raw"], keep="first", maintain_order=True)
                try:
                    spool = Input("quarantine", folder / "lines", format)
                    judged = _judged(home, kind, first["raw"].to_list(), maps, spool, choices[kind, name], latest_us)
                except BadData as error:  # no line has what every line needs
                    done.read += first.height
                    done.rejected += first.height
                    _count(done, error.message.partition(":")[0], first.height)
                    continue
                for batch in judged:
                    numbers = batch.rows["line"].to_numpy() - 1
                    # Of a line that stands for several records, all have to pass: those that are stored stay so.
                    bad = {reject.line - 1 for reject in batch.rejects}
                    good = first.select("line", "offset", "raw")[sorted({*numbers.tolist()} - bad)]
                    passed += lines.join(good, ["line", "offset", "raw"], "semi")["row"].to_list()
                    batch.rows = _with_lines(batch.rows, first, numbers)
                    done.dropped += consenting.let_in(batch, kind).total()
                    admitted = admit(batch.rows, kind, rules)
                    done.dropped += admitted.dropped
                    for name, n in admitted.fields.items():
                        done.removed[name] = done.removed.get(name, 0) + n
                    store.add(admitted.rows, number)
                    attributes.add(_about(batch, first), number)
                    done.read += batch.read
                    done.rejected += len(batch.rejects)
                    done.dropped += sum(batch.dropped.values())
                    for reject in batch.rejects:
                        _count(done, reject.reason, 1)
        store.finish()
        attributes.finish()
        consenting.commit()
        attributes.commit({"run": run, "ingested_at": now.isoformat()})
        store.commit({"run": run, "ingested_at": now.isoformat()})
    except BaseException:
        store.discard()
        attributes.discard()
        raise
    for name, n in attributes.removed.items():
        done.removed[name] = done.removed.get(name, 0) + n
    for name, new in attributes.accepted.items():
        done.about[name] = done.about.get(name, 0) + new
    done.accepted += store.accepted
    done.duplicates += store.duplicates
    return passed


def _count(done: Retried, reason: str, lines: int) -> None:
    done.reasons[reason] = done.reasons.get(reason, 0) + lines


def _judged(
    home: Home, kind: Kind, raws: Sequence[bytes], maps: Sequence[str], spool: Input, choice: Choice, latest_us: int
) -> list[reading.Batch]:
    assert spool.path is not None
    spool.path.write_bytes(b"".join(raw + b"\n" for raw in raws))
    return list(reading.batches(spool, kind, maps, home.settings, latest_us, choice=choice))


def _about(batch: reading.Batch, lines: pl.DataFrame) -> dict[Kind, list[dict[str, Any]]]:
    """What the batch says about people and accounts, with the line numbers of their own file."""
    own = lines["line"]
    return {kind: [row | {"line": own[row["line"] - 1]} for row in rows] for kind, rows in batch.about.items()}


def _with_lines(rows: pa.Table, lines: pl.DataFrame, numbers: object) -> pa.Table:
    """With the line numbers that the rows had in their own file."""
    own = lines["line"].gather(numbers).to_arrow()  # type: ignore[arg-type]
    return rows.set_column(rows.schema.get_field_index("line"), "line", own)
