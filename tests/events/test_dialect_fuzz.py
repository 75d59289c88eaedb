"""No damage to a file of a dialect crashes anything, and every record is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from persona_cli.events.dialects.dialect import Dialect
from tests.events.dialect_fuzz import account, dialects, title


@pytest.mark.parametrize("dialect", dialects(), ids=title)
def test_damaged_files_are_accounted_for(dialect: Dialect, tmp_path: Path) -> None:
    counts = account(dialect, tmp_path / "file", 200, seed=1)
    assert counts["read"] >= 190
    assert counts["rejected"] > 10
    assert counts["accepted"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("dialect", dialects(), ids=title)
def test_ten_thousand_damaged_lines_a_dialect(dialect: Dialect, tmp_path: Path) -> None:
    counts = sum((account(dialect, tmp_path / "file", 500, seed) for seed in range(2, 23)), start=account(
        dialect, tmp_path / "file", 1, 0))  # fmt: skip
    assert counts["read"] >= 10_000
    assert counts["read"] == counts["accepted"] + counts["rejected"] + counts["dropped"]
