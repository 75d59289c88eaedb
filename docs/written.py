"""What the scripts that write a page share: they write it, or only tell whether it is what they would write."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

END = "<!-- to here -->\n"


def write(about: str | None, page: Path, make: Callable[[str], str]) -> int:
    """Write what `make` makes of the page as it stands; with --check on the command line exit with 10 if it differs."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    current = page.read_text(encoding="utf-8") if page.exists() else ""
    made = make(current)
    if not check:
        page.write_text(made, encoding="utf-8")
    elif current != made:
        sys.stderr.write(f"{page} is out of date\n\nhint: make docs\n")
        return 10
    return 0


def between(current: str, begin: str, made: str) -> str:
    """The page with `made` between the mark `begin` and the one that ends what is written here."""
    before, opening, rest = current.partition(begin)
    _, closing, after = rest.partition(END)
    if not opening or not closing:
        raise SystemExit(f"the page has lost the marks that the tables stand between: {begin.strip()} {END.strip()}")
    return f"{before}{begin}{made}\n{END}{after}"
