"""Where a workspace holds rows and words of people: how many there are, and taking them out.

Tables, by their columns of persons; rejected lines that name somebody; texts of others that do; the item sums' rows;
figures of users in evaluations and experiments; manifests of runs; reports. What is left to `settling` follows from
these. Files that belong to none of them (exports somebody put here, the settings) are only found by the search.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from persona_cli.events import quarantine
from persona_cli.events.store import NAME as EVENTS
from persona_cli.privacy import per_user
from persona_cli.privacy.needles import Needles
from persona_cli.privacy.removal import remove_where
from persona_cli.privacy.settling import MARK
from persona_cli.privacy.texts import in_text
from persona_cli.profiles import fold as folding
from persona_cli.profiles import history as histories
from persona_cli.profiles.identity import FIRSTS, NAME, raw_key
from persona_cli.workspace import artifacts, runs, tables
from persona_cli.workspace.home import Home

_FOLLOWING = (folding.NAME, histories.NAME, NAME, FIRSTS)
"""Tables that follow from the events: settling brings them up to date."""
_WORDS = ("source", "props", "target", "query", "page", "referrer", "campaign", "context", "choice")
"""Texts in which somebody may be named beside whose row it is."""
ERASED = "[erased]"


def held(home: Home, needles: Needles) -> dict[str, int]:
    """Rows (of texts and reports: files) that are of the persons or name them, by place; places without any too."""
    ids = needles.values
    found: dict[str, int] = {}
    for name in tables.names(home):
        table = tables.open_table(home, name)
        assert table is not None
        if name == quarantine.NAME:
            found[name] = int(table.scan().select(_named(needles).sum()).collect().item())
        elif (hit := _theirs(name, table.schema.names, ids)) is not None:
            found[name] = int(table.scan().select(hit.sum()).collect().item())
    folder = home.path("models", "gram")
    parts = [path for path in folder.glob("*/rows/*.parquet") if not path.parts[-3].startswith(".")]
    if parts:
        rows = pl.scan_parquet(parts).select(pl.col("user_id").is_in(ids.implode()).sum())
        found["models/gram"] = int(rows.collect().item())
    for path, columns in per_user.files(home):
        hit = pl.any_horizontal(pl.col(name).is_in(ids.implode()) for name in columns).fill_null(False)
        place = path.relative_to(home.root).parts[0]
        found[place] = found.get(place, 0) + int(pl.scan_parquet(path).select(hit.sum()).collect().item())
    for place, paths in (("runs", _runs(home, needles)), ("reports", _reports(home, needles))):
        found[place] = len(list(paths))
    return dict(sorted(found.items()))


def remove(home: Home, needles: Needles) -> None:
    """Take rows out of all tables that do not follow from others, and words out of texts; under the lock `tables`.

    An event of somebody else that a device of theirs sent keeps its row and loses the device's id.
    """
    ids = needles.values
    of_device = pl.when(pl.col("anon_id").is_in(ids.implode())).then(None).otherwise(pl.col("anon_id"))
    gone = raw_key().is_in(ids.implode())
    remove_where(home, EVENTS, gone, {"anon_id": of_device}, {"removed": MARK})
    for name in tables.names(home):
        table = tables.open_table(home, name)
        assert table is not None
        if name == quarantine.NAME:
            remove_where(home, name, _named(needles))
        elif name not in (EVENTS, *_FOLLOWING) and (hit := _theirs(name, table.schema.names, ids)) is not None:
            remove_where(home, name, hit)
        if name not in _FOLLOWING:
            _scrub(home, name, needles)
    for path in _runs(home, needles):
        _rewrite_run(home, path, needles)
    for path in _reports(home, needles):
        path.unlink(missing_ok=True)


def _theirs(name: str, columns: list[str], ids: pl.Series) -> pl.Expr | None:
    """Whether a row is of one of them; None where the table has no column of persons."""
    persons = [column for column in (*per_user.PERSONS, *(("id",) if name == FIRSTS else ())) if column in columns]
    if not persons:
        return None
    return pl.any_horizontal(pl.col(column).is_in(ids.implode()) for column in persons).fill_null(False)


def _named(needles: Needles) -> pl.Expr:
    """Whether a rejected line names one of them."""

    def lines(raw: pl.Series) -> pl.Series:
        texts = [(line or b"").decode("utf-8", "replace") for line in raw.to_list()]
        return pl.Series([needles.mentions(text, fields=True, quoted=False) for text in texts], dtype=pl.Boolean)

    return pl.col("raw").map_batches(lines, return_dtype=pl.Boolean)


def _scrub(home: Home, name: str, needles: Needles) -> None:
    """Write `[erased]` where a text of somebody else's row names one of them."""
    table = tables.open_table(home, name)
    if table is None or not needles.long:
        return
    put = {}
    for column in (column for column in _WORDS if column in table.schema.names):
        values = table.scan().select(pl.col(column).drop_nulls().unique()).collect()[column]
        if len(found := needles.among(values, column, leaf=False)):
            put[column] = pl.col(column).replace(
                found, pl.Series([scrubbed(text, needles) for text in found.to_list()])
            )
    if put:
        remove_where(home, name, pl.lit(False), put)


def scrubbed(text: str, needles: Needles, put: str = ERASED) -> str:
    """The text with `put` for every word that is one of the ids."""
    made, at = [], 0
    for start, end in needles.spans(text):
        if start >= at:
            made += [text[at:start], put]
            at = end
    return "".join((*made, text[at:]))


def _runs(home: Home, needles: Needles) -> Iterator[Path]:
    for path in sorted(home.path("runs").glob("*.json")):
        if in_text(path.read_text(encoding="utf-8", errors="replace"), f"runs/{path.name}", needles):
            yield path


def _reports(home: Home, needles: Needles) -> Iterator[Path]:
    for path in sorted(path for path in home.path("reports").rglob("*") if path.is_file()):
        name = path.relative_to(home.root).as_posix()
        if in_text(path.read_bytes().decode("utf-8", "replace"), name, needles) or needles.spans(name):
            yield path


def _rewrite_run(home: Home, path: Path, needles: Needles) -> None:
    """The manifest with keyed digests for ids."""
    text = path.read_text(encoding="utf-8", errors="replace")
    for one in needles.long:
        text = scrubbed(text, Needles(frozenset((one,))), runs.digest_id(home, one))
    try:
        said = json.loads(text)
        words = [runs.digest_id(home, word) if word in needles.short else word for word in said["arguments"]]
        text = json.dumps({**said, "arguments": words}, indent=2, ensure_ascii=False) + "\n"
    except (ValueError, KeyError, TypeError):
        pass
    artifacts.write_text(path, text)
