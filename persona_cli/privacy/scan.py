"""Where a workspace, or files before they are ingested, hold what nobody meant to collect, and what to do about it.

Texts are looked at by their distinct values, batch by batch; what is remembered of them is counts, masked examples and
at most SKETCH hashes a field and kind. So memory doesn't grow with the rows, and no order of rows changes the result.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import polars as pl
import pyarrow.compute as pc
import pyarrow.parquet as pq

from persona_cli.errors import MissingInput
from persona_cli.events import opening, reading
from persona_cli.events.batch import Batch
from persona_cli.events.collecting import collect_about
from persona_cli.events.dialects import choose
from persona_cli.events.door import DoorRules, admit
from persona_cli.events.schema import FIELDS, KEY, Kind
from persona_cli.privacy.detectors import GATE, NAME_GATE, Found, Sure, find, mask
from persona_cli.workspace import tables
from persona_cli.workspace.declarations import BY_KEY
from persona_cli.workspace.home import Home

BATCH_ROWS = 50_000
SKETCH = 4_096
SAMPLE = 1_000_000
# So many numbers that look like cards, of which no more have a right check digit than chance gives (a tenth), are ids.
CHANCE_FROM, CHANCE_SHARE = 20, 0.3
# Paths of props that are told apart; the keys of some logs are ids.
MOST_FIELDS = 2_000
_TABLES: dict[str, tuple[str, ...]] = {
    **{kind: tuple(one.name for one in fields if one.type in ("text", "texts")) for kind, fields in FIELDS.items()},
    "quarantine": ("raw",),
}
_ROW_ID: dict[str, str] = {**KEY, "events": "event_id", "quarantine": "raw"}  # type: ignore[dict-item]
_SURE: dict[str, int] = {"low": 0, "medium": 1, "high": 2}
_DAY_US = 86_400_000_000


class Finding(NamedTuple):
    """One kind in one field: how many different values (`exact`, or estimated to 2 %), rows, and their share."""

    table: str
    field: str
    kind: str
    values: int
    exact: bool
    rows: int
    share: float
    sure: Sure
    example: str
    advice: str


class Scanned(NamedTuple):
    """`rows` looked at by table, `of` how many there are (None: not known), and what was found, by table and field."""

    rows: dict[str, int]
    of: dict[str, int | None]
    findings: list[Finding]


@dataclass
class _Distinct:
    """The SKETCH smallest of the hashes seen: how many different there are (Bar-Yossef et al. 2002)."""

    kept: set[int] = field(default_factory=set)
    heap: list[int] = field(default_factory=list)  # negated: the largest kept is on top
    full: bool = False

    def add(self, hashed: int) -> None:
        if hashed in self.kept or (self.full and hashed > -self.heap[0]):
            return
        self.kept.add(hashed)
        heapq.heappush(self.heap, -hashed)
        if len(self.heap) > SKETCH:
            self.kept.discard(-heapq.heappop(self.heap))
            self.full = True

    @property
    def count(self) -> int:
        return round((SKETCH - 1) * 2**64 / (-self.heap[0] + 1)) if self.full else len(self.kept)


@dataclass
class _Tally:
    rows: int = 0
    pieces: int = 0
    values: _Distinct = field(default_factory=_Distinct)
    misses: _Distinct = field(default_factory=_Distinct)
    sure: Sure = "low"
    first: tuple[int, str] = (2**64, "")
    """The example: of the value with the smallest hash, so that it depends on no order."""

    def add(self, found: Found) -> None:
        hashed = int.from_bytes(hashlib.blake2b(found.text.encode(errors="replace"), digest_size=8).digest())
        if not found.valid:
            self.misses.add(hashed)
            return
        self.values.add(hashed)
        self.pieces += 1
        if _SURE[found.sure] > _SURE[self.sure]:
            self.sure = found.sure
        if hashed < self.first[0]:
            self.first = (hashed, mask(found.text))

    @property
    def is_chance(self) -> bool:
        valid, wrong = self.values.count, self.misses.count
        return valid == 0 or (wrong >= CHANCE_FROM and valid < CHANCE_SHARE * (valid + wrong))


class Scanner:
    """Tallies of the batches given to `add`, in any order."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self._tallies: dict[tuple[str, str, str], _Tally] = {}
        self._find = lru_cache(maxsize=50_000)(find)

    def add(self, table: str, rows: pl.DataFrame) -> None:
        """Look at all text columns of `rows` (n), and at every value inside `props`."""
        self.rows[table] = self.rows.get(table, 0) + rows.height
        for column in rows.columns:
            if column != "props":
                texts = rows[column].explode() if rows[column].dtype == pl.List(pl.String) else rows[column]
                for text, count in _suspects(texts, GATE):
                    self._count(table, count, ((column, found) for found in self._find(text, "")))
        if "props" in rows.columns:
            for text, count in _suspects(rows["props"], f"(?:{GATE})|(?:{NAME_GATE})"):
                self._count(table, count, self._in_json(text))

    def findings(self, min_share: float = 0.0, *, stored: bool = True, collect: bool = False) -> list[Finding]:
        """What was found in at least `min_share` of a table's rows, by table, field and kind."""
        found = []
        for (table, name, kind), tally in sorted(self._tallies.items()):
            share = tally.rows / max(1, self.rows[table])
            if tally.is_chance or share < min_share:
                continue
            values, shown = tally.values, tally.first[1]
            hint = advice(table, name, kind, stored=stored, collect=collect)
            numbers = (min(values.count, tally.pieces), not values.full, tally.rows, share)
            found.append(Finding(table, name, kind, *numbers, tally.sure, shown, hint))
        return found

    def _count(self, table: str, rows: int, pieces: Iterable[tuple[str, Found]]) -> None:
        touched = set()
        for name, found in pieces:
            key = (table, name, found.kind)
            if key not in self._tallies and len(self._tallies) >= MOST_FIELDS:
                key = (table, "props.*", found.kind)
            self._tallies.setdefault(key, _Tally()).add(found)
            if found.valid:
                touched.add(key)
        for key in touched:
            self._tallies[key].rows += rows

    def _in_json(self, text: str) -> Iterator[tuple[str, Found]]:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        yield from self._walk(value, "props", ())

    def _walk(self, value: Any, path: str, names: tuple[str, ...]) -> Iterator[tuple[str, Found]]:
        if isinstance(value, dict):
            for key, inner in value.items():
                pieces = self._find(key, "") if _TELLING.search(key) else []
                yield from ((f"{path}.*", piece) for piece in pieces)
                shown = key if _NAME.fullmatch(key) and not pieces else "*"
                yield from self._walk(inner, f"{path}.{shown}", (*names[-1:], key))
        elif isinstance(value, list):
            for inner in value:
                yield from self._walk(inner, path, names)
        elif isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
            yield from ((path, piece) for piece in self._find(str(value), ".".join(names)))


# Times are everywhere and look like numbers with signs between them.
_TIME = r"\b(?:19|20)[0-9]{2}-[01][0-9]-[0-3][0-9](?:[T ][0-2][0-9]:[0-5][0-9](?::[0-5][0-9](?:\.[0-9]+)?)?Z?)?\b"
# Keys that are names and may be shown: of ordinary signs, not long, with few digits.
_NAME = re.compile(r"(?=.{1,64}$)(?:[^\W\d]|[ .$:/-])*(?:[0-9](?:[^\W\d]|[ .$:/-])*){0,5}")
# Keys that may be values themselves.
_TELLING = re.compile(r"[@%+:=/]|[0-9].*[0-9].*[0-9].*[0-9]|.{33}", re.DOTALL)


def _suspects(texts: pl.Series, gate: str) -> Iterator[tuple[str, int]]:
    """Distinct texts in which something may be found, and in how many rows each is."""
    if texts.dtype == pl.Binary:
        texts = pl.Series([None if raw is None else raw.decode("utf-8", "replace") for raw in texts])
    if texts.dtype != pl.String or texts.null_count() == len(texts):
        return
    counted = texts.drop_nulls().alias("text").value_counts(name="rows")
    suspect = pl.col("text").str.contains(gate)
    dated = pl.col("text").str.contains(_TIME)
    undated = pl.col("text").str.replace_all(_TIME, "D").str.contains(gate)
    yield from counted.filter(suspect).filter(~dated | undated).iter_rows()


def scan_workspace(home: Home, sample: int | None = SAMPLE, min_share: float = 0.0) -> Scanned:
    """Look through events, items, users, accounts and quarantine; `sample` rows of each at most (None: all).

    The rows of a sample are chosen by a hash of their id. Raises MissingInput where no table holds a row.
    """
    scanner, of = Scanner(), dict[str, int | None]()
    for name in _TABLES:
        table = tables.open_table(home, name)
        if table is None or not (total := sum(file.rows for file in table.files)):
            continue
        of[name] = total
        for rows in _stored(table, name, 1 if sample is None else -(-total // sample)):
            scanner.add(name, rows)
    if not of:
        raise MissingInput(
            "nothing to scan: the workspace holds no events, items, users, accounts or rejected lines",
            "persona privacy scan FILE looks at a file before it is ingested",
        )
    return Scanned(scanner.rows, of, scanner.findings(min_share, collect=_can_collect()))


def _stored(table: tables.Table, name: str, every: int) -> Iterator[pl.DataFrame]:
    texts = [*_TABLES[name], "source", *(["props"] if name != "quarantine" else [])]
    key = _ROW_ID[name]
    for file in table.files:
        with pq.ParquetFile(table.root / file.path) as parquet:
            wanted = [column for column in texts if column in parquet.schema_arrow.names]
            for batch in parquet.iter_batches(BATCH_ROWS, columns=wanted):
                rows = pl.DataFrame(pl.from_arrow(batch))
                yield rows.filter(pl.col(key).hash(0) % every == 0) if every > 1 else rows


def scan_files(
    home: Home,
    inputs: Sequence[str],
    *,
    kind: Kind = "events",
    maps: Sequence[str] = (),
    dialect: str = "auto",
    sample: int | None = SAMPLE,
    min_share: float = 0.0,
) -> Scanned:
    """Look through what `ingest` would store of files: accepted rows behind the door, rejected lines as quarantine.

    `sample` is the first so many records of each file (None: all). Nothing is written. Raises what ingest raises for a
    file that cannot be read, and MissingInput where the files hold no record.
    """
    scanner, latest_us = Scanner(), time.time_ns() // 1_000 + _DAY_US
    choice = choose(dialect, kind, home.settings)
    rules = DoorRules.of(home.settings)
    whole = True
    for source in opening.find(inputs):
        read, enough = 0, False
        batches = reading.batches(source, kind, maps, home.settings, latest_us, choice=choice)
        try:
            for batch in batches:
                if sample is not None and read + batch.read > sample:
                    batch, enough = _first(batch, sample - read), True
                rows = pl.DataFrame(pl.from_arrow(admit(batch.rows, kind, rules).rows))
                names = [name for name in (*_TABLES[kind], "props") if name in rows.columns]
                if rows.height:
                    scanner.add(kind, rows.select(names))
                for other, records in collect_about(batch.about, rules.collect, Counter()).items():
                    wanted = [{name: row.get(name) for name in (*_TABLES[other], "props")} for row in records]
                    scanner.add(other, pl.DataFrame(wanted, infer_schema_length=None))
                if batch.rejects and home.settings.flag("privacy.collect.quarantine_raw"):
                    scanner.add("quarantine", pl.DataFrame({"raw": [reject.raw for reject in batch.rejects]}))
                read += batch.read
                if enough:
                    break
            whole = whole and not enough
        finally:
            batches.close()  # type: ignore[attr-defined]
    if not scanner.rows:
        raise MissingInput("nothing to scan: the files hold no record", "name files that hold events, or --kind items")
    of = {name: rows if whole else None for name, rows in scanner.rows.items()}
    return Scanned(scanner.rows, of, scanner.findings(min_share, stored=False, collect=_can_collect()))


def _first(batch: Batch, records: int) -> Batch:
    """The first so many records of a batch, by their lines."""
    lines = sorted([*batch.rows["line"].to_pylist(), *(reject.line for reject in batch.rejects)])
    last = lines[min(records, len(lines)) - 1] if records and lines else -1
    rows = batch.rows.filter(pc.less_equal(batch.rows["line"], last))
    return Batch(rows, [reject for reject in batch.rejects if reject.line <= last], records, 0, about=batch.about)


def _can_collect() -> bool:
    """Whether this version has allow-lists of fields at the door."""
    return any(key.startswith("privacy.collect") for key in BY_KEY)


_IDS = ("user_id", "anon_id", "account_id", "session_id", "event_id", "decision_id")
_KEYS = ("jwt", "api_key", "private_key", "url_secret", "secret")


def advice(table: str, name: str, kind: str, *, stored: bool, collect: bool) -> str:
    """One sentence. `stored`: it is in the workspace already; `collect`: [privacy.collect] can leave fields out.

    A found key is void from now on wherever it stands, so that comes first.
    """
    first = "make the key or password invalid where it was issued; then " if kind in _KEYS else ""
    return (
        first
        + _where(table, name, collect)
        + ("; what is stored goes with `persona ingest undo RUN`" if stored else "")
    )


def _where(table: str, name: str, collect: bool) -> str:
    if table == "quarantine":
        return "correct the lines at their source; the quarantine keeps them for quarantine.retention_days"
    if name in _IDS:
        return "replace the ids by pseudonyms before ingest: persona privacy pseudonymize FILE"
    if name == "source":
        return "give the files names that name nobody"
    if name.startswith("props"):
        if collect:
            return "leave the field out of [privacy.collect], or drop it where it is sent"
        return "drop the field where it is sent, or before ingest"
    if name in ("page", "referrer", "url"):
        return "send a template of the page instead (/account/:id); ingest.strip_queries = true cuts what follows ?"
    if name in ("query", "title", "text", "name"):
        return f"remove it from the text where it is sent, or read another column: ingest --map {name}=COLUMN"
    return f"read another column into it: ingest --map {name}=COLUMN, or drop it where it is sent"
