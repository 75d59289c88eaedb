"""What judged rows leave at the door before they are stored: IP addresses, query strings, user agents, bots.

One step on each batch, which ends with what the settings do not collect (`collecting.py`). The ids of events are made
before it, from columns that are as they came, so what is removed here changes no id. A column that is null in every row
costs nothing, and others are looked at by their distinct values.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from persona_cli.events.collecting import Collect, collect
from persona_cli.events.countries import country_code
from persona_cli.events.referrers import CAMPAIGN_PARAMETERS, campaign_of_query
from persona_cli.events.schema import FIELDS, Kind
from persona_cli.events.urls import Removed, bytes_of, cut_column, cut_props
from persona_cli.workspace.settings import Settings

_CLIENT = ("device", "browser", "os")
# A page or a referrer is a URL or a path whatever it looks like; a target may be any text.
_URLS = {"page": True, "referrer": True, "target": False}


class DoorRules(NamedTuple):
    """The settings [ingest] and [privacy.collect] that the door depends on."""

    strip_queries: bool = True
    drop_bots: bool = True
    collect: Collect = Collect()

    @classmethod
    def of(cls, settings: Settings) -> DoorRules:
        return cls(settings.flag("ingest.strip_queries"), settings.text("ingest.bots") == "drop", Collect.of(settings))


class Admitted(NamedTuple):
    """`rows` have the columns of kept_schema and whatever stood behind; the counts are of these rows.

    `bots` were recognised, `dropped` of them left out. `fields`: rows that lost something not collected, by column.
    """

    rows: pa.Table
    queries: int
    addresses: int
    bots: int
    dropped: int
    fields: Mapping[str, int] = {}


def admit(rows: pa.Table, kind: Kind, rules: DoorRules) -> Admitted:
    """Judged rows (n) as they may be stored. Counts are of the rows that are let in.

    - `user_agent` fills device, browser and os where these are null; rows of bots are dropped or kept.
    - `page`, `referrer` and URLs in `target` and `props` lose what follows `?` or `#`, and hosts that are IP addresses;
      parameters of the page that name a campaign fill `campaign` where that is null.
    - `ip` and keys of props that name an IP address are dropped.
    - `country` becomes the alpha-2 code where it is another code or an English name.
    """
    fields: Counter[str] = Counter()
    if kind == "items" or not rows.num_rows:
        return Admitted(collect(_without_transient(rows, kind), kind, rules.collect, fields), 0, 0, 0, 0, fields)
    rows, bots = _with_clients(rows) if kind == "events" else (rows, np.zeros(0, bool))
    dropped = int(bots.sum()) if rules.drop_bots else 0
    if dropped:
        rows = rows.filter(pa.array(~bots))
    removed = Removed()
    if kind == "events":
        removed.addresses += rows.num_rows - rows["ip"].null_count
        for name, cut_all in _URLS.items():
            rows = _with_urls(rows, name, cut_all, removed, rules)
    if (props := _column(rows, "props")) is not None:
        rows = _with(rows, "props", cut_props(props, removed, rules.strip_queries))
    if (countries := _column(rows, "country")) is not None:
        rows = _with(rows, "country", _country_codes(countries))
    rows = collect(_without_transient(rows, kind), kind, rules.collect, fields)
    return Admitted(rows, removed.queries, removed.addresses, int(bots.sum()), dropped, fields)


def _with_clients(rows: pa.Table) -> tuple[pa.Table, npt.NDArray[np.bool_]]:
    """With device, browser and os filled in, and which rows are of bots (n,)."""
    agents = _column(rows, "user_agent")
    if agents is None:
        return rows, np.zeros(rows.num_rows, bool)
    encoded = agents.dictionary_encode()
    clients = [client(text) for text in encoded.dictionary.to_pylist()]
    for place, name in enumerate(_CLIENT):
        if rows[name].null_count:
            found = pa.array([one[place] for one in clients], pa.string()).take(encoded.indices)
            rows = _with(rows, name, pc.coalesce(rows[name], found))
    bots = pa.array([one.device == BOT for one in clients], pa.bool_()).take(encoded.indices)
    return rows, pc.fill_null(bots, False).to_numpy(zero_copy_only=False)


def _with_urls(rows: pa.Table, name: str, cut_all: bool, removed: Removed, rules: DoorRules) -> pa.Table:
    column = _column(rows, name)
    if column is None:
        return rows
    if name == "page" and rows["campaign"].null_count:
        campaigns = _campaigns(column)
        if campaigns is not None:
            rows = _with(rows, "campaign", pc.coalesce(rows["campaign"], campaigns))
    return _with(rows, name, cut_column(column, removed, rules.strip_queries, cut_all=cut_all))


def _campaigns(pages: pa.Array) -> pa.Array | None:
    """What campaign the parameters of each page name (n,)."""
    held = bytes_of(pages)
    lower = held.lower() if b"?" in held else b""
    told = [name for name in CAMPAIGN_PARAMETERS if f"{name}=".encode() in lower]
    if not told:
        return None
    # Of all parameters only these: what is left differs little from page to page.
    urls = pl.Series(pl.from_arrow(pages))
    found = pl.select(
        pl.concat_str(
            [urls.str.extract(rf"(?i)[?&]({re.escape(name)}=[^&#]*)") for name in told],
            separator="&",
            ignore_nulls=True,
        )
    ).to_series()
    distinct = found.unique()
    campaigns = pl.Series([campaign_of_query(text) for text in distinct], dtype=pl.String)
    return found.replace_strict(distinct, campaigns, return_dtype=pl.String).to_arrow().cast(pa.string())


def _country_codes(countries: pa.Array) -> pa.Array:
    lengths = pc.binary_length(countries).drop_null().to_numpy()
    letters = np.frombuffer(bytes_of(countries), np.uint8)
    if (lengths == 2).all() and ((letters >= ord("A")) & (letters <= ord("Z"))).all():
        return countries
    encoded = countries.dictionary_encode()
    return pa.array([country_code(text) for text in encoded.dictionary.to_pylist()], pa.string()).take(encoded.indices)


def _column(rows: pa.Table, name: str) -> pa.Array | None:
    """The column as one array; None where there is none or every row is null."""
    if name not in rows.schema.names or rows[name].null_count == rows.num_rows:
        return None
    chunks = rows[name]
    return chunks.chunk(0) if chunks.num_chunks == 1 else chunks.combine_chunks()


def _with(rows: pa.Table, name: str, column: pa.Array | pa.ChunkedArray) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(name), name, column)


def _without_transient(rows: pa.Table, kind: Kind) -> pa.Table:
    return rows.drop_columns([field.name for field in FIELDS[kind] if field.transient])


BOT = "bot"
_LONGEST = 1_000  # what comes later in a longer text is no longer about the browser
_DESKTOPS = frozenset(("Windows", "Mac OS X", "Linux", "Ubuntu", "Chrome OS", "Fedora", "Debian", "FreeBSD", "OpenBSD"))
_VARIANT = re.compile(r"^Mobile (?=Safari)| Mobile\b| iOS$| WebView$| UI/WKWebView$")
_TV = re.compile(
    r"smart-?tv|google ?tv|apple ?tv|hbbtv|netcast|web0s|bravia|roku|crkey|\baft[a-z]|\btv\b", re.IGNORECASE
)
_CONSOLE = re.compile(r"playstation|xbox|nintendo", re.IGNORECASE)
_TABLET = re.compile(r"ipad|tablet|kindle|silk/|playbook", re.IGNORECASE)
_PHONE = re.compile(r"iphone|ipod|mobi|phone|blackberry|opera mini", re.IGNORECASE)


class Client(NamedTuple):
    """What a user agent says; None where it does not."""

    device: str | None
    """mobile, tablet, desktop, tv, console, or bot."""
    browser: str | None
    """Family of the browser, the same on phones and on desktops: Chrome, Safari, Firefox, Edge."""
    os: str | None
    """Family of the operating system: Android, iOS, Windows, Mac OS X."""


@lru_cache(maxsize=200_000)
def client(user_agent: str) -> Client:
    """Read one user agent; a bot is what ua-parser calls a spider."""
    from ua_parser import parse

    text = user_agent[:_LONGEST]
    found = parse(text)
    browser = found.user_agent.family if found.user_agent else None
    os = found.os.family if found.os else None
    if found.device and found.device.family == "Spider":
        return Client(BOT, browser, os)
    return Client(_device(text, os), None if browser is None else _VARIANT.sub("", browser), os)


def _device(text: str, os: str | None) -> str | None:
    if _CONSOLE.search(text):
        return "console"
    if _TV.search(text):
        return "tv"
    if _TABLET.search(text):
        return "tablet"
    if _PHONE.search(text):
        return "mobile"
    if os == "Android":
        # Browsers on Android leave "Mobile" out on tablets; apps and their libraries name no browser at all.
        return "tablet" if text.startswith("Mozilla/") else "mobile"
    if os == "iOS":
        return "mobile"
    return "desktop" if os in _DESKTOPS else None
