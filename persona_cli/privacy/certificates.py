"""What an erasure leaves behind on purpose, none of which names anybody.

    privacy/pending/<request>.json       the ids, mode 0600, only while the erasure is under way
    privacy/erased/<request>.parquet     keyed digests of what was erased, so that it can be looked for later
    privacy/certificates/<request>.json  what was done: places, rows before and after, digests, what was not reached

The files for recipients hold the ids (or pseudonyms) that these know, and so lie outside the workspace.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from persona_cli.consent.subjects import subject
from persona_cli.errors import BadData, MissingInput, Refused
from persona_cli.privacy.keys import Key, subkey
from persona_cli.privacy.needles import Needles, common
from persona_cli.privacy.pseudonyms import pseudonym
from persona_cli.privacy.recipients import Disclosure, by_recipient, file_name
from persona_cli.workspace import artifacts
from persona_cli.workspace.home import IDENTITY_FILE, SETTINGS_FILE, Home
from persona_cli.workspace.overview import pending_erasures

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
