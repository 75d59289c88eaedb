"""Risks to the people in the data, measured on the data, and the measures against them that are so.

What a leak, an export or a model would tell of single people is counted. Nothing here is an estimate of harm; it is
what can be counted, so that whoever assesses the harm need not guess. What senders wrote beyond the columns that
persona knows is part of it: the keys of `props`, shown only where enough rows have them, since one that few have may be
an id, and so name a person.

Each security measure is looked at, and says what was found, or that only people can tell. Looked at are the workspace's
own folder and persona's own sources, never anything of a person.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

import persona_cli
from persona_cli.events.catalogue import current
from persona_cli.models.gram import gram_of_rows, threads_of
from persona_cli.models.stored import load_items
from persona_cli.privacy.anonymity import anonymity
from persona_cli.privacy.pseudonymize import unicity_of
from persona_cli.privacy.records.facts import QUASI
from persona_cli.profiles import SMALLEST_CELL, segments
from persona_cli.profiles.fold import profile_rows
from persona_cli.profiles.people import people
from persona_cli.workspace import runs, tables
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


Doc = dict[str, Any]
FEW = (1, 4, 9, SMALLEST_CELL - 1)
"""Co-occurrences by at most so many people are counted."""


def risks(home: Home, props: Mapping[str, Mapping[str, float]]) -> Doc:
    """Every measured risk; a part is None where there is nothing to measure. `props`: what `keys` found."""
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


_KEY = re.compile(rb"\s*[0-9a-fA-F]{64}\s*")
_LONGEST_KEY_FILE = 128
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
# Modules that open connections. `socket` is judged by what is called on it.
_NETWORK = frozenset(
    {
        "http", "urllib.request", "urllib3", "requests", "httpx", "aiohttp", "websockets", "ftplib", "smtplib",
        "poplib", "imaplib", "telnetlib", "xmlrpc", "grpc", "boto3", "google.cloud", "azure",
    }
)  # fmt: skip
_HARMLESS_OF_SOCKET = frozenset({"gethostname"})


class Measure(NamedTuple):
    """One measure, and whether it is so."""

    what: str
    state: str
    """`so`, `not so`, or `by construction`: how the code works, which its tests hold and nothing here can look at."""
    detail: str


def measures(home: Home) -> list[Measure]:
    """What protects the data of the workspace on this machine."""
    return [_modes(home), _keys(home), _network(), _old(home), *_BY_CONSTRUCTION]


def _modes(home: Home) -> Measure:
    what = "Only the owner of the workspace can read it"
    if not _open_to_others(home.root):
        return Measure(what, "so", "the folder has no permissions for others; what is in it is out of their reach")
    reachable = sorted(path.name for path in home.root.iterdir() if _open_to_others(path))
    if not reachable:
        return Measure(what, "so", "others may list the folder, and can open nothing in it")
    return Measure(what, "not so", f"others may read {', '.join(reachable)}; chmod 700 {home.root.name}")


def _open_to_others(path: Path) -> bool:
    return bool(stat.S_IMODE(path.lstat().st_mode) & _OTHERS) and not path.is_symlink()


def _keys(home: Home) -> Measure:
    what = "Keys of pseudonyms are kept outside the workspace"
    inside = [name for name in _small_files(home.root) if _KEY.fullmatch((home.root / name).read_bytes())]
    if inside:
        return Measure(what, "not so", f"these files look like keys: {', '.join(sorted(inside))}; move them out")
    return Measure(
        what, "so", "no file in it looks like a key; key files in it, or with another mode than 0600, are refused"
    )


def _small_files(root: Path) -> list[str]:
    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            with contextlib.suppress(FileNotFoundError):  # another command's temporary file
                if not path.is_symlink() and 64 <= path.stat().st_size <= _LONGEST_KEY_FILE:
                    found.append(path.relative_to(root).as_posix())
    return found


def _network() -> Measure:
    what = "persona sends nothing over a network"
    found = connecting(Path(persona_cli.__file__).parent)
    if found:
        return Measure(what, "not so", f"modules that can open connections: {', '.join(found)}")
    return Measure(what, "so", "no module of persona's own imports anything that opens connections")


@lru_cache(maxsize=4)
def connecting(package: Path) -> tuple[str, ...]:
    """Modules of a package, by their paths in it, whose own code can open a network connection."""
    found = []
    for path in sorted(package.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if any(name.partition(".")[0] in source for name in (*_NETWORK, "socket")) and _connects(ast.parse(source)):
            found.append(path.relative_to(package).as_posix())
    return tuple(found)


def _connects(tree: ast.Module) -> bool:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            if node.module == "socket":
                return True
        if any(name == one or name.startswith(f"{one}.") for name in names for one in _NETWORK):
            return True
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "socket"
            and node.attr not in _HARMLESS_OF_SOCKET
        ):
            return True
    return False


def _old(home: Home) -> Measure:
    what = "No old versions of tables lie on the disk"
    old = sorted({path.partition("/")[0] for path in tables.orphans(home)})
    if old:
        return Measure(what, "not so", f"superseded files of {', '.join(old)} are there until: persona privacy expire")
    return Measure(what, "so", "every file of every table belongs to its newest version")


_BY_CONSTRUCTION = (
    Measure(
        "What commands write can be read by their owner alone",
        "by construction",
        "the command line works under umask 077; from Python it is that of your program",
    ),
    Measure(
        "Ids of people stand in no log",
        "by construction",
        "runs, receipts, requests and the list of the erased hold keyed digests; the key is in workspace.json, so who "
        "has the workspace can try ids out",
    ),
    Measure(
        "Nothing is half written",
        "by construction",
        "files and tables appear whole or not at all; one writer at a time; models are checked against their digests",
    ),
    Measure(
        "What is read cannot run code", "by construction", "no pickles; SQL is read-only and reaches nothing outside"
    ),
    Measure(
        "Reports, segments and evaluations show no figure of under 20 people",
        "by construction",
        "one constant, which no setting changes; persona sql shows what it is asked",
    ),
)
