"""Countries: alpha-2 codes by other codes and English names, and the zone of time in which most people live."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

DATA = Path(__file__).with_name("data")


class Known(NamedTuple):
    """What the data file says."""

    codes: Mapping[str, str]
    """Codes of two and three letters and English names, casefolded → the code of two letters."""
    zones: Mapping[str, str]
    """Code → IANA name; of several zones the one with the most people. Uninhabited places have none."""


@cache
def known() -> Known:
    """The countries of ISO 3166 with the zones of the time zone database."""
    codes: dict[str, str] = {}
    zones: dict[str, str] = {}
    for code, alpha3, zone, names in table("countries.tsv"):
        codes |= dict.fromkeys((name.casefold() for name in (code, alpha3, *names.split(";"))), code)
        if zone:
            zones[code] = zone
    return Known(codes, zones)


def country_code(text: str) -> str:
    """The alpha-2 code of a country by code or English name, whatever the case; text that is neither stays."""
    return known().codes.get(text.strip().casefold(), text)


def country_zone(text: str) -> str | None:
    """IANA name of the zone in which most people of the country live; None for what is no known country."""
    known_countries = known()
    return known_countries.zones.get(known_countries.codes.get(text.strip().casefold(), ""))


def table(name: str) -> list[list[str]]:
    """The rows of a data file, without comments and header."""
    lines = (DATA / name).read_text("utf-8").splitlines()
    return [line.split("\t") for line in lines if not line.startswith("#")][1:]
