"""The settings of privacy: what `[privacy.…]` in persona.toml holds.

`[privacy.collect]` says what is collected, `[privacy.retention]` how long it is kept, and `[privacy.controller]` what
the records of privacy need and no table of a workspace can tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from persona_cli.errors import nearest
from persona_cli.workspace.setting import Setting

_SECTION = "privacy.controller"

CONTROLLER_SETTINGS: tuple[Setting, ...] = (
    Setting(f"{_SECTION}.name", "text", "", "Who is responsible for the data: name and address (GDPR Art. 13, 30)."),
    Setting(f"{_SECTION}.contact", "text", "", "How people and authorities reach you: e-mail, telephone or a form."),
    Setting(f"{_SECTION}.representative", "text", "", 'Your representative in the Union (Art. 27), or "none".'),
    Setting(f"{_SECTION}.dpo", "text", "", 'Name and contact of the data protection officer (Art. 37), or "none".'),
    Setting(f"{_SECTION}.authority", "text", "", "The supervisory authority that people may complain to."),
    Setting(
        f"{_SECTION}.bases_decided",
        "text",
        "",
        "Who decided on the lawful bases of [privacy.purposes] and when; while this is empty, the records of\n"
        "persona privacy records say of bases that are as shipped that nobody has decided on them yet.",
    ),
    Setting(
        f"{_SECTION}.obligation",
        "text",
        "",
        "Whether people must give their data, and what follows if they don't (Art. 13(2)(e)).",
    ),
    Setting(
        f"{_SECTION}.processors",
        "texts",
        (),
        "Who works with the data for you (hosting, mailing, support) besides the recipients that persona notes;\n"
        '["none"]: nobody.',
    ),
    Setting(
        f"{_SECTION}.transfers",
        "texts",
        (),
        'Transfers to countries outside the EEA, each with its safeguard (Art. 46): "USA, Mail house: standard\n'
        'contractual clauses of 2021"; ["none"]: no transfers.',
    ),
    Setting(
        f"{_SECTION}.measures",
        "texts",
        (),
        "Security measures beyond persona itself (Art. 32): encrypted disks, backups, who has access.",
    ),
)


EVERYTHING = "*"
DROP = "drop"
_FIND = "without the ids nobody's rows can be found again to be shown, corrected or erased"
_TELL = "without it an event says nothing"
_WHEN = "without it nothing expires and nothing is as of a date"
_SINCE = "without it nobody knows which of two rows holds"
NEEDED: dict[str, dict[str, str]] = {
    "events": {
        "event_id": "without it no event is known again",
        "user_id": _FIND,
        "anon_id": _FIND,
        "event_type": _TELL,
        "timestamp": _WHEN,
    },
    "items": {"item_id": "without it no event has an item", "valid_from": _SINCE},
    "users": {"user_id": _FIND, "valid_from": _SINCE},
    "accounts": {"account_id": _FIND, "valid_from": _SINCE},
}
"""Columns that are always stored, and why."""
OPTIONAL: dict[str, tuple[str, ...]] = {
    "events": (
        "account_id", "target", "item_id", "received_at", "session_id", "value", "currency", "query", "position",
        "decision_id", "device", "browser", "os", "page", "referrer", "country", "region", "network", "locale", "tz",
        "campaign", "consent",
    ),
    "items": ("title", "category", "tags", "text", "url", "price", "currency", "available", "published_at"),
    "users": ("account_id", "role", "country", "locale", "tz", "signed_up"),
    "accounts": ("name", "size", "plan", "industry", "country"),
}  # fmt: skip
"""Columns that may be left out. `props` is decided by privacy.collect.props."""
TIMES = ("minute", "hour", "day")
STEP = "step"
WAYS: dict[str, tuple[str, ...]] = {
    "timestamp": TIMES,
    "received_at": TIMES,
    "signed_up": TIMES,
    "value": (STEP,),
    "position": (STEP,),
    "size": (STEP,),
    "locale": ("language",),
    "page": ("host", "section"),
    "referrer": ("host", "section"),
    "device": ("family",),
    "browser": ("family",),
    "os": ("family",),
    "tz": ("offset",),
}
"""How each column may be made coarse, beside `drop`."""
_PERSONAL = ("events", "users", "accounts")


def _allowed(kind: str, given: tuple[str, ...]) -> tuple[str, ...]:
    if given == (EVERYTHING,):
        return given
    needed, known = NEEDED[kind], (*NEEDED[kind], *OPTIONAL[kind])
    for name in given:
        if name not in known:
            raise ValueError(f'columns of {kind} or ["*"], and {name!r} is none{nearest(name, known)}')
    for name, why in needed.items():
        if name not in given:
            raise ValueError(f"a list with {', '.join(needed)}: {name} cannot be left out, since {why}")
    return tuple(dict.fromkeys(given))


def _paths(given: tuple[str, ...]) -> tuple[str, ...]:
    if given != (EVERYTHING,) and any("*" in path for path in given):
        raise ValueError('["*"] for all, or paths of keys such as "cart.total", each with all that is below it')
    return tuple(dict.fromkeys(given))


def _coarsening(given: Mapping[str, Any]) -> dict[str, str | float]:
    return {name: _way(name, value) for name, value in given.items()}


def _way(name: str, value: Any) -> str | float:
    optional = {column for kind in _PERSONAL for column in OPTIONAL[kind]}
    for kind in _PERSONAL:
        if name in NEEDED[kind] and name not in WAYS:
            raise ValueError(f"a column that may be coarse; {name} cannot be, since {NEEDED[kind][name]}")
    if name not in optional and name not in WAYS:
        raise ValueError(
            f"a column of events, users or accounts, and {name!r} is none{nearest(name, sorted(optional))}"
        )
    ways = WAYS.get(name, ())
    if value == DROP:
        if name in optional:
            return DROP
        raise ValueError(f"{' or '.join(ways)} for {name}, which cannot be left out, since {NEEDED['events'][name]}")
    if STEP in ways:
        return _step(name, value)
    if isinstance(value, str) and value in ways:
        return value
    also = (DROP,) if name in optional else ()
    raise ValueError(f"{name} = {' or '.join(repr(way) for way in (*ways, *also))}")


def _step(name: str, value: Any) -> float:
    wrong = ValueError(f'{name} = a step above 0, such as 0.5, or "drop"')
    try:
        step = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except ValueError:
        raise wrong from None
    if not (math.isfinite(step) and step > 0):
        raise wrong
    return step


COLLECT_SETTINGS: tuple[Setting, ...] = (
    *(
        Setting(
            f"privacy.collect.{kind}",
            "texts",
            (EVERYTHING,),
            f'Columns of {kind} that are stored, all others are left out at the door; ["*"] = all.\n'
            f"Always named in a list: {', '.join(NEEDED[kind])}.",
            check=partial(_allowed, kind),
        )
        for kind in NEEDED
    ),
    Setting(
        "privacy.collect.props",
        "texts",
        (EVERYTHING,),
        'Keys of props that are stored, as paths ("plan", "cart.total") with all that is below them; ["*"] = all,\n'
        "[] = none.",
        check=_paths,
    ),
    Setting(
        "privacy.collect.quarantine_raw",
        "flag",
        True,
        "Whether the text of rejected lines is kept; if not, only where they were and why, and none can be retried.",
    ),
    Setting(
        "privacy.collect.coarsen",
        "coarsening",
        {},
        "Columns that are stored less exactly: times to minute, hour or day; value, position and size to steps (0.5);\n"
        "locale to language; page and referrer to host or section (host and first part of the path); device, browser\n"
        'and os to family; tz to offset; whatever may be missing to drop. timestamp = "hour"',
        check=_coarsening,
    ),
)
RETENTION_SETTINGS: tuple[Setting, ...] = (
    Setting(
        "privacy.retention.events_months",
        "whole",
        25,
        "Events are kept this many months, then `persona privacy expire` removes them and what follows from them;\n"
        "0 = without end. Older states of users, and users without any event left, go with them.",
        0,
        1200,
    ),
    Setting(
        "privacy.retention.decisions_months",
        "whole",
        13,
        "Decisions and outcomes are kept this many months; 0 = without end.",
        0,
        1200,
    ),
    Setting(
        "privacy.retention.evaluations_days",
        "whole",
        90,
        "Tables with a row a user under evaluations/ are kept this many days; 0 = without end. Their figures stay.",
        0,
    ),
    Setting(
        "privacy.retention.runs_months",
        "whole",
        25,
        "Records of commands (runs/) are kept this many months; 0 = without end.",
        0,
        1200,
    ),
    Setting(
        "privacy.retention.superseded_days",
        "whole",
        30,
        "Files that tables no longer name, from which `ingest undo` brings replaced events back, are kept at most so\n"
        "many days; whenever events expire, all of them go.",
        0,
    ),
    Setting(
        "privacy.retention.withdrawn_days",
        "whole",
        30,
        "Days until the events of people are removed whom no purpose has a basis for any more; 0 = at the next expiry.",
        0,
    ),
)


BASES = ("consent", "contract", "legal_obligation", "vital_interests", "public_task", "legitimate_interest")
"""Lawful bases of processing (GDPR Art. 6(1) a to f)."""
_SHIPPED = {
    "personalization": "contract",
    "analytics": "contract",
    "model_training": "contract",
    "messaging": "consent",
}


def _purpose(name: str, basis: str) -> tuple[Setting, ...]:
    section = f"privacy.purposes.{name}"
    return (
        Setting(
            f"{section}.basis",
            "text",
            basis,
            'The lawful basis (GDPR Art. 6): yours to decide, with whoever advises you; "": none, so it is an error\n'
            "to use anybody's data for this purpose.",
            words=(*BASES, ""),
        ),
        Setting(
            f"{section}.assessment",
            "text",
            "",
            "File that weighs your interest against theirs, which legitimate_interest needs; from this folder.",
        ),
    )


PRIVACY_SETTINGS: tuple[Setting, ...] = (
    Setting(
        "privacy.regime",
        "text",
        "gdpr",
        "Which law sets the time for people's requests: gdpr (one month, two more where one is complex) or ccpa\n"
        "(45 days, 45 more).",
        words=("gdpr", "ccpa"),
    ),
    *(setting for name, basis in _SHIPPED.items() for setting in _purpose(name, basis)),
    Setting(
        "privacy.consent.receipts_from_events",
        "flag",
        True,
        "Whether what events say of consent (context.consent) is written as receipts, which hold until the next word.\n"
        "The browser's opt-out signal (Sec-GPC: 1) always is.",
    ),
    *CONTROLLER_SETTINGS,
    *COLLECT_SETTINGS,
    *RETENTION_SETTINGS,
)
