"""Security measures that are so: each is looked at, and says what was found, or that only people can tell.

Looked at are the workspace's own folder and persona's own sources, never anything of a person.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import stat
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import persona_cli
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

_KEY = re.compile(rb"\s*[0-9a-fA-F]{64}\s*")
_LONGEST_KEY_FILE = 128
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
# Modules that open connections. `socket` is judged by what is called on it.
_NETWORK = frozenset(
    {
        "http", "urllib.request", "urllib3", "requests", "httpx", "aiohttp", "websockets", "ftplib", "smtplib",
        "poplib", "imaplib", "telnetlib", "xmlrpc", "grpc", "boto3", "google.cloud", "azure",
    }
)  # fmt: skip
_HARMLESS_OF_SOCKET = frozenset({"gethostname"})


class Measure(NamedTuple):
    """One measure, and whether it is so."""

    what: str
    state: str
    """`so`, `not so`, or `by construction`: how the code works, which its tests hold and nothing here can look at."""
    detail: str


def measures(home: Home) -> list[Measure]:
    """What protects the data of the workspace on this machine."""
    return [_modes(home), _keys(home), _network(), _old(home), *_BY_CONSTRUCTION]


def _modes(home: Home) -> Measure:
    what = "Only the owner of the workspace can read it"
    if not _open_to_others(home.root):
        return Measure(what, "so", "the folder has no permissions for others; what is in it is out of their reach")
    reachable = sorted(path.name for path in home.root.iterdir() if _open_to_others(path))
    if not reachable:
        return Measure(what, "so", "others may list the folder, and can open nothing in it")
    return Measure(what, "not so", f"others may read {', '.join(reachable)}; chmod 700 {home.root.name}")


def _open_to_others(path: Path) -> bool:
    return bool(stat.S_IMODE(path.lstat().st_mode) & _OTHERS) and not path.is_symlink()


def _keys(home: Home) -> Measure:
    what = "Keys of pseudonyms are kept outside the workspace"
    inside = [name for name in _small_files(home.root) if _KEY.fullmatch((home.root / name).read_bytes())]
    if inside:
        return Measure(what, "not so", f"these files look like keys: {', '.join(sorted(inside))}; move them out")
    return Measure(
        what, "so", "no file in it looks like a key; key files in it, or with another mode than 0600, are refused"
    )


def _small_files(root: Path) -> list[str]:
    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            with contextlib.suppress(FileNotFoundError):  # another command's temporary file
                if not path.is_symlink() and 64 <= path.stat().st_size <= _LONGEST_KEY_FILE:
                    found.append(path.relative_to(root).as_posix())
    return found


def _network() -> Measure:
    what = "persona sends nothing over a network"
    found = connecting(Path(persona_cli.__file__).parent)
    if found:
        return Measure(what, "not so", f"modules that can open connections: {', '.join(found)}")
    return Measure(what, "so", "no module of persona's own imports anything that opens connections")


@lru_cache(maxsize=4)
def connecting(package: Path) -> tuple[str, ...]:
    """Modules of a package, by their paths in it, whose own code can open a network connection."""
    found = []
    for path in sorted(package.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if any(name.partition(".")[0] in source for name in (*_NETWORK, "socket")) and _connects(ast.parse(source)):
            found.append(path.relative_to(package).as_posix())
    return tuple(found)


def _connects(tree: ast.Module) -> bool:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            if node.module == "socket":
                return True
        if any(name == one or name.startswith(f"{one}.") for name in names for one in _NETWORK):
            return True
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "socket"
            and node.attr not in _HARMLESS_OF_SOCKET
        ):
            return True
    return False


def _old(home: Home) -> Measure:
    what = "No old versions of tables lie on the disk"
    old = sorted({path.partition("/")[0] for path in tables.orphans(home)})
    if old:
        return Measure(what, "not so", f"superseded files of {', '.join(old)} are there until: persona privacy expire")
    return Measure(what, "so", "every file of every table belongs to its newest version")


_BY_CONSTRUCTION = (
    Measure(
        "What commands write can be read by their owner alone",
        "by construction",
        "the command line works under umask 077; from Python it is that of your program",
    ),
    Measure(
        "Ids of people stand in no log",
        "by construction",
        "runs, receipts, requests and the list of the erased hold keyed digests; the key is in workspace.json, so who "
        "has the workspace can try ids out",
    ),
    Measure(
        "Nothing is half written",
        "by construction",
        "files and tables appear whole or not at all; one writer at a time; models are checked against their digests",
    ),
    Measure(
        "What is read cannot run code", "by construction", "no pickles; SQL is read-only and reaches nothing outside"
    ),
    Measure(
        "Reports, segments and evaluations show no figure of under 20 people",
        "by construction",
        "one constant, which no setting changes; persona sql shows what it is asked",
    ),
)
