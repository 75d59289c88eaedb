"""No dialect takes the files of another for its own, nor native ones; and no damage makes one crash."""

from __future__ import annotations

import csv
import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_cli.events.dialects import built_in
from persona_cli.events.dialects.dialect import Choice, Dialect, Dropped, Rejected
from persona_cli.events.dialects.snowplow import COLUMNS
from persona_cli.events.opening import Block
from persona_cli.events.schema import FIELDS
from persona_cli.events.translation import of_lines
from tests.events.speaking import SHARED, heard, lines

OURS = ("snowplow", "ga4", "cloudevents", "personalize", "movielens", "otto")
DIALECTS = [one for one in built_in() if one.name in OURS]
SAMPLE_DATA = Path(__file__).parents[2] / "sample_data"

GENRES = ["0"] * 18 + ["1"]
_SNOWPLOW = dict.fromkeys(COLUMNS) | {
    "event_id": "c6ef3124-b53a-4b13-a233-0088f79dcbcb", "collector_tstamp": "2013-11-26 00:02:05",
    "derived_tstamp": "2013-11-26 00:02:04", "event": "page_ping", "domain_userid": "d", "doc_height": "900",
    "br_viewheight": "300", "pp_yoffset_max": "10", "page_url": "https://a.example/b?c=d",
    "contexts": '{"data":[{"schema":"iglu:a/web_page/jsonschema/1-0-0","data":{"id":"w"}}]}',
}  # fmt: skip
# A record of each dialect; those of tables without header by the cells of a line.
SAMPLES: dict[tuple[str, str, int], list[dict[str, Any]]] = {
    ("snowplow", "events", 131): [_SNOWPLOW],
    ("otto", "events", 0): [{"session": 1, "events": [{"aid": 1, "ts": 1_659_304_800_025, "type": "clicks"}]}],
    ("cloudevents", "events", 0): [
        {"specversion": "1.0", "id": "1", "source": "/s", "type": "a.b", "time": "2024-01-31T12:00:00Z",
         "data": {"userId": "u", "items": [{"sku": "a", "price": 1}]}}
    ],
    ("personalize", "events", 0): [{"USER_ID": "u", "ITEM_ID": "i", "TIMESTAMP": "1596238243", "IMPRESSION": "a|b"}],
    ("personalize", "items", 0): [{"ITEM_ID": "i", "GENRES": "a|b", "CREATION_TIMESTAMP": "1596238243"}],
    ("personalize", "users", 0): [{"USER_ID": "u", "AGE": "30"}],
    ("movielens", "events", 0): [{"userId": "1", "movieId": "2", "tag": "slow", "timestamp": "1500000000"}],
    ("movielens", "items", 0): [{"movieId": "2", "title": "Heat (1995)", "genres": "Action|Crime"}],
}  # fmt: skip
GA4 = {
    "event_name": "purchase", "event_timestamp": "1725971700123456", "user_pseudo_id": "p", "user_id": None,
    "event_params": [{"key": "ga_session_id", "value": {"int_value": "5"}}], "items": [{"item_id": "a", "price": 2.0}],
    "device": {"category": "mobile"}, "privacy_info": {"ads_storage": "No"},
}  # fmt: skip
FLAT = {"_fivetran_id": "1", "name": "scroll", "timestamp": "2024-09-10 12:35:00", "user_pseudo_id": "p",
        "param_ga_session_id": "5", "param_percent_scrolled": "50"}  # fmt: skip
HEADERLESS = {
    "u.data (100k)": "1\t2\t3\t881250949",
    "u.item (100k)": "|".join(["1", "Heat (1995)", "01-Jan-1995", "", "", *GENRES]),
    "u.user (100k)": "1|24|M|technician|85711", "ratings.dat (1M, 10M)": "1::2::4.5::978300760",
    "tags.dat (10M)": "1::2::slow::978300760", "movies.dat (1M, 10M)": "1::Heat (1995)::Action|Crime",
    "users.dat (1M)": "1::M::24::7::85711",
}  # fmt: skip


# A tag may be a number: the order decides, ratings first.
RATINGS_OR_TAGS = {
    "movielens-events-MovieLens ratings.dat (1M, 10M)",
    "movielens-events-MovieLens tags.dat (10M)",
}


def sample(one: Dialect) -> list[dict[str, Any]]:
    if one.name == "ga4":
        return [GA4] if "event_name" in one.sources["event_type"] else [FLAT]
    if one.name == "movielens" and one.columns:
        cells = HEADERLESS[one.about.removeprefix("MovieLens ")].split(one.separator or "\t")
        return [{name: cell or None for name, cell in zip(one.columns, cells, strict=True)}]
    return SAMPLES[one.name, one.kind, len(one.columns)]


def knows(one: Dialect, records: list[dict[str, Any]]) -> bool:
    return bool(records) and one.recognises([part for record in records for part in one.unpack(record)][:100])


def ids(one: Dialect) -> str:
    return f"{one.name}-{one.kind}-{one.about}"


@pytest.mark.parametrize("one", DIALECTS, ids=ids)
def test_each_knows_its_own_sample_and_takes_it(one: Dialect) -> None:
    assert knows(one, sample(one))
    rows, reasons = heard(one, sample(one))
    assert rows and not reasons


def test_no_dialect_knows_what_another_says() -> None:
    """Tables without header are told apart by the number of cells, then by what these look like."""
    everybody = built_in()
    for one in DIALECTS:
        for other in everybody:
            if other is one or other.kind != one.kind or (one.columns and not other.columns):
                continue
            records = sample(one)
            if other.columns:
                cells = list(records[0].values())
                if not one.columns or len(cells) != len(other.columns) or one.separator != other.separator:
                    continue
                records = [dict(zip(other.columns, cells, strict=True))]
            both = {ids(one), ids(other)}
            if both == {
                "movielens-events-MovieLens ratings.dat (1M, 10M)",
                "movielens-events-MovieLens tags.dat (10M)",
            }:
                continue  # a tag may be a number: the order decides, ratings first
            assert not knows(other, records), both


def test_a_header_over_ratings_is_no_damaged_line() -> None:
    """Nine in ten lines make a file one of a dialect, but the first line of a table without header is one of them."""
    choice = Choice(tuple(one for one in DIALECTS if one.kind == "events"))
    rated = "".join(f"{user}\t2\t3\t881250949\n" for user in range(1, 60))
    named = Block(("user_id\titem_id\trating\ttimestamp\n" + rated).encode(), 1, 0)
    assert of_lines(named, "tsv", choice, 1 << 20) is None
    damaged = Block((rated + "60\t2\tmuch\t881250949\n").encode(), 1, 0)
    found = of_lines(damaged, "tsv", choice, 1 << 20)
    assert found is not None and found.about == "MovieLens u.data (100k)"


def test_no_dialect_knows_native_records() -> None:
    natives: dict[str, list[dict[str, Any]]] = {
        kind: [{field.name: "1" for field in fields}, {field.name: "1" for field in fields[:6]}]
        for kind, fields in FIELDS.items()
    }
    natives["events"] += [
        {"user_id": "1", "item_id": "2", "event_type": "rating", "value": "4", "timestamp": "1500000000"},
        {"userId": "1", "movieId": "2", "event": "click", "timestamp": "1500000000"},
        {"USER_ID": "1", "ITEM_ID": "2", "event_type": "click", "timestamp": "1500000000"},
        {"user": "1", "item": "2", "rating": "4", "timestamp": "1500000000"},
    ]
    natives["items"] += [{"item_id": "1", "title": "a", "genres": "b"}, {"id": "1", "name": "a"}]
    natives["users"] += [{"id": "1", "country": "DE"}]
    for one in DIALECTS:
        for record in natives[one.kind]:
            assert one.columns or not knows(one, [record]), (ids(one), record)


@pytest.mark.skipif(not SAMPLE_DATA.exists(), reason="the sample data is not here")
def test_no_dialect_knows_the_sample_data() -> None:
    with gzip.open(SAMPLE_DATA / "events.jsonl.gz") as file:
        events = [json.loads(line) for line, _ in zip(file, range(40), strict=False) if line.startswith(b'{"')]
    assert events
    samples = {"events": events, "items": lines(SAMPLE_DATA / "items.jsonl")}
    with (SAMPLE_DATA / "users.csv").open() as file:
        samples["users"] = list(csv.DictReader(file))
    assert not [ids(one) for one in DIALECTS if knows(one, samples[one.kind])]


@pytest.mark.skipif(not SHARED.exists(), reason="real files are not here")
def test_each_real_file_is_known_to_one() -> None:
    found = {}
    for path in sorted(SHARED.iterdir()):
        if path.suffix == ".jsonl":
            records = lines(path)
        elif path.suffix == ".csv":
            with path.open() as file:
                header, *rows = csv.reader(file)
            records = [dict(zip(header, row, strict=True)) for row in rows]
        else:
            records = [dict(zip(COLUMNS, path.read_text().split("\t"), strict=True))]
        found[path.stem] = {one.name for one in built_in() if knows(one, records)} - {"rudderstack"}
    assert found == {
        "cloudevents_spec": {"cloudevents"}, "ga4_export_flat": {"ga4"}, "github_webhooks": set(),
        "mixpanel_events": set(), "otto_sample": {"otto"}, "segment_spec": {"segment"},
        "segment_warehouse_pages": {"segment"}, "snowplow_enriched": {"snowplow"},
    }  # fmt: skip


JUNK: list[Any] = [
    None, "", " ", "x", "\ud800", "-1", "1e400", "(not set)", "2024-13-01", 0, -1, 10**30, 1.5, True, [], [1], [[]],
    [None], {}, {"": {}}, {"key": "a"}, [{"key": 1}], [{"id": {}}], {"data": []}, {"schema": "iglu:a/b/c/1"}, "{",
    '{"data":[7]}',
]  # fmt: skip


def damaged(value: Any, dice: random.Random) -> Any:
    """A copy with something in it replaced, renamed or taken away."""
    if isinstance(value, dict) and value and dice.random() < 0.9:
        key = dice.choice(list(value))
        changed = {name: inner for name, inner in value.items() if name != key or dice.random() < 0.9}
        if key in changed:
            changed[key] = damaged(value[key], dice)
        return changed
    if isinstance(value, list) and value and dice.random() < 0.7:
        place = dice.randrange(len(value))
        return [*value[:place], damaged(value[place], dice), *value[place + 1 :]]
    if isinstance(value, str) and value and dice.random() < 0.4:
        place = dice.randrange(len(value))
        return value[:place] + dice.choice(['"', "{", "\0", "|", "é", ""]) + value[place + 1 :]
    return dice.choice(JUNK)


def survives(one: Dialect, seed: int) -> None:
    dice = random.Random(seed)
    record = dice.choice(sample(one))
    for _ in range(dice.randint(1, 3)):
        record = damaged(record, dice)
        if not isinstance(record, dict):
            return
    one.recognises([record]) if one.columns and len(record) == len(one.columns) else None
    for part in one.unpack(record):
        if isinstance(part, dict):
            try:
                natives = one.records(part)
            except (Rejected, Dropped):
                continue
            names = {field.name for field in FIELDS[one.kind]} | {"props"}
            assert natives and all(native.keys() <= names for native in natives)


@pytest.mark.parametrize("one", DIALECTS, ids=ids)
@given(seed=st.integers(0, 2**32))
def test_damaged_records_are_turned_away_or_read(one: Dialect, seed: int) -> None:
    survives(one, seed)
