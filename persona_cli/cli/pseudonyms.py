"""Commands: privacy pseudonymize, privacy anonymity, privacy keys new."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona_cli.cli.common import (
    JsonOption,
    OutOption,
    WaitOption,
    command,
    emit_json,
    group,
    invocation,
    locate_home,
    locate_home_if_any,
    out_stream,
    printable,
    say,
    warn,
)

if TYPE_CHECKING:
    from persona_cli.privacy.anonymity import Anonymity
    from persona_cli.privacy.pseudonymize import Done, Naming
    from persona_cli.privacy.pseudonyms import Places
    from persona_cli.privacy.recipients import Key
    from persona_cli.workspace.home import Home

_SHOWN = 10  # classes on a page
QuasiOption = Annotated[
    str | None, typer.Option("--quasi", metavar="A,B,…", help="Columns by which people could be recognised.")
]
PersonOption = Annotated[
    str | None,
    typer.Option("--person", metavar="COLUMN", help="Whose a row is; user_id where there is one, else each row's own."),
]


def register(privacy: typer.Typer) -> None:
    """Join the group `privacy`."""
    command(privacy, pseudonymize)
    command(privacy, anonymity)
    keys = group(privacy, "keys", "Keys of pseudonyms.")
    command(keys, new)


def new(file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; outside of any workspace.")]) -> None:
    """Write a new key of 256 random bits to a file that only you can read, and print its id.

    Without the key its pseudonyms cannot be made again, and with it they can be undone: keep it apart from the data. A
    file that is there is never replaced.

    Examples:
    persona privacy keys new ~/.config/persona/pseudonyms.key
    """
    from persona_cli.privacy.recipients import new_key

    key = new_key(file.expanduser())
    with out_stream() as stream:
        stream.write(f"{key.id}\n".encode())
    say(f"wrote the key {key.id} to {file} (mode 0600)")


def pseudonymize(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="JSON lines, CSV, TSV or Parquet; without one, the workspace.")
    ] = None,
    domain: Annotated[
        str | None,
        typer.Option("--domain", metavar="NAME", help="Who gets it: each recipient has a domain of its own."),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", metavar="FILE", help="The key, mode 0600; otherwise $PERSONA_PSEUDONYM_KEY."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="PATH", help="The file, or for a workspace the new folder; else stdout."),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="NAME[=KIND]", help="One more place of ids (a.b is inside a); may repeat."),
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option("--keep", metavar="NAME", help="Leave these ids as they are; may repeat.")
    ] = None,
    quasi: QuasiOption = None,
    min_k: Annotated[
        int | None, typer.Option("--min-k", min=1, help="Refuse where fewer people than this share --quasi.")
    ] = None,
    person: PersonOption = None,
    rotate: Annotated[bool, typer.Option("--rotate", help="Move pseudonyms from the old key to the new one.")] = False,
    old_key_file: Annotated[
        Path | None, typer.Option("--old-key-file", metavar="FILE", help="The key that --rotate moves away from.")
    ] = None,
    ids: Annotated[
        list[Path] | None,
        typer.Option("--ids", metavar="PATH", help="File or workspace with the ids that --rotate needs; may repeat."),
    ] = None,
    remap: Annotated[
        Path | None, typer.Option("--remap", metavar="FILE", help="Write old and new pseudonyms of --rotate (0600).")
    ] = None,
    drop_unknown: Annotated[
        bool, typer.Option("--drop-unknown", help="With --rotate, leave out records of ids that are not in --ids.")
    ] = False,
    default_settings: Annotated[
        bool, typer.Option("--default-settings", help="For a workspace: default settings instead of a copy of its own.")
    ] = False,
    wait: WaitOption = 0,
) -> None:
    """Put pseudonyms in the place of ids: HMAC-SHA-256 under a key and a domain.

    Replaced are ids under known names (user_id, anon_id, account_id, session_id, event_id, decision_id and what other
    systems call them) at any depth, and those of --column, whose KIND is person, account, session, event or decision.
    The same id has the same pseudonym within a domain, and nothing in common with that of another domain. Everything
    else stays: `persona privacy scan` finds what else of people is in it.

    Without FILE the workspace is written again to the new folder of --out: events, users, accounts and items, with
    profiles built anew; models are for `persona train` there.

    Printed is the share of users who are the only ones with 4 of their items: pseudonymous is not anonymous. The domain
    is noted in the workspace as a recipient, who is told of later erasures.

    Examples:
    persona privacy pseudonymize events.jsonl --domain partner-a --key-file ~/p.key --out shared.jsonl
    persona privacy pseudonymize --workspace shop --domain partner-a --key-file ~/p.key --out shop-for-a
    persona privacy pseudonymize shared.jsonl --domain partner-a --rotate --old-key-file ~/p.key --key-file ~/q.key \
--ids events.jsonl --remap remap.csv --out rotated.jsonl
    """
    from persona_cli.errors import UsageError
    from persona_cli.privacy.pseudonyms import places

    if not domain:
        raise UsageError("--domain is missing: each recipient has its own", "--domain partner-a")
    for flag, given in (("--old-key-file", old_key_file), ("--ids", ids), ("--drop-unknown", drop_unknown)):
        if given and not rotate:
            raise UsageError(f"{flag} goes with --rotate")
    if (min_k is None) != (quasi is None):
        raise UsageError("--min-k and --quasi go together")
    where = places(columns or (), keep or ())
    names = _naming(key_file, old_key_file, domain, ids or (), where) if rotate else _named(key_file, domain)
    if file is None:
        done = _workspace(out, names, where, quasi, min_k, person, remap, drop_unknown, default_settings, wait)
    else:
        if default_settings:
            raise UsageError("--default-settings is for workspaces; a file has none")
        done = _file(file, out, names, where, quasi, min_k, person, remap, drop_unknown)
    _report(done, out)


def _named(key_file: Path | None, domain: str) -> Naming:
    from persona_cli.privacy.pseudonymize import naming

    return naming(_key(key_file), domain)


def _naming(
    key_file: Path | None, old_key_file: Path | None, domain: str, ids: Sequence[Path], where: Places
) -> Naming:
    from persona_cli.errors import UsageError
    from persona_cli.privacy.pseudonymize import rotating
    from persona_cli.privacy.recipients import read_key

    if old_key_file is None:
        raise UsageError("--rotate needs --old-key-file, the key that made the pseudonyms")
    return rotating(read_key(old_key_file.expanduser()), _key(key_file), domain, ids, where)


def _key(path: Path | None) -> Key:
    import os

    from persona_cli.privacy.recipients import find_key

    return find_key(path.expanduser() if path else None, os.environ)


def _file(
    file: Path,
    out: Path | None,
    names: Naming,
    where: Places,
    quasi: str | None,
    min_k: int | None,
    person: str | None,
    remap: Path | None,
    drop_unknown: bool,
) -> Done:
    from persona_cli.errors import UsageError
    from persona_cli.privacy.pseudonymize import pseudonymize_file, remap_file
    from persona_cli.workspace import runs

    if quasi is not None and min_k is not None:
        if str(file) == "-":
            raise UsageError("--min-k reads the file first, and standard input can be read once", "give a file")
        _at_least(_examined(str(file), quasi, None, person), min_k)
    home = locate_home_if_any()

    def write(stream: Any) -> Done:
        with remap_file(remap, names):
            return pseudonymize_file(file, out, stream, names, where, drop_unknown=drop_unknown)

    with out_stream() as stdout:
        if home is None:
            return write(stdout)
        with runs.recording(home, invocation.words) as run:
            if out is None:  # what was written before a failure has left already
                _registered(home, names, "a file, to standard output", None)
            done = write(stdout)
            if out is not None:
                _registered(home, names, "a file", done.manifest["sha256"])
            run.counts = {"rows": done.rows, "key": names.key.id, "domain": names.domain}
            return done


def _workspace(
    out: Path | None,
    names: Naming,
    where: Places,
    quasi: str | None,
    min_k: int | None,
    person: str | None,
    remap: Path | None,
    drop_unknown: bool,
    default_settings: bool,
    wait: float,
) -> Done:
    from persona_cli.errors import UsageError
    from persona_cli.privacy.pseudonymize import pseudonymize_workspace, remap_file
    from persona_cli.workspace import runs

    if out is None:
        raise UsageError("a workspace is written to a new folder; --out is missing", "--out FOLDER, or give a FILE")
    home = locate_home()
    if quasi is not None and min_k is not None:
        _at_least(_examined("users", quasi, None, person), min_k)
    with runs.recording(home, invocation.words) as run, remap_file(remap, names):
        done = pseudonymize_workspace(
            home, out, names, where, drop_unknown=drop_unknown, default_settings=default_settings, wait=wait
        )
        _registered(home, names, "a workspace", None)
        run.counts = {"rows": done.rows, "key": names.key.id, "domain": names.domain}
    return done


def _registered(home: Home, names: Naming, what: str, digest: str | None) -> None:
    """Note the recipient, who is told when somebody is erased."""
    from persona_cli.privacy.recipients import register as note

    note(home, names.domain, what, digest, names.key.id, names.domain, "pseudonyms")


def _report(done: Done, out: Path | None) -> None:
    replaced = ", ".join(f"{count:,} {name}" for name, count in sorted(done.replaced.items())) or "nothing"
    say(f"{out or 'stdout'}: {done.rows:,} records; key {done.manifest['key']}, domain {done.manifest['domain']}")
    say(f"replaced: {replaced}")
    if done.bare:
        warn("the field 'id' was left as it is; if it names people, add --column id, if not, --keep id")
    if done.unknown:
        say(f"left out: {done.unknown:,} records of ids that were not given")
    if done.withheld:
        say(f"left out: {done.withheld:,} rows of people whom the purpose analytics does not cover")
    if done.unicity is not None:
        say(done.unicity.sentence())


def anonymity(
    what: Annotated[
        str,
        typer.Argument(metavar="FILE|TABLE", help="A file, or users, accounts, events or profiles of the workspace."),
    ],
    quasi: QuasiOption = None,
    sensitive: Annotated[
        str | None, typer.Option("--sensitive", metavar="A,B,…", help="Columns that nobody should learn of a person.")
    ] = None,
    min_k: Annotated[int, typer.Option("--min-k", min=1, help="People that each class must have.")] = 5,
    min_l: Annotated[
        int, typer.Option("--min-l", min=1, help="Different values of --sensitive that each class must have.")
    ] = 2,
    min_entropy_l: Annotated[
        float, typer.Option("--min-entropy-l", min=1, help="The same by exp(entropy): how evenly the values spread.")
    ] = 1.0,
    person: PersonOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Count how many people share their quasi-identifiers (k-anonymity), and how much that tells of them (l-diversity).

    People who agree in all of --quasi are a class. Exit code 10 where a class has fewer people than --min-k, or fewer
    values of a sensitive column than --min-l; the rows of such classes are those to suppress or to coarsen. Dotted
    names lead into JSON. People are counted, not rows: many rows of one person hide nobody.

    Examples:
    persona privacy anonymity users.csv --quasi country,role --sensitive plan
    persona privacy anonymity users --quasi country,role,locale --min-k 10 --json
    """
    from persona_cli.errors import CheckFailed, UsageError

    if quasi is None:
        raise UsageError("--quasi is missing: the columns by which people could be recognised", "--quasi country,role")
    found = _examined(what, quasi, sensitive, person)
    short = found.short(min_k, min_l, min_entropy_l)
    rows, people = int(short["rows"].sum()), int(short["people"].sum())
    if as_json:
        emit_json(
            {
                "quasi": found.quasi,
                "rows": found.rows,
                "people": found.people,
                "classes": found.classes.height,
                "k": found.k,
                "diversity": [vars(one) for one in found.diversities],
                "sizes": found.sizes(),
                "minimum": {"k": min_k, "l": min_l, "entropy_l": min_entropy_l},
                "suppress": {"rows": rows, "people": people, "classes": short},
            },
            out,
        )
    else:
        with out_stream(out) as stream:
            stream.write("".join(f"{printable(line)}\n" for line in _page(found, short, rows)).encode())
    if short.height:
        few = f"{short.height:,} of {found.classes.height:,} classes are below the minimum: {rows:,} rows"
        raise CheckFailed(few, "leave these rows out, or make the columns coarser")


def _page(found: Anonymity, short: Any, rows: int) -> Iterator[str]:
    yield f"people      {found.people:,} in {found.rows:,} rows"
    yield f"classes     {found.classes.height:,} by {', '.join(found.quasi)}"
    yield f"k           {found.k:,}"
    for one in found.diversities:
        yield f"l           {one.distinct:,} of {one.column}; {one.entropy:.3g} by entropy"
    yield ""
    yield "people a class   classes      people"
    for size in found.sizes().iter_rows(named=True):
        label = f"{size['from']}" if size["from"] == size["to"] else f"{size['from']}–{size['to'] or ''}"
        yield f"{label:>14}  {size['classes']:>8,}  {size['people']:>10,}"
    if short.height:
        yield ""
        yield f"to suppress: {rows:,} rows ({rows / max(found.rows, 1):.1%}) in {short.height:,} classes"
        for row in short.head(_SHOWN).iter_rows(named=True):
            yield f"  {row['people']:>6,}  " + ", ".join(f"{name}={_shown(row[name])}" for name in found.quasi)
        if short.height > _SHOWN:
            yield f"          and {short.height - _SHOWN:,} more"


def _shown(value: Any) -> str:
    return "(none)" if value is None else str(value)


def _at_least(found: Anonymity, min_k: int) -> None:
    from persona_cli.errors import Refused

    if found.k < min_k:
        few = found.short(min_k)
        raise Refused(
            f"{few.height:,} of {found.classes.height:,} classes by {', '.join(found.quasi)} have fewer than {min_k:,} "
            f"people ({int(few['rows'].sum()):,} rows); nothing was written",
            "persona privacy anonymity shows them",
        )


def _examined(what: str, quasi: str, sensitive: str | None, person: str | None) -> Anonymity:
    from persona_cli.privacy.anonymity import anonymity as examine
    from persona_cli.privacy.files import columns_of

    listed = [[name.strip() for name in (text or "").split(",") if name.strip()] for text in (quasi, sensitive)]
    whose = person or ("user_id" if "user_id" not in listed[0] + listed[1] else None)
    wanted = [*listed[0], *listed[1], *([whose] if whose else [])]
    is_file = Path(what).exists() or Path(what).suffix != "" or len(Path(what).parts) > 1
    table = columns_of(what, wanted, None if is_file else locate_home())
    if person is None and whose not in table.columns:
        whose = None
    return examine(table, listed[0], listed[1], whose)
