"""The settings of privacy: what `[privacy.…]` in persona.toml holds."""

from __future__ import annotations

from persona_cli.workspace.controller_declarations import CONTROLLER_SETTINGS
from persona_cli.workspace.data_declarations import COLLECT_SETTINGS, RETENTION_SETTINGS
from persona_cli.workspace.setting import Setting

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
