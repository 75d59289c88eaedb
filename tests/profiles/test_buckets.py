"""Where a user's rows lie: part of the format on disk, so the numbers are written down here."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from pathlib import Path

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from persona_cli.profiles.buckets import buckets_of
from persona_cli.workspace import artifacts


def test_known_buckets() -> None:
    users = pl.Series(["u1", "u2", "ä", "", "u1"])
    assert buckets_of(users, 16).to_list() == [6, 12, 3, 0, 6]
    assert buckets_of(users, 1).to_list() == [0] * 5
    assert buckets_of(pl.Series([], dtype=pl.String), 16).dtype == pl.Int32


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=20), st.integers(1, 4096))
def test_follow_their_definition(users: list[str], n: int) -> None:
    expected = [zlib.crc32(user.encode()) % n for user in users]
    assert buckets_of(pl.Series(users, dtype=pl.String), n).to_list() == expected


def test_temporary_files_of_a_killed_run_are_left_for_doctor_and_those_in_use_are_not(tmp_path: Path) -> None:
    with artifacts.scratch(tmp_path) as folder:
        (folder / "0-0.arrow").write_bytes(b"events")
        os.utime(folder, (0, 0))
        assert artifacts.leftovers(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
    killed = "import os, pathlib, sys; from persona_cli.workspace.artifacts import scratch\n"
    killed += "with scratch(pathlib.Path(sys.argv[1])) as folder: (folder / 'x').touch(); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", killed, str(tmp_path)], check=False)
    left = artifacts.leftovers(tmp_path)
    assert left == list(tmp_path.iterdir())
    assert len(left) == 1
