"""How keys, tokens and passwords look: prefixes that vendors publish, PEM blocks, and names of URL parameters."""

from __future__ import annotations

import re

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
