"""Check digits: whether a number could have been issued. Each takes the number without spaces or other signs."""

from __future__ import annotations

from functools import reduce

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
