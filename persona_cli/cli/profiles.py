"""Commands: profile: what is known of a user, now and at any past moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from persona_cli.cli.common import (
    AsOfOption,
    FormatOption,
    JsonOption,
    OutOption,
    RecipientOption,
    WaitOption,
    chosen_format,
    command,
    emit_json,
    group,
    invocation,
    locate_home,
    out_stream,
    plain,
    printable,
    render,
    say,
    warn,
)
from persona_cli.cli.profile_page import busiest
from persona_cli.cli.survey import survey

Stage = Literal["context", "cohort", "individual"]
KnownAtOption = Annotated[
    str | None,
    typer.Option("--known-at", metavar="TIME", help="By what was ingested until this date or time."),
]


def register(app: typer.Typer) -> None:
    profile = group(app, "profile", "What is known of each user, now and at any past moment.", panel="Data")
    command(profile, show)
    command(profile, profile_list, name="list")
    command(profile, build)
    command(profile, export)
    command(profile, diff)
    command(profile, survey)


def show(
    user: Annotated[str, typer.Argument(metavar="USER", help="The user's id, or an anonymous one.")],
    as_of: AsOfOption = None,
    known_at: KnownAtOption = None,
    top: Annotated[int, typer.Option("--top", "-n", min=1, help="How many items, categories and tags.")] = 10,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Show one user: since when, how much, what they like and told, when they come, and how they are served and why.

    Served are layers: the popular list of the context, that of the cohort, and the user's own. Their weights are those
    of the model that is served now, by this history; of a layer that is not reached the page says what it needs.
    Features are null (and not shown) where there is too little to go by; docs/profiles.md has their formulas.
    Strengths are what is left of them on the user's own last day (signals.half_life_days).

    Examples:
    persona profile show u1042
    persona profile show u1042 --as-of 2026-03-01 --json
    """
    import shutil
    import sys

    from persona_cli.cli.profile_page import page
    from persona_cli.profiles.people import person
    from persona_cli.profiles.permitted import ANALYTICS
    from persona_cli.serving.layer_weights import layers_of
    from persona_cli.workspace import runs
    from persona_cli.workspace.setting import moment_of

    home = locate_home()
    with runs.recording(home, invocation.words, ids=[user]):
        moments = moment_of(as_of), moment_of(known_at)
        found = person(home, user, moments[0], top, moments[1], purpose=ANALYTICS, layers=layers_of)
        if as_json:
            emit_json(found, out)
            return
        width = shutil.get_terminal_size().columns
        encoding = "utf-8" if out is not None else sys.stdout.encoding or "utf-8"
        unicode = encoding.lower().replace("-", "").startswith("utf")
        with out_stream(out) as stream:
            for line in page(found, width, unicode):
                stream.write(line.encode(encoding, "backslashreplace") + b"\n")


def profile_list(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, most events first.")] = 20,
    stage: Annotated[Stage | None, typer.Option("--stage", help="Only users that are served in this way.")] = None,
    as_of: AsOfOption = None,
    known_at: KnownAtOption = None,
    format: FormatOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """List users with what is most worth knowing of each, most events first.

    Examples:
    persona profile list
    persona profile list --stage individual --limit 100 --format csv
    persona profile list --as-of 2026-03-01
    """
    import polars as pl

    from persona_cli.profiles.permitted import ANALYTICS
    from persona_cli.profiles.read import preferred_categories, profiles
    from persona_cli.workspace.setting import moment_of

    home = locate_home()
    past = as_of is not None or known_at is not None
    if not past:
        warn_if_behind(home)
    rows = profiles(home, past, moment_of(as_of), moment_of(known_at), purpose=ANALYTICS)
    if stage is not None:
        rows = rows.filter(pl.col("stage") == stage)
    first = rows.sort("events", "user_id", descending=[True, False]).head(limit).collect()
    columns = ("user_id", "account_id", "stage", "holdout", "events", "items", "sessions", "first_seen", "last_seen")
    if not past:  # only of those shown
        preferred = preferred_categories(home, first["user_id"], purpose=ANALYTICS)
        first = first.join(preferred, "user_id", "left", maintain_order="left")
    render(first.select(*columns, "device", "country", "preferred_category"), chosen_format(format, as_json), out)


def build(
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Fold everything again, not only what is new.")] = False,
    as_json: JsonOption = False,
    wait: WaitOption = 0,
) -> None:
    """Bring the profiles up to date with the events; `persona ingest` does it by itself.

    Only what changed is folded, unless the settings that profiles follow from have changed. The result is the same.

    Examples:
    persona profile build
    persona profile build --rebuild
    """
    import time

    from persona_cli.profiles.sync import sync
    from persona_cli.workspace import runs

    home = locate_home()
    with runs.recording(home, invocation.words) as run:
        began = time.monotonic()
        done = sync(home, rebuild, wait)
        run.counts = {"mode": done.mode, "users": done.users, "events": done.events}
        seconds = round(time.monotonic() - began, 3)
    if as_json:
        emit_json({**vars(done), "seconds": seconds})
    else:
        say(f"profiles {done.mode} ({done.reason}): {done.users:,} users, {done.events:,} events, {seconds:.1f} s")


def export(
    file: Annotated[Path, typer.Argument(metavar="FILE.parquet", help="Where to; a file there is replaced.")],
    recipient: RecipientOption = None,
    as_of: AsOfOption = None,
    known_at: KnownAtOption = None,
) -> None:
    """Write all profiles, derived columns and features included, to one Parquet file sorted by user.

    Read this file, not the folder profiles/ of the workspace: that one also holds rows that are no longer true.

    Examples:
    persona profile export profiles.parquet
    persona profile export march.parquet --as-of 2026-03-01
    persona profile export profiles.parquet --recipient "Mail house Ltd"
    """
    from persona_cli.privacy.recipients import named, register
    from persona_cli.profiles.people import people
    from persona_cli.profiles.permitted import ANALYTICS
    from persona_cli.workspace import runs
    from persona_cli.workspace.artifacts import file_digest, replace_file
    from persona_cli.workspace.setting import moment_of

    recipient = None if recipient is None else named(recipient)
    home = locate_home()
    with runs.recording(home, invocation.words) as run:
        if as_of is None and known_at is None:
            warn_if_behind(home)
        rows = people(home, moment_of(as_of), moment_of(known_at), purpose=ANALYTICS)
        with replace_file(file) as beside:
            rows.write_parquet(beside)
            if recipient is not None:
                register(home, recipient, "profiles", file_digest(beside), ids="user_ids")
        run.counts = {"users": rows.height}
        run.outputs = {file.name: file_digest(file)}
    say(f"{rows.height:,} profiles in {file}")


def diff(
    user: Annotated[str, typer.Argument(metavar="USER", help="The user's id, or an anonymous one.")],
    since: Annotated[str, typer.Option("--from", metavar="TIME", help="The earlier date or time.")],
    until: Annotated[str | None, typer.Option("--to", metavar="TIME", help="The later one; now if not given.")] = None,
    known_at: KnownAtOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Show what changed in one user's profile between two moments.

    Every column that differs, before and after, your own features too; segments that were entered (+) or left (-);
    items, categories and tags that a liking was gained for or lost.

    Examples:
    persona profile diff u1042 --from 2026-03-01 --to 2026-04-01
    persona profile diff u1042 --from 2026-03-01 --json
    """
    from persona_cli.profiles.people import difference
    from persona_cli.workspace import runs
    from persona_cli.workspace.setting import moment_of

    home = locate_home()
    with runs.recording(home, invocation.words, ids=[user]):
        found = difference(home, user, moment_of(since), moment_of(until), moment_of(known_at))
        if as_json:
            emit_json(found, out)
            return
        with out_stream(out) as stream:
            for line in _changes(found):
                stream.write(line.encode() + b"\n")


def _changes(found: Mapping[str, Any]) -> Iterator[str]:
    """A line a column that differs, one an entry where only some do, then what was gained (+) and lost (-)."""
    until = "now" if found["to"] is None else _minute(found["to"])
    yield f"{printable(found['user_id'])}: {_minute(found['from'])} → {until}"
    names = []
    for name, both in found["changed"].items():
        before, after = both["before"], both["after"]
        if isinstance(after, Mapping):
            names += [(f"{name} {key}", (before or {}).get(key), after.get(key)) for key in after]
        else:
            names.append((name, before, after))
    width = max((len(name) for name, *_ in names), default=0)
    for name, before, after in names:
        yield f"{printable(name):<{width}}  {_value(before)} → {_value(after)}"
    for name in ("segments", "items", "categories", "tags", "never"):
        gained, lost = found[name]["gained"], found[name]["lost"]
        if gained or lost:
            yield f"{name}: {printable(', '.join([*('+' + one for one in gained), *('-' + one for one in lost)]))}"
    if not names and not found["segments"]["gained"] and not found["segments"]["lost"]:
        yield "nothing changed"


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list) and len(value) == 24:  # hours
        return busiest(value) or "–"
    if isinstance(value, list) and value and isinstance(value[0], Mapping) and "n" in value[0]:
        return printable(", ".join(f"{entry['n']:,} {next(iter(entry.values()))}" for entry in value))
    return printable(str(plain(value)))


def warn_if_behind(home: Any) -> None:
    from persona_cli.profiles.sync import behind

    reason = behind(home)
    if reason is not None:
        warn(f"the profiles are behind the events ({reason}); run: persona profile build")


def _minute(moment: Any) -> str:
    return str(plain(moment))[:16].replace("T", " ")
