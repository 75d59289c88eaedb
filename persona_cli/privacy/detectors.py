"""What in a text would tell who somebody is, or open a door: patterns for candidates, checks for what they claim.

`find` looks at one text. `GATE` is a pattern for polars (Rust, no lookaround) that holds for every text in which `find`
can find something without a telling name, so that only few distinct texts come here. Keys, tokens and passwords are
known by prefixes that vendors publish, PEM blocks, and names of URL parameters.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple
from urllib.parse import unquote

from persona_cli.privacy import identities

_VENDORS = (
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}",  # AWS
    r"AIza[0-9A-Za-z_-]{35}",  # Google
    r"ya29\.[0-9A-Za-z_-]{20,}",
    r"gh[pousr]_[0-9A-Za-z]{36,}",  # GitHub
    r"github_pat_[0-9A-Za-z_]{60,}",
    r"glpat-[0-9A-Za-z_-]{20,}",  # GitLab
    r"(?:sk|rk|pk)_(?:live|test)_[0-9A-Za-z]{16,}",  # Stripe
    r"whsec_[0-9A-Za-z+/=]{20,}",
    r"xox[abeoprs]-[0-9A-Za-z-]{20,}",  # Slack
    r"xapp-[0-9]-[0-9A-Za-z-]{20,}",
    r"SG\.[0-9A-Za-z_-]{16,}\.[0-9A-Za-z_-]{32,}",  # SendGrid
    r"(?:SK|AC)[0-9a-f]{32}",  # Twilio
    r"key-[0-9a-f]{32}",  # Mailgun
    r"sk-(?:[a-z0-9]{2,12}-)*[0-9A-Za-z_-]{32,}",  # OpenAI, Anthropic
    r"gsk_[0-9A-Za-z]{40,}",
    r"npm_[0-9A-Za-z]{36}",
    r"pypi-AgEI[0-9A-Za-z_-]{40,}",
    r"hf_[A-Za-z]{34,}",
    r"do[opr]_v1_[0-9a-f]{64}",  # DigitalOcean
    r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}",  # Shopify
    r"glc_[0-9A-Za-z+/]{32,}={0,2}",  # Grafana
    r"dckr_pat_[0-9A-Za-z_-]{20,}",
    r"sq0(?:atp|csp)-[0-9A-Za-z_-]{22,}",  # Square
    r"rubygems_[0-9a-f]{48}",
    r"lin_api_[0-9A-Za-z]{32,}",
    r"NRAK-[0-9A-Z]{27}",  # New Relic
)
API_KEYS = re.compile(r"(?<![0-9A-Za-z])(?:" + "|".join(_VENDORS) + ")")
PRIVATE_KEY = re.compile(
    r"-----BEGIN[ +](?:[A-Z0-9]+[ +])*PRIVATE[ +]KEY(?:[ +]BLOCK)?-----"
    r"(?s:.*?-----END[ +](?:[A-Z0-9]+[ +])*PRIVATE[ +]KEY(?:[ +]BLOCK)?-----|.*)"
    r"|PuTTY-User-Key-File-[0-9]:(?s:.*)"
    r"|AGE-SECRET-KEY-1[0-9A-Z]{50,}"
    r"|(?:ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-nistp[0-9]{3})[ +]AAAA[0-9A-Za-z+/=]{40,}(?: [\w.@-]+)?"
)
# user:password@host, the password as group 1
URL_LOGIN = re.compile(r"[A-Za-z0-9+.-]{2}://[^\s/?#:@\"<>]*:([^\s/?#@\"<>]{3,})@")
URL_SECRET = re.compile(r"(?:^|[?&#;\s])(?P<name>[A-Za-z][\w.\[\]-]{1,40})=(?P<value>[^&#\s\"'<>]{4,})")
_WORDS = r"tokens?|pass(?:word|wd|phrase|code)?|pwd|secret|api[_-]?key|(?:access|secret|private|auth)[_-]?key|otp"
_SECRET = re.compile(
    rf"(?i)(?:^|[^a-z])(?:{_WORDS}|sig|signature|auth|authorization|credentials?|(?:j|php|asp)?sess(?:ion)?_?id|sid)$"
    r"|[a-z](?:token|password|secret|apikey|signature)$"
)
_KEY = re.compile(r"(?i)(?:^|[^a-z])key$")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_PUBLIC = re.compile(r"(?i)(?:page|next|prev|previous|continuation|sync|cursor|csrf|count)[_-]?token|tokens?[_-]?count")
IS_SECRET_NAME = re.compile(
    rf"(?i)(?:^|[^a-z])(?:{_WORDS}|bearer|authorization|set-cookie|cookie|client[_-]?secret)$"
    r"|(?:access|refresh|auth|id|bearer|login|reset|invite)_?token$|password$"
)


def is_secret(name: str, value: str) -> bool:
    """Whether a URL parameter of this name and value opens something: by its name, or called `key` and random."""
    words = _CAMEL.sub("_", name)
    if _PUBLIC.search(words) or value.lower() in ("true", "false", "null", "none", "undefined"):
        return False
    return bool(_SECRET.search(words)) or (bool(_KEY.search(words)) and _random(value))


def _random(value: str) -> bool:
    return len(value) >= 16 and bool(re.search("[0-9]", value)) and bool(re.search("[A-Za-z]", value))


Sure = Literal["high", "medium", "low"]
Check = Callable[[re.Match[str], str], "Found | None"]
KINDS = (
    "email", "phone", "card", "ipv4", "ipv6", "iban", "national_id", "jwt", "api_key", "private_key", "url_secret",
    "secret", "mac",
)  # fmt: skip


class Found(NamedTuple):
    """One piece of a text: [start, end) of the decoded text. `valid` is False where only a check digit was wrong."""

    kind: str
    start: int
    end: int
    text: str
    sure: Sure
    valid: bool = True


GATE = "|".join(
    (
        "@",
        "%[0-9A-Fa-f]{2}",
        r"\+ ?\(?[1-9]",
        r"[0-9]{2,4}[\s().,/-]{1,3}[0-9]{2}",  # phones, cards, national ids with signs between the digits
        r"[2-6][0-9]{13}|[12][0-9]{14}",  # the same without
        r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}",
        "[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:|[0-9A-Fa-f]{2}-[0-9A-Fa-f]{2}-|[0-9A-Fa-f]{4}[.][0-9A-Fa-f]{4}[.]",
        "(?:^|[^0-9A-Za-z])[A-Za-z]{2}[0-9]{2}[ -]?[A-Za-z0-9]{4}",
        r"[A-Za-z]{2} ?[0-9]{2} [0-9]{2}|[A-Za-z]{6}[0-9]{2}[A-Za-z]",
        r"eyJ|PRIVATE|PuTTY|SECRET|ssh-|ecdsa-|=|://[^/]*:",
        r"AKIA|ASIA|AIza|gh[pousr]_|github_|glpat|_live_|_test_|whsec|xox|xapp|SG\.|SK[0-9a-f]|sk-|npm_|pypi-|hf_|dop_|"
        r"doo_|shp|glc_|ya29|dckr_|AccountKey|sq0|key-|EAA|gsk_|lin_api|rubygems_|shippo_|NRAK|hooks\.slack",
    )
)
# Names of fields that say what their values are, whatever these look like.
PHONE_NAME = re.compile(
    r"(?i)(?:^|[^a-z])(?:tele?)?(?:phones?|fax|whatsapp|hotline|msisdn|tel|mobile|cell|caller|handy)(?:[^a-z]|$)"
    r"|(?:phone|mobile|telefon|handy)(?:_?(?:number|num|no|nr))?$"
)
MAC_NAME = re.compile(r"(?i)(?:^|[^a-z])(?:mac|bssid|hw_?addr(?:ess)?)(?:[^a-z]|$)|macaddr")
VERSION_NAME = re.compile(r"(?i)version|(?:^|[^a-z])ver(?:[^a-z]|$)|build|release|user_?agent|(?:^|[^a-z])ua$")
# JSON texts of props in which some key may be such a name; a little wider than the names themselves.
NAME_GATE = (
    r'(?i)"[^"]*(?:phone|fax|whatsapp|hotline|msisdn|tel|mobile|cell|caller|handy|mac|bssid|hw_?addr|ssn|sin|nino|'
    r"number|insurance|cpf|dni|nie|nif|documento|fiscale|nir|secu|aadh|pesel|bsn|passport|[ _]id|identity|tax|tin|"
    r'token|pass|pwd|secret|key|otp|bearer|authori|cookie)[^"]*":'
)

# Domains that end like files: logo@2x.png
_FILES = re.compile(r"(?i)png|jpe?g|gif|webp|svg|css|m?js|tsx?|json|html?|php|t?gz|zip|mp4|webm|ico|pdf|map|py|sh|md")
_EMAIL = re.compile(
    r"(?<![\w.+'%&~!#$*^`{|}-])[\w.+'%&~!#$*^`{|}-]{1,64}@(?:\w(?:[\w-]{0,61}\w)?\.)+([^\W\d_]{2,24})(?![\w@]|:[\w~][\w.~-]*/)"
)
_DIGITS = r"[0-9](?:[ \-]?[0-9])"
_CARD = re.compile(rf"(?<![0-9A-Za-z+])(?<![0-9][.-])({_DIGITS}{{13,18}})(?![0-9A-Za-z]|[-.][0-9])")
_CARD_PREFIX = re.compile(
    r"4(?:\d{15}|\d{18})$|5[1-5]\d{14}$"
    r"|(?:222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}$|3[47]\d{13}$|(?:6011|65\d\d|64[4-9]\d)\d{12}$"
    r"|35(?:2[89]|[3-8]\d)\d{12}$|3(?:0[0-5]|[68]\d)\d{11}$|62\d{14,17}$|5[06789]\d{14}$"
)
_IPV4 = re.compile(r"(?<![0-9A-Za-z])(?<![0-9][.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9A-Za-z_]|\.[0-9])")
_PRODUCT = re.compile(r"(?:^|[\s(;,])[A-Za-z][\w.+-]*/$|(?:version|build|release|rev)\W{0,3}$", re.IGNORECASE)
_IPV6 = re.compile(r"(?<![0-9A-Za-z:])(?:[0-9A-Fa-f]{0,4}:){2,8}(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3}|[0-9A-Fa-f]{1,4})?")
_IPV6_IN = re.compile(r"(?<=[^0-9A-Fa-f:]:)(?:[0-9A-Fa-f]{1,4}:){2,7}[0-9A-Fa-f:]*")
_MAC = re.compile(
    r"(?i)(?<![0-9a-z])(?:[0-9a-f]{2}(?P<by>[:-])(?:[0-9a-f]{2}(?P=by)){4}(?:[0-9a-f]{2}(?P=by)[0-9a-f]{2}(?P=by))?"
    r"[0-9a-f]{2}|[0-9a-f]{4}\.[0-9a-f]{4}\.[0-9a-f]{4})(?![0-9a-z]|[:-][0-9a-f]{2}(?![0-9a-z]))"
)
_LONGER = re.compile(r"(?i)(?:^|[^0-9a-z])[0-9a-f]{2}[:-]$")
_BARE_MAC = re.compile(r"(?i)^[0-9a-f]{12}$")
_IBAN = re.compile(r"(?i)(?<![0-9a-z])[a-z]{2}[0-9]{2}(?:[ -]?[0-9a-z]){11,31}")
_JWT = re.compile(r"(?<![0-9A-Za-z])(eyJ[A-Za-z0-9_-]{8,})\.(?:eyJ)?[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]*")
_BY_SIGNS = r"(?:[ .\-/()]{1,3}[0-9]+)"
_ABROAD = re.compile(rf"(?<![0-9A-Za-z+])\+ ?\(?[1-9][0-9]*{_BY_SIGNS}{{0,7}}(?![0-9A-Za-z])")
_DOUBLE_ZERO = re.compile(r"(?<![0-9A-Za-z+.])00[1-9][0-9]{0,2}(?:[ \-/()]{1,3}[0-9]+){1,6}(?![0-9A-Za-z.])")
_NANP = re.compile(
    r"(?<![0-9A-Za-z.+/-])(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}(?P<by>[ .-]))"
    r"[2-9][0-9]{2}(?(by)(?P=by)|[ .-])[0-9]{4}(?![0-9A-Za-z]|[-.][0-9])"
)
_LOCAL = re.compile(r"(?<![0-9A-Za-z])\+?\(?[0-9](?:[ .\-/()]{0,3}[0-9]){6,14}(?![0-9A-Za-z])")
# Country codes that are in use (ITU E.164 D).
_SEVEN = re.compile("(?:[0-9][^0-9]{0,5}){7}")
_CALLING = re.compile(
    r"1[2-9]|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|2[1-689][0-9]|3[578][0-9]|42[0-9]|50[0-9]|59[0-9]"
    r"|6[789][0-9]|8[058][0-9]|9[679][0-9]"
)
_PERCENT = re.compile(r"%[0-9A-Fa-f]{2}")
# How far before a piece a word says what it is: "Tel. ", "?ssn=", "card number: "
_CONTEXT = 24


def decoded(text: str) -> str:
    """The text with %40 and the like read as URLs mean them, also where they were written twice."""
    for _ in range(2):
        if "%" not in text or not _PERCENT.search(text):
            break
        text = unquote(text, errors="replace")
    return text


def find(text: str, name: str = "") -> list[Found]:
    """All pieces of `text` (decoded) that are one of KINDS, in order, none overlapping another.

    `name` is where it stands, such as `customer.mobile`: it decides on digits that alone mean nothing. A payment card
    whose check digit is wrong is given too, not `valid`: many of them show that valid ones are chance.
    """
    text = decoded(text)
    taken: list[Found] = []
    for detector in _DETECTORS:
        for found in detector(text, name):
            if all(found.end <= other.start or found.start >= other.end for other in taken if other.valid):
                taken.append(found)
    return sorted(taken, key=lambda found: found.start)


def mask(text: str) -> str:
    """The shape of a found piece: no letter or digit of it, runs of them as at most four dots, at most 40 signs."""
    shown = re.sub(r"[^\W_]+", lambda run: "•" * min(4, len(run[0])), text)
    shown = re.sub(r"[^•@.:+()/ -]+", "_", shown)
    return shown if len(shown) <= 40 else shown[:39] + "…"


def _pieces(kind: str, pattern: re.Pattern[str], sure: Sure) -> Callable[[str, str], Iterator[Found]]:
    def detector(text: str, name: str) -> Iterator[Found]:
        for match in pattern.finditer(text):
            yield Found(kind, match.start(), match.end(), match[0], sure)

    return detector


def _url_logins(text: str, name: str) -> Iterator[Found]:
    for match in URL_LOGIN.finditer(text) if "//" in text else ():
        yield Found("url_secret", *match.span(1), match[1], "high")


def _url_secrets(text: str, name: str) -> Iterator[Found]:
    if "=" in text:
        for match in URL_SECRET.finditer(text):
            if is_secret(match["name"], match["value"]):
                yield Found("url_secret", *match.span("value"), match["value"], "medium")


def _named_secrets(text: str, name: str) -> Iterator[Found]:
    if name and IS_SECRET_NAME.search(name) and len(text) >= 6 and " " not in text.strip() and text not in name:
        yield Found("secret", 0, len(text), text, "medium")


def _jwts(text: str, name: str) -> Iterator[Found]:
    for match in _JWT.finditer(text) if "eyJ" in text else ():
        try:
            header = json.loads(base64.urlsafe_b64decode(match[1] + "=" * (-len(match[1]) % 4)))
        except (ValueError, binascii.Error):
            continue
        if isinstance(header, dict) and ("alg" in header or "typ" in header):
            yield Found("jwt", match.start(), match.end(), match[0], "high")


def _emails(text: str, name: str) -> Iterator[Found]:
    for match in _EMAIL.finditer(text) if "@" in text else ():
        if not _FILES.fullmatch(match[1]) and not match[0].startswith("git@"):
            yield Found("email", match.start(), match.end(), match[0], "high")


def _ipv4s(text: str, name: str) -> Iterator[Found]:
    for match in _IPV4.finditer(text):
        parts = [int(part) for part in match[0].split(".")]
        if max(parts) > 255 or parts[0] in (0, 127) or any(len(p) > 1 and p[0] == "0" for p in match[0].split(".")):
            continue
        if VERSION_NAME.search(name) or _PRODUCT.search(text[: match.start()]):
            continue
        yield Found("ipv4", match.start(), match.end(), match[0], "medium" if max(parts) < 32 else "high")


def _ipv6s(text: str, name: str) -> Iterator[Found]:
    for pattern in (_IPV6, _IPV6_IN) if text.count(":") >= 2 else ():
        for match in pattern.finditer(text):
            end = match.end()
            if text[end : end + 1].isalnum() or text[end : end + 1] == ":":
                continue
            groups = [group for group in match[0].split(":") if group]
            try:
                address = ipaddress.IPv6Address(match[0])
            except ValueError:
                continue
            written = len(groups) >= 3 or (bool(groups) and len(groups[0]) == 4 and groups[0][0] in "23fF")
            if written and not address.is_loopback and re.search("[0-9]", match[0]) and {*map(len, groups)} != {2}:
                yield Found("ipv6", match.start(), end, match[0], "high")


def _macs(text: str, name: str) -> Iterator[Found]:
    for match in _MAC.finditer(text):
        # Digits and hyphens only is a time; more pairs before it is a fingerprint.
        if re.search("[A-Fa-f:]", match[0]) and not _LONGER.search(text[max(0, match.start() - 4) : match.start()]):
            yield Found("mac", match.start(), match.end(), match[0], "high")
    if _BARE_MAC.match(text) and MAC_NAME.search(name):
        yield Found("mac", 0, len(text), text, "medium")


def _ibans(text: str, name: str) -> Iterator[Found]:
    for match in _IBAN.finditer(text):
        wanted = identities.IBAN_LENGTHS.get(match[0][:2].upper(), 99)
        signs = [place for place, sign in enumerate(match[0]) if sign.isalnum()]
        if len(signs) < wanted:
            continue
        end = signs[wanted - 1] + 1
        if not text[match.start() + end : match.start() + end + 1].isalnum():
            piece = match[0][:end]
            if identities.iban(re.sub("[ -]", "", piece).upper()):
                yield Found("iban", match.start(), match.start() + end, piece, "high")


def _cards(text: str, name: str) -> Iterator[Found]:
    for match in _CARD.finditer(text):
        digits = re.sub("[ -]", "", match[1])
        if _CARD_PREFIX.match(digits) and _in_groups(match[1]) and len(set(digits)) > 1:
            valid = identities.luhn(digits)
            yield Found("card", match.start(1), match.end(1), match[1], "high" if valid else "low", valid)


def _in_groups(written: str) -> bool:
    """Digits as they stand on cards: together, or in groups of four (4-6-5 and 4-6-4 of some) by one sign."""
    signs = {sign for sign in written if not sign.isdigit()}
    lengths = [len(group) for group in re.split("[ -]", written)]
    return not signs or (len(signs) == 1 and (lengths[:3] == [4, 4, 4] or lengths[:2] == [4, 6]))


def _national_ids(text: str, name: str) -> Iterator[Found]:
    for start, end, sure in identities.find(text, name):
        yield Found("national_id", start, end, text[start:end], sure)


def _phones(text: str, name: str) -> Iterator[Found]:
    if not _SEVEN.search(text):
        return
    for match in _ABROAD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if 8 <= len(digits) <= 15 and _CALLING.match(digits) and (digits[0] != "1" or len(digits) == 11):
            yield Found("phone", match.start(), match.end(), match[0], "high")
    for match in _DOUBLE_ZERO.finditer(text):
        digits = re.sub(r"\D", "", match[0])[2:]
        if 9 <= len(digits) <= 15 and _CALLING.match(digits):
            yield Found("phone", match.start(), match.end(), match[0], "medium")
    for match in _NANP.finditer(text):
        if not re.search(r"[2-9]11\D", match[0]):
            yield Found("phone", match.start(), match.end(), match[0], "medium")
    for match in _LOCAL.finditer(text):
        before = text[max(0, match.start() - _CONTEXT) : match.start()]
        if PHONE_NAME.search(name) or (len(before) < len(text) and PHONE_NAME.search(before.rstrip(" .:=-/#"))):
            yield Found("phone", match.start(), match.end(), match[0], "medium")


# In this order they claim their pieces: the surest first.
_DETECTORS: tuple[Callable[[str, str], Iterator[Found]], ...] = (
    _pieces("private_key", PRIVATE_KEY, "high"),
    _jwts,
    _pieces("api_key", API_KEYS, "high"),
    _url_logins,
    _emails,
    _ibans,
    _macs,
    _ipv6s,
    _ipv4s,
    _cards,
    _national_ids,
    _url_secrets,
    _phones,
    _named_secrets,
)
