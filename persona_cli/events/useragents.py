"""Device, browser and operating system from what a browser calls itself, as the rules of ua-parser read it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

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
