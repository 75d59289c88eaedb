"""Pseudonymise a file or a workspace for one recipient, or move one from an old key to a new one.

Rotation works on what carries pseudonyms only. A pseudonym cannot be turned back into its id, so the table from old
pseudonyms to new ones (the re-map) is made from ids that the controller still has. What is rotated has no pseudonym in
common with what went before; the re-map alone joins the two, and whoever keeps it undoes the rotation for himself.

Of a workspace a second one is made that carries pseudonyms in place of ids. Events, users and accounts are rewritten
file by file, the catalogue of items is copied, and profiles, history, links and all else that follows from events is
folded again there; so nothing of the first workspace is in it that was not looked at. Rows of people whom the purpose
`analytics` does not cover stay behind. What has no place in it either: quarantined lines (raw text), models, decisions,
evaluations, runs, names of accounts and of the files that were ingested, and the salt of the holdout, which it draws
anew. Props, queries, pages and referrers stay, but for ids under known names: `persona privacy scan` finds what else of
people is in them.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from persona_cli.errors import CannotWrite, MissingInput, Refused, UsageError
from persona_cli.events.schema import stored_schema
from persona_cli.privacy import files
from persona_cli.privacy.anonymity import Pairs, Unicity, matrix_of, unicity
from persona_cli.privacy.pseudonyms import (
    BARE,
    DIGITS,
    SCHEME,
    Places,
    Rename,
    Replacing,
    pseudonyms,
    recorder,
    remap,
    remapped,
)
from persona_cli.privacy.recipients import Key, subkey
from persona_cli.profiles.identity import raw_key
from persona_cli.profiles.permitted import ANALYTICS, Allowed, allowed, person_events
from persona_cli.profiles.sync import sync
from persona_cli.workspace import artifacts, locks, tables
from persona_cli.workspace.home import IDENTITY_FILE, SETTINGS_FILE, Home, create, open_home

MANIFEST = "privacy/pseudonyms.json"
TABLES = ("events", "users", "accounts", "items")
_SOURCE = "persona privacy pseudonymize"
_STATISTICS = ["timestamp", "ingested_at"]
_QUOTED = re.compile("'([^']*)'|\"([^\"]*)\"")


@dataclass(frozen=True)
class Shared:
    """What came into the new workspace."""

    rows: dict[str, int]
    """Rows by table."""
    unknown: int
    """Rows left out, since nothing was there to take the place of their ids."""
    replaced: dict[str, int]
    users: int
    withheld: int
    """Rows of events and users left out, since the purpose `analytics` does not cover the person."""


def share(
    home: Home,
    out: Path,
    rename: Rename,
    places: Places,
    said: dict[str, Any],
    *,
    drop_unknown: bool = False,
    default_settings: bool = False,
    wait: float = 0.0,
) -> Shared:
    """Make the workspace `out`, whole or not at all; `said` goes into its privacy/pseudonyms.json.

    Raises CannotWrite where something is at `out`, Refused where persona.toml names one of the ids or rows have ids
    without a replacement (unless `drop_unknown`), MissingInput where there are no events, users or accounts.
    """
    out = out.absolute()
    if out.exists():
        raise CannotWrite(f"{out} exists already; expected the name of a new folder", "choose another name for --out")
    if home.root.resolve() in (out.resolve(), *out.resolve().parents):
        raise UsageError(f"--out {out} lies in the workspace that it is made from", "choose a folder elsewhere")
    _sweep(out.parent)
    seen: set[str] = set()

    def noted(kind: str, id: str) -> str | None:
        if kind in ("person", "account"):
            seen.add(id)
        return rename(kind, id)

    replacing = Replacing(noted, places)
    with locks.hold(home, "tables", _SOURCE, wait), artifacts.publish(out) as beside:
        if not default_settings:
            (beside / SETTINGS_FILE).write_bytes((home.root / SETTINGS_FILE).read_bytes())
        made = create(beside)
        rows, unknown, withheld = {}, 0, 0
        covered = allowed(home, ANALYTICS)
        for name in TABLES:
            rows[name], gone, kept_back = _rewrite(home, made, name, replacing, covered)
            unknown, withheld = unknown + gone, withheld + kept_back
        if not any(rows[name] for name in TABLES[:3]) and not unknown:
            raise MissingInput(f"the workspace {home.root} has no events, users or accounts", "persona ingest FILE")
        if unknown and not drop_unknown:
            raise Refused(
                f"{unknown:,} rows hold pseudonyms that no id given makes under the old key and this domain",
                "ids that are erased cannot be rotated; --drop-unknown leaves these rows out",
            )
        if not default_settings and (named := _ids_in(home.root / SETTINGS_FILE, seen)):
            raise Refused(
                f"{home.root / SETTINGS_FILE}: {named} names one of the ids that pseudonyms are to hide",
                "--default-settings gives the new workspace default settings",
            )
        users = sync(made).users if tables.exists(made, "events") else 0
        (beside / MANIFEST).parent.mkdir(mode=0o700, exist_ok=True)
        text = {**said, "replaced": dict(sorted(replacing.replaced.items())), "rows": rows}
        (beside / MANIFEST).write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")
    return Shared(rows, unknown, replacing.replaced, users, withheld)


def ids_of(home: Home, places: Places, rename: Rename) -> None:
    """Show every id of the workspace to `rename`, which notes them."""
    replacing = Replacing(rename, places)
    for name in TABLES[:3]:
        table = tables.open_table(home, name)
        for file in table.files if table else ():
            _replaced(table.scan([file]).collect().to_arrow(), replacing)  # type: ignore[union-attr]


def unicity_of(home: Home) -> Unicity:
    """How many persons are the only ones with 4 of their items, by all events of the workspace."""
    pairs = person_events(home, purpose=None).select("user_id", "item_id").drop_nulls().unique().collect()
    return unicity(matrix_of(pairs["user_id"], pairs["item_id"]))


def _rewrite(home: Home, made: Home, name: str, replacing: Replacing, covered: Allowed) -> tuple[int, int, int]:
    """Rows written to a table, rows left out since an id has no replacement, and rows of people not covered."""
    table = tables.open_table(home, name)
    if table is None:
        return 0, 0, 0
    new = tables.open_or_create(made, name, stored_schema(name), list(table.partition_by))  # type: ignore[arg-type]
    files, unknown, withheld = [], 0, 0
    for file in table.files:
        rows: pl.DataFrame = table.scan([file]).collect().with_columns(pl.lit(_SOURCE).alias("source"))
        if name in ("events", "users"):
            there = covered.rows(rows, raw_key() if name == "events" else None)
            rows, withheld = there, withheld + rows.height - there.height
        if name == "accounts":
            rows = rows.with_columns(pl.lit(None, pl.String).alias("name"))
        arrow = rows.to_arrow()
        if name != "items":
            arrow, gone = _replaced(arrow, replacing)
            unknown += gone
        if arrow.num_rows:
            written = [column for column in new.schema.names if column not in new.partition_by]
            coded = [column for column in written if column not in ("event_id", *_STATISTICS)]
            files.append(new.write(arrow, file.partition, statistics=_of(written), dictionaries=coded))
    if files:
        new.commit(files, metadata={"pseudonymized": "true"})
    return sum(file.rows for file in files), unknown, withheld


def _sweep(folder: Path) -> None:
    """Remove the workspaces that killed runs left half made in `folder`: doctor does not look outside its own."""
    for path in folder.glob(".tmp-*"):
        if (path / IDENTITY_FILE).is_file() and artifacts.is_leftover(path):
            artifacts.remove(path)


def _of(written: list[str]) -> list[str]:
    return [column for column in _STATISTICS if column in written]


def _replaced(rows: pa.Table, replacing: Replacing) -> tuple[pa.Table, int]:
    """The rows with their ids replaced, without those whose ids are unknown, and how many these were."""
    parts = []
    for batch in rows.to_batches():
        columns, known = [], pa.repeat(True, batch.num_rows)
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            made, gone = replacing.array(column, (name,))
            columns.append(made)
            known = known if gone is None else pc.and_not(known, gone)
        parts.append(pa.Table.from_arrays(columns, names=rows.schema.names).filter(known))
    kept = pa.concat_tables(parts) if parts else rows
    return kept, rows.num_rows - kept.num_rows


def _ids_in(settings: Path, ids: set[str]) -> str | None:
    """The first setting that has an id as its value, or quotes one in an expression; None: no setting has."""

    def texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            for name, inner in value.items():
                yield key, name
                yield from texts(inner, f"{key}.{name}" if key else name)
        elif isinstance(value, list):
            for inner in value:
                yield from texts(inner, key)
        elif isinstance(value, str):
            yield key, value
            for found in _QUOTED.finditer(value):
                yield key, found[1] or found[2] or ""

    for key, text in texts(tomllib.loads(settings.read_text(encoding="utf-8")), ""):
        if text in ids:
            return key or "a section"
    return None


def read_manifest(path: Path) -> dict[str, Any] | None:
    """What is said of a pseudonymised file or workspace (`path`: its manifest); None where nothing is."""
    try:
        said = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) and "scheme" in said else None


@dataclass(frozen=True)
class Naming:
    """What takes the place of ids (or of old pseudonyms, with a `mapping`), and what manifests say of it."""

    rename: Rename
    key: Key
    domain: str
    old: Key | None = None
    mapping: dict[str, str] | None = None

    def said(self) -> dict[str, Any]:
        """Never the key: its id."""
        rotated = {"rotated_from": self.old.id} if self.old else {}
        return {"scheme": SCHEME, "digits": DIGITS, "key": self.key.id, "domain": self.domain, **rotated}


def naming(key: Key, domain: str) -> Naming:
    """Ids become the pseudonyms of this key and domain."""
    return Naming(pseudonyms(subkey(key, domain)), key, domain)


def rotating(old: Key, new: Key, domain: str, sources: Sequence[Path], places: Places) -> Naming:
    """Pseudonyms of `old` become those of `new`, for the ids in `sources`: files, or workspaces.

    Raises UsageError without sources or for one and the same key.
    """
    if old.id == new.id:
        raise UsageError("the old key and the new one are the same", "persona privacy keys new FILE")
    if not sources:
        raise UsageError(
            "--rotate needs the ids that the pseudonyms stand for: they cannot be found from the pseudonyms",
            "--ids FILE, or --ids WORKSPACE; may repeat",
        )
    ids: set[tuple[str, str]] = set()
    for source in sources:
        if source.is_dir():
            if not (source / SETTINGS_FILE).is_file():
                raise MissingInput(f"--ids {source}: a folder that is no workspace; expected a file or a workspace")
            ids_of(open_home(source), places, recorder(ids))
        else:
            files.rewrite(files.input_of(source), None, Replacing(recorder(ids), places))
    mapping = remap(subkey(old, domain), subkey(new, domain), ids)
    return Naming(remapped(mapping), new, domain, old, mapping)


@dataclass(frozen=True)
class Done:
    """What was written. `manifest` is what the output's manifest says."""

    rows: int
    unknown: int
    replaced: dict[str, int]
    unicity: Unicity | None
    manifest: dict[str, Any]
    bare: bool = False
    """Whether a field `id` was left as it is, since its name does not say whose id it is."""
    withheld: int = 0
    """Rows of a workspace left out, since the purpose `analytics` does not cover the person."""


def pseudonymize_file(
    path: Path, out: Path | None, stdout: IO[bytes], names: Naming, places: Places, *, drop_unknown: bool = False
) -> Done:
    """Write the file with its ids replaced to `out` (with `out`.manifest.json), or to `stdout` where it is None.

    On stdout nothing can be taken back: what comes before a line that cannot be read is written then.
    """
    source = files.input_of(path)
    _right_way(path, Path(f"{path}.manifest.json"), names)
    pairs = None if names.old else Pairs()
    replacing = Replacing(names.rename, places, pairs)
    if out is None:
        counts = files.rewrite(source, stdout, replacing, drop_unknown=drop_unknown)
        digest = None
    else:
        files.same_format(source, out)
        if path.exists() and out.exists() and path.samefile(out):
            raise UsageError(
                f"--out {out} is the file itself; expected another", "keep the ids until they are not needed"
            )
        with artifacts.replace_file(out) as beside:
            with beside.open("wb") as stream, files.compressed(stream, out.name) as packed:
                counts = files.rewrite(source, packed, replacing, drop_unknown=drop_unknown)
            digest = artifacts.file_digest(beside)
    found = unicity(pairs.matrix()) if pairs is not None and len(pairs) else None
    manifest = {**names.said(), "rows": counts.rows, "replaced": dict(sorted(replacing.replaced.items()))}
    manifest |= {"left_out": counts.unknown} if names.old else {}
    manifest |= {"unicity": asdict(found)} if found is not None and found.sampled else {}
    if out is not None:
        manifest["sha256"] = digest
        artifacts.write_text(Path(f"{out}.manifest.json"), json.dumps(manifest, indent=2) + "\n")
    bare = replacing.bare and places.at((BARE,)) is None and BARE not in places.keep
    return Done(counts.rows, counts.unknown, replacing.replaced, found, manifest, bare)


def pseudonymize_workspace(
    home: Home,
    out: Path,
    names: Naming,
    places: Places,
    *,
    drop_unknown: bool = False,
    default_settings: bool = False,
    wait: float = 0.0,
) -> Done:
    """Make `out` a workspace with the content of `home` under pseudonyms; what has no place in it is told above."""
    _right_way(home.root, home.root / MANIFEST, names)
    found = None if names.old else unicity_of(home)
    said = names.said() | ({"unicity": asdict(found)} if found is not None and found.sampled else {})
    made = share(
        home, out, names.rename, places, said, drop_unknown=drop_unknown, default_settings=default_settings, wait=wait
    )
    rows = sum(made.rows.values())
    manifest = said | {"rows": made.rows, "replaced": made.replaced}
    return Done(rows, made.unknown, made.replaced, found, manifest, withheld=made.withheld)


@contextlib.contextmanager
def remap_file(path: Path | None, names: Naming) -> Iterator[None]:
    """When the body ends well, write the re-map as CSV (old,new; sorted) with mode 0600; else nothing is written.

    Raises UsageError where there is no rotation, CannotWrite where the file exists, and Refused, with no file left,
    where the file system does not keep others from reading it.
    """
    if path is None:
        yield
        return
    if names.mapping is None:
        raise UsageError("--remap goes with --rotate: without it there are no old pseudonyms")
    if path.exists() or path.is_symlink():
        raise CannotWrite(f"{path} exists already; expected the name of a new file", "choose another name for --remap")
    yield
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("old", "new"), *sorted(names.mapping.items())])
    artifacts.write_new(path, text.getvalue())
    os.chmod(path, 0o600)  # noqa: PTH101
    if stat.S_IMODE(path.stat().st_mode) != 0o600:
        path.unlink()
        raise Refused(f"{path}: this file system cannot keep others from reading it; the re-map was not written")


def _right_way(what: Path, manifest: Path, names: Naming) -> None:
    """Refuse to pseudonymise pseudonyms, and to rotate what another key made, where the manifest tells."""
    said = read_manifest(manifest)
    if said is None:
        return
    if names.old is None:
        raise UsageError(
            f"{what} carries pseudonyms already (key {said.get('key')})", "--rotate moves them to a new key"
        )
    for name, given in (("key", names.old.id), ("domain", names.domain)):
        if said.get(name) != given:
            raise UsageError(f"{what} was made with the {name} {said.get(name)!r}; the one given is {given!r}")
