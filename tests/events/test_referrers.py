"""Where visits come from, and countries."""

from __future__ import annotations

import zoneinfo
from collections import Counter

import pytest

from persona_cli.events.countries import country_code, country_zone, known, table
from persona_cli.events.referrers import (
    CLASSES,
    campaign_of_query,
    campaign_text,
    class_of_campaign,
    class_of_host,
    host_of,
    site_of,
)

GOLDEN = [
    ("https://www.google.com/", "www.google.com", "google.com", "search"),
    ("https://www.google.co.uk/search", "www.google.co.uk", "google.co.uk", "search"),
    ("http://google.com.br", "google.com.br", "google.com.br", "search"),
    ("https://duckduckgo.com/", "duckduckgo.com", "duckduckgo.com", "search"),
    ("https://search.yahoo.co.jp/x", "search.yahoo.co.jp", "yahoo.co.jp", "search"),
    ("https://yandex.ru/", "yandex.ru", "yandex.ru", "search"),
    ("https://chatgpt.com/", "chatgpt.com", "chatgpt.com", "search"),
    ("https://mail.google.com/mail/u/0", "mail.google.com", "google.com", "mail"),
    ("https://outlook.live.com", "outlook.live.com", "live.com", "mail"),
    ("android-app://com.google.android.gm/", "com.google.android.gm", "android.gm", "mail"),
    ("https://m.facebook.com:443/x", "m.facebook.com", "facebook.com", "social"),
    ("//t.co/abc", "t.co", "t.co", "social"),
    ("uk.pinterest.com/pin", "uk.pinterest.com", "pinterest.com", "social"),
    ("https://www.youtube.com/watch", "www.youtube.com", "youtube.com", "social"),
    ("https://googleads.g.doubleclick.net/x", "googleads.g.doubleclick.net", "doubleclick.net", "ads"),
    ("https://s.click.aliexpress.com/e", "s.click.aliexpress.com", "aliexpress.com", "ads"),
    ("https://checkout.stripe.com/pay", "checkout.stripe.com", "stripe.com", "technical"),
    ("https://accounts.google.de/", "accounts.google.de", "google.de", "technical"),
    ("http://localhost:3000/a", "localhost", "localhost", "technical"),
    ("https://docs.google.com/d", "docs.google.com", "google.com", "other"),
    ("https://notgoogle.com", "notgoogle.com", "notgoogle.com", "other"),
    ("https://google.com.evil.io", "google.com.evil.io", "evil.io", "other"),
    ("https://me@www.example.org", "www.example.org", "example.org", "other"),
    ("HTTPS://WWW.GOOGLE.COM./", "www.google.com", "google.com", "search"),
    ("http://ip-address/x", "ip-address", "ip-address", "other"),
    ("https://one.myshopify.com", "one.myshopify.com", "one.myshopify.com", "other"),
]


@pytest.mark.parametrize(("url", "host", "site", "kind"), GOLDEN)
def test_golden(url: str, host: str, site: str, kind: str) -> None:
    assert (host_of(url), site_of(host), class_of_host(host)) == (host, site, kind)


@pytest.mark.parametrize("text", ["/home", "home", "", "?a", "Really? Yes", "https://", "a b.com/x"])
def test_what_has_no_host(text: str) -> None:
    assert host_of(text) is None


@pytest.mark.parametrize(
    ("campaign", "kind"),
    [("google/cpc/spring", "ads"), ("x/E-Mail/", "mail"), ("newsletter", "mail"), ("fb/paid_social/a/b", "ads"),
     ("fb/social/a", "social"), ("google/organic/", "search"), ("x/referral/y", None), ("spring sale", None)],
)  # fmt: skip
def test_mediums(campaign: str, kind: str | None) -> None:
    assert class_of_campaign(campaign) == kind


def test_campaigns() -> None:
    assert campaign_of_query("utm_campaign=a+b&x=1") == "a b"
    assert campaign_of_query("UTM_Source=a/b&utm_medium=c&utm_campaign=d%2Fe") == "a_b/c/d/e"
    assert campaign_of_query("utm_medium=email") == "/email/"
    assert campaign_of_query("msclkid=1&utm_campaign=x") == "bing/cpc/x"
    assert campaign_of_query("gclid=1&utm_source=s&utm_medium=m") == "s/m/"
    assert campaign_of_query("a=1&utm_source=") is None
    assert campaign_text(None, " ", " name ") == "name"


def test_the_data_file_is_sorted_and_every_class_is_known() -> None:
    rows = [tuple(row) for row in table("referrers.tsv")]
    assert rows == sorted(rows, key=lambda row: (row[1], row[0]))
    assert not [domain for domain, n in Counter(domain for domain, _ in rows).items() if n > 1]
    assert {kind for _, kind in rows} <= set(CLASSES) and len(rows) > 500


def test_countries_are_those_of_the_time_zone_database() -> None:
    codes = {code for code, *_ in table("countries.tsv")}
    assert len(codes) == 249
    for code, zone in known().zones.items():
        assert zoneinfo.ZoneInfo(zone), code
    assert codes - set(known().zones) == {"AQ", "BV", "HM"}  # nobody lives there
    names = [
        name.casefold()
        for code, alpha3, _, names in table("countries.tsv")
        for name in (code, alpha3, *names.split(";"))
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("text", "code", "zone"),
    [("de", "DE", "Europe/Berlin"), (" Germany", "DE", "Europe/Berlin"), ("USA", "US", "America/New_York"),
     ("United Kingdom", "GB", "Europe/London"), ("UK", "GB", "Europe/London"), ("Czechia", "CZ", "Europe/Prague"),
     ("Australia", "AU", "Australia/Sydney"), ("in", "IN", "Asia/Kolkata"), ("Atlantis", "Atlantis", None)],
)  # fmt: skip
def test_countries(text: str, code: str, zone: str | None) -> None:
    assert (country_code(text), country_zone(text)) == (code, zone)
