"""Files and folders that appear whole or not at all: written beside under a temporary name, flushed to disk, renamed.

A temporary name is `.tmp-<pid>-<random>`, and the writer holds `flock` on it for as long as it writes. So after any
crash `leftovers` can tell for certain what nobody is writing any more: the kernel has released the lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from persona_cli.errors import BadData, CannotWrite, MissingInput
from persona_cli.workspace.locks import alive

MANIFEST = "manifest.json"
_TEMPORARY = re.compile(r"^\.tmp-(\d+)-[0-9a-f]{12}(?:-(.*))?$")
# Between creating a temporary name and locking it a writer is unprotected for microseconds; younger ones are left alone
# unless the process of that number is gone.
_GRACE_SECONDS = 60.0
# Some network file systems cannot lock folders, and there the writer may be on another machine: only age tells.
_GRACE_WITHOUT_LOCKS = 86_400.0


def temporary_name(purpose: str = "") -> str:
    """`.tmp-<pid>-<random>`, with the final name behind it when files of a user's own folder are written."""
    return f".tmp-{os.getpid()}-{secrets.token_hex(6)}" + (f"-{purpose}" if purpose else "")


@contextlib.contextmanager
def publish(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill; when the body ends well it is flushed and becomes `folder`, which must not exist."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _must_not_exist(folder)
    beside = folder.parent / temporary_name()
    beside.mkdir(mode=0o700)
    descriptor = os.open(beside, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _claim(descriptor)
        yield beside
        _sync_tree(beside)
        _must_not_exist(folder)
        beside.rename(folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def scratch(above: Path) -> Iterator[Path]:
    """A temporary folder under `above` for as long as the body runs; after a crash `leftovers` finds it."""
    folder = above / temporary_name()
    folder.mkdir(mode=0o700)
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _claim(descriptor)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """A temporary path to write; when the body ends well it is flushed and takes the place of `path`.

    A link is followed and stays a link; an existing file keeps its permissions; a pipe or device is written directly.
    """
    path = Path(os.path.realpath(path))
    if path.is_dir():
        raise CannotWrite(f"{path} is a folder; a file was expected")
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        yield path
        return
    if not path.parent.is_dir():
        raise CannotWrite(f"the folder {path.parent} does not exist", f"mkdir -p {path.parent}")
    sweep(path.parent, path.name)
    beside = path.parent / temporary_name(path.name if len(path.name.encode()) < 200 else "")
    descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        _claim(descriptor)
        yield beside
        if path.exists():
            beside.chmod(stat.S_IMODE(path.stat().st_mode))
        sync_file(beside)
        beside.replace(path)
        sync_folder(path.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write `path` atomically, replacing what is there; folders above it inside the workspace are made."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with replace_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_new(path: Path, text: str) -> None:
    """Write `path` atomically unless it exists: of two writers at once the first wins and both see its text."""
    beside = path.parent / temporary_name(path.name)
    descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _claim(descriptor)
        beside.write_text(text, encoding="utf-8")
        os.fsync(descriptor)
        try:
            os.link(beside, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links: the last of two simultaneous writers wins
            if not path.exists():
                beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
        os.close(descriptor)
    sync_folder(path.parent)


def write_manifest(folder: Path, extra: dict[str, Any]) -> dict[str, Any]:
    """Write manifest.json, last: `extra`, and under "files" sha256 and bytes of every other file; no time, no host."""
    files = {
        path.relative_to(folder).as_posix(): {"sha256": file_digest(path), "bytes": path.stat().st_size}
        for path in _files(folder)
    }
    manifest = {**extra, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an artifact, unverified."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise MissingInput(f"{folder} has no {MANIFEST}: it is not a finished artifact") from error
    except ValueError as error:
        raise BadData(f"{folder / MANIFEST} is damaged ({error})") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise BadData(f"{folder / MANIFEST} is damaged (it lists no files)")
    return manifest


def verify(folder: Path, *, contents: bool = True) -> dict[str, Any]:
    """The manifest, after checking that exactly its files are there, with their sizes and (`contents`) hashes."""
    manifest = read_manifest(folder)
    present = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    for name, stated in manifest["files"].items():
        path = present.pop(name, None)
        if path is None:
            raise BadData(f"{folder / name} is missing, but the manifest lists it", "persona doctor")
        if path.stat().st_size != stated["bytes"] or (contents and file_digest(path) != stated["sha256"]):
            raise BadData(f"{path} is not the file that the manifest describes", "persona doctor")
    if present:
        raise BadData(f"{folder / min(present)} is not in the manifest", "persona doctor")
    return manifest


def file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def leftovers(root: Path) -> list[Path]:
    """Temporary files and folders under `root` that nobody is writing any more."""
    found: list[Path] = []
    for folder, names, files in os.walk(root):
        temporary = [name for name in names if _TEMPORARY.match(name)]
        found += [Path(folder, name) for name in (*temporary, *files) if is_leftover(Path(folder, name))]
        names[:] = [name for name in names if name not in temporary]
    return sorted(found)


def is_leftover(path: Path) -> bool:
    """Whether `path` has a temporary name and its writer is gone."""
    match = _TEMPORARY.match(path.name)
    if match is None:
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        age = time.time() - os.fstat(descriptor).st_mtime
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return age > _GRACE_WITHOUT_LOCKS
    finally:
        os.close(descriptor)
    return age > _GRACE_SECONDS or not alive(int(match[1]))


def remove(path: Path) -> None:
    """Remove a leftover, file or folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep(folder: Path, purpose: str) -> None:
    """Remove what killed runs left beside a file of this name: doctor does not see the folders that `--out` names."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(".tmp-")]
    for name in names:
        match = _TEMPORARY.match(name)
        if match and match[2] == purpose and is_leftover(folder / name):
            with contextlib.suppress(OSError):
                remove(folder / name)


def sync_folder(folder: Path) -> None:
    """Flush a folder's own entries, so that a rename survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems refuse to flush a folder; nothing better can be done there.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Flush a file's contents to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    for above, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync_file(Path(above, name))
        sync_folder(Path(above))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)


def _must_not_exist(folder: Path) -> None:
    if folder.exists():
        raise FileExistsError(errno.EEXIST, "an artifact of this name is there already", str(folder))


def _claim(descriptor: int) -> None:
    # Where the file system cannot lock, age alone decides what is a leftover.
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
