"""Commands: privacy forget, privacy verify-erasure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from persona_cli.cli.common import (
    DryRunOption,
    JsonOption,
    OutOption,
    WaitOption,
    YesOption,
    command,
    confirm,
    emit_json,
    invocation,
    locate_home,
    render,
    say,
    warn,
)
from persona_cli.errors import UsageError

if TYPE_CHECKING:
    from persona_cli.privacy.erasure import Forgotten
    from persona_cli.privacy.recipients import Key

FOUND = 10
_SHOWN = 50  # residues on a page
UsersArgument = Annotated[
    list[str] | None, typer.Argument(metavar="USER", help="Any id of the person; may repeat.", show_default=False)
]
FileOption = Annotated[
    str | None, typer.Option("--file", metavar="FILE|-", help="Users: a user_id a line, or CSV, JSON lines, Parquet.")
]
KeyOption = Annotated[
    Path | None, typer.Option("--key-file", metavar="FILE", help="The key of pseudonyms that were given away.")
]


def register(privacy: typer.Typer) -> None:
    """Join the group `privacy`."""
    command(privacy, forget)
    command(privacy, verify_erasure)


def forget(
    users: UsersArgument = None,
    file: FileOption = None,
    yes: YesOption = False,
    recipients_out: Annotated[
        Path | None,
        typer.Option("--recipients-out", metavar="DIR", help="Write a file for each recipient, outside the workspace."),
    ] = None,
    no_retrain: Annotated[
        bool, typer.Option("--no-retrain", help="Leave what is served as it is, marked as to be trained again.")
    ] = False,
    dry_run: DryRunOption = False,
    key_file: KeyOption = None,
    wait: WaitOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Erase everything of people, as if they had never been there.

    All ids of each person are erased from every table, from the item sums (by subtraction), from models (fitted again
    by their own recipes), evaluations, reports, manifests of runs, and old versions of all these. Digests are kept:
    what is ingested of them later is dropped. The request and a certificate without names are kept in privacy/.

    Without USER an erasure that was interrupted is completed; every other one completes it first. --dry-run shows what
    would go. Who was given data (`--recipient` of exports) gets a file of what to erase by --recipients-out; pseudonyms
    in it need --key-file.

    It ends with a search of every byte; what is only yours to clear (the settings, files put there) is told with exit
    code 10. Exit code 75 while another command works on the workspace.

    Examples:
    persona privacy forget u1
    persona privacy forget --file left.txt --yes --recipients-out ~/to-send
    persona privacy forget u1 --dry-run
    """
    from persona_cli.privacy.api import Privacy
    from persona_cli.privacy.erasure import complete, planned
    from persona_cli.workspace.doctor import pending_erasures
    from persona_cli.workspace.runs import recording

    home = locate_home()
    wanted = _wanted(users, file)
    key = _key(key_file)
    if not wanted:
        if not pending_erasures(home):
            raise UsageError("whom to forget is missing", "persona privacy forget USER, or --file FILE")
        with recording(home, invocation.words) as run:
            done = complete(home, wait, _tell)
            run.counts = {"requests": len(done)}
        for one in done:
            _report(one)
        if as_json:
            emit_json([_record(one) for one in done])
        if any(one.left for one in done):
            raise typer.Exit(FOUND)
        return
    if dry_run:
        plan = planned(home, wanted)
        emit_json(_record(plan)) if as_json else _report(plan)
        return
    people = "1 person" if len(wanted) == 1 else f"{len(wanted):,} people"
    confirm(f"erase everything of {people}? This cannot be undone", yes)
    done_now = Privacy(home).forget(
        wanted,
        recipients_out=recipients_out,
        retrain=not no_retrain,
        key=key,
        wait=wait,
        progress=_tell,
        words=invocation.words,
    )
    _report(done_now)
    if as_json:
        emit_json(_record(done_now))
    if done_now.left:
        raise typer.Exit(FOUND)


def verify_erasure(
    users: UsersArgument = None,
    file: FileOption = None,
    request: Annotated[
        str | None, typer.Option("--request", metavar="ID", help="Look for what an erasure took out, by its digests.")
    ] = None,
    key_file: KeyOption = None,
    domain: Annotated[
        list[str] | None, typer.Option("--domain", metavar="NAME", help="A domain of pseudonyms; may repeat.")
    ] = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Search every byte of the workspace for people, and tell where something is left.

    Looked at are all columns of all Parquet files with their dictionaries, statistics and footers, old versions, logs,
    arrays, texts, temporary files and names of files. A short id, or a number, counts only as a whole value where a
    person may be meant; any other id wherever it stands as a whole word.

    Exit code 10 where something is left, 0 where nothing is.

    Examples:
    persona privacy verify-erasure u1
    persona privacy verify-erasure --file left.txt --key-file ~/p.key --domain partner-a
    persona privacy verify-erasure --request R-0123456789ab
    """
    from persona_cli.privacy.api import Privacy
    from persona_cli.privacy.requests import find_request

    home = locate_home()
    wanted = _wanted(users, file)
    key = _key(key_file)
    if bool(key) != bool(domain):
        raise UsageError("--key-file and --domain go together", "--key-file FILE --domain partner-a")
    named = None if request is None else find_request(home, request).id
    found = Privacy(home).verify_erasure(wanted, request=named, key=key, domains=domain or (), words=invocation.words)
    if as_json:
        emit_json({"clean": not found, "residues": [vars(one) for one in found]}, out)
    elif found:
        render([vars(one) for one in found[:_SHOWN]], "table", out)
    if found:
        more = f" ({_SHOWN} shown)" if len(found) > _SHOWN and not as_json else ""
        say(f"something is left in {len(found):,} place{'s' * (len(found) > 1)}{more}")
        raise typer.Exit(FOUND)
    say("nothing is left")


def _wanted(users: list[str] | None, file: str | None) -> list[str]:
    if file is None:
        return list(dict.fromkeys(users or ()))
    if users:
        raise UsageError("--file names a file and USER single users; give one of them")
    from persona_cli.events.lists import read_ids

    return list(dict.fromkeys(read_ids(file, ["user_id"])["user_id"].to_list()))


def _key(path: Path | None) -> Key | None:
    if path is None:
        return None
    from persona_cli.privacy.recipients import read_key

    return read_key(path.expanduser())


def _tell(step: str) -> None:
    if invocation.verbose:
        say(step)


def _record(done: Forgotten) -> dict[str, object]:
    return {
        "request": done.request,
        "persons": done.persons,
        "ids": done.ids,
        "places": {
            name: {"before": done.before.get(name, 0), "after": done.after.get(name)}
            for name in sorted({*done.before, *done.after})
        },
        "models": list(done.models),
        "stale": list(done.stale),
        "recipients": [str(path) for path in done.notified],
        "not_reached": list(done.not_reached),
        "left": [vars(one) for one in done.left],
        "certificate": None if done.certificate is None else str(done.certificate),
    }


def _report(done: Forgotten) -> None:
    held = ", ".join(f"{rows:,} in {name}" for name, rows in done.before.items() if rows) or "nothing was there"
    people = f"{done.persons:,} person{'s' if done.persons != 1 else ''} ({done.ids:,} ids)"
    if done.request is None:
        say(f"{people}: {held}")
        say("nothing was changed")
        return
    say(f"{done.request}: {people} forgotten: {held}")
    if done.stale:
        warn(f"{', '.join(done.stale)} still hold what they learned; run: persona train")
    elif done.models:
        say(f"trained again: {', '.join(done.models)}")
    for path in done.notified:
        say(f"for a recipient: {path}")
    for residue in done.left:
        warn(f"still named: {residue.path} ({residue.where}); clear it by hand")
    for one in done.not_reached:
        say(f"not reached: {one}")
    say(f"certificate: {done.certificate}")
    say(f"check it: persona privacy verify-erasure --request {done.request}")
