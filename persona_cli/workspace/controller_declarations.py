"""The settings `[privacy.controller]`: what the records of privacy need and no table of a workspace can tell."""

from __future__ import annotations

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
