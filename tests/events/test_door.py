"""At the door: what of judged rows is not stored, and that it is counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ingesting import event, write

from persona_cli.api import Workspace
from persona_cli.events.batch import rows_schema
from persona_cli.events.door import Admitted, DoorRules, admit
from persona_cli.events.judge import json_text
from persona_cli.events.urls import Removed, _cut_json, cut_props
from persona_cli.workspace.home import Home

SCHEMA = rows_schema("events")
PHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_2 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.2 Mobile/15E148 Safari/604.1"
)
CRAWLER = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


def admitted(*rows: dict[str, Any], rules: DoorRules = DoorRules(), kind: str = "events") -> Admitted:  # noqa: B008
    schema = rows_schema(kind)  # type: ignore[arg-type]
    full = [dict.fromkeys(schema.names) | row for row in rows]
    for row in full:
        if isinstance(row["props"], dict):
            row["props"] = json_text(row["props"])
    return admit(pa.Table.from_pylist(full, schema=schema), kind, rules)  # type: ignore[arg-type]


def one(rules: DoorRules = DoorRules(), **row: Any) -> dict[str, Any]:  # noqa: B008
    """What is left of a row, without nulls."""
    (left,) = admitted(row, rules=rules).rows.to_pylist()
    left = {name: value for name, value in left.items() if value is not None}
    return left | ({"props": json.loads(left["props"])} if "props" in left else {})


@pytest.mark.parametrize(
    ("url", "left"),
    [
        ("/search?q=red+shoes", "/search"),
        ("/a#part", "/a"),
        ("https://shop.test/a/b?token=1#x", "https://shop.test/a/b"),
        ("https://shop.test?x=1", "https://shop.test"),
        ("shop.test/a?x=1 2", "shop.test/a"),
        ("/a", "/a"),
        ("?only=query", None),
        ("http://10.1.2.3:8080/admin?x", "http://ip-address/admin"),
        ("http://me:secret@10.1.2.3/admin", "http://ip-address/admin"),
        ("//10.1.2.3", "//ip-address"),
        ("10.1.2.3", "ip-address"),
        ("10.1.2.3/a", "ip-address/a"),
        ("http://[2001:db8::1]:8/x", "http://ip-address/x"),
        ("2001:db8::1", "ip-address"),
        ("::1", "ip-address"),
        ("http://10.1.2.3.example.com/", "http://10.1.2.3.example.com/"),
        ("/10.1.2.3/x", "/10.1.2.3/x"),
        ("cafe:bar", "cafe:bar"),
        ("android-app://com.google.android.gm", "android-app://com.google.android.gm"),
    ],
)
def test_pages_and_referrers(url: str, left: str | None) -> None:
    assert one(page=url).get("page") == left
    assert one(referrer=url).get("referrer") == left


def test_targets_are_cut_only_where_they_are_urls() -> None:
    assert one(target="Really? Yes")["target"] == "Really? Yes"
    assert one(target="1.2.3.4")["target"] == "1.2.3.4"
    assert one(target="https://x.test/a?b=1")["target"] == "https://x.test/a"
    assert one(target="https://1.2.3.4/a")["target"] == "https://ip-address/a"


UNTOUCHED = {
    "text": "Really? Yes",
    "color": "#ff0000",
    "n": "1.2.3.4",
    "zip": "1",
    "anonymize_ip": True,
    "ip_country": "DE",
}


@pytest.mark.parametrize(
    ("props", "left"),
    [
        ({"url": "https://x.test/a?b=1", "n": 1}, {"url": "https://x.test/a", "n": 1}),
        ({"href": "/a?b=1 2"}, {"href": "/a"}),
        ({"host": "www.x.test?b=1"}, {"host": "www.x.test"}),
        ({"search": "?q=1&p=2"}, {"search": ""}),
        ({"text": "see https://x.test/?b=1, please?"}, {"text": "see https://x.test/ please?"}),
        (UNTOUCHED, UNTOUCHED),
        ({"a": [{"b": ["https://x.test?y=1"]}]}, {"a": [{"b": ["https://x.test"]}]}),
        ({'q"': 'https://x.test?y="1"'}, {'q"': "https://x.test"}),
        ({"https://x.test?y=1": 1, "https://x.test?y=2": 2}, {"https://x.test": 1, "https://x.test (2)": 2}),
        ({"u": "http://1.2.3.4:80/x"}, {"u": "http://ip-address/x"}),
        ({"u": "at http://[::1]/x and"}, {"u": "at http://ip-address/x and"}),
        ({"ip": "1.2.3.4"}, None),
        ({"context": {"ip": "1.2.3.4"}, "a": 1}, {"a": 1}),
        ({"context": {"IP_Address": "1.2.3.4", "b": 1}}, {"context": {"b": 1}}),
        ({"a": [{"client_ip": "x", "b": 1}]}, {"a": [{"b": 1}]}),
        ({"remote_addr": 1, "X-Forwarded-For": ["1.2.3.4"], "context.ip": "::1", "$ip": "1", "clientIp": "1"}, None),
        ({"query_string": "a=1", "page_urlquery": "b"}, None),
    ],
)  # fmt: skip
def test_props(props: dict[str, Any], left: dict[str, Any] | None) -> None:
    assert one(props=props).get("props") == left


def test_numbers_in_props_keep_their_digits() -> None:
    assert admitted({"props": '{"ip":"1.2.3.4","price":1.10,"big":1e400}'}).rows["props"].to_pylist() == [
        '{"price":1.10,"big":1e400}'
    ]


def test_campaigns_come_from_the_page_where_none_is_given() -> None:
    tagged = "/?utm_source=mailing&utm_medium=email&utm_campaign=spring%20sale&user=me"
    assert one(page=tagged)["campaign"] == "mailing/email/spring sale"
    assert one(page="/?utm_campaign=spring")["campaign"] == "spring"
    assert one(page="/?gclid=abc")["campaign"] == "google/cpc/"
    assert one(page=tagged, campaign="own")["campaign"] == "own"
    assert "campaign" not in one(page="/?a=1", referrer=tagged)


def test_what_is_counted() -> None:
    rows = [
        {"page": "/a?x", "referrer": "https://x.test?y", "ip": "1.2.3.4", "props": {"ip": "::1", "u": "//a.b?c"}},
        {"page": "/a?x", "referrer": "http://1.2.3.4/"},
        {"page": "/a", "props": {"u": ["https://a?1", "see https://a?1 and https://b?2"], "x": "\\"}},
        {"page": "/a?x", "ip": "1.2.3.4", "user_agent": CRAWLER},
    ]
    found = admitted(*rows)
    assert (found.queries, found.addresses, found.bots, found.dropped) == (7, 3, 1, 1)
    assert found.rows.num_rows == 3
    kept = admitted(*rows, rules=DoorRules(drop_bots=False))
    assert (kept.queries, kept.addresses, kept.bots, kept.dropped) == (8, 4, 1, 0)


def test_the_client_fills_only_what_is_missing() -> None:
    assert one(user_agent=PHONE) == {"device": "mobile", "browser": "Safari", "os": "iOS"}
    assert one(user_agent=PHONE, device="tablet") == {"device": "tablet", "browser": "Safari", "os": "iOS"}
    assert one(DoorRules(drop_bots=False), user_agent=CRAWLER) == {"device": "bot", "browser": "Googlebot"}


def test_queries_stay_where_the_setting_says_so_and_addresses_go() -> None:
    rules = DoorRules(strip_queries=False)
    left = one(rules, page="/?utm_source=a&utm_medium=b", referrer="http://1.2.3.4/?x", props={"u": "/a?b", "ip": "1"})
    assert left == {
        "page": "/?utm_source=a&utm_medium=b",
        "referrer": "http://ip-address/?x",
        "campaign": "a/b/",
        "props": {"u": "/a?b"},
    }


def test_countries_are_codes() -> None:
    given = ["DE", "de", "Germany", "DEU", "usa", "Türkiye", "Korea, Republic of", "Atlantis", "XK", None]
    found = admitted(*({"country": name} for name in given)).rows["country"].to_pylist()
    assert found == ["DE", "DE", "DE", "DE", "US", "TR", "KR", "Atlantis", "XK", None]


def test_a_catalogue_keeps_its_urls_and_people_lose_their_addresses() -> None:
    item = {"item_id": "a", "url": "/?id=1", "props": {"u": "/?id=1"}}
    assert admitted(item, kind="items").rows.select(["url", "props"]).to_pylist() == [
        {"url": "/?id=1", "props": '{"u":"/?id=1"}'}
    ]
    user = {"user_id": "a", "country": "Germany", "props": {"last_ip": "1.2.3.4", "plan": "pro"}}
    found = admitted(user, kind="users")
    assert found.rows.select(["country", "props"]).to_pylist() == [{"country": "DE", "props": '{"plan":"pro"}'}]
    assert found.addresses == 1


TEXTS = st.text(alphabet='ab1.:/?#=&" \\ét-', max_size=14) | st.sampled_from(
    [
        *("https://a.b?c=d", "x https://a.b/c?d e", "x //a?d e", "/p?q", "www.a.bc/d?e=f g", "a.bc?d=e", "?a=b"),
        *("http://1.2.3.4/x?y", "x http://1.2.3.4/x?y", "//[::1]/?z"),
    ]
)  # fmt: skip
KEYS = st.text(alphabet="ab?/", max_size=3) | st.sampled_from(
    ["ip", "client_ip", "x-forwarded-for", "url", "query_string", "zip"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
PROPS = st.dictionaries(KEYS, VALUES, min_size=1, max_size=3)


@given(st.lists(PROPS, min_size=1, max_size=5), st.booleans())
@settings(max_examples=100, deadline=None)
def test_columns_of_props_are_what_each_text_is_by_itself(props: list[dict[str, Any]], queries: bool) -> None:
    texts = [json_text(value) for value in props]
    together, singly = Removed(), Removed()
    found = cut_props(pa.array(texts, pa.string()), together, queries).to_pylist()
    expected = [_cut_json(text, singly, queries) for text in texts]
    assert found == expected
    assert together == singly
    once = pa.array(found, pa.string())
    assert cut_props(once, again := Removed(), queries).to_pylist() == found
    assert again == Removed()


SECRET = "sEcReT"
ADDRESSES = st.ip_addresses().map(str)
HOSTS = st.sampled_from(["shop.test", "www.shop.test:8080", "me@shop.test", "localhost"])
PATHS = st.sampled_from(["", "/", "/a", "/a b/c", "/ünï.html"])
QUERIES = st.sampled_from(
    [f"?t={SECRET}", f"?a=1&t={SECRET} {SECRET}", f"#{SECRET}", f"?{SECRET}", f"?a=b#{SECRET}?{SECRET}"]
)


@st.composite
def urls(draw: st.DrawFn) -> tuple[str, str | None]:
    """A URL that holds a secret in its query, and the address that is its host."""
    scheme = draw(st.sampled_from(["https://", "http://", "//", "custom+x://"]))
    address = draw(st.none() | ADDRESSES)
    host = draw(HOSTS) if address is None else f"[{address}]" if ":" in address else address
    return scheme + host + draw(PATHS.filter(lambda path: " " not in path)) + draw(QUERIES), address


@st.composite
def nested(draw: st.DrawFn) -> tuple[Any, list[str]]:
    """A value for props with URLs and addresses in it, and all those addresses."""
    leaf = draw(st.sampled_from(["url", "path", "text", "address", "number"]))
    addresses: list[str] = []
    value: Any = 1.5
    if leaf in ("url", "text"):
        value, address = draw(urls())
        value = value if leaf == "url" else f'he said "{value.split(" ")[0]} !'
        addresses += [address] if address else []
    elif leaf == "path":
        value = "/a/b" + draw(QUERIES)
    elif leaf == "address":
        addresses.append(draw(ADDRESSES))
        value = {draw(st.sampled_from(["ip", "client_ip", "remoteAddr", "X-Forwarded-For", "user.ip"])): addresses[0]}
    for wrap in draw(st.lists(st.sampled_from(["list", "object", "key"]), max_size=4)):
        value = (
            [value, None] if wrap == "list" else {"in": value} if wrap == "object" else {"/k" + draw(QUERIES): value}
        )
    return value, addresses


@given(
    st.lists(st.tuples(st.none() | urls(), st.none() | urls(), nested(), st.none() | ADDRESSES), min_size=1, max_size=4)
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_query_and_no_address_is_left(rows: list[Any]) -> None:
    told: list[str] = []
    given_rows = []
    for page, referrer, (value, addresses), ip in rows:
        given_rows.append(
            {
                "page": page and page[0],
                "referrer": referrer and referrer[0],
                "target": page and page[0],
                "ip": ip,
                "props": {"p": value},
            }
        )
        told += [*addresses, *(one[1] for one in (page, referrer) if one and one[1])] + ([ip] if ip else [])
    found = admitted(*given_rows)
    left = [text for row in found.rows.to_pylist() for text in row.values() if isinstance(text, str)]
    assert not [text for text in left if SECRET in text]
    # "::" and the like are in other texts too.
    assert not [text for text in left for address in told if len(address) > 3 and address in text]
    assert found.addresses == len(told) + sum(bool(page and page[1]) for page, *_ in rows)
    assert not {"ip", "user_agent"} & set(found.rows.schema.names)


@pytest.mark.parametrize("reader", ["many", "few"])
def test_nothing_reaches_the_files(reader: str, home: Home, here: Path) -> None:
    """From lines to Parquet, by layouts (many alike) and one by one (few)."""
    records = [
        event(f"u{n}", item_id=f"i{n}", context={"page": f"/p?t={SECRET}{n}", "referrer": "https://1.2.3.4/",
              "userAgent": PHONE, "ip": "1.2.3.4"}, props={"u": f"https://x.test?{SECRET}", "ip": "5.6.7.8"})
        for n in range(200 if reader == "many" else 3)
    ]  # fmt: skip
    records.append(event("bot", context={"userAgent": CRAWLER, "page": f"/?{SECRET}"}))
    report = Workspace.of(home).ingest(write(here / "events.jsonl", records))
    n = len(records) - 1
    assert (report.read, report.accepted, report.dropped, report.bots) == (n + 1, n, {"bots": 1}, 1)
    assert report.removed == {"query_strings": 2 * n, "ip_addresses": 3 * n}
    for path in (home.root / "events").rglob("*.parquet"):
        table = pq.ParquetFile(path).read()
        for name in table.schema.names:
            text = str(table[name].to_pylist())
            assert SECRET not in text and "1.2.3.4" not in text and "5.6.7.8" not in text
    frame = Workspace.of(home).events().collect()
    assert frame["device"].unique().to_list() == ["mobile"] and frame["props"].unique().to_list() == [
        '{"u":"https://x.test"}'
    ]
    again = Workspace.of(home).ingest(str(here / "events.jsonl"))
    assert (again.accepted, again.duplicates) == (0, n)


def test_aliases_and_odd_values_reject_nothing(home: Home, here: Path) -> None:
    records = [
        event("a", userAgent=PHONE, client_ip=["1.2.3.4"]),
        event("b", userAgent={"not": "text"}, client_ip={"v4": "1.2.3.4"}),
        event("c", userAgent=7, client_ip=True),
        event("d", userAgent=" ", client_ip="bad\x01"),
    ]
    report = Workspace.of(home).ingest(write(here / "events.jsonl", records))
    assert (report.accepted, report.rejected, report.removed) == (4, 0, {"ip_addresses": 4})
    frame = Workspace.of(home).events().sort("user_id").collect()
    assert frame["os"].to_list() == ["iOS", None, None, None] and frame["props"].null_count() == 4


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_have_the_same_door(suffix: str, home: Home, here: Path) -> None:
    rows = [
        {"user_id": f"u{n}", "event_type": "view", "timestamp": "2026-01-05T10:00:00Z", "user_agent": PHONE,
         "ip": "1.2.3.4", "page": "/a?b", "more": "/c?d"}
        for n in range(50)
    ]  # fmt: skip
    frame = pl.DataFrame(rows)
    (frame.write_csv if suffix == "csv" else frame.write_parquet)(here / f"events.{suffix}")
    report = Workspace.of(home).ingest(str(here / f"events.{suffix}"))
    assert (report.accepted, report.removed) == (50, {"query_strings": 100, "ip_addresses": 50})
    stored = Workspace.of(home).events().collect()
    assert stored["page"].unique().to_list() == ["/a"] and stored["props"].unique().to_list() == ['{"more":"/c"}']
    assert stored["browser"].unique().to_list() == ["Safari"]


def test_ids_are_those_of_the_line_as_it_came(make_home: Callable[[], Home], here: Path) -> None:
    """A made id depends on no setting of the door: only on who, what, when, value and session."""
    ids = []
    bare = event("u", item_id="i", target="https://x.test/a?b", value=1)
    for context in ({}, {"page": "/a?b", "ip": "1.2.3.4", "user_agent": PHONE}):
        home = make_home()
        Workspace.of(home).ingest(write(here / "events.jsonl", [bare | {"context": context}]))
        ids += Workspace.of(home).events().collect()["event_id"].to_list()
    assert ids[0] == ids[1]


def test_lines_of_the_quarantine_pass_the_door_too(home: Home, here: Path) -> None:
    good = event("u", context={"page": "/a"})
    late = event("v", context={"page": f"/a?{SECRET}", "userAgent": PHONE, "ip": "1.2.3.4"})
    late["sent"] = late.pop("timestamp")
    bot = late | {"context": {"userAgent": CRAWLER}}
    Workspace.of(home).ingest(write(here / "events.jsonl", [good, late, bot]))
    done = Workspace.of(home).retry(maps=["timestamp=sent", "user_agent=context.userAgent"])
    assert (done.read, done.accepted, done.rejected, done.dropped) == (2, 1, 0, 1)
    frame = Workspace.of(home).events().filter(pl.col("user_id") == "v").collect()
    assert frame["page"].to_list() == ["/a"] and frame["device"].to_list() == ["mobile"]
