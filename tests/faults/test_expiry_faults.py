"""An expiry that is killed anywhere is completed by the next; of two at once one waits or gives way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from persona_cli.api import Workspace
from persona_cli.events.store import scan_events
from persona_cli.models import gram_store
from persona_cli.privacy.retention import cut_of, plan
from persona_cli.privacy.settling import NOTE, expire
from persona_cli.profiles.fold import profile_rows
from persona_cli.profiles.history import history
from persona_cli.profiles.sync import behind
from persona_cli.workspace import artifacts, locks, tables
from persona_cli.workspace.home import Home, create, open_home

# Kills itself at the n-th time that a file is opened for writing, renamed or removed.
SCRIPT = textwrap.dedent("""
    import os, signal, sys
    from datetime import datetime
    from pathlib import Path
    from persona_cli.privacy.settling import expire
    from persona_cli.workspace.home import open_home
    root, moment, at = Path(sys.argv[1]), int(sys.argv[2]), datetime.fromisoformat(sys.argv[3])
    count = 0
    def watch(event, args):
        global count
        if event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir") or (event == "open" and args[2] & 3):
            count += 1
            if count == moment:
                os.kill(os.getpid(), signal.SIGKILL)
    home = open_home(root)
    sys.addaudithook(watch)
    expire(home, at)
    print(count)
""")


def run(root: Path, moment: int, now: datetime) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(root), str(moment), now.isoformat()],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout or done.stderr


NOW = datetime.now(UTC)
FIRST = (NOW - timedelta(days=900)).replace(day=1)


def given(root: Path, since: datetime | None = None) -> Home:
    home = create(root)
    lines = [
        {"user_id": f"u{user:02d}", "event_type": "click", "item_id": f"i{(user + n) % 7}{user % 2}",
         "timestamp": (FIRST + timedelta(days=11 * n, minutes=user)).isoformat()}
        for user in range(30)
        for n in range(80)
        if user > 3 or n < 10
    ]  # fmt: skip
    kept = [line for line in lines if since is None or line["timestamp"] >= since.isoformat()]
    path = root.parent / f"{root.name}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in kept))
    Workspace.of(home).ingest(str(path))
    Workspace.of(home).train("ease")
    return home


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, Home]:
    """A workspace with events that are due, and one that was given the others alone."""
    folder = tmp_path_factory.mktemp("expiry")
    home = given(folder / "all")
    return home, given(folder / "rest", cut_of(home, "events", NOW))


def same(home: Home, other: Home) -> None:
    def rows(one: Home) -> pl.DataFrame:
        return scan_events(one).drop("source", "ingested_at").collect().sort("event_id")

    def weights(one: Home) -> dict[str, str]:
        return {path.name: artifacts.file_digest(path) for path in one.root.glob("models/ease/*/*.np[yz]")}

    assert behind(home) is None
    assert_frame_equal(rows(home), rows(other))
    assert_frame_equal(history(home), history(other))
    assert_frame_equal(profile_rows(home).sort("user_id"), profile_rows(other).sort("user_id"))
    assert gram_store.stored_digest(home) == gram_store.stored_digest(other)
    assert weights(home) == weights(other) != {}
    assert not tables.orphans(home)
    assert not artifacts.leftovers(home.root)
    assert not home.path(*NOTE).exists()
    assert plan(home, NOW).nothing


def killed_at(both: tuple[Home, Home], folder: Path, moment: int) -> None:
    home = open_home(Path(shutil.copytree(both[0].root, folder / f"w{moment}")))
    code, said = run(home.root, moment, NOW)
    assert code == -signal.SIGKILL, said
    before, after, found = (scan_events(one).select(pl.len()).collect().item() for one in (*both, home))
    assert found in (before, after), "what is committed is whole"
    assert expire(home, NOW).settled is not None or found == after
    same(home, both[1])


def moments(both: tuple[Home, Home], folder: Path, n: int) -> list[int]:
    """Moments of an expiry, spread evenly over all at which it writes."""
    home = Path(shutil.copytree(both[0].root, folder / "counted"))
    code, said = run(home, 0, NOW)
    assert code == 0, said
    same(open_home(home), both[1])
    total = int(said)
    assert total > 50
    return [int(moment) for moment in np.unique(np.linspace(2, total, n).round())]


def test_killed_at_some_moments_it_is_completed_by_the_next(both: tuple[Home, Home], tmp_path: Path) -> None:
    for moment in moments(both, tmp_path, 4)[1:3]:
        killed_at(both, tmp_path, moment)


@pytest.mark.slow
def test_killed_at_thirty_moments_it_is_completed_by_the_next(both: tuple[Home, Home], tmp_path: Path) -> None:
    for moment in moments(both, tmp_path, 30):
        killed_at(both, tmp_path, moment)
        shutil.rmtree(tmp_path / f"w{moment}")


@pytest.mark.slow
@pytest.mark.parametrize("wait", ["0", "120"])
def test_two_at_once(both: tuple[Home, Home], tmp_path: Path, wait: str) -> None:
    home = open_home(Path(shutil.copytree(both[0].root, tmp_path / "w")))
    command = [sys.executable, "-m", "persona_cli", "privacy", "expire", "--yes", "--wait", wait, "-w", str(home.root)]
    with locks.hold(home, "tables", "a test"):  # so that neither is through before the other begins
        started = [subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
                   for _ in range(2)]  # fmt: skip
        if wait == "0":
            codes = [process.wait(120) for process in started]
            assert codes == [75, 75]
    if wait != "0":
        assert [process.wait(240) for process in started] == [0, 0]
        same(home, both[1])


@pytest.mark.slow
def test_readers_beside_it_see_all_or_the_rest(both: tuple[Home, Home], tmp_path: Path) -> None:
    home = open_home(Path(shutil.copytree(both[0].root, tmp_path / "w")))
    persona, where = [sys.executable, "-m", "persona_cli"], ["-w", str(home.root)]
    expiry = subprocess.Popen([*persona, "privacy", "expire", "--yes", *where], stderr=subprocess.DEVNULL)
    seen = []
    for _ in range(20):
        ended = expiry.poll() is not None
        done = subprocess.run(
            [*persona, "sql", "SELECT count(*) AS n FROM events", "--json", *where],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        seen.append(json.loads(done.stdout)[0]["n"])
        if ended:
            break
    assert expiry.wait(120) == 0
    before, after = (scan_events(one).select(pl.len()).collect().item() for one in both)
    assert set(seen) <= {before, after} and seen == sorted(seen, reverse=True)
    same(home, both[1])
