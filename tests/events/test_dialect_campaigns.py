"""The campaign of an event as `source/medium/name`, so that a medium can say more than the referrer."""

from __future__ import annotations

import pytest
from speaking import Record, dialect, hear

from persona_cli.events.dialects.dialect import Dialect, event_type
from persona_cli.events.dialects.snowplow import COLUMNS
from persona_cli.events.dialects.split import drop
from persona_cli.events.referrers import class_of_campaign

SEGMENT = dialect("segment")
GA4 = dialect("ga4", key="event_name")
FLAT = dialect("ga4", key="_fivetran_id")
SNOWPLOW = dialect("snowplow", columns=131)
AT = "2026-01-05T10:00:00Z"


def segment(**campaign: object) -> Record:
    return {"type": "track", "event": "x", "userId": "u", "timestamp": AT, "context": {"campaign": campaign}}


def ga4(**more: object) -> Record:
    return {"event_name": "x", "event_timestamp": 1_767_607_200_000_000, "user_pseudo_id": "a"} | more


def parameters(**texts: str) -> Record:
    return {"event_params": [{"key": key, "value": {"string_value": text}} for key, text in texts.items()]}


def flat(**more: object) -> Record:
    return {"_fivetran_id": "f", "name": "x", "timestamp": AT, "user_pseudo_id": "a", "param_ga_session_id": "1"} | more


def snowplow(**cells: str) -> Record:
    given = {"event_id": "00000000-0000-4000-8000-000000000001", "collector_tstamp": "2026-01-05 10:00:00.000"}
    given |= {"event": "page_view", "user_id": "u"} | cells
    return {name: given.get(name) for name in COLUMNS}


def last_click(**manual: str) -> Record:
    return {"session_traffic_source_last_click": {"manual_campaign": manual}}


COLLECTED = {"manual_source": "google", "manual_medium": "cpc", "manual_campaign_name": "spring"}


@pytest.mark.parametrize(
    ("speaks", "record", "campaign"),
    [
        (SEGMENT, segment(source="google", medium="cpc", name="spring"), "google/cpc/spring"),
        (SEGMENT, segment(name="spring"), "spring"),
        (SEGMENT, segment(medium="email"), "/email/"),
        (SEGMENT, segment(source="a/b\n", medium="c", name=7), "a_b/c/7"),
        (SEGMENT, segment(term="shoes"), None),
        (GA4, ga4(collected_traffic_source=COLLECTED), "google/cpc/spring"),
        (GA4, ga4(**last_click(source="news", medium="email"), collected_traffic_source=COLLECTED), "news/email/"),
        (GA4, ga4(**last_click(source="(direct)", medium="(none)"), **parameters(campaign="late")), "late"),
        (GA4, ga4(**parameters(source="t", medium="social", campaign="c")), "t/social/c"),
        (FLAT, flat(param_source="s", param_medium="cpc", param_campaign="c"), "s/cpc/c"),
        (FLAT, flat(collected_traffic_source_manual_campaign_name="c"), "c"),
        (SNOWPLOW, snowplow(mkt_source="s", mkt_medium="cpc", mkt_campaign="c", mkt_term="t"), "s/cpc/c"),
        (SNOWPLOW, snowplow(mkt_campaign="c"), "c"),
    ],
)
def test_campaigns(speaks: Dialect, record: Record, campaign: str | None) -> None:
    (row,) = hear(speaks, record)
    assert row.get("campaign") == campaign
    assert not {"mkt_source", "mkt_medium", "param_source"} & row.get("props", {}).keys()


def test_the_medium_outranks_the_referrer() -> None:
    (row,) = hear(SEGMENT, segment(source="google", medium="cpc", name="spring"))
    assert class_of_campaign(row["campaign"]) == "ads"


def test_what_is_no_text_stays_in_props() -> None:
    (row,) = hear(SEGMENT, segment(source=["a"], name="n", content="c"))
    assert row["campaign"] == "n"
    assert row["props"] == {"context": {"campaign": {"source": ["a"], "content": "c"}}}


def test_baskets_are_carts() -> None:
    words = ("add_to_basket", "remove_from_basket", "list_click", "Add to basket")
    assert [event_type(word) for word in words] == ["add_to_cart", "remove_from_cart", "click", "add_to_cart"]


def test_dropping_a_path_leaves_no_empty_object() -> None:
    place = {"a": {"b": {"c": 1}, "d": 2}, "e.f": 3, "g": "h"}
    for path in ("a.b.c", "e.f", "g.h", "x.y"):
        drop(place, path)
    assert place == {"a": {"d": 2}, "g": "h"}
