"""300 secrets, 25 of each of twelve kinds, planted where logs really have them. Frozen: made before the detectors.

The kinds are those that product logs collect by accident: what people type (e-mail, phone, card, IBAN, national id),
what machines add (IPv4, IPv6, MAC) and what programs pass on (JWT, API key, private key, password or token in a URL).
Spellings vary as they do in life: spaces, dashes, percent signs, JSON numbers, inside a sentence, nested in props.

Every value is made up or reserved for documentation (RFC 2606, 3849, 5737; test numbers of the card schemes). The
parts of a secret are kept apart in the file, so that nobody's search for leaked keys stumbles over it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).parent / "planted.jsonl"
KINDS = (
    "email", "phone", "card", "ipv4", "ipv6", "iban", "national_id", "jwt", "api_key", "private_key", "url_secret",
    "mac",
)  # fmt: skip


class Plant(NamedTuple):
    """`value` is what the field holds (JSON text where it is props), `secret` the piece of it that nobody may see."""

    kind: str
    table: str
    field: str
    value: str
    secret: str


def plants() -> list[Plant]:
    """All plants, in the order of the file."""
    found = []
    for line in FILE.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        secret = "".join(row["secret"])
        found.append(Plant(row["kind"], row["table"], row["field"], row["value"].replace("<secret>", secret), secret))
    return found
