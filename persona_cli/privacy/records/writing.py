"""Writing the records, and comparing what is on disk with what it would be now."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from persona_cli.errors import UsageError
from persona_cli.privacy.records.documents import Doc, documents
from persona_cli.privacy.records.facts import TO_FILL
from persona_cli.privacy.records.pages import page
from persona_cli.workspace import artifacts
from persona_cli.workspace.home import Home

FOLDER = ("privacy", "records")


@dataclass(frozen=True)
class Recorded:
    """What came of writing the records, or of looking at them."""

    folder: Path
    files: int
    changed: tuple[str, ...]
    """Names of the files that were written, or with a check are out of date; sorted."""
    open_points: tuple[str, ...]
    """What is to be filled in, decided or looked at."""

    @property
    def to_be_filled_in(self) -> int:
        return sum(point.startswith(TO_FILL) for point in self.open_points)


def rendered(whole: dict[str, Doc]) -> dict[str, str]:
    """File name → content: Markdown and JSON of every document, sorted."""
    made = {}
    for name, document in sorted(whole.items()):
        made[f"{name}.json"] = (
            json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n"
        )
        made[f"{name}.md"] = page(name, document)
    return made


def record(home: Home, out: Path | None = None, *, check: bool = False) -> Recorded:
    """Write the records to `out` (None: privacy/records of the workspace), what differs and nothing else; with `check`
    nothing is written. Raises UsageError for a folder of the workspace, which would become part of the record.
    """
    if out is not None and home.root.resolve() in (out.resolve(), *out.resolve().parents):
        raise UsageError(f"--out {out} lies in the workspace", "leave --out away, or choose a folder elsewhere")
    whole = documents(home)
    folder, files = home.path(*FOLDER) if out is None else out, rendered(whole)
    changed = outdated(folder, files) if check else write(folder, files)
    return Recorded(folder, len(files), tuple(changed), tuple(whole["index"]["open_points"]))


def outdated(folder: Path, files: dict[str, str]) -> list[str]:
    """Files of the records that are missing in a folder or differ, sorted."""
    return sorted(name for name, content in files.items() if not _same(folder / name, content))


def write(folder: Path, files: dict[str, str]) -> list[str]:
    """Write what differs, each file whole or not at all; answers the names of what was written."""
    changed = outdated(folder, files)
    for name in changed:
        artifacts.write_text(folder / name, files[name])
    return changed


def _same(path: Path, content: str) -> bool:
    try:
        return path.read_bytes() == content.encode()
    except (FileNotFoundError, NotADirectoryError):
        return False
