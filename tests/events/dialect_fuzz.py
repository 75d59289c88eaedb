"""Damaged files of a dialect, through the readers: what may be wrong with bytes, lines, keys, types and depth.

`content` makes a file of mutated lines; `account` reads it and answers what became of them.
"""

from __future__ import annotations

import contextlib
import copy
import csv
import io
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from persona_cli.errors import BadData
from persona_cli.events import reading
from persona_cli.events.dialects import built_in
from persona_cli.events.dialects.dialect import Choice, Dialect, Record
from persona_cli.events.dialects.own import load
from persona_cli.events.opening import Format, Input
from persona_cli.workspace.settings import load as settings_of
from tests.events import test_dialect_recognition as theirs

DOCS = Path(__file__).parents[2] / "docs" / "dialects"
LATEST_US = 1_800_000_000_000_000
CALLS: list[Record] = [
    {"type": "track", "event": "Order Completed", "messageId": "m1", "userId": "u1", "sentAt": "2024-03-01T10:00:05Z",
     "originalTimestamp": "2024-03-01T10:00:00Z", "receivedAt": "2024-03-01T10:00:07Z",
     "properties": {"order_id": "o1", "revenue": 12.5, "products": [
         {"product_id": "p1", "price": 5, "quantity": 2, "category": "shoes"}, {"sku": "p2", "price": "2.5"}]},
     "context": {"ip": "8.8.8.8", "userAgent": "Mozilla/5.0", "network": {"wifi": True}, "groupId": "g1",
                 "consent": {"categoryPreferences": {"ads": False}}, "campaign": {"name": "spring"}}},
    {"type": "identify", "userId": "u1", "anonymousId": "a1", "traits": {"plan": "pro"}, "timestamp": "2024-03-01"},
    {"type": "group", "userId": "u1", "groupId": "g1", "traits": {"name": "Initech"}, "timestamp": "2024-03-01"},
    {"type": "alias", "previousId": "a1", "userId": "u1", "timestamp": "2024-03-01T00:00:00+02:00"},
    {"type": "page", "anonymousId": "a1", "name": "Home", "properties": {"path": "/"}, "timestamp": 1709287200},
    {"batch": [{"type": "screen", "anonymousId": "a2", "name": "Feed", "timestamp": "2024-03-01"},
               {"type": "track", "event": "Products Searched", "userId": "u", "properties": {"query": "shoes"}}],
     "sentAt": "2024-03-01T10:00:00Z", "context": {"locale": "de-DE"}},
    {"id": "x", "anonymous_id": "a", "received_at": "2024-03-01 10:00:00", "timestamp": "2024-03-01 10:00:00",
     "context_page_url": "https://a/b?c=d", "context_campaign_name": "n", "url": "https://a/b"},
]  # fmt: skip
OWN: dict[str, list[Record]] = {
    "github": [{"_event": "star", "action": "created", "starred_at": "2024-01-01T00:00:00Z", "sender": {"login": "a"},
                "repository": {"full_name": "a/b", "owner": {"login": "a"}, "pushed_at": 1557933657}}],
    "mixpanel": [{"insert_id": "i", "name": "plays", "time": "2024-01-01 00:00:00", "distinct_id": "d",
                  "mp_processing_time_ms": "1", "properties": '{"video_id": 7, "title": "x"}'}],
}  # fmt: skip
JUNK: tuple[Any, ...] = (
    None, "", " ", "\x00", "x" * 2_000, "é\u2028😀", "=1+1", "-1", "1e400", "NaN", "2024-13-41", "9" * 40, 0, -1,
    10**30, 10**400, 1e308, 0.1, True, False, [], [[]], [1, "a", None], {}, {"": {}}, {"a": {"b": None}}, [{"a": 1}],
)  # fmt: skip


def dialects() -> list[Dialect]:
    return [*built_in(), *(one for name in OWN for one in load(DOCS / f"{name}.toml"))]


def title(dialect: Dialect) -> str:
    return f"{dialect.name}-{dialect.kind}-{dialect.about[:40]}"


def samples(dialect: Dialect) -> list[Record]:
    if dialect.name in ("segment", "rudderstack"):
        return CALLS
    return OWN[dialect.name] if dialect.name in OWN else theirs.sample(dialect)


def mutated(value: Any, dice: random.Random) -> Any:
    """A copy in which something is dropped, replaced by what it should not be, doubled, or nested too deep."""
    value = copy.deepcopy(value)
    places = list(_places(value))
    for _ in range(dice.randint(1, 3)):
        if not places:
            return dice.choice(JUNK)
        where, key = dice.choice(places)
        what = dice.random()
        try:
            if what < 0.25:
                del where[key]
            elif what < 0.75:
                where[key] = copy.deepcopy(dice.choice(JUNK))
            elif what < 0.85:
                where[key] = [where[key], where[key]]
            elif what < 0.95:
                where[key] = {"a": where[key]}
            else:
                for _ in range(dice.choice((5, 120))):
                    where[key] = dice.choice(([where[key]], {"a": where[key]}))
        except (KeyError, IndexError):  # gone by an earlier change
            continue
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in list(inner):
        yield value, key
        yield from _places(below)


def damaged(line: bytes, dice: random.Random) -> bytes:
    """Bytes flipped, cut off, put in or repeated; always one line."""
    what = dice.random()
    if what < 0.5 or not line:
        return line
    at = dice.randrange(len(line))
    if what < 0.7:
        line = line[:at] + bytes([line[at] ^ 1 << dice.randrange(8)]) + line[at + 1 :]
    elif what < 0.8:
        line = line[:at]
    elif what < 0.9:
        line = line[:at] + dice.choice((b'"', b"{", b"}", b",", b"\t", b"\xff", b"\x00", b"\\u00", b"[")) + line[at:]
    else:
        line = line[:at] + line[: dice.randrange(len(line))] + line[at:]
    return line.replace(b"\n", b" ")


def content(dialect: Dialect, lines: int, dice: random.Random) -> tuple[Format, bytes]:
    """A file of so many mutated lines, in one of the formats of the dialect; a header stays whole."""
    found = samples(dialect)
    text = dialect.columns or ("jsonl" not in dialect.formats) or (dialect.name == "mixpanel" and dice.random() < 0.5)
    if not text:
        texts = [json.dumps(mutated(dice.choice(found), dice), ensure_ascii=dice.random() < 0.5) for _ in range(lines)]
        encoded = (damaged(text.encode("utf-8", "surrogatepass"), dice) for text in texts)
        return "jsonl", b"".join(line + b"\n" for line in encoded)
    names = list(dialect.columns or dict.fromkeys(name for record in found for name in record))
    separator = dialect.separator or ("\t" if dialect.formats[0] == "tsv" else ",")
    rows = [_row(mutated(dice.choice(found), dice), names, separator, bool(dialect.columns)) for _ in range(lines)]
    head = [] if dialect.columns else [_row(dict(zip(names, names, strict=True)), names, separator, False)]
    written = [*head, *(damaged(row, dice) for row in rows)]
    return ("tsv" if separator == "\t" else "csv"), b"".join(line + b"\n" for line in written)


def _row(record: Record, names: list[str], separator: str, plain: bool) -> bytes:
    values = [record.get(name) for name in names] if isinstance(record, dict) else [record]
    cells = ["" if value is None else value if isinstance(value, str) else json.dumps(value) for value in values]
    cells = [cell.replace("\n", " ").replace("\r", " ") for cell in cells]
    if plain or len(separator) > 1:
        return separator.join(cells).encode("utf-8", "surrogatepass")
    line = io.StringIO()
    csv.writer(line, delimiter=separator, lineterminator="").writerow(cells)
    return line.getvalue().encode("utf-8", "surrogatepass")


def account(dialect: Dialect, path: Path, lines: int, seed: int) -> Counter[str]:
    """What became of a mutated file; asserts that nothing crashed and that every record is accounted for."""
    format, bytes_ = content(dialect, lines, random.Random(seed))
    path.write_bytes(bytes_)
    source = Input(str(path), path, format)
    settings = settings_of(None, {})
    counts: Counter[str] = Counter()
    first = 1 if dialect.columns or format == "jsonl" else 2
    seen: set[int] = set()
    for batch in reading.batches(source, dialect.kind, (), settings, LATEST_US, choice=Choice((dialect,), sure=True)):
        dropped = sum(batch.dropped.values())
        assert batch.read == batch.rows.num_rows + len(batch.rejects) + dropped
        crashed = [reject for reject in batch.rejects if "failed on it" in reject.reason]
        assert not crashed, (crashed[0].reason, crashed[0].raw)
        assert all(reject.reason for reject in batch.rejects)
        seen |= {*batch.rows["line"].to_pylist(), *(reject.line for reject in batch.rejects)}
        counts.update(read=batch.read, accepted=batch.rows.num_rows, rejected=len(batch.rejects), dropped=dropped)
    if not counts["dropped"] and (format == "jsonl" or dialect.columns or b'"' not in bytes_):
        assert seen == set(range(first, first + bytes_.count(b"\n") - first + 1))
    # Nor may a damaged file confuse the search for its dialect.
    everybody = Choice(tuple(one for one in dialects() if one.kind == dialect.kind))
    with contextlib.suppress(BadData):  # as native it may lack what every event needs
        reading.sniff(source, dialect.kind, (), settings, LATEST_US, 3, everybody)
    return counts
