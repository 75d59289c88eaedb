"""The settings of what answers to a decision (`[decisions]`)."""

from __future__ import annotations

from persona_cli.workspace.setting import Setting

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
