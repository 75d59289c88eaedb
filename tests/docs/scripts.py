"""Runs the scripts that write pages, to check them only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def check(script: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)


def assert_current(script: str) -> None:
    done = check(DOCS / script)
    assert done.returncode == 0, done.stderr


def assert_notices(folder: Path, script: str, page: str, text: str) -> None:
    """The script finds a page with this text out of date."""
    for name in (script, "written.py"):
        (folder / name).write_text((DOCS / name).read_text())
    (folder / page).write_text(text)
    done = check(folder / script)
    assert (done.returncode, "hint: make docs" in done.stderr) == (10, True)
