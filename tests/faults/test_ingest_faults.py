"""Whatever happens to an ingest: the next one completes, nothing is lost or doubled, and no file is left over."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from persona_cli.errors import Busy
from persona_cli.events.ingest import ingest
from persona_cli.events.quarantine import lines
from persona_cli.events.reading import batches
from persona_cli.events.store import EventStore, scan_events
from persona_cli.profiles.sync import behind
from persona_cli.workspace import home as homes
from persona_cli.workspace import tables
from persona_cli.workspace.doctor import examine
from persona_cli.workspace.home import Home

# The command with files so small that an ingest writes many; then PATCH, then the command.
COMMAND = """
import os, signal, sys, time
from pathlib import Path
from persona_cli.events import quarantine, reading, store
from persona_cli.workspace.tables import Table
store.FILE_ROWS, reading.BLOCK_BYTES, quarantine._SPILL_BYTES = 150, 4_000, 2_000
def die():
    os.kill(os.getpid(), signal.SIGKILL)
{patch}
from persona_cli.cli import main
print("ready", flush=True)
main.main()
"""


def start(home: Path, *args: str, patch: str = "", **more: Any) -> subprocess.Popen[str]:
    code = COMMAND.format(patch=textwrap.dedent(patch))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PERSONA_")}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *args, "-w", str(home)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ, **more,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = process.communicate(timeout=120)
    return process.returncode, err


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """3,000 lines of three months, some alike, 25 of them bad."""
    rng = random.Random(11)
    records: list[str] = []
    for _ in range(2_975):
        at = f"2026-0{rng.randint(1, 3)}-{rng.randint(1, 28):02d}T{rng.randint(0, 23):02d}:00:00Z"
        event = {"user_id": f"u{rng.randint(1, 40)}", "event_type": "click", "timestamp": at}
        records.append(json.dumps(event | {"item_id": f"i{rng.randint(1, 3)}"}))
    records += [f"bad {n}" for n in range(25)]
    rng.shuffle(records)
    path = tmp_path_factory.mktemp("input") / "events.jsonl"
    path.write_text("\n".join(records) + "\n")
    return str(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return homes.create(tmp_path / "workspace").root


def contents(home: Home) -> tuple[pl.DataFrame, pl.DataFrame]:
    events = scan_events(home).drop("source", "ingested_at").collect().sort("month", "event_id")
    kept = lines(home).select("source", "line", "offset", "raw", "reason").collect().sort("source", "line")
    return events, kept


@pytest.fixture(scope="module")
def expected(source: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[pl.DataFrame, pl.DataFrame]:
    home = homes.create(tmp_path_factory.mktemp("expected"))
    report = ingest(home, [source], max_rejected=1.0)
    assert (report.accepted, report.rejected) == (2_975, 25)
    return contents(home)


def assert_whole(home: Home, expected: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    events, kept = contents(home)
    assert events.equals(expected[0])
    assert kept.equals(expected[1])


def assert_clean(home: Home) -> None:
    list(examine(home, repair=True))
    found = {finding.check: finding.state for finding in examine(home, repair=True)}
    assert (found["tables"], found["leftovers"]) == ("ok", "ok")
    named = {
        str(home.path(name, file.path))
        for name in ("events", "quarantine", "history", "profiles")
        if (table := tables.open_table(home, name)) is not None
        for file in table.files
    }
    assert {str(path) for path in home.root.rglob("*.parquet")} == named


def recovers(root: Path, source: str, expected: tuple[pl.DataFrame, pl.DataFrame], *, doctor_first: bool) -> None:
    home = homes.open_home(root)
    events, _ = contents(home)
    assert events.height in (0, expected[0].height), "what is committed is whole"
    if doctor_first:
        assert_clean(home)
        assert contents(home)[0].equals(events)
    code, err = end(start(root, "ingest", source, "--max-rejected", "1.0"))
    assert code == 0, err
    assert_whole(home, expected)
    assert behind(home) is None
    assert_clean(home)
    assert_whole(home, expected)


KILLS = {
    "before the first file": "Table.write = lambda *args, **more: die()",
    "in a half-written file": """
        import pyarrow.parquet as pq
        whole, count = pq.write_table, [0]
        def half(table, path, **more):
            count[0] += 1
            if count[0] == 5:
                Path(path).write_bytes(b"PAR1 half a file")
                die()
            whole(table, path, **more)
        pq.write_table = half
    """,
    "before any commit": "quarantine.Rejections.commit = lambda self: die()",
    "between the two commits": "store.EventStore.commit = lambda self, metadata: die()",
    "after both commits": """
        commit = store.EventStore.commit
        store.EventStore.commit = lambda self, metadata: (commit(self, metadata), die())
    """,
}


@pytest.mark.parametrize("moment", KILLS)
def test_a_kill_at_the_worst_moment(
    moment: str, root: Path, source: str, expected: tuple[pl.DataFrame, pl.DataFrame]
) -> None:
    code, _ = end(start(root, "ingest", source, "--max-rejected", "1.0", patch=KILLS[moment]))
    assert code == -signal.SIGKILL
    recovers(root, source, expected, doctor_first=moment == "in a half-written file")


def kill_somewhere(root: Path, source: str, delay: float) -> bool:
    """Kill an ingest after `delay` seconds; whether it was still running."""
    process = start(root, "ingest", source, "--max-rejected", "1.0")
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        process.kill()
    code, _ = end(process)
    assert code in (0, -signal.SIGKILL)
    return code != 0


def random_kills(times: int, root: Path, source: str, expected: tuple[pl.DataFrame, pl.DataFrame], seed: int) -> None:
    began = time.monotonic()
    whole = homes.create(root.parent / "whole").root
    assert end(start(whole, "ingest", source, "--max-rejected", "1.0"))[0] == 0
    longest = time.monotonic() - began
    rng = random.Random(seed)
    killed = 0
    for number in range(times + 10):
        if killed and number >= times:
            break
        attempt = homes.create(root.parent / f"attempt{number}").root
        if kill_somewhere(attempt, source, rng.uniform(0, 0.8 * longest)):
            killed += 1
        else:
            longest /= 2  # the machine was busier when it was measured than it is now
        recovers(attempt, source, expected, doctor_first=bool(number % 2))
    assert killed > 0


def test_kills_at_random_moments(root: Path, source: str, expected: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    random_kills(2, root, source, expected, seed=3)


@pytest.mark.slow
def test_many_kills_at_random_moments(root: Path, source: str, expected: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    random_kills(25, root, source, expected, seed=25)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_ingest_leaves_the_previous_state(
    number: signal.Signals, code: int, root: Path, source: str, expected: tuple[pl.DataFrame, pl.DataFrame]
) -> None:
    patch = """
        count, write = [0], Table.write
        def slow(*args, **more):
            count[0] += 1
            if count[0] == 5:
                print("writing", flush=True)
            time.sleep(0.05 if count[0] > 4 else 0)
            return write(*args, **more)
        Table.write = slow
    """
    process = start(root, "ingest", source, "--max-rejected", "1.0", patch=patch)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    process.send_signal(number)
    ended, err = end(process)
    assert ended == code, err
    home = homes.open_home(root)
    assert contents(home)[0].height == contents(home)[1].height == 0
    assert list(root.rglob("*.parquet")) == []
    recovers(root, source, expected, doctor_first=False)


WAITING = """
    finish = store.EventStore.finish
    def waits(self):
        finish(self)
        print("waiting", flush=True)
        while not Path({go!r}).exists():
            time.sleep(0.02)
    store.EventStore.finish = waits
"""


def test_two_writers_with_overlapping_rows(
    root: Path, tmp_path: Path, source: str, expected: tuple[pl.DataFrame, pl.DataFrame]
) -> None:
    other = tmp_path / "overlapping.jsonl"
    text = Path(source).read_text().splitlines(keepends=True)
    other.write_text("".join(line for line in text[:1_000] if not line.startswith("bad")))
    go = tmp_path / "go"
    first = start(root, "ingest", source, "--max-rejected", "1.0", patch=WAITING.format(go=str(go)))
    assert first.stdout is not None
    assert first.stdout.readline() == "waiting\n"
    code, err = end(start(root, "ingest", str(other)))
    assert code == 75, err
    assert f"pid {first.pid} (ingest)" in err
    waiting = start(root, "ingest", str(other), "--wait", "100", "--no-profiles")
    time.sleep(0.3)
    assert waiting.poll() is None
    go.touch()
    assert end(first)[0] == 0
    code, err = end(waiting)
    assert code == 0, err
    assert " 0 new events" in err
    assert_whole(homes.open_home(root), expected)
    assert_clean(homes.open_home(root))


def test_a_writer_that_the_lock_does_not_see_is_refused(root: Path, source: str) -> None:
    """On file systems without locks the commit itself refuses to follow a snapshot that was overtaken."""
    home = homes.open_home(root)
    (tmp := root.parent / "first.jsonl").write_text(Path(source).read_text().splitlines()[0] + "\n")
    ingest(home, [str(tmp)], max_rejected=1.0)
    from persona_cli.events.opening import find

    late = EventStore(home, "keep-first", datetime.now(UTC), ["late"])
    for batch in batches(find([source])[0], "events", [], home.settings, 4_000_000_000_000_000):
        late.add(batch.rows, 0)
    late.finish()
    report = ingest(home, [source], max_rejected=1.0)
    before = contents(home)
    with pytest.raises(Busy, match="another run changed events meanwhile"):
        late.commit({})
    late.discard()
    assert_whole(home, before)
    assert report.accepted + report.duplicates == 2_975
    assert_clean(home)


LIMITED = """
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, 6_000))
"""


def test_a_file_that_cannot_grow_exits_74_and_leaves_the_previous_state(
    root: Path, source: str, tmp_path: Path, expected: tuple[pl.DataFrame, pl.DataFrame]
) -> None:
    home = homes.open_home(root)
    (tmp_path / "before.jsonl").write_text('{"user_id":"u0","event_type":"click","timestamp":"2025-12-31"}\n')
    ingest(home, [str(tmp_path / "before.jsonl")])
    before = contents(home), sorted(root.rglob("*.parquet"))
    code, err = end(start(root, "ingest", source, "--max-rejected", "1.0", patch=LIMITED))
    assert code == 74, err
    assert "cannot write" in err
    assert "Traceback" not in err
    assert contents(home)[0].equals(before[0][0])
    assert contents(home)[1].height == 0
    assert sorted(root.rglob("*.parquet")) == before[1]
    assert end(start(root, "ingest", source, "--max-rejected", "1.0"))[0] == 0
    assert contents(home)[0].height == expected[0].height + 1


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB; skipped where nothing can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_exits_74_and_leaves_the_previous_state(
    mounted: Path, source: str, expected: tuple[pl.DataFrame, pl.DataFrame]
) -> None:
    home = homes.create(mounted / "workspace")
    filler = mounted / "filler"
    filler.write_bytes(bytes(os.statvfs(mounted).f_bavail * 4096 - 60_000))
    code, err = end(start(home.root, "ingest", source, "--max-rejected", "1.0"))
    assert code == 74, err
    assert "the disk is full" in err
    assert contents(home)[0].height == contents(home)[1].height == 0
    assert list(home.root.rglob("*.parquet")) == []
    filler.unlink()
    recovers(home.root, source, expected, doctor_first=False)


def test_a_read_only_workspace_exits_74(mounted: Path, source: str) -> None:
    home = homes.create(mounted / "workspace")
    assert end(start(home.root, "ingest", source, "--max-rejected", "1.0"))[0] == 0
    before = contents(home)
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    code, err = end(start(home.root, "ingest", source, "--max-rejected", "1.0"))
    assert code == 74, err
    assert "read-only" in err
    assert "Traceback" not in err
    assert_whole(home, before)
