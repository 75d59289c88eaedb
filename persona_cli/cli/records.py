"""Command: privacy records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from persona_cli.cli.common import command, invocation, locate_home, out_stream, say


def register(privacy: typer.Typer) -> None:
    """Join the group `privacy`."""
    command(privacy, records)


def records(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Where to; privacy/records of the workspace.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit code 10 if out of date.")] = False,
) -> None:
    """Write the records that the law asks for, from the settings and from what the workspace really holds.

    The record of processing (GDPR Art. 30), a data map with every table, file and column, the draft of an impact
    assessment with measured risks, the retention schedule, a notice for the people concerned, the recipients, and a
    card of each model in use: Markdown for people, JSON for machines. The same workspace and settings give the same
    bytes.

    What only you know stands as TO BE FILLED IN and is counted on stderr; it goes into [privacy.controller] of
    persona.toml. On stdout are the files that were written, or with --check those that are out of date.

    Examples:
    persona privacy records
    persona privacy records --out compliance --check
    """
    from persona_cli.errors import CheckFailed
    from persona_cli.privacy.api import Privacy

    done = Privacy(locate_home()).records(out, check=check, words=invocation.words)
    with out_stream() as stream:
        stream.write("".join(f"{name}\n" for name in done.changed).encode())
    if not check:
        say(f"{done.folder}: {done.files} files, {len(done.changed)} changed")
    missing, points = done.to_be_filled_in, len(done.open_points)
    say(f"{missing} to be filled in, {points - missing} to be decided or looked at: index.md")
    if check and done.changed:
        names = ", ".join(dict.fromkeys(name.rpartition(".")[0] for name in done.changed))
        raise CheckFailed(f"{done.folder} is out of date: {names}", "persona privacy records")
