"""Numbers by which states know people, and the check digits by which such a number could have been issued.

United States, United Kingdom, Brazil, Spain, Italy, France, India, Sweden. Where the spelling or a check digit tells,
anywhere; else only where a name or a word before it says what it is. A checksum takes the number without spaces or
other signs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date
from functools import reduce
from typing import Literal, NamedTuple

_VERHOEFF = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
_NAMES_OF_DNI = "TRWAGMYFPDXBNJZSQVHLCKE"
_ODD = dict(
    zip(
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16,
         10, 22, 25, 24, 23),
        strict=True,
    )
)  # fmt: skip
# Lengths of the countries of the SWIFT registry of IBANs.
IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE ME RS", 23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HU LB NI PL SV", 29: "BR EG PS QA UA", 30: "JO KW MU", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip


def luhn(digits: str) -> bool:
    """Payment cards and many national numbers (Luhn 1960; ISO/IEC 7812-1)."""
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    return sum(value - 9 * (value > 9) for value in doubled) % 10 == 0


def iban(text: str) -> bool:
    """ISO 13616: the length of the country, and mod 97 of the moved and numbered letters is 1. Capitals only."""
    if len(text) != IBAN_LENGTHS.get(text[:2]):
        return False
    return int("".join(str(int(sign, 36)) for sign in text[4:] + text[:4])) % 97 == 1


def cpf(digits: str) -> bool:
    """Brazil's 11 digits, the last two of them checks."""
    values = [int(digit) for digit in digits]
    return len(set(values)) > 1 and all(
        sum(a * b for a, b in zip(values, range(n, 1, -1), strict=False)) * 10 % 11 % 10 == values[n - 1]
        for n in (10, 11)
    )


def dni(text: str) -> bool:
    """Spain's DNI (8 digits) or NIE (X, Y or Z and 7 digits) with its letter. Capitals only."""
    number = text[:-1].translate(str.maketrans("XYZ", "012"))
    return _NAMES_OF_DNI[int(number) % 23] == text[-1]


def codice_fiscale(text: str) -> bool:
    """Italy's 16 letters and digits, the last of them a check. Capitals only."""
    values = (
        _ODD[sign] if place % 2 == 0 else int(sign, 36) - 10 * sign.isalpha() for place, sign in enumerate(text[:15])
    )
    return chr(65 + sum(values) % 26) == text[15]


def nir(digits: str) -> bool:
    """France's 13 digits and 2 of check: 97 minus the rest mod 97."""
    return 97 - int(digits[:13]) % 97 == int(digits[13:])


def verhoeff(digits: str) -> bool:
    """India's Aadhaar (Verhoeff 1969), by the dihedral group of order ten and powers of one permutation."""

    def times(a: int, b: int) -> int:
        if a < 5:
            return (a + b) % 5 + (b // 5) * 5
        return (a - b) % 5 + 5 if b < 5 else (a - b) % 5

    def permuted(digit: int, power: int) -> int:
        return reduce(lambda value, _: _VERHOEFF[value], range(power % 8), digit)

    return reduce(times, (permuted(int(digit), place) for place, digit in enumerate(reversed(digits))), 0) == 0


Sure = Literal["high", "medium", "low"]
_CONTEXT = 24
NAME = re.compile(
    r"(?i)(?:^|[^a-z])(?:ssn|sin|nino|ni[_ ]?number|national[_ ]?insurance|cpf|dni|nie|nif|documento|"
    r"codice[_ ]?fiscale|nir|secu|s[eé]curit[eé][_ ]?sociale|aadhaar|aadhar|pesel|bsn|personnummer|"
    r"passport(?:[_ ]?(?:no|number))?|(?:national|personal)[_ ]?(?:id|number)|identity[_ ]?(?:card|number)|"
    r"tax[_ ]?id|steuer[_ -]?id|tin|social[_ ]?security(?:[_ ]?(?:no|number))?)(?:[^a-z]|$)|ssn$"
)
_PREFIXES = frozenset(("BG", "GB", "KN", "NK", "NT", "TN", "ZZ"))


class _Shape(NamedTuple):
    pattern: re.Pattern[str]
    check: Callable[[str], bool]
    """of the letters (as capitals) and digits alone"""
    sure: Sure
    named: bool
    """only where a name says so"""


def _ssn(digits: str) -> bool:
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in ("000", "666") and area[0] != "9" and group != "00" and serial != "0000"


def _nino(text: str) -> bool:
    return text[:2] not in _PREFIXES


def _swedish(digits: str) -> bool:
    try:
        date(2000 + int(digits[:2]), int(digits[2:4]), int(digits[4:6]))
    except ValueError:
        return False
    return luhn(digits)


def _shape(pattern: str, check: Callable[[str], bool], sure: Sure = "high", named: bool = False) -> _Shape:
    whole = rf"(?<![0-9A-Za-z])(?<![0-9][.-])(?:{pattern})(?![0-9A-Za-z]|[.-][0-9])"
    return _Shape(re.compile(whole, re.IGNORECASE), check, sure, named)


def _any(text: str) -> bool:
    return True


_NINO = "[a-ceghj-prstw-z][a-ceghj-nprstw-z]"
_SHAPES = (
    _shape("[0-9]{3}-[0-9]{2}-[0-9]{4}", _ssn, "medium"),
    _shape("[0-9]{3}[ -]?[0-9]{2}[ -]?[0-9]{4}", _ssn, "medium", named=True),
    _shape(f"{_NINO} [0-9]{{2}} ?[0-9]{{2}} ?[0-9]{{2}} ?[a-d]", _nino, "medium"),
    _shape(f"{_NINO}[0-9]{{6}}[a-d]", _nino, "medium", named=True),
    _shape(r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}", cpf),
    _shape("[0-9]{11}", cpf, "medium", named=True),
    _shape("(?:[0-9]{8}|[xyz]-?[0-9]{7})-?[a-z]", dni, "medium", named=True),
    _shape("[a-z]{6}[0-9]{2}[abcdehlmprst][0-9]{2}[a-z][0-9]{3}[a-z]", codice_fiscale),
    _shape("[12] ?[0-9]{2} ?(?:0[1-9]|1[0-2]) ?[0-9]{2} ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}", nir, "medium"),
    _shape("[2-9][0-9]{3}[ -][0-9]{4}[ -][0-9]{4}", verhoeff, "medium"),
    _shape("[2-9][0-9]{11}", verhoeff, "medium", named=True),
    _shape("(?:19|20)?[0-9]{6}[+-][0-9]{4}", lambda digits: _swedish(digits[-10:]), "medium", named=True),
    # Whatever else stands under such a name: digits, perhaps with letters.
    _shape("(?=[a-z-]{0,3}[0-9])[0-9a-z](?:[ .-]?[0-9a-z]){5,14}", _any, "low", named=True),
)  # fmt: skip
_UNNAMED = tuple(shape for shape in _SHAPES if not shape.named)
# The fewest that any of them has.
_DIGITS = re.compile("(?:[0-9][^0-9]*){5}")


def find(text: str, name: str) -> Iterator[tuple[int, int, Sure]]:
    """(start, end, how sure) of national numbers; `name` is where the text stands."""
    if not _DIGITS.search(text):
        return
    telling = bool(NAME.search(name))
    named = telling or bool(NAME.search(text))
    for shape in _SHAPES if named else _UNNAMED:
        for match in shape.pattern.finditer(text):
            if shape.named and not telling:
                before = text[max(0, match.start() - _CONTEXT) : match.start()].rstrip(" .:=-/#")
                if shape.check is _any or not NAME.search(before):
                    continue
            if shape.check(re.sub(r"[^0-9A-Z]", "", match[0].upper())):
                yield match.start(), match.end(), shape.sure
