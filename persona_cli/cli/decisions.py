"""Commands: decisions: what was served to whom, and what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from persona_cli.cli.common import (
    AsOfOption,
    FormatOption,
    JsonOption,
    OutOption,
    chosen_format,
    command,
    group,
    invocation,
    locate_home,
    render,
    say,
)
from persona_cli.errors import CheckFailed, MissingInput, UsageError

if TYPE_CHECKING:
    import polars as pl

    from persona_cli.workspace.home import Home

SinceOption = Annotated[str | None, typer.Option("--since", metavar="TIME", help="Made at this time or later.")]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Made before this time.")]
Per = Literal["group", "decision", "item"]


def register(app: typer.Typer) -> None:
    decisions = group(app, "decisions", "What was served to whom, and what became of it.", panel="Serve")
    command(decisions, show)
    command(decisions, join)
    command(decisions, bubble)


def show(
    decision: Annotated[str | None, typer.Argument(metavar="DECISION_ID", help="One decision.")] = None,
    user: Annotated[str | None, typer.Option("--user", "-u", metavar="ID", help="Of one person, by any id.")] = None,
    surface: Annotated[str | None, typer.Option("--surface", metavar="NAME", help="Of one surface.")] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many.")] = 20,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Show logged decisions, the latest first: one by its id, or those of a user, a surface, a time.

    As JSON or JSON lines by default, items included; what became of one is in persona decisions join --per decision.
    People whom analytics do not cover are left out.

    Examples:
    persona decisions show 7fa965a72a35ab02879e4e49f1b29acc
    persona decisions show --user u42
    persona decisions show --surface recommend --since 2026-03-01 --format jsonl --out march.jsonl
    """
    if decision is not None and (user or surface or since or until):
        raise UsageError("a DECISION_ID is one decision; leave the other conditions away")
    if decision is None and not (user or surface or since or until):
        raise UsageError("name a decision, or --user, --surface or --since", "persona decisions show --help")
    import polars as pl

    from persona_cli.feedback.decisions import read
    from persona_cli.profiles.identity import persons
    from persona_cli.workspace.setting import moment_of

    home = locate_home()
    _needed(home)
    rows = read(home, since=moment_of(since), until=moment_of(until))
    if decision is not None:
        rows = rows.filter(pl.col("decision_id") == decision)
    if user is not None:
        who = persons(home)
        ids = who.ids_of(who.of(pl.Series("id", [user], dtype=pl.String)))
        rows = rows.filter(pl.col("user_id").is_in(ids.implode()))
    if surface is not None:
        rows = rows.filter(pl.col("surface") == surface)
    found = rows.drop("month").sort("at", "decision_id", descending=[True, False]).head(limit + 1).collect()
    if decision is not None and not found.height:
        raise MissingInput(f"there is no decision {decision!r}", "persona decisions show --since 2026-01-01")
    if found.height > limit:
        say(f"the latest {limit:,} are shown; --limit N shows more")
    chosen = chosen_format(format, as_json, "json" if decision is not None else "jsonl")
    records = found.head(limit).to_dicts()
    render([_flat(one) for one in records] if chosen in ("table", "csv", "md") else records, chosen, out)


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """A decision in one line of a table."""
    items = " ".join(one["item_id"] for one in record["items"] or ())
    return {**record, "items": items, "rules": "; ".join(record["rules"] or ())}


def join(
    since: SinceOption = None,
    until: UntilOption = None,
    as_of: AsOfOption = None,
    per: Annotated[
        Per, typer.Option("--per", metavar="WHAT", help="A row per group (rates), decision or item (counts).")
    ] = "group",
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Join decisions with the events that answer to them: rates by surface, policy, model, stage and holdout.

    Rates are per impression where impressions with decision_id are sent, else per delivered decision, with their 95 %
    intervals; groups of fewer than 20 people have none. [decisions] in persona.toml says which events are clicks,
    conversions and negative reactions. --per decision and --per item name people: they are for your own use.

    Examples:
    persona decisions join
    persona decisions join --since 2026-03-01 --until 2026-04-01 --json
    persona decisions join --per item --format parquet --out answers.parquet
    """
    from persona_cli.feedback.outcomes import join as joined
    from persona_cli.feedback.outcomes import rates
    from persona_cli.profiles import SMALLEST_CELL
    from persona_cli.workspace.runs import recording
    from persona_cli.workspace.setting import moment_of

    home, chosen = locate_home(), chosen_format(format, as_json)
    _needed(home)
    with recording(home, invocation.words) as run:
        found = joined(home, moment_of(since), moment_of(until), moment_of(as_of))
        run.counts = {"decisions": found.decisions.height, "items": found.items.height}
        if per != "group":
            render(found.decisions if per == "decision" else found.items, chosen, out)
            return
        table = rates(found.decisions)
        small = table["people"].null_count()
        render(_as_read(table) if chosen in ("table", "md") else table, chosen, out)
    if small:
        say(f"{small} of {table.height} groups have no figures: fewer than {SMALLEST_CELL} people are in them")


def bubble(
    surface: Annotated[str | None, typer.Option("--surface", metavar="NAME", help="Of one surface.")] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    as_of: AsOfOption = None,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Tell whether lists narrow from week to week: the categories in a list, and how many items are shown at all.

    A model that learns from clicks on its own lists may show ever fewer things. Weeks (of Mondays, UTC) are held
    against the first ones; where the last keeps less than decisions.bubble_kept of entropy (bits, a list) or coverage
    (different items in equally many entries), exit code 10. People who are held out are not counted, nor those whom
    analytics do not cover; weeks of fewer than 20 people have no figures.

    Examples:
    persona decisions bubble
    persona decisions bubble --surface recommend --since 2026-01-01 --json
    """
    from polars import selectors as cs

    from persona_cli.feedback.bubble import bubble as told
    from persona_cli.profiles import SMALLEST_CELL
    from persona_cli.workspace.setting import moment_of

    home, chosen = locate_home(), chosen_format(format, as_json)
    _needed(home)
    found = told(home, moment_of(since), moment_of(until), moment_of(as_of), surface)
    rows = found.weeks.with_columns(cs.float().round(4)) if chosen in ("table", "md") else found.weeks
    render(rows, chosen, out)
    if few := found.weeks["people"].null_count():
        say(f"{few} of {found.weeks.height} weeks have no figures: fewer than {SMALLEST_CELL} people are in them")
    if not found.weeks.height:
        say("no list was logged for anybody who is not held out")
    elif not found.narrow and not found.weeks["coverage_kept"].count():
        say(f"nothing is judged before there are more than {home.settings.whole('decisions.bubble_weeks')} weeks")
    if found.narrow:
        raise CheckFailed("; ".join(found.narrow), "docs/rules.md: quotas, new items, exploration")


def _as_read(table: pl.DataFrame) -> list[dict[str, Any]]:
    """Rates as `12.3 % (11.0-13.7)`."""
    from persona_cli.feedback.outcomes import BY, SHARES

    rows = []
    for row in table.iter_rows(named=True):
        shown = {name: row[name] for name in (*BY, "per", "decisions", "people")}
        for share in SHARES:
            low, high = row[f"{share}_low"], row[f"{share}_high"]
            shown[share] = "" if row[share] is None else f"{row[share]:.1%} ({low * 100:.1f}-{high * 100:.1f})"
        for name in ("click_hours", "conversion_hours"):
            shown[name] = None if row[name] is None else round(row[name], 1)
        rows.append(shown)
    return rows


def _needed(home: Home) -> None:
    from persona_cli.feedback.decisions import NAME
    from persona_cli.workspace import tables

    if not tables.row_count(home, NAME):
        raise MissingInput("no decisions are logged yet", "persona recommend --log --out lists.jsonl")
