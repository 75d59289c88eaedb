"""How fast dialects are read: the same events as other systems write them, beside native JSON lines, in one run.

    python benchmarks/dialects.py [--events 100000] [--repeat 3] [--only segment]

Views and purchases with what such events carry (page, referrer, user agent, campaign, country), and ratings. Only
reading is timed, from the file to judged rows (no door, no duplicates, no table): processor seconds, the best of the
repeats, native and each dialect in turn. Purchases of one product, so that a record is a row everywhere; `batches` are
segment calls ten a line.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from persona_cli.events import reading
from persona_cli.events.dialects import choose
from persona_cli.events.dialects.snowplow import COLUMNS
from persona_cli.events.opening import Format, Input
from persona_cli.workspace.settings import load

Event = dict[str, Any]
AGENT = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36"
SETTINGS = load(None, {})


def events(n: int) -> Iterator[Event]:
    rng = random.Random(6)
    for number in range(n):
        moment = 1_767_225_600_000 + number * 7_001  # milliseconds
        yield {
            "id": f"{rng.getrandbits(128):032x}", "user": f"u{rng.randrange(20_000)}",
            "item": f"p{rng.randrange(5_000)}",
            "ms": moment, "iso": datetime.fromtimestamp(moment / 1000, UTC).isoformat(timespec="milliseconds"),
            "session": f"s{number // 9}", "bought": rng.random() < 0.2, "price": rng.randrange(100, 9_999) / 100,
            "country": rng.choice(("DE", "FR", "US")), "stars": rng.randrange(1, 6),
            "campaign": "spring" if rng.random() < 0.3 else None,
        }  # fmt: skip


def native(one: Event) -> Event:
    more = {"value": one["price"], "currency": "EUR"} if one["bought"] else {}
    context = {"page": f"/p/{one['item']}", "referrer": "https://search.example/", "country": one["country"],
               "locale": "de-DE", "user_agent": AGENT, "campaign": one["campaign"]}  # fmt: skip
    return {"event_id": one["id"], "user_id": one["user"], "event_type": "purchase" if one["bought"] else "view",
            "item_id": one["item"], "timestamp": one["iso"], "session_id": one["session"], **more,
            "context": context, "props": {"name": "Shoe", "category": "Shoes"}}  # fmt: skip


def segment(one: Event) -> Event:
    product = {"product_id": one["item"], "name": "Shoe", "category": "Shoes", "price": one["price"]}
    order = {"order_id": one["id"][:8], "currency": "EUR", "products": [product | {"quantity": 1}]}
    page = {"path": f"/p/{one['item']}", "url": f"https://shop.example/p/{one['item']}", "title": "Shoe",
            "referrer": "https://search.example/"}  # fmt: skip
    context = {"page": page, "userAgent": AGENT, "ip": "203.0.113.7", "locale": "de-DE",
               "location": {"country": one["country"]}, "sessionId": one["session"],
               "library": {"name": "analytics.js", "version": "2.1.0"}}  # fmt: skip
    if one["campaign"]:
        context["campaign"] = {"name": one["campaign"], "source": "mail", "medium": "email"}
    return {"type": "track", "event": "Order Completed" if one["bought"] else "Product Viewed", "userId": one["user"],
            "anonymousId": one["user"][::-1], "messageId": one["id"], "timestamp": one["iso"],
            "receivedAt": one["iso"], "sentAt": one["iso"], "properties": order if one["bought"] else product,
            "context": context, "integrations": {}}  # fmt: skip


def ga4(one: Event) -> Event:
    given = {"ga_session_id": {"int_value": one["session"][1:]}, "page_location": {"string_value": f"/p/{one['item']}"},
             "page_referrer": {"string_value": "https://search.example/"}, "engaged": {"int_value": "1"}}  # fmt: skip
    return {"event_date": "20260101", "event_timestamp": str(one["ms"] * 1000), "user_pseudo_id": one["user"],
            "event_name": "purchase" if one["bought"] else "view_item", "batch_page_id": str(one["ms"]),
            "event_params": [{"key": key, "value": value} for key, value in given.items()],
            "items": [{"item_id": one["item"], "item_name": "Shoe", "price": one["price"], "quantity": "1"}],
            "device": {"category": "desktop", "operating_system": "Windows", "language": "de-de"},
            "geo": {"country": "Germany", "region": "Berlin"},
            "collected_traffic_source": {"manual_campaign_name": one["campaign"]}}  # fmt: skip


def snowplow(one: Event) -> str:
    raw = one["id"]
    when = one["iso"][:23].replace("T", " ")
    product = {
        "schema": "iglu:com.snowplowanalytics.snowplow.ecommerce/product/jsonschema/1-0-0",
        "data": {"id": one["item"], "name": "Shoe", "category": "Shoes", "price": one["price"], "quantity": 1},
    }
    action = {"schema": "iglu:com.snowplowanalytics.snowplow.ecommerce/snowplow_ecommerce_action/jsonschema/1-0-2",
              "data": {"type": "transaction" if one["bought"] else "product_view"}}  # fmt: skip
    cells = {
        "event_id": "-".join((raw[:8], raw[8:12], raw[12:16], raw[16:20], raw[20:])), "event": "unstruct",
        "collector_tstamp": when, "derived_tstamp": when, "dvce_created_tstamp": when, "user_id": one["user"],
        "domain_userid": one["user"][::-1], "domain_sessionid": one["session"],
        "event_name": "snowplow_ecommerce_action",
        "page_url": f"https://shop.example/p/{one['item']}", "page_urlhost": "shop.example",
        "page_urlpath": f"/p/{one['item']}", "page_referrer": "https://search.example/", "geo_country": one["country"],
        "mkt_campaign": one["campaign"] or "", "useragent": AGENT, "user_ipaddress": "203.0.113.7", "br_lang": "de-DE",
        "contexts": json.dumps({"schema": "iglu:c/contexts/jsonschema/1-0-0", "data": [product]}),
        "unstruct_event": json.dumps({"schema": "iglu:c/unstruct_event/jsonschema/1-0-0", "data": action}),
    }  # fmt: skip
    return "\t".join(cells.get(name, "") for name in COLUMNS)


def cloudevents(one: Event) -> Event:
    data = {"user_id": one["user"], "item_id": one["item"], "price": one["price"], "country": one["country"]}
    return {"specversion": "1.0", "id": one["id"], "source": "/shop", "type": "shop.item.viewed", "time": one["iso"],
            "datacontenttype": "application/json", "data": data}  # fmt: skip


def otto(some: Iterable[Event]) -> Iterator[Event]:
    held: list[Event] = []
    for number, one in enumerate(some, 1):
        held.append({"aid": int(one["item"][1:]), "ts": one["ms"], "type": "orders" if one["bought"] else "clicks"})
        if number % 10 == 0:
            yield {"session": number // 10, "events": held}
            held = []


def rating(one: Event, separator: str) -> str:
    return separator.join((one["user"][1:], one["item"][1:], str(one["stars"]), str(one["ms"] // 1000)))


def personalize(one: Event) -> str:
    kind = "Purchase" if one["bought"] else "View"
    return ",".join((one["user"], one["item"], str(one["ms"] // 1000), kind, str(one["price"]), one["session"]))


def _json(records: Iterable[Event]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def _lines(rows: Iterable[str], header: str = "") -> str:
    return header + "".join(row + "\n" for row in rows)


def files(n: int) -> dict[str, tuple[str, Format, Callable[[], str]]]:
    """Name → dialect, format, and what makes the text."""

    def of(make: Callable[[Event], Event]) -> Callable[[], str]:
        return lambda: _json(map(make, events(n)))

    def batches() -> str:
        calls = [segment(one) for one in events(n)]
        return _json({"batch": calls[at : at + 10]} for at in range(0, n, 10))

    return {
        "native JSON lines": ("native", "jsonl", of(native)),
        "segment": ("segment", "jsonl", of(segment)),
        "segment, batches": ("segment", "jsonl", batches),
        "ga4": ("ga4", "jsonl", of(ga4)),
        "snowplow": ("snowplow", "tsv", lambda: _lines(map(snowplow, events(n)))),
        "cloudevents": ("cloudevents", "jsonl", of(cloudevents)),
        "otto": ("otto", "jsonl", lambda: _json(otto(events(n)))),
        "personalize": ("personalize", "csv", lambda: _lines(
            map(personalize, events(n)), "USER_ID,ITEM_ID,TIMESTAMP,EVENT_TYPE,EVENT_VALUE,SESSION_ID\n")),
        "movielens u.data": ("movielens", "tsv", lambda: _lines(rating(one, "\t") for one in events(n))),
        "movielens ratings.csv": ("movielens", "csv", lambda: _lines(
            (rating(one, ",") for one in events(n)), "userId,movieId,rating,timestamp\n")),
        "movielens ratings.dat": ("movielens", "csv", lambda: _lines(rating(one, "::") for one in events(n))),
    }  # fmt: skip


def read(path: Path, dialect: str, format: Format) -> tuple[float, float, int]:
    """Processor seconds, seconds and accepted rows."""
    source = Input(str(path), path, format)
    choice = choose(dialect, "events", SETTINGS)
    gc.collect()
    began, processor = time.perf_counter(), time.process_time()
    found = list(reading.batches(source, "events", [], SETTINGS, 4_000_000_000_000_000, choice=choice))
    took = time.process_time() - processor, time.perf_counter() - began
    assert not sum(len(batch.rejects) for batch in found), found[0].rejects[:1]
    return *took, sum(batch.rows.num_rows for batch in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        chosen = {name: one for name, one in files(asked.events).items() if asked.only in name or one[0] == "native"}
        paths: dict[str, Path] = {}
        for number, (name, (_, _, text)) in enumerate(chosen.items()):
            paths[name] = Path(folder, str(number))
            paths[name].write_text(text(), encoding="utf-8")
        best: dict[str, tuple[float, float, int]] = {}
        for _ in range(asked.repeat):
            for name, (dialect, format, _) in chosen.items():
                took = read(paths[name], dialect, format)
                best[name] = min(best.get(name, took), took)
        base = best["native JSON lines"]
        print("| file | MB | rows | rows a processor second | x native's time | seconds |\n|---|---|---|---|---|---|")
        for name, (processor, seconds, rows) in best.items():
            size = paths[name].stat().st_size / 1e6
            ratio = processor / rows / (base[0] / base[2])
            print(f"| {name} | {size:.0f} | {rows:,} | {rows / processor:,.0f} | {ratio:.1f} | {seconds:.2f} |")


if __name__ == "__main__":
    main()
