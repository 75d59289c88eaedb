"""What senders wrote beyond the columns that persona knows: the keys of `props`, and how often each is there.

Keys are shown only where enough rows have them: one that few have may be an id, and so name a person.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import polars as pl

from persona_cli.profiles import SMALLEST_CELL
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

PREFIX = "props."
SAMPLE = 100_000
MOST = 40
"""Keys of a table that are shown, the most frequent first chosen."""
_IDS = {"events": "event_id", "users": "user_id", "accounts": "account_id"}
_LONGEST = 40


def keys(home: Home) -> dict[str, dict[str, float]]:
    """Table → key of `props` → share of the rows that have it, keys sorted; `*` for all others together.

    Of tables of more than 100,000 rows about so many are looked at, chosen by a hash of their ids.
    """
    found = {}
    for name, id in _IDS.items():
        table = tables.open_table(home, name)
        if table is None or not table.files:
            continue
        every = -(-sum(file.rows for file in table.files) // SAMPLE)
        rows = table.scan().select(id, "props")
        rows = rows.filter(pl.col(id).hash(0) % every == 0) if every > 1 else rows
        texts = rows.select("props").collect()["props"]
        if counted := _shares(texts):
            found[name] = counted
    return found


def _shares(texts: pl.Series) -> dict[str, float]:
    counts: Counter[str] = Counter()
    others = 0
    for text, n in texts.drop_nulls().value_counts().iter_rows():
        counts.update(dict.fromkeys(_object(text), n))
    often = sorted((key for key in counts if _shown(key, counts[key])), key=lambda key: (-counts[key], key))[:MOST]
    for text, n in texts.drop_nulls().value_counts().iter_rows() if len(often) < len(counts) else ():
        others += n * bool(_object(text).keys() - set(often))
    shares = {key: counts[key] / len(texts) for key in sorted(often)}
    return shares | ({"*": others / len(texts)} if others else {})


def _shown(key: str, rows: int) -> bool:
    return rows >= SMALLEST_CELL and len(key) <= _LONGEST and key.isprintable() and key != "*"


def values(texts: pl.Series, wanted: list[str]) -> Iterator[pl.Series]:
    """The values of keys of `props` (n,) as texts, named `props.KEY`; null where there is none, or no single value."""
    parsed = [_object(text) if text is not None else {} for text in texts.to_list()]
    for key in wanted:
        yield pl.Series(f"{PREFIX}{key}", [_text(one.get(key)) for one in parsed], dtype=pl.String)


def _text(value: Any) -> str | None:
    return None if value is None or isinstance(value, dict | list) else str(value)


def _object(text: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return {}
    return found if isinstance(found, dict) else {}
