"""`persona privacy forget`: afterwards the workspace is what it would be had it never been given the person.

What is to be erased is noted before anything is touched, every step looks at what is there, and the note goes last: a
run that was killed anywhere is completed by the next. Digests of the ids stay in the suppression list, so old files do
not bring the person back, and those of event ids for `verify-erasure --request`. What is left behind on purpose names
nobody:

    privacy/pending/<request>.json       the ids, mode 0600, only while the erasure is under way
    privacy/erased/<request>.parquet     keyed digests of what was erased, so that it can be looked for later
    privacy/certificates/<request>.json  what was done: places, rows before and after, digests, what was not reached

The files for recipients hold the ids (or pseudonyms) that these know, and so lie outside the workspace.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from persona_cli import __version__
from persona_cli.consent.subjects import subject, suppress
from persona_cli.errors import BadData, MissingInput, Refused, UsageError
from persona_cli.events.store import scan_events
from persona_cli.models import gram_store, registry
from persona_cli.privacy import places
from persona_cli.privacy.places import Needles, common
from persona_cli.privacy.pseudonyms import pseudonym
from persona_cli.privacy.recipients import Disclosure, Key, by_recipient, file_name, subkey
from persona_cli.privacy.requests import close_request, open_request
from persona_cli.privacy.searching import Residue, search
from persona_cli.privacy.settling import everything, settle
from persona_cli.profiles.identity import persons, raw_key
from persona_cli.workspace import artifacts
from persona_cli.workspace.doctor import pending_erasures
from persona_cli.workspace.home import IDENTITY_FILE, SETTINGS_FILE, Home

_DIGEST_BYTES = 10


def write_journal(home: Home, request: str, said: Mapping[str, Any]) -> None:
    """Note what is about to be erased, for whoever has to complete it."""
    path = home.path("privacy", "pending", f"{request}.json")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with artifacts.replace_file(path) as beside:
        beside.chmod(0o600)
        beside.write_text(json.dumps(said) + "\n", encoding="utf-8")


def journals(home: Home) -> dict[str, dict[str, Any]]:
    """Erasures that were begun and not completed: request → what was noted. BadData where one cannot be read."""
    found = {}
    for request in pending_erasures(home):
        path = home.path("privacy", "pending", f"{request}.json")
        try:
            said = json.loads(path.read_bytes())
            found[request] = {"ids": list(said["ids"]), **said}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadData(
                f"{path} cannot be read ({error}): an erasure was begun, and whose is not known",
                f"rm {path}, and forget the person again",
            ) from error
    return found


def remove_journal(home: Home, request: str) -> None:
    home.path("privacy", "pending", f"{request}.json").unlink(missing_ok=True)


def digest_of(home: Home, value: str) -> bytes:
    """The keyed digest by which a value is found again when it is not known any more."""
    return bytes.fromhex(subject(home, value))[:_DIGEST_BYTES]


def keep_digests(home: Home, request: str, ids: Sequence[str], event_ids: pl.Series) -> None:
    """Digests of ids and event ids, sorted; what is there already stays: events may be gone when a run is completed."""
    path = home.path("privacy", "erased", f"{request}.parquet")
    if path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    kinds = [("common" if common(one) else "id", one) for one in ids] + [("event", one) for one in event_ids.to_list()]
    rows = pl.DataFrame(
        {"kind": [kind for kind, _ in kinds], "digest": [digest_of(home, one) for _, one in kinds]},
        schema={"kind": pl.String, "digest": pl.Binary},
    )
    with artifacts.replace_file(path) as beside:
        rows.unique().sort("kind", "digest").write_parquet(beside, compression="zstd")


def needles_of(home: Home, request: str) -> Needles:
    """What to look for after an erasure of which only digests are known; MissingInput where there are none.

    Ids that could be anything else are left out: as digests they cannot be told from numbers of other things.
    """
    path = home.path("privacy", "erased", f"{request}.parquet")
    if not path.is_file():
        raise MissingInput(f"there is no erasure {request!r}", "persona privacy requests")
    rows = pl.read_parquet(path).filter(pl.col("kind") != "common")
    return Needles(frozenset(), frozenset(rows["digest"].to_list()), lambda value: digest_of(home, value))


def write_certificate(home: Home, request: str, said: Mapping[str, Any]) -> Path:
    path = home.path("privacy", "certificates", f"{request}.json")
    artifacts.write_text(path, json.dumps(said, indent=2, ensure_ascii=False) + "\n")
    return path


def tell_recipients(
    home: Home, request: str, ids: Sequence[str], out: Path | None, key: Key | None
) -> tuple[list[Path], list[dict[str, str]]]:
    """Write a file for every recipient who was given ids or pseudonyms, and answer them, and who cannot be told why.

    Pseudonyms are those of the domains that a recipient was given, and need the key they were made by. `out` is outside
    of any workspace (`must_be_outside`).
    """
    written, missed = [], []
    for recipient, disclosures in by_recipient(home).items():
        known = [one for one in disclosures if one.ids is not None]
        if not known:
            continue
        if out is None:
            missed.append({"recipient": recipient, "why": "no file was asked for: --recipients-out DIR"})
            continue
        names: dict[str, list[str]] = {}
        for one in known:
            found = _known_as(one, ids, key)
            if found is None:
                missed.append({"recipient": recipient, "why": f"the key {one.key_id} was not given: --key-file"})
            else:
                names[one.domain or "user_ids"] = found
        if names:
            out.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = out / f"{file_name(recipient)}-{request}.json"
            text = {"request": request, "recipient": recipient, "erase": names}
            text["asked"] = datetime.now(UTC).isoformat(timespec="seconds")
            with artifacts.replace_file(path) as beside:
                os.chmod(beside, 0o600)  # noqa: PTH101
                beside.write_text(json.dumps(text, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            written.append(path)
    return written, [dict(one) for one in {tuple(one.items()) for one in missed}]


def _known_as(one: Disclosure, ids: Sequence[str], key: Key | None) -> list[str] | None:
    """What a recipient calls the persons; None where that cannot be told."""
    if one.ids == "user_ids":
        return sorted(ids)
    if key is None or one.domain is None or key.id != one.key_id:
        return None
    secret = subkey(key, one.domain)
    return sorted(pseudonym(secret, "person", id) for id in ids)


def must_be_outside(out: Path) -> None:
    """Refuse a folder in any workspace."""
    for folder in (out.resolve(), *out.resolve().parents):
        if (folder / SETTINGS_FILE).is_file() and (folder / IDENTITY_FILE).is_file():
            raise Refused(
                f"{out} lies in the workspace {folder}, and the files for recipients hold ids", "name a folder outside"
            )


Progress = Callable[[str], None]
_BACKUPS = "backups and copies of this folder: restored ones bring the person back until this is run there too"


@dataclass(frozen=True)
class Forgotten:
    """An erasure, done or (`request` is None) only planned."""

    request: str | None
    persons: int
    ids: int
    """Ids of these persons, anonymous ones included."""
    before: dict[str, int]
    """Rows of theirs by place (of texts and reports: files)."""
    after: dict[str, int]
    models: tuple[str, ...]
    """What is served now, and other models that were made again."""
    stale: tuple[str, ...]
    """What is served and still holds what it learned of them."""
    notified: tuple[Path, ...]
    """Files for recipients."""
    not_reached: tuple[str, ...]
    left: tuple[Residue, ...]
    """Where the search that ends an erasure still found them: the settings, files that somebody put there."""
    certificate: Path | None


def forget(
    home: Home,
    users: Sequence[str],
    *,
    recipients_out: Path | None = None,
    retrain: bool = True,
    key: Key | None = None,
    wait: float = 0.0,
    progress: Progress | None = None,
) -> Forgotten:
    """Erase everything of these users, under all their ids; erasures that were begun before are completed first.

    Raises Busy where another run holds the tables or models after `wait` seconds, UsageError without a user,
    Refused where the files for recipients would lie in a workspace.
    """
    if not users:
        raise UsageError("whom to forget is missing", "persona privacy forget USER")
    if recipients_out is not None:
        must_be_outside(recipients_out)
    with everything(home, "privacy forget", wait):
        complete(home, progress=progress)
        ids = ids_of(home, users)
        request = open_request(home, "erasure", ids)
        needles = Needles(frozenset(ids))
        said: dict[str, Any] = {
            "ids": ids,
            "persons": persons(home).of(pl.Series(users, dtype=pl.String)).n_unique(),
            "began": _now(),
            "retrain": retrain,
            "before": places.held(home, needles),
            "statistics": _statistics(home),
        }
        write_journal(home, request, said)
        notified, missed = tell_recipients(home, request, ids, recipients_out, key)
        said |= {"notified": [path.name for path in notified], "missed": missed}
        write_journal(home, request, said)
        done = _carry_out(home, request, said, progress)
        return Forgotten(**{**done.__dict__, "notified": tuple(notified)})


def complete(home: Home, wait: float = 0.0, progress: Progress | None = None) -> list[Forgotten]:
    """Finish erasures that a killed run left half done."""
    with everything(home, "privacy forget", wait):
        return [_carry_out(home, request, said, progress) for request, said in journals(home).items()]


def planned(home: Home, users: Sequence[str]) -> Forgotten:
    """What `forget` would take out; nothing is changed."""
    ids = ids_of(home, users)
    who = persons(home).of(pl.Series(users, dtype=pl.String)).n_unique()
    models = (served,) if (served := registry.latest_or_none(home)) else ()
    before = places.held(home, Needles(frozenset(ids)))
    return Forgotten(None, who, len(ids), before, {}, models, (), (), (_BACKUPS,), (), None)


def ids_of(home: Home, users: Sequence[str]) -> list[str]:
    """Every id of the persons behind these ids, sorted."""
    who = persons(home)
    return who.ids_of(who.of(pl.Series("id", list(users), dtype=pl.String))).to_list()


def verify(
    home: Home,
    users: Sequence[str] = (),
    request: str | None = None,
    key: Key | None = None,
    domains: Collection[str] = (),
) -> list[Residue]:
    """What is left of users, or of an erasure by its request: every place where a byte of it is.

    With a key also what stands for the ids under these domains. UsageError where neither or both are named.
    """
    if bool(users) == (request is not None):
        raise UsageError("whom to look for: users, or --request ID", "persona privacy verify-erasure USER")
    if request is not None:
        return search(home, needles_of(home, request))
    ids = set(ids_of(home, users)) | set(users)
    if key is not None:
        ids |= {pseudonym(subkey(key, domain), "person", one) for domain in domains for one in set(ids)}
    return search(home, Needles(frozenset(ids)))


def _carry_out(home: Home, request: str, said: dict[str, Any], progress: Progress | None) -> Forgotten:
    tell = progress or (lambda step: None)
    ids = [str(one) for one in said["ids"]]
    needles = Needles(frozenset(ids))
    tell("suppression list")
    suppress(home, ids, request)
    theirs = scan_events(home).filter(raw_key().is_in(needles.values.implode())).select("event_id")
    keep_digests(home, request, ids, theirs.collect()["event_id"].drop_nulls())
    tell("tables")
    places.remove(home, needles)
    settled = settle(home, needles.values, refit=bool(said["retrain"]), progress=progress)
    tell("search")
    journal = f"privacy/pending/{request}.json"
    left = tuple(residue for residue in search(home, needles) if residue.path != journal)
    missed = [f"{one['recipient']}: {one['why']}" for one in said.get("missed", ())]
    not_reached = [_BACKUPS, *sorted(missed)]
    if not settled.alone:
        not_reached.append("a command that was still reading may have files open until it ends")
    after = places.held(home, needles)
    names = sorted({*said["before"], *after})
    certificate = write_certificate(
        home,
        request,
        {
            "request": request,
            "persona": __version__,
            "subjects": sorted(subject(home, one) for one in ids),
            "began": said["began"],
            "completed": _now(),
            "places": {name: {"before": said["before"].get(name, 0), "after": after.get(name, 0)} for name in names},
            "statistics": {"before": said["statistics"], "after": _statistics(home)},
            "models": {
                "current": settled.models.current,
                "stale": settled.models.stale,
                "removed": settled.removed_models,
            },
            "files_deleted": settled.files,
            "recipients_told": said.get("notified", []),
            "not_reached": not_reached,
            "left": sorted({f"{one.place}: {one.where}" for one in left}),
        },
    )
    outcome = "erased" if not settled.models.stale else "erased; what is served is to be trained again"
    outcome += f"; left to be cleared by hand: {len(left)}" if left else ""
    close_request(home, request, outcome)
    remove_journal(home, request)
    return Forgotten(
        request,
        int(said["persons"]),
        len(ids),
        said["before"],
        after,
        settled.models.current,
        settled.models.stale,
        (),
        tuple(not_reached),
        left,
        certificate,
    )


def _statistics(home: Home) -> dict[str, Any]:
    """Digests of the item sums and of what is served; they name nobody."""
    found: dict[str, Any] = {"gram": gram_store.stored_digest(home)}
    served = registry.latest_or_none(home)
    if served is not None:
        for reference in sorted(registry.with_parts(home, [served])):
            try:
                manifest = artifacts.read_manifest(home.path("models", reference))
            except MissingInput:
                continue
            found[reference] = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
