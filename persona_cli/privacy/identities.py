"""Numbers by which states know people: United States, United Kingdom, Brazil, Spain, Italy, France, India, Sweden.

Where the spelling or a check digit tells, anywhere; else only where a name or a word before it says what it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date
from typing import Literal, NamedTuple

from persona_cli.privacy import checksums

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
    return checksums.luhn(digits)


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
    _shape(r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}", checksums.cpf),
    _shape("[0-9]{11}", checksums.cpf, "medium", named=True),
    _shape("(?:[0-9]{8}|[xyz]-?[0-9]{7})-?[a-z]", checksums.dni, "medium", named=True),
    _shape("[a-z]{6}[0-9]{2}[abcdehlmprst][0-9]{2}[a-z][0-9]{3}[a-z]", checksums.codice_fiscale),
    _shape("[12] ?[0-9]{2} ?(?:0[1-9]|1[0-2]) ?[0-9]{2} ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}", checksums.nir, "medium"),
    _shape("[2-9][0-9]{3}[ -][0-9]{4}[ -][0-9]{4}", checksums.verhoeff, "medium"),
    _shape("[2-9][0-9]{11}", checksums.verhoeff, "medium", named=True),
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
