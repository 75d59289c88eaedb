"""Run manifests: one JSON file a command, with arguments, settings digest, counts and outcome, and nobody's id in it.

A manifest is written when the run starts ("running") and again when it ends, so a run that was killed stays visible.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from persona_cli import __version__
from persona_cli.errors import MissingInput, UsageError, nearest
from persona_cli.workspace import artifacts
from persona_cli.workspace.home import Home
from persona_cli.workspace.locks import alive

log = logging.getLogger("persona")
_PASSWORD = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*://)(?P<user>[^/@:\s]*):[^/@\s]*@")
_SECRET = re.compile(r"(?i)((?:password|passwd|secret|token|api_?key|access_?key|signature)=)[^&\s]+")
# Commands whose plain arguments name users (or, in SQL, may), whatever their caller says.
_ID_COMMANDS = (("profile", "show"), ("sql",), ("privacy", "forget"), ("privacy", "verify-erasure"))
_GROUPS = ("profile", "model", "quarantine", "runs", "config", "privacy", "decisions", "experiment")
_ID_OPTIONS = ("--user", "--users")


@dataclass
class Run:
    """A command under way. Fill `counts` (numbers for the manifest), `inputs` and `outputs` (name → sha256)."""

    id: str
    command: str
    arguments: list[str]
    settings_digest: str
    started: str
    counts: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    status: str = "running"
    error: str | None = None
    exit_code: int | None = None
    seconds: float | None = None
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)
    version: str = __version__


@contextlib.contextmanager
def recording(home: Home, command: Sequence[str], ids: Sequence[str] = ()) -> Iterator[Run]:
    """Record a run of `command` (its words, `["profile", "show", "u1"]`); words in `ids` are stored as keyed digests.

    A manifest that cannot be written (a read-only workspace) is a warning: what the run may not do fails by itself.
    """
    began = time.monotonic()
    now = datetime.now(UTC)
    run = Run(
        id=new_id(now),
        command=" ".join(_verbs(command)),
        arguments=scrubbed(home, command, ids),
        settings_digest=home.settings.digest(),
        started=now.isoformat(timespec="seconds"),
    )
    writable = _write(home, run)
    try:
        yield run
    except BaseException as error:
        code = getattr(error, "exit_code", None)
        interrupted = isinstance(error, KeyboardInterrupt | GeneratorExit | BrokenPipeError)
        run.exit_code = code if isinstance(code, int) else 130 if interrupted else 1
        # Exit code 10 is a check that ran and found something.
        run.status = "done" if run.exit_code in (0, 10) else "interrupted" if interrupted else "failed"
        # The message may name a user; the kind of error is enough here.
        run.error = None if run.exit_code == 0 else type(error).__name__
        raise
    else:
        run.status, run.exit_code = "done", 0
    finally:
        run.seconds = round(time.monotonic() - began, 3)
        if writable:
            _write(home, run)


def new_id(now: datetime) -> str:
    """The id of a run that begins now."""
    return f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def _write(home: Home, run: Run) -> bool:
    try:
        write_manifest(home, vars(run))
    except OSError as error:
        log.warning("this run is not recorded: %s", error.strerror or error)
        return False
    return True


def write_manifest(home: Home, run: dict[str, Any]) -> None:
    """Write runs/<id>.json atomically."""
    text = json.dumps(run, indent=2, ensure_ascii=False, default=str) + "\n"
    artifacts.write_text(home.path("runs", f"{run['id']}.json"), text)


def digest_id(home: Home, text: str) -> str:
    """A keyed digest of an id: equal within the workspace, meaningless outside it."""
    return "id:" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=home.salt[:64], digest_size=8).hexdigest()


def scrubbed(home: Home, command: Sequence[str], ids: Sequence[str] = ()) -> list[str]:
    """The command's words without user ids and passwords."""
    words = [_SECRET.sub(r"\1***", _PASSWORD.sub(r"\g<scheme>\g<user>:***@", word)) for word in command]
    personal = {position for position, word in enumerate(command) if word in ids}
    verbs = tuple(_verbs(command))
    if verbs in _ID_COMMANDS:
        personal |= {p for p, word in enumerate(command) if p >= len(verbs) and not word.startswith("-")}
    for position, word in enumerate(command):
        option, has_value, value = word.partition("=")
        if option not in _ID_OPTIONS:
            continue
        if has_value and not _is_source(value):
            words[position] = f"{option}={digest_id(home, value)}"
        elif not has_value and position + 1 < len(command) and not _is_source(command[position + 1]):
            personal.add(position + 1)
    return [digest_id(home, command[p]) if p in personal else word for p, word in enumerate(words)]


def _is_source(value: str) -> bool:
    """Whether the value of `--users` names a file or standard input rather than a user."""
    return value == "-" or Path(value).exists()


def _verbs(command: Sequence[str]) -> list[str]:
    """The leading words that name the command: one, or two after a group."""
    verbs = list(command[:1])
    if verbs and len(command) > 1 and (verbs[0] in _GROUPS or tuple(command[:2]) == ("ingest", "undo")):
        verbs.append(command[1])
    return verbs


def read_runs(home: Home, limit: int | None = None) -> list[dict[str, Any]]:
    """Run manifests, newest first. A run whose process is gone while "running" reads "killed"."""
    folder = home.path("runs")
    names = sorted((p.name for p in folder.glob("*.json")), reverse=True) if folder.is_dir() else []
    return [run for name in names[:limit] if (run := _read(folder / name)) is not None]


def read_run(home: Home, name: str) -> dict[str, Any]:
    """One run by its id, the beginning of it, or `latest`."""
    folder = home.path("runs")
    known = sorted((p.stem for p in folder.glob("*.json")), reverse=True) if folder.is_dir() else []
    matches = known[:1] if name == "latest" else [run for run in known if run.startswith(name)]
    if len(matches) > 1 and name not in matches:
        raise UsageError(f"{len(matches)} runs begin with {name!r}", "persona runs list")
    run = _read(folder / f"{name if name in matches else matches[0]}.json") if matches else None
    if run is None:
        raise MissingInput(f"there is no run {name!r}{nearest(name, known[:20])}", "persona runs list")
    return run


def unmarked(home: Home) -> list[dict[str, Any]]:
    """Runs that were killed and whose manifests still say "running", newest first, as they should read."""
    return [run for run in read_runs(home) if run["status"] == "killed" and _states_running(home, run)]


def _states_running(home: Home, run: dict[str, Any]) -> bool:
    return b'"status": "running"' in home.path("runs", f"{run['id']}.json").read_bytes()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        run = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(run, dict):
        return None
    here = run.get("host") == socket.gethostname()
    if run.get("status") == "running" and here and not alive(int(run.get("pid", 0))):
        run["status"] = "killed"
    return run
