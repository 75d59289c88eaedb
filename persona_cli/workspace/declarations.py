"""Every setting of a workspace: key, default, what is allowed, and the comment that stands above it in persona.toml.

Those of metrics (`[metric.NAME]`: which events are counted, for whom, in which window) and of what answers to a
decision (`[decisions]`) stand here; the others come from the declarations of their parts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from persona_cli.errors import nearest
from persona_cli.workspace.model_declarations import MODEL_SETTINGS
from persona_cli.workspace.privacy_declarations import PRIVACY_SETTINGS
from persona_cli.workspace.rules_declarations import RULES_SETTINGS
from persona_cli.workspace.setting import Setting, checked
from persona_cli.workspace.surface_declarations import SURFACE_SETTINGS

COUNT, SUM, ANY, SECONDS, SCORE = VALUES = ("count", "sum", "any", "seconds", "score")
"""What an event is worth; another text is an expression on the columns of events."""
USER, SESSION, IMPRESSION = PER = ("user", "session", "impression")
CLICKS = ":clicks"
"""In place of event types: those that [decisions] calls clicks."""
_NAME = re.compile(r"^[^\W\d][\w-]*$")
_KEYS: dict[str, Setting] = {
    "event": Setting("", "texts", (), ""),
    "value": Setting("", "text", COUNT, ""),
    "per": Setting("", "text", USER, "", words=PER),
    "window_days": Setting("", "number", None, "", 0.001, 3650),
    "before_days": Setting("", "number", 28.0, "", 0, 3650),
    "winsor": Setting("", "number", None, "", 0.5, 0.999999),
    "direction": Setting("", "text", "up", "", words=("up", "down")),
}


def _ready(event: tuple[str, ...], value: str = COUNT, per: str = USER, **more: Any) -> dict[str, Any]:
    return {name: one.default for name, one in _KEYS.items()} | {"event": event, "value": value, "per": per} | more


READY: dict[str, dict[str, Any]] = {
    "ctr": _ready((CLICKS,), per=IMPRESSION),
    "session_duration": _ready((), SECONDS, SESSION),
    "pages_per_session": _ready(("page_view", "screen_view"), per=SESSION),
    "adoption": _ready(("feature_use",), ANY),
    "free_to_paid": _ready(("upgrade", "subscribe"), ANY),
    "activation": _ready(("activation", "onboarding_complete"), ANY, window_days=7.0),
    "purchase": _ready(("purchase",), ANY),
    "expansion": _ready(("upgrade", "seat_added"), ANY),
    "arpu": _ready(("purchase",), SUM),
    "nps": _ready(("nps",), SCORE, before_days=0.0),
}
"""Metrics that are there without being declared; a section of the same name changes what it names."""


def _metrics(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {str(name): _metric(str(name), one) for name, one in given.items()}


def _metric(name: str, given: Any) -> dict[str, Any]:
    section = f"[metric.{name}]"
    if not _NAME.match(name):
        raise ValueError(f"a name of letters, digits, _ and -, beginning with a letter, instead of {name!r}")
    if not isinstance(given, Mapping):
        raise ValueError(f'keys such as event = "purchase" in a section {section}')
    found = dict(READY.get(name, _ready(())))
    for key, value in given.items():
        if key not in _KEYS:
            raise ValueError(f"{', '.join(_KEYS)} in {section}, which has {key!r}{nearest(str(key), _KEYS)}")
        if key == "event" and isinstance(value, str):  # a type or a condition
            value = [value]
        if key == "value" and not (isinstance(value, str) and value.strip()):
            raise ValueError(f"value = one of {', '.join(VALUES)}, or an expression, in {section}")
        try:
            found[key] = checked(_KEYS[key], value)
        except ValueError as error:
            raise ValueError(f"{error} for {key} in {section}") from error
    if name not in READY and "event" not in given:
        raise ValueError(f'event = "purchase", a type, types or a condition, in {section}')
    if found["value"] in (ANY, SCORE) and found["per"] != USER:
        raise ValueError(f'per = "user" with value = "{found["value"]}" in {section}')
    if found["value"] == SECONDS and found["per"] == IMPRESSION:
        raise ValueError(f'per = "session" or "user" with value = "seconds" in {section}')
    if found["value"] == SCORE and found["before_days"] and "before_days" in given:
        raise ValueError(f'no before_days with value = "score" in {section}')
    if found["winsor"] is not None and found["value"] in (ANY, SCORE):
        raise ValueError(f'no winsor with value = "{found["value"]}" in {section}')
    return found


METRIC_SETTINGS: tuple[Setting, ...] = (
    Setting(
        "metric",
        "sections",
        {},
        "What experiments are judged by, a section [metric.NAME] each (docs/measuring.md); ready are ctr,\n"
        "session_duration, pages_per_session, adoption, free_to_paid, activation, purchase, expansion, arpu and nps.\n"
        'For example: [metric.big_orders] event = "event_type = \'purchase\' and value > 100", value = "sum",\n'
        'per = "user", window_days = 14, winsor = 0.999, direction = "up"; persona metric check',
        check=_metrics,
    ),
)


DECISION_SETTINGS: tuple[Setting, ...] = (
    Setting(
        "decisions.window_days",
        "number",
        7.0,
        "An event without a decision_id answers to the latest decision with its item of at most so many days before.",
        0.001,
        3650,
    ),
    Setting("decisions.impression", "texts", ("impression",), "Event types that say that a decision was seen."),
    Setting("decisions.click", "texts", ("click", "message_open", "message_click"), "Event types that are clicks."),
    Setting(
        "decisions.conversion",
        "texts",
        ("purchase", "add_to_cart", "upgrade", "feature_use"),
        "Event types that are what a decision is made for.",
    ),
    Setting(
        "decisions.negative",
        "texts",
        ("thumbs_down", "show_less", "block", "unsubscribe"),
        "Event types that say that a decision was not welcome.",
    ),
    Setting(
        "decisions.bounce_seconds",
        "number",
        1800.0,
        "A click that its user does nothing after for so long, seeing lists aside, is a bounce.",
        0.001,
    ),
    Setting(
        "decisions.bubble_weeks",
        "whole",
        4,
        "Weeks from the first on that later ones are held against in `persona decisions bubble`.",
        1,
        520,
    ),
    Setting(
        "decisions.bubble_kept",
        "number",
        0.9,
        "Share of the variety and coverage of lists of these weeks that is to be kept, else exit code 10.",
        0,
        1,
    ),
)


STRENGTHS: dict[str, float | str] = {
    "impression": 0,
    "view": 0.3,
    "page_view": 0.1,
    "click": 1,
    "dwell": 1,
    "heartbeat": 0,
    "scroll": 0.2,
    "search": 0,
    "feature_use": 1,
    "save": 3,
    "unsave": 0,
    "thumbs_up": 3,
    "thumbs_down": -3,
    "show_less": -2,
    "purchase": 5,
    "add_to_cart": 2,
    "message_open": 0.3,
    "block": "never",
    "unblock": 0,
    "preference": 0,
    "survey_answer": 0,
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
    Setting(
        "ingest.strip_queries",
        "flag",
        True,
        "What follows ? or # in URLs is removed before events are stored: it may hold names, searches, tokens.",
    ),
    Setting(
        "ingest.bots",
        "text",
        "drop",
        "Events of bots, known by their user agent: left out and counted, or kept with the device bot.",
        words=("drop", "keep"),
    ),
    Setting(
        "dialects",
        "dialects",
        {},
        "How other systems write their events, for persona ingest --dialect NAME: a section [dialects.NAME] each\n"
        'with fields = { user_id = "customer.id", timestamp = "at", … }. docs/events.md, Your own dialect.',
    ),
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
        "signals.graded",
        "flag",
        True,
        "A scroll counts by its depth (value 0 to 1), a dwell by the chance that its seconds were spent reading\n"
        "once `persona signals fit` has been run. Comparisons in signals.strengths count as they stand.",
    ),
    Setting(
        "signals.center_ratings",
        "flag",
        False,
        "A rating counts by how far it lies above or below the user's own mean (1 at the mean), instead of by its\n"
        "steps in signals.strengths; ratings whose strength there is 0 still count nothing. Formula: docs/profiles.md",
    ),
    Setting(
        "signals.strengths",
        "strengths",
        STRENGTHS,
        'What an event says about a user\'s interest in its item: a number, or "never" = do not show it again.\n'
        "A key is an event type or a comparison on its value; the first that holds counts, comparisons first.\n"
        "This table stands as written here: an event type that you delete counts as signals.other.",
    ),
    Setting(
        "signals.minimum",
        "counts",
        {},
        "Minimum evidence: an event type counts nothing until `persona signals fit` has counted so many events of it.\n"
        "A type that is not listed needs none. What hides items (never, consumed_by) works from the first event.",
    ),
    Setting(
        "signals.dwell.min_events",
        "whole",
        50,
        "Dwell events that a fit needs, and that a target (item, page) needs to have one of its own.",
        10,
    ),
    Setting(
        "signals.dwell.prior_events",
        "whole",
        100,
        "The fit of a target is drawn towards that of all as if so many more events had followed the latter.",
        1,
    ),
    Setting(
        "identity.link_events",
        "texts",
        ("identify", "alias"),
        "Event types that link their anon_id to their user_id when they name both;\n"
        '"*" = every event does that names both.',
    ),
    Setting("profiles.session_gap_minutes", "number", 30.0, "A pause this long starts a new session.", 0.1),
    Setting("profiles.buckets", "whole", 16, "Parts that users are split into on disk.", 1, 4096),
    Setting("profiles.cohort_from", "whole", 5, "Events from which a user is served from a cohort.", 0),
    Setting("profiles.individual_from", "whole", 20, "Events from which a user is served individually.", 0),
    Setting("recommend.top", "whole", 20, "Items in a list.", 1, 10_000),
    Setting("recommend.consumed_by", "texts", ("*",), 'Event types after which an item is not shown again; "*" = all.'),
    Setting(
        "recommend.show_less_factor",
        "number",
        0.5,
        'A fresh "show me less" multiplies the scores of its item, category or tag by this; 1: no effect.',
        0.001,
        1,
    ),
    Setting(
        "recommend.show_less_half_life_days",
        "number",
        365.0,
        'Half of a "show me less" is left after this many days, up to the user\'s last event; 0 = it never fades.',
        0,
    ),
    Setting(
        "recommend.survey_evidence",
        "number",
        5.0,
        "Events with an item at which answers to the survey count half; 0: answers change no list.",
        0,
    ),
    *RULES_SETTINGS,
    Setting(
        "survey",
        "survey",
        {},
        "Questions for new users, and the items that their answers are about; `persona profile survey` suggests some.\n"
        'For each question a section [survey.QUESTION] with text = "What do you like?" and, for each of its answers,\n'
        'answers.ANSWER = { categories = ["comedy"], tags = [] }',
    ),
    Setting(
        "features",
        "features",
        {},
        "Features of users of your own, computed from columns of profiles, computed features (docs/profiles.md) and\n"
        'one another: a section [features.NAME] each with value = "events / (days_since_first + 1)"',
    ),
    Setting(
        "segments",
        "segments",
        {},
        "Groups of users: a section [segments.NAME] each with a condition on the same columns and features,\n"
        "when = \"maturity >= 0.7 and device = 'mobile'\"; persona segment list",
    ),
    *SURFACE_SETTINGS,
    *DECISION_SETTINGS,
    *METRIC_SETTINGS,
    Setting("train.time_limit", "duration", "4m", "Time for `persona train` without a model name (90s, 5m, 1h30m)."),
    Setting("train.validation_users", "whole", 2000, "Users on whom models are compared.", 1),
    Setting("train.cuts", "whole", 2, "Past cuts at which models are compared; fewer if users or time are few.", 1, 10),
    Setting("train.keep", "whole", 5, "Versions of a model that are kept; what is served always is.", 1),
    *MODEL_SETTINGS,
    Setting("evaluate.k", "wholes", (10, 20), "Lengths at which lists are judged.", 1),
    Setting("evaluate.test_share", "number", 0.2, "Share of events after the cut.", 0.01, 0.9),
    Setting("evaluate.recent_days", "number", 7.0, "Days before the cut that recent-popular counts.", 0.01),
    Setting("evaluate.margin", "number", 0.01, "Loss that still counts as no worse, as a share of the other's.", 0, 1),
    Setting("evaluate.bootstrap", "whole", 0, "Resamples of users behind an interval; 0: closed forms.", 0),
    Setting("evaluate.rules", "flag", False, "Also judge lists under [rules], beside the same without: their cost."),
    *PRIVACY_SETTINGS,
    Setting("compute.threads", "whole", 0, "Threads for everything but solvers; 0 = all cores.", 0),
    Setting("compute.solver_threads", "whole", 1, "Threads of solvers; another number may change the last bits.", 1),
    Setting("compute.memory_gb", "number", 4.0, "Memory that a command may plan with, in GiB.", 0.25),
)
BY_KEY: dict[str, Setting] = {setting.key: setting for setting in SETTINGS}
