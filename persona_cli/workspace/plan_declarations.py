"""The keys of a surface of kind `plan`: the published price list, how its limits are counted, and what is never read.

Guardrails begin here, when the settings are read: one price a plan for everybody, no two prices for the same offer, and
no attribute of people that a law protects or that stands for one (`refused`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from persona_cli.errors import nearest
from persona_cli.workspace.setting import Setting, checked

COUNTS = ("events", "value", "people", "size", "property")
"""How a use is counted in 30 days: events, the sum of their values, people who were there; or what the account says of
itself: its size, or a number among its own properties."""
PROTECTED: dict[str, str] = {
    "gender": "gender, sex, pronoun, pronouns, salutation, maiden name",
    "age": "age, ages, birth, birthday, birthdate, birthyear, dob, born, senior, seniorcitizen, generation, retired",
    "family": "marital, married, partner, spouse, dependents, children, kids, pregnant, pregnancy, household, family",
    "origin": "race, ethnic, ethnicity, nationality, citizenship, citizen, birthplace, ancestry, caste, skin, migrant, "
    "immigrant, mother tongue, native language, language, locale, accent",
    "belief": "religion, religious, faith, church, belief, politics, political, party, trade union",
    "health": "health, disability, disabled, medical, diagnosis, illness, genetic, biometric, bmi, accessibility, "
    "screen reader",
    "orientation": "orientation, sexuality, sexual",
    "place of living": "postcode, postal, zip, zipcode, street, address, neighbourhood, neighborhood, district, city, "
    "region, country, latitude, longitude, geo, ip",
    "name": "name, firstname, lastname, surname, forename, fullname, username, email, phone, photo, avatar",
    "wealth": "income, salary, wage, wages, wealth, credit, debt, bank, card, payment, benefits, education, occupation",
    "device": "device, os, operating system, platform, browser, useragent, user agent, screen, brand, phone model",
    "willingness to pay": "wtp, willingness, elasticity, sensitivity, churn, ltv, clv, lifetime, discount, coupon, "
    "referrer, campaign, utm",
}
"""What plan advice never reads, by what it tells of a person: the attribute itself and known proxies of it. A property
whose name has one of these words is refused; a use is refused if its whole name is one."""
_WORDS = {term: group for group, terms in PROTECTED.items() for term in terms.split(", ")}
_NAME = re.compile(r"^[^\W\d][\w-]*$")
_MOST = 50
_CODES = (
    "AEDAFNALLAMDANGAOAARSAUDAWGAZNBAMBBDBDTBGNBHDBIFBMDBNDBOBBRLBSDBTNBWPBYNBZDCADCDFCHFCLPCNYCOPCRCCUPCVECZKDJFDKK"
    "DOPDZDEGPERNETBEURFJDFKPGBPGELGHSGIPGMDGNFGTQGYDHKDHNLHTGHUFIDRILSINRIQDIRRISKJMDJODJPYKESKGSKHRKMFKPWKRWKWDKYD"
    "KZTLAKLBPLKRLRDLSLLYDMADMDLMGAMKDMMKMNTMOPMRUMURMVRMWKMXNMYRMZNNADNGNNIONOKNPRNZDOMRPABPENPGKPHPPKRPLNPYGQARRON"
    "RSDRUBRWFSARSBDSCRSDGSEKSGDSHPSLESOSSRDSSPSTNSVCSYPSZLTHBTJSTMTTNDTOPTRYTTDTWDTZSUAHUGXUSDUYUUZSVEDVESVNDVUVWST"
    "XAFXCDXOFXPFYERZARZMWZWG"
)
_CURRENCIES = frozenset(_CODES[place : place + 3] for place in range(0, len(_CODES), 3))
Check = Callable[[Any], Any]


def words_of(name: str) -> str:
    """A name as words: `SeniorCitizen`, `senior_citizen` → "senior citizen"."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return " ".join(re.findall(r"[^\W_]+", split.lower()))


def refused(name: str, more: Iterable[str] = (), whole: bool = False) -> str | None:
    """What an attribute of this name tells of a person, so that it is not read (`PROTECTED`, `more`: audit only).

    With `whole` only where the whole name is such a term, which is how uses of a product are judged.
    """
    words = words_of(name)
    for term in more:
        if words == words_of(term):
            return "what audit_only names"
    if words.replace(" ", "") in _WORDS or words in _WORDS:
        return _WORDS.get(words) or _WORDS[words.replace(" ", "")]
    if whole:
        return None
    padded = f" {words} "
    return next((group for term, group in _WORDS.items() if f" {term} " in padded), None)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _plans(value: Any) -> dict[str, dict[str, Any]]:
    """{name: {price, limits: {use: number}, features: names}} of `plans.NAME = { … }`."""
    if not isinstance(value, Mapping) or not 1 <= len(value) <= _MOST:
        raise ValueError(f"1 to {_MOST} plans such as plans.basic = {{ price = 9, limits = {{ seats = 3 }} }}")
    plans = {str(name): _plan(str(name), given) for name, given in value.items()}
    seen: dict[Any, str] = {}
    for name, plan in plans.items():
        offer = (tuple(sorted(plan["limits"].items())), tuple(sorted(plan["features"])))
        other = seen.setdefault(offer, name)
        if other != name:
            raise ValueError(f"one price for one offer, and {other} and {name} give the same in plans")
    return plans


def _plan(name: str, given: Any) -> dict[str, Any]:
    known = ("price", "limits", "features")
    if not _NAME.match(name):
        raise ValueError(f"names of letters, digits, _ and -, beginning with a letter, instead of plans.{name}")
    if not isinstance(given, Mapping):
        raise ValueError(f"plans.{name} = {{ price = 9, limits = {{ seats = 3 }}, features = [] }}")
    for key in given:
        if key not in known:
            what = "; a price is the same for everybody" if "price" in str(key) or "discount" in str(key) else ""
            raise ValueError(f"{', '.join(known)} in plans.{name}, which has {key!r}{what or nearest(str(key), known)}")
    price, limits, features = given.get("price"), given.get("limits", {}), given.get("features", [])
    if not _number(price):
        raise ValueError(
            f"price = the published price a month, one number for everybody (prices of single people or groups are "
            f"refused), in plans.{name}"
        )
    if not isinstance(limits, Mapping) or not all(_number(limit) for limit in limits.values()):
        raise ValueError(f"limits = {{ use = a number from 0 on }} in plans.{name}; a use without a limit is free")
    if not isinstance(features, list | tuple) or not all(isinstance(one, str) and one for one in features):
        raise ValueError(f'features = ["editor"] in plans.{name}')
    for use in (*limits, *features):
        _refuse(str(use), f"plans.{name}")
    if both := sorted(set(limits) & set(features)):
        raise ValueError(f"{both[0]} either among limits or among features of plans.{name}")
    return {
        "price": float(given["price"]),
        "limits": {str(use): float(limit) for use, limit in limits.items()},
        "features": tuple(dict.fromkeys(features)),
    }


def _uses(value: Any) -> dict[str, dict[str, Any]]:
    """{name: {count, events, target, property}} of `uses.NAME = { … }`."""
    if not isinstance(value, Mapping) or len(value) > _MOST:
        raise ValueError('uses such as uses.api_calls = { events = ["api_call"] }')
    return {str(name): use_of(str(name), given) for name, given in value.items()}


def use_of(name: str, given: Any = None) -> dict[str, Any]:
    """How one use is counted; without a declaration events of that type, and those with that target."""
    known = ("count", "events", "target", "property")
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        raise ValueError(f'uses.{name} = {{ events = ["{name}"] }}')
    for key in given:
        if key not in known:
            raise ValueError(f"{', '.join(known)} in uses.{name}, which has {key!r}{nearest(str(key), known)}")
    count = given.get("count", "property" if "property" in given else "events")
    if count not in COUNTS:
        raise ValueError(f"count = one of {', '.join(COUNTS)} in uses.{name}")
    events, target, told = given.get("events", []), given.get("target"), given.get("property")
    if not isinstance(events, list | tuple) or not all(isinstance(one, str) and one for one in events):
        raise ValueError(f'events = ["api_call"] in uses.{name}')
    if target is not None and (not isinstance(target, str) or not target):
        raise ValueError(f"target = the target of the events, in uses.{name}")
    if (count == "property") != isinstance(told, str) or (told is not None and not re.fullmatch(r"\w+", str(told))):
        raise ValueError(f'property = "stores", a number that the account says of itself, in uses.{name}')
    if count in ("size", "property") and (events or target is not None):
        raise ValueError(f"no events and no target with count = {count!r} in uses.{name}")
    for one in (name, *events, *(() if target is None else (target,))):
        _refuse(one, f"uses.{name}")
    if told is not None:
        _refuse(told, f"uses.{name}", whole=False)
    return {"count": count, "events": tuple(events), "target": target, "property": told}


def _refuse(name: str, place: str, whole: bool = True, more: Iterable[str] = ()) -> None:
    if (tells := refused(name, more, whole)) is not None:
        raise ValueError(f"nothing that a plan must not depend on in {place}, and {name!r} tells of {tells}")


def _currency(value: Any) -> str:
    if value not in _CURRENCIES:
        close = nearest(str(value).upper(), _CURRENCIES) if str(value).upper() in _CURRENCIES else ""
        raise ValueError(f'a currency of three letters (ISO 4217) such as "EUR" instead of {value!r}{close}')
    return str(value)


def check_plan(options: Mapping[str, Any], section: str) -> None:
    """What the keys of one surface must be to each other; ValueError says what was expected."""
    plans = options["plans"]
    named = {use for plan in plans.values() for use in (*plan["limits"], *plan["features"])}
    for use, spec in options["uses"].items():
        if use not in named:
            raise ValueError(
                f"uses that a plan limits or includes in {section}, and none does {use!r}{nearest(use, named)}"
            )
        _refuse(use, f"uses.{use} of {section}", more=options["audit_only"])
        if spec["property"] is not None:
            _refuse(spec["property"], f"uses.{use} of {section}", whole=False, more=options["audit_only"])
    for use in sorted(named):
        _refuse(use, f"plans of {section}", more=options["audit_only"])
        if options["uses"].get(use, {}).get("count") in ("size", "property") and any(
            use in plan["features"] for plan in plans.values()
        ):
            raise ValueError(f"features that are used, and {use!r} counts what an account is, in {section}")


def _key(kind: Any, default: Any, low: float = 0.0, high: float = 1e9) -> tuple[Any, Check]:
    return default, partial(checked, Setting("", kind, default, "", low, high))


PLAN: dict[str, tuple[Any, Check]] = {
    "plans": (None, _plans),
    "currency": ("EUR", _currency),
    "uses": ({}, _uses),
    "months": _key("whole", 6, 1, 36),
    "min_confidence": _key("number", 0.9, 0.5, 1),
    "feature_uses": _key("whole", 2, 1, 1_000_000),
    "roles": _key("texts", ()),
    "audit_only": _key("texts", ()),
}
"""Key → its default and what checks it."""
