# ruff: noqa: E501
"""Well-known user agents: device, browser and system."""

from __future__ import annotations

import pytest

from persona_cli.events.door import client

WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
APPLE = "AppleWebKit/605.1.15 (KHTML, like Gecko)"
GOLDEN = [
    (f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {WEBKIT} Chrome/120.0.0.0 Safari/537.36", ("desktop", "Chrome", "Windows")),
    (f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {WEBKIT} Chrome/120.0.0.0 Safari/537.36 Edg/120.0.2210.91", ("desktop", "Edge", "Windows")),
    ("Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko", ("desktop", "IE", "Windows")),
    (f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {APPLE} Version/17.2 Safari/605.1.15", ("desktop", "Safari", "Mac OS X")),
    ("Mozilla/5.0 (X11; Linux x86_64; rv:121.0) Gecko/20100101 Firefox/121.0", ("desktop", "Firefox", "Linux")),
    (f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {WEBKIT} Chrome/119.0.0.0 Safari/537.36", ("desktop", "Chrome", "Chrome OS")),
    (f"Mozilla/5.0 (iPhone; CPU iPhone OS 17_2 like Mac OS X) {APPLE} Version/17.2 Mobile/15E148 Safari/604.1", ("mobile", "Safari", "iOS")),
    (f"Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) {APPLE} CriOS/120.0.6099.119 Mobile/15E148 Safari/604.1", ("mobile", "Chrome", "iOS")),
    (f"Mozilla/5.0 (iPad; CPU OS 16_6 like Mac OS X) {APPLE} Version/16.6 Mobile/15E148 Safari/604.1", ("tablet", "Safari", "iOS")),
    (f"Mozilla/5.0 (Linux; Android 14; Pixel 8) {WEBKIT} Chrome/120.0.6099.144 Mobile Safari/537.36", ("mobile", "Chrome", "Android")),
    (f"Mozilla/5.0 (Linux; Android 13; SM-X906C) {WEBKIT} Chrome/119.0.0.0 Safari/537.36", ("tablet", "Chrome", "Android")),
    (f"Mozilla/5.0 (Linux; Android 13; SAMSUNG SM-S918B) {WEBKIT} SamsungBrowser/23.0 Chrome/115.0.0.0 Mobile Safari/537.36", ("mobile", "Samsung Internet", "Android")),
    ("Dalvik/2.1.0 (Linux; U; Android 11; SM-A515F Build/RP1A)", ("mobile", "Android", "Android")),
    (f"Mozilla/5.0 (SMART-TV; LINUX; Tizen 6.0) {WEBKIT} 76.0.3809.146/6.0 TV Safari/537.36", ("tv", "Safari", "Tizen")),
    (f"Mozilla/5.0 (PlayStation; PlayStation 5/6.50) {APPLE} Version/15.4 Safari/605.1.15", ("console", "Safari", None)),
    ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", ("bot", "Googlebot", None)),
    (f"Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) {WEBKIT} Chrome/119.0.0.0 Mobile Safari/537.36 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", ("bot", "Googlebot", "Android")),
    ("Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)", ("bot", "bingbot", None)),
    ("Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)", ("bot", "YandexBot", None)),
    (f"Mozilla/5.0 {WEBKIT[:-1]}; compatible; GPTBot/1.0; +https://openai.com/gptbot)", ("bot", "GPTBot", None)),
    ("facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)", ("bot", "FacebookBot", None)),
    ("curl/8.4.0", (None, "curl", None)),
    ("python-requests/2.31.0", (None, "Python Requests", None)),
    ("nothing anyone knows", (None, None, None)),
]  # fmt: skip


@pytest.mark.parametrize(("user_agent", "expected"), GOLDEN)
def test_golden(user_agent: str, expected: tuple[str | None, str | None, str | None]) -> None:
    assert client(user_agent) == expected


def test_a_very_long_text_is_read_by_its_beginning() -> None:
    text, expected = GOLDEN[0]
    assert client(text + "; x" * 100_000) == expected
