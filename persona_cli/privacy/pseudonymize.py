"""Pseudonymise a file or a workspace for one recipient, or move one from an old key to a new one.

Rotation works on what carries pseudonyms only. A pseudonym cannot be turned back into its id, so the table from old
pseudonyms to new ones (the re-map) is made from ids that the controller still has. What is rotated has no pseudonym in
common with what went before; the re-map alone joins the two, and whoever keeps it undoes the rotation for himself.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from persona_cli.errors import CannotWrite, MissingInput, Refused, UsageError
from persona_cli.privacy import files, shared_workspace
from persona_cli.privacy.pseudonyms import DIGITS, SCHEME, Places, Rename, pseudonyms, recorder, remap, remapped
from persona_cli.privacy.recipients import Key, subkey
from persona_cli.privacy.replacing import BARE, Replacing
from persona_cli.privacy.unicity import Pairs, Unicity, unicity
from persona_cli.workspace import artifacts
from persona_cli.workspace.home import SETTINGS_FILE, Home, open_home


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
            shared_workspace.ids_of(open_home(source), places, recorder(ids))
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
    """Make `out` a workspace with the content of `home` under pseudonyms; see `shared_workspace`."""
    _right_way(home.root, home.root / shared_workspace.MANIFEST, names)
    found = None if names.old else shared_workspace.unicity_of(home)
    said = names.said() | ({"unicity": asdict(found)} if found is not None and found.sampled else {})
    made = shared_workspace.share(
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
    said = shared_workspace.read_manifest(manifest)
    if said is None:
        return
    if names.old is None:
        raise UsageError(
            f"{what} carries pseudonyms already (key {said.get('key')})", "--rotate moves them to a new key"
        )
    for name, given in (("key", names.old.id), ("domain", names.domain)):
        if said.get(name) != given:
            raise UsageError(f"{what} was made with the {name} {said.get(name)!r}; the one given is {given!r}")
