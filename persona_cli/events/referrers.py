"""Where a visit came from: the host in a URL, the site it belongs to, and what kind of thing that site is.

`data/referrers.tsv` names sites by class. A public suffix (`com`, `co.uk`) is told by rule and not by the long public
list: the last label, with the one before it where that is one of the usual second levels of a country.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from urllib.parse import parse_qsl

from persona_cli.events.countries import table

CLASSES = ("search", "social", "mail", "ads", "technical", "direct", "internal", "other")
IP_HOST = "ip-address"
"""What stands in a URL in the place of an IP address."""
_URL = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//(?:[^/?#@]*@)?(\[[^]]*\]|[^/:?#\\\s]*)", re.IGNORECASE | re.ASCII)
_BARE = re.compile(r"((?:[\w-]+\.)+[\w-]{2,}|localhost)\.?(?::\d+)?(?:[/?#]|$)", re.IGNORECASE)
_SECOND_LEVELS = frozenset(
    {
        *("ac", "co", "com", "edu", "gen", "go", "gob", "gov", "gouv", "govt", "ltd", "mil", "ne", "net", "nhs", "nom"),
        *("or", "org", "plc", "sch", "school"),
    }
)
# Names under these belong to different people.
_SHARED = frozenset(
    {
        *("appspot.com", "azurewebsites.net", "blogspot.com", "cloudfront.net", "firebaseapp.com", "github.io"),
        *("gitlab.io", "herokuapp.com", "myshopify.com", "netlify.app", "onrender.com", "pages.dev", "squarespace.com"),
        *("tumblr.com", "vercel.app", "web.app", "webflow.io", "wixsite.com", "wordpress.com", "workers.dev"),
    }
)
_MEDIA = {
    "ads": "ad ads affiliate affiliates banner cpa cpc cpm cpv display native paid paidsearch paidsocial partner ppc "
    "programmatic remarketing retargeting sem sponsored",
    "mail": "crm edm email mail mailing newsletter",
    "social": "organicsocial social socialmedia socialnetwork sm",
    "search": "organic organicsearch seo",
}
_CLASS_OF_MEDIUM = {medium: name for name, media in _MEDIA.items() for medium in media.split()}
# Parameters that an advertiser's link carries instead of utm_source and utm_medium.
_CLICK_IDS = {
    "gclid": ("google", "cpc"),
    "gbraid": ("google", "cpc"),
    "wbraid": ("google", "cpc"),
    "dclid": ("google", "display"),
    "msclkid": ("bing", "cpc"),
    "yclid": ("yandex", "cpc"),
    "ttclid": ("tiktok", "cpc"),
    "twclid": ("twitter", "cpc"),
}

CAMPAIGN_PARAMETERS = ("utm_source", "utm_medium", "utm_campaign", *_CLICK_IDS)
"""Parameters of a URL that `campaign_of_query` reads."""


def host_of(url: str) -> str | None:
    """The host of a URL, or of `name.tld/path` without a scheme, in lower case; None for a path or any other text."""
    text = url.strip()
    found = _URL.match(text) or _BARE.match(text)
    if found is None:
        return IP_HOST if text == IP_HOST or text.startswith(IP_HOST + "/") else None
    return found[1].rstrip(".").casefold() or None


def site_of(host: str) -> str:
    """The part of a host that one owner has: the public suffix and one label more."""
    labels = host.split(".")
    return ".".join(labels[-(_suffix_length(labels) + 1) :])


def class_of_host(host: str) -> str:
    """search, social, mail, ads, technical or other: by the longest entry of the data file that the host lies under."""
    entries = _entries()
    labels = host.removeprefix("www.").split(".")
    suffix = _suffix_length(labels)
    for place in range(len(labels)):
        tail = labels[place:]
        found = entries.get(".".join(tail))
        if found is None and len(tail) > suffix:
            found = entries.get(".".join([*tail[:-suffix], "*"]))
        if found is not None:
            return found
    return "other"


def class_of_campaign(campaign: str) -> str | None:
    """ads, mail, social or search where the campaign names a medium that says so.

    The medium is the middle of `source/medium/name`, else the whole text: `google/cpc/spring`, `newsletter`.
    """
    parts = campaign.split("/", 2)
    medium = parts[1] if len(parts) == 3 else campaign
    return _CLASS_OF_MEDIUM.get(re.sub(r"[\s_-]", "", medium).casefold())


def campaign_text(source: str | None, medium: str | None, name: str | None) -> str | None:
    """A campaign as one text: its name, or `source/medium/name` where source or medium is known; None without any."""
    source, medium, name = (None if part is None else part.strip() or None for part in (source, medium, name))
    if source is None and medium is None:
        return name
    return "/".join(((source or "").replace("/", "_"), (medium or "").replace("/", "_"), name or ""))


def campaign_of_query(query: str) -> str | None:
    """The campaign that parameters of a URL name: utm_source, utm_medium, utm_campaign, or an advertiser's click id."""
    given: dict[str, str] = {}
    for key, value in parse_qsl(query, errors="replace"):
        given.setdefault(key.casefold(), value)
    source, medium, name = (given.get(f"utm_{part}") for part in ("source", "medium", "campaign"))
    if source is None and medium is None:
        source, medium = next((found for click, found in _CLICK_IDS.items() if click in given), (None, None))
    text = campaign_text(source, medium, name)
    return None if text is None else re.sub(r"[\x00-\x1f]", " ", text)


@cache
def _entries() -> Mapping[str, str]:
    return dict(table("referrers.tsv"))


def _suffix_length(labels: list[str]) -> int:
    """Labels of the public suffix: 1 or 2."""
    second = len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVELS
    return 2 if second or ".".join(labels[-2:]) in _SHARED else 1
