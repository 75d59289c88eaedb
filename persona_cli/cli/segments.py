"""Commands: segment: groups of users by conditions on their profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from persona_cli.cli.common import (
    AsOfOption,
    FormatOption,
    JsonOption,
    OutOption,
    chosen_format,
    command,
    emit_json,
    group,
    invocation,
    locate_home,
    render,
    say,
)

if TYPE_CHECKING:
    import polars as pl

    from persona_cli.workspace.home import Home

NameArgument = Annotated[str | None, typer.Argument(metavar="NAME", help="A segment of persona.toml.")]
WhenOption = Annotated[
    str | None, typer.Option("--when", metavar="EXPR", help="A condition, such as \"device = 'mobile'\".")
]


def register(app: typer.Typer) -> None:
    segment = group(app, "segment", "Groups of users by conditions on their profiles.", panel="Data")
    command(segment, segment_list, name="list")
    command(segment, size)
    command(segment, members)


def segment_list(
    columns: Annotated[bool, typer.Option("--columns", help="List what conditions may name instead.")] = False,
    as_of: AsOfOption = None,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """List the segments of persona.toml with their conditions and how many users meet them.

    A segment is a section [segments.NAME] with when = "maturity >= 0.7 and device = 'mobile'". Sizes under 20 are
    shown as < 20 (null in JSON).

    Examples:
    persona segment list
    persona segment list --as-of 2026-03-01 --json
    persona segment list --columns
    """
    from persona_cli.profiles import SMALLEST_CELL, segments

    home, chosen = locate_home(), chosen_format(format, as_json)
    if columns:
        render([{"column": name, "kind": kind} for name, kind in segments.kinds(home).items()], chosen, out)
        return
    if not home.settings.values["segments"]:
        say('no segments are defined; add to persona.toml: [segments.keen] when = "maturity >= 0.7"')
    found = segments.sizes(_people(home, as_of), home)
    if chosen == "table":
        few = f"< {SMALLEST_CELL}"
        rows = [
            {**row, "users": few if row["users"] is None else f"{row['users']:,}", "share": _share(row["share"])}
            for row in found.iter_rows(named=True)
        ]
        render(rows, chosen, out)
    else:
        render(found, chosen, out)


def size(
    name: NameArgument = None,
    when: WhenOption = None,
    as_of: AsOfOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count the users of a segment, or of any condition. Sizes under 20 are shown as < 20 (null in JSON).

    Examples:
    persona segment size keen
    persona segment size --when "purchases >= 2 and days_since_last <= 7"
    """
    from persona_cli.profiles import SMALLEST_CELL, segments

    home = locate_home()
    condition = segments.condition(home, name, when)
    people = _people(home, as_of)
    users = int(condition.mask(people).sum())
    shown = users if users >= SMALLEST_CELL else None
    share = None if shown is None else round(users / people.height, 6)
    if as_json:
        emit_json({"segment": name, "when": condition.text, "users": shown, "share": share, "of": people.height})
    elif shown is None:
        typer.echo(f"< {SMALLEST_CELL} of {people.height:,} users")
    else:
        typer.echo(f"{users:,} of {people.height:,} users ({_share(share)})")


def members(
    name: NameArgument = None,
    when: WhenOption = None,
    as_of: AsOfOption = None,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """List the users of a segment, or of any condition, by id, sorted.

    This names people, however few they are: it is for your own use, such as a mailing, and not for reports.

    Examples:
    persona segment members keen --out keen.csv --format csv
    persona segment members --when "stage = 'individual' and country = 'DE'"
    """
    from persona_cli.profiles import segments
    from persona_cli.workspace import runs

    home, chosen = locate_home(), chosen_format(format, as_json)
    condition = segments.condition(home, name, when)
    with runs.recording(home, invocation.words) as run:
        people = _people(home, as_of)
        found = people.filter(condition.mask(people)).select("user_id").sort("user_id")
        run.counts = {"users": found.height}
        render(found, chosen, out)


def _people(home: Home, as_of: str | None) -> pl.DataFrame:
    from persona_cli.cli.profiles import warn_if_behind
    from persona_cli.profiles.people import described
    from persona_cli.profiles.permitted import ANALYTICS
    from persona_cli.workspace.setting import moment_of

    if as_of is None:
        warn_if_behind(home)
    return described(home, moment_of(as_of), purpose=ANALYTICS)


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"
