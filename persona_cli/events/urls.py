"""Query strings, fragments and IP addresses taken out of URLs, and out of the JSON text of `props`.

A URL is a text that begins as one (`https://…`, `//host/…`, `/path`, `host.tld/…`), or one with `//` inside of
other text. All that follows its first `?` or `#` goes. An IP address as the host gives way to `ip-address`, with its
port and its user name. A key of `props` that names an IP address or a query string goes with its value.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from persona_cli.events.judge import json_text, parse_json
from persona_cli.events.referrers import IP_HOST

Mask = npt.NDArray[np.bool_]
# These patterns mean the same to Python (ASCII) and to Arrow's RE2.
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*:"
_NAME = r"(?:[A-Za-z0-9_-]+\.)+[A-Za-z]{2,}(?::[0-9]+)?"
_BEGIN = rf'(?:(?:{_SCHEME})?//|/|{_NAME}/)[^\s"?#]*'
_WITHIN = rf'((?:{_SCHEME})?//[^\s?#"<>]*)[?#][^\s"<>]*'
_BARE = rf'({_NAME})\?[^\s"]*='
_ALONE = r'\?[^\s"=]+='
_IPV4 = r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}"
_IP_BEGINS = rf"(?i)(?:^|//|@)(?:{_IPV4}|\[?[0-9a-f]{{0,4}}:[0-9a-f]{{0,4}}:)"
# Words before "ip" stand apart from it (client_ip), or are some that people write without a gap (clientIp): no "zip".
_IP_KEY = (
    r"(?:[^\"]*[./])?[$@_]*(?:"
    r"(?:(?:[a-z0-9]+[_ -])*|client|remote|user|visitor|source|src|peer|real|last|request)ips?"
    r"(?:[_ -]?(?:v?[46]|addr(?:ess(?:es)?)?))?"
    r"|(?:[a-z0-9]+[_ -])*remote[_ -]?addr(?:ess)?"
    r"|(?:[a-z0-9]+[_ -])*(?:x[_ -]?)?forwarded[_ -]?for)"
)
_QUERY_KEY = r"(?:[^\"]*[./])?(?:[a-z]+_)?(?:query_?string|url_?query|url_?fragment)"
# What of the JSON text of props has to be looked at, and which of that is more than values without escapes to be cut.
_KEYS = rf'(?i)"(?:{_IP_KEY}|{_QUERY_KEY})":'
_ADDRESS_MEMBERS = (
    (rf'(?i),"(?:{_IP_KEY})":"[^"]*"', ""),
    (rf'(?i)\{{"(?:{_IP_KEY})":"[^"]*",', "{"),
    (rf'(?i)\{{"(?:{_IP_KEY})":"[^"]*"\}}', "{}"),
)
_QUERIES = rf'"(?:{_BEGIN}[?#]|{_BARE}|{_ALONE})|{_WITHIN}'
_HOSTS = rf'(?i)//(?:[^/?#@"]*@)?(?:{_IPV4}|\[?[0-9a-f]{{0,4}}:[0-9a-f]{{0,4}}:)'
_NOT_PLAIN = r'\\|[?#][^"]*":'
_IS_IP_KEY = re.compile(_IP_KEY, re.IGNORECASE | re.ASCII)
_IS_QUERY_KEY = re.compile(_QUERY_KEY, re.IGNORECASE | re.ASCII)
_CUT_BEGIN = re.compile(rf"({_BEGIN})[?#].*", re.ASCII | re.DOTALL)
_CUT_BARE = re.compile(_BARE + ".*", re.ASCII | re.DOTALL)
_CUT_ALONE = re.compile(_ALONE + ".*", re.ASCII | re.DOTALL)
_CUT_WITHIN = re.compile(_WITHIN, re.ASCII)
_IP = re.compile(
    rf"((?:{_SCHEME})?//)?(?:[^/?#@\s]*@)?"
    rf"(?:{_IPV4}\.?|(\[[^]/]*\]|[0-9a-f:.]*:[0-9a-f:.]*:[0-9a-f:.]*(?:%[\w.-]+)?))(?::\d+)?(?=[/?#]|$)",
    re.IGNORECASE | re.ASCII,
)
_ABSOLUTE = re.compile(rf"(?:{_SCHEME})?//", re.ASCII)
_IP_WITHIN = re.compile(r'(?<=//)[^\s"<>]*', re.ASCII)
# None of these in the JSON text, in lower case: then no key of it is to go.
_KEY_PARTS = (b'ip"', b'ips"', b"ipv", b"ip4", b"ip6", b"addr", b"forwarded", b"query", b"fragment")


@dataclass
class Removed:
    """What was taken out so far."""

    queries: int = 0
    addresses: int = 0


def without_address(url: str) -> str | None:
    """The URL with `ip-address` for a host that is an IP address; None where the host is none."""
    found = _IP.match(url)
    if found is None or (found[2] is not None and not _is_ipv6(found[2])):
        return None
    return (found[1] or "") + IP_HOST + url[found.end() :]


def cut_text(text: str, removed: Removed, queries: bool = True) -> str:
    """A text of `props` without the queries and addresses of the URLs in it; adds to what was removed."""
    if queries and ("?" in text or "#" in text):
        text = _cut_queries(text, removed)
    if _ABSOLUTE.match(text) and (hidden := without_address(text)) is not None:
        removed.addresses += 1
        text = hidden
    if "//" in text:
        text = _IP_WITHIN.sub(lambda found: _hide(found, removed), text)
    return text


def _cut_queries(text: str, removed: Removed) -> str:
    for pattern, kept in ((_CUT_BEGIN, 1), (_CUT_BARE, 1), (_CUT_ALONE, None)):
        if (found := pattern.match(text)) is not None:
            removed.queries += 1
            return found[kept] if kept else ""
    text, n = _CUT_WITHIN.subn(r"\1", text)
    removed.queries += n
    return text


def _hide(found: re.Match[str], removed: Removed) -> str:
    hidden = without_address(found[0])
    if hidden is None:
        return found[0]
    removed.addresses += 1
    return hidden


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text.strip("[]").partition("%")[0]).version == 6
    except ValueError:
        return False


def cut_column(column: pa.Array, removed: Removed, queries: bool, *, cut_all: bool) -> pa.Array:
    """URLs (n,) without queries and addresses; null stays null, and what is nothing but a query becomes null.

    With `cut_all` any text is cut at its first `?` or `#`, else only one that begins with a scheme or `//`.
    """
    held = bytes_of(column)
    has_query = queries and (b"?" in held or b"#" in held)
    has_host = not _all_paths(column) if cut_all else b"//" in held
    if not has_host and not (has_query and cut_all):
        return column
    encoded = column.dictionary_encode()
    texts, times = encoded.dictionary, _times(encoded)
    if has_query:
        pattern = r"(?s)^([^?#]*)[?#].*$" if cut_all else rf"(?s)^((?:{_SCHEME})?//[^?#]*)[?#].*$"
        removed.queries += int(times[_matches(texts, pattern)].sum())
        texts = pc.replace_substring_regex(texts, pattern, r"\1")
        texts = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
    suspects = np.flatnonzero(_matches(texts, _IP_BEGINS))
    if len(suspects):
        values = texts.to_pylist()
        for place in suspects.tolist():
            if (cut_all or _ABSOLUTE.match(values[place])) and (hidden := without_address(values[place])) is not None:
                removed.addresses += int(times[place])
                values[place] = hidden
        texts = pa.array(values, pa.string())
    return texts.take(encoded.indices)


def cut_props(column: pa.Array, removed: Removed, queries: bool) -> pa.Array:
    """JSON texts (n,) without the queries and addresses in them; null where nothing is left."""
    held = bytes_of(column)
    lower = held.lower()
    nowhere = np.zeros(len(column), bool)
    keyed = _matches(column, _KEYS) if any(part in lower for part in _KEY_PARTS) else nowhere
    asked = _matches(column, _QUERIES) if queries and (b"?" in held or b"#" in held) else nowhere
    hard = _matches(column, _HOSTS) if b"//" in held else nowhere
    easy = np.flatnonzero((keyed | asked) & ~hard)
    easy = easy[~_matches(column.take(pa.array(easy)), _NOT_PLAIN)]
    texts, counts, done = _without_keys(column.take(pa.array(easy)), keyed[easy])
    easy, texts = easy[done], texts.filter(pa.array(done))
    removed.addresses += int(counts[done].sum())
    rows = np.setdiff1d(np.flatnonzero(keyed | asked | hard), easy, assume_unique=True)
    column = _replaced(column, easy, _cut_plain(texts, removed) if queries else texts)
    if not len(rows):
        return column
    encoded = column.take(pa.array(rows)).dictionary_encode()
    cut = []
    for text, n in zip(encoded.dictionary.to_pylist(), _times(encoded).tolist(), strict=True):
        one = Removed()
        cut.append(_cut_json(text, one, queries))
        removed.queries += n * one.queries
        removed.addresses += n * one.addresses
    return _replaced(column, rows, pa.array(cut, pa.string()).take(encoded.indices))


def _without_keys(texts: pa.Array, keyed: Mask) -> tuple[pa.Array, npt.NDArray[np.int64], Mask]:
    """JSON texts without escapes (n,) with no keys of addresses whose values are texts; how many; where that is all."""
    counts = np.zeros(len(texts), np.int64)
    if not keyed.any():
        return texts, counts, ~keyed
    for pattern, kept in _ADDRESS_MEMBERS:
        counts += pc.count_substring_regex(texts, pattern).to_numpy()
        texts = pc.replace_substring_regex(texts, pattern, kept)
    # An object that has become empty goes too, which takes more than this.
    done = ~_matches(texts, _KEYS) & ~(keyed & _matches(texts, r".\{\}"))
    return pc.if_else(pc.equal(texts, "{}"), pa.scalar(None, pa.string()), texts), counts, done


def _cut_plain(texts: pa.Array, removed: Removed) -> pa.Array:
    """JSON texts without escapes whose keys are no URLs: every string ends at the next quote."""
    for pattern, kept in (
        (rf'"({_BEGIN})[?#][^"]*"', r'"\1"'),
        (rf'"{_BARE}[^"]*"', r'"\1"'),
        (rf'"{_ALONE}[^"]*"', '""'),
        (_WITHIN, r"\1"),
    ):
        removed.queries += pc.sum(pc.count_substring_regex(texts, pattern)).as_py() or 0
        texts = pc.replace_substring_regex(texts, pattern, kept)
    return texts


def _cut_json(text: str, removed: Removed, queries: bool) -> str | None:
    left = _walked(parse_json(text.encode()), lambda inner: cut_text(inner, removed, queries), removed, queries)
    return json_text(left) if left else None


def _walked(value: Any, cut: Callable[[str], str], removed: Removed, queries: bool) -> Any:
    if isinstance(value, str):
        return cut(value)
    if isinstance(value, list):
        return [_walked(inner, cut, removed, queries) for inner in value]
    if not isinstance(value, dict):
        return value
    left: dict[str, Any] = {}
    for key, inner in value.items():
        if not isinstance(inner, bool) and inner is not None:
            if _IS_IP_KEY.fullmatch(key):
                removed.addresses += 1
                continue
            if queries and _IS_QUERY_KEY.fullmatch(key):
                removed.queries += 1
                continue
        walked = _walked(inner, cut, removed, queries)
        if walked == {} and inner != {}:
            continue
        key = name = cut(key)
        number = 1
        while name in left:
            number += 1
            name = f"{key} ({number})"
        left[name] = walked
    return left


def bytes_of(column: pa.Array) -> bytes:
    """The characters of all texts of a column, one after the other."""
    _, offsets, characters = column.buffers()
    if characters is None or not len(column):
        return b""
    places = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    return bytes(memoryview(characters)[int(places[0]) : int(places[-1])])


def _all_paths(column: pa.Array) -> bool:
    """Whether every text begins with one slash and not with two: then it names no host."""
    _, offsets, characters = column.buffers()
    places = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    octets = np.frombuffer(characters, np.uint8) if characters is not None else np.zeros(0, np.uint8)
    begin, length = places[:-1], np.diff(places)
    begin, length = begin[length > 0], length[length > 0]
    if not len(begin):
        return True
    second = octets[np.minimum(begin + 1, len(octets) - 1)]
    return bool(((octets[begin] == ord("/")) & ((length == 1) | (second != ord("/")))).all())


def _times(encoded: pa.DictionaryArray) -> npt.NDArray[np.int64]:
    """How often each value of the dictionary comes."""
    return np.bincount(encoded.indices.drop_null().to_numpy(), minlength=len(encoded.dictionary))


def _matches(texts: pa.Array, pattern: str) -> Mask:
    found: Mask = pc.fill_null(pc.match_substring_regex(texts, pattern), False).to_numpy(zero_copy_only=False)
    return found


def _replaced(column: pa.Array, at: npt.NDArray[np.int64], new: pa.Array) -> pa.Array:
    """The column with other values at these rows."""
    if not len(at):
        return column
    place = np.arange(len(column))
    place[at] = np.arange(len(column), len(column) + len(at))
    return pa.concat_arrays([column, new]).take(pa.array(place))
