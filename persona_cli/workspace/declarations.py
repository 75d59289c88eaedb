"""Every setting of a workspace: key, default, what is allowed, and the comment that stands above it in persona.toml."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from persona_cli.workspace.expressions import parse_condition

Kind = Literal["text", "number", "whole", "flag", "texts", "wholes", "duration", "zone", "strengths"]
_DURATION = re.compile(r"^(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?$")


@dataclass(frozen=True)
class Setting:
    """One key. `low` and `high` are inclusive; `words` stand beside a number ("auto") or are all that a text may be."""

    key: str
    kind: Kind
    default: Any
    comment: str
    low: float = -math.inf
    high: float = math.inf
    words: tuple[str, ...] = ()

    @property
    def section(self) -> str:
        return self.key.rpartition(".")[0]

    @property
    def name(self) -> str:
        return self.key.rpartition(".")[2]

    @property
    def is_table(self) -> bool:
        return self.kind == "strengths"


STRENGTHS: dict[str, float | str] = {
    "impression": 0,
    "view": 0.3,
    "page_view": 0.1,
    "click": 1,
    "dwell": 1,
    "scroll": 0.2,
    "search": 0,
    "feature_use": 1,
    "save": 3,
    "thumbs_up": 3,
    "thumbs_down": -3,
    "show_less": -2,
    "purchase": 5,
    "add_to_cart": 2,
    "message_open": 0.3,
    "block": "never",
    "rating>=4": 3,
    "rating>=3": 1,
    "rating<3": -2,
}

SETTINGS: tuple[Setting, ...] = (
    Setting("ingest.assume_tz", "zone", "UTC", "Time zone of times that name none (IANA name)."),
    Setting(
        "ingest.on_duplicate",
        "text",
        "keep-first",
        "Same event_id twice: keep the first, keep the last, or refuse the file.",
        words=("keep-first", "keep-last", "error"),
    ),
    Setting(
        "ingest.max_rejected",
        "number",
        0.01,
        "A file is refused when more than this share of its lines (and more than 20) are rejected.",
        0,
        1,
    ),
    Setting("ingest.max_line_mb", "whole", 64, "A longer line is rejected, in MiB.", 1, 1024),
    Setting("ingest.max_expansion", "whole", 200, "A compressed file may grow to this many times its size.", 1),
    Setting("quarantine.retention_days", "whole", 30, "Rejected lines are kept this many days.", 0),
    Setting(
        "holdout.share",
        "number",
        0.05,
        "Share of users who always get the non-personalised list, to measure against.",
        0.05,
        0.10,
    ),
    Setting("signals.other", "number", 1.0, "Strength of an event type that is not listed below."),
    Setting("signals.half_life_days", "number", 180.0, "A strength halves in this many days; 0 = never.", 0),
    Setting(
        "signals.strengths",
        "strengths",
        STRENGTHS,
        'What an event says about a user\'s interest in its item: a number, or "never" = do not show it again.\n'
        "A key is an event type or a comparison on its value; the first that holds counts, comparisons first.\n"
        "This table stands as written here: an event type that you delete counts as signals.other.",
    ),
    Setting("profiles.session_gap_minutes", "number", 30.0, "A pause this long starts a new session.", 0.1),
    Setting("profiles.buckets", "whole", 16, "Parts that users are split into on disk.", 1, 4096),
    Setting("profiles.cohort_from", "whole", 5, "Events from which a user is served from a cohort.", 0),
    Setting("profiles.individual_from", "whole", 20, "Events from which a user is served individually.", 0),
    Setting("recommend.top", "whole", 20, "Items in a list.", 1, 10_000),
    Setting("recommend.consumed_by", "texts", ("*",), 'Event types after which an item is not shown again; "*" = all.'),
    Setting("train.time_limit", "duration", "5m", "Time for `persona train` without a model name (90s, 5m, 1h30m)."),
    Setting("train.validation_users", "whole", 2000, "Users on whom models are compared.", 1),
    Setting("train.cuts", "whole", 2, "Past cuts at which models are compared; fewer if users or time are few.", 1, 10),
    Setting("train.keep", "whole", 5, "Versions of a model that are kept; what is served always is.", 1),
    Setting("model.popular.half_life_days", "number", 30.0, "Popularity halves in this many days; 0 = never.", 0),
    Setting("model.popular.context_weight", "number", 100.0, "Events at which a context weighs as much as all.", 0),
    Setting("model.gram.user_exponent", "number", 0.5, "0 = every event counts the same, 1 = every user does.", 0, 2),
    Setting("model.gram.cap", "number", 1.0, "Upper bound of one user's strength for one item.", 0.001),
    Setting("model.knn.neighbours", "whole", 200, "Neighbours kept for an item.", 1),
    Setting(
        "model.knn.left",
        "number",
        "auto",
        'Exponent of the number of users of the item in the history, or "auto" (0.8; 0.5 in dense data).',
        0,
        2,
        ("auto",),
    ),
    Setting(
        "model.knn.right",
        "number",
        "auto",
        "Exponent of the number of users of the item recommended: the less, the more popular the lists.\n"
        'Or "auto": 0.3; 0.5 where the average item is held by 2 % of users or more.',
        0,
        2,
        ("auto",),
    ),
    Setting(
        "model.ease.lambda",
        "number",
        "auto",
        'Ridge penalty, or "auto" (4 times the mean diagonal of the Gram matrix).',
        0,
        words=("auto",),
    ),
    # LAPACK counts cells in 32 bits: 46,340 items at the most.
    Setting("model.ease.max_items", "whole", 20_000, "The most popular items that EASE covers.", 1, 46_000),
    Setting(
        "model.blend.of",
        "texts",
        ("knn", "ease:0.5"),
        "Models of a blend, each with its weight after a colon (else 1).",
    ),
    Setting(
        "model.layered.evidence",
        "number",
        "auto",
        'Events at which individual and popular weigh the same, or "auto".',
        0,
        words=("auto",),
    ),
    Setting("evaluate.k", "wholes", (10, 20), "Lengths at which lists are judged.", 1),
    Setting("evaluate.test_share", "number", 0.2, "Share of events after the cut.", 0.01, 0.9),
    Setting("evaluate.recent_days", "number", 7.0, "Days before the cut that recent-popular counts.", 0.01),
    Setting("evaluate.margin", "number", 0.01, "Loss that still counts as no worse, as a share of the other's.", 0, 1),
    Setting("evaluate.bootstrap", "whole", 0, "Resamples of users behind an interval; 0: closed forms.", 0),
    Setting("compute.threads", "whole", 0, "Threads for everything but solvers; 0 = all cores.", 0),
    Setting("compute.solver_threads", "whole", 1, "Threads of solvers; another number may change the last bits.", 1),
    Setting("compute.memory_gb", "number", 4.0, "Memory that a command may plan with, in GiB.", 0.25),
)
BY_KEY: dict[str, Setting] = {setting.key: setting for setting in SETTINGS}


def seconds(text: str) -> float:
    """`90s`, `5m`, `1h30m` or plain seconds as seconds; ValueError for anything else."""
    parts = _DURATION.match(text.strip())
    if not text.strip() or parts is None:
        raise ValueError("a duration such as 90s, 5m or 1h30m")
    hours, minutes, rest = (float(part) if part else 0.0 for part in parts.groups())
    return hours * 3600 + minutes * 60 + rest


def checked(setting: Setting, value: Any) -> Any:
    """`value` in the setting's own type; ValueError whose text completes the sentence "expected …"."""
    kind = setting.kind
    if kind in ("number", "whole"):
        return _number(setting, value)
    if kind == "flag":
        if not isinstance(value, bool):
            raise ValueError("true or false")
        return value
    if kind in ("texts", "wholes"):
        return _several(setting, value)
    if kind == "strengths":
        return _strengths(value)
    if not isinstance(value, str):
        raise ValueError(f"one of {', '.join(setting.words)}" if setting.words else "a text in quotes")
    if kind == "duration":
        seconds(value)
    elif kind == "zone":
        _zone(value)
    elif setting.words and value not in setting.words:
        raise ValueError(f"one of {', '.join(setting.words)}")
    return value


def _number(setting: Setting, value: Any) -> Any:
    if isinstance(value, str) and value in setting.words:
        return value
    whole = setting.kind == "whole"
    wanted = ("a whole number" if whole else "a number") + _range(setting)
    wanted += "".join(f' or "{word}"' for word in setting.words)
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise ValueError(wanted)
    if not (setting.low <= value <= setting.high) or not math.isfinite(value):
        raise ValueError(wanted)
    return int(value) if whole else float(value)


def _range(setting: Setting) -> str:
    low, high = setting.low, setting.high
    if math.isfinite(low) and math.isfinite(high):
        return f" from {low:g} to {high:g}"
    if math.isfinite(low):
        return f" of at least {low:g}"
    return f" of at most {high:g}" if math.isfinite(high) else ""


def _several(setting: Setting, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(
            'a list, such as ["click", "purchase"]' if setting.kind == "texts" else "a list, such as [10, 20]"
        )
    if setting.kind == "texts":
        if not all(isinstance(entry, str) and entry for entry in value):
            raise ValueError('a list of texts, such as ["click", "purchase"]')
        return tuple(value)
    if not value or not all(isinstance(n, int) and not isinstance(n, bool) and n >= setting.low for n in value):
        raise ValueError(f"a list of whole numbers of at least {setting.low:g}, such as [10, 20]")
    return tuple(value)


def _strengths(value: Any) -> dict[str, float | str]:
    if not isinstance(value, Mapping):
        raise ValueError("a table of event types and numbers")
    return {str(key): strength(str(key), entry) for key, entry in value.items()}


def strength(key: str, entry: Any) -> float | str:
    """One entry of `[signals.strengths]`: a number, or "never"; the key must be a condition."""
    parse_condition(key)
    if entry == "never":
        return "never"
    number = isinstance(entry, int | float) and not isinstance(entry, bool)
    # 1e6 keeps a thousandth of a strength times any count of events well inside 64 bits.
    if not number or not abs(entry) <= 1e6:
        raise ValueError(f'a number from -1000000 to 1000000 or "never" for {key!r}')
    return float(entry)


def _zone(name: str) -> None:
    import zoneinfo

    try:
        zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError) as error:
        raise ValueError("the name of a time zone, such as UTC or Europe/Berlin") from error
