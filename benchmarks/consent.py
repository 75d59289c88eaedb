"""What the gate costs: a batch at the door, a whole ingest beside one without the gate, and a file of consent.

    python benchmarks/consent.py [--receipts 1000000] [--rows 1000000] [--users 100000] [--repeat 3]

Everything runs in one process, the sides in turn; printed are the best processor seconds of each and their ratios.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import numpy as np
import polars as pl

from persona_cli.consent.gate import Gate
from persona_cli.consent.receipts import append_words
from persona_cli.consent.subjects import subjects
from persona_cli.events.consenting import Consenting
from persona_cli.events.ingest import ingest
from persona_cli.events.opening import Input, find
from persona_cli.events.reading import batches
from persona_cli.privacy.consent_documents import import_words
from persona_cli.workspace.home import Home, create

T0 = datetime(2026, 3, 1, tzinfo=UTC)
COVERING = ("personalization", "analytics", "model_training")
CONSENT = {f"privacy.purposes.{purpose}.basis": "consent" for purpose in COVERING}


def best(repeat: int, *sides: Callable[[], object]) -> list[float]:
    """Best processor seconds of each side, run in turn."""
    found = [float("inf")] * len(sides)
    for _ in range(repeat):
        for place, side in enumerate(sides):
            began = time.process_time()
            side()
            found[place] = min(found[place], time.process_time() - began)
    return found


def events(path: Path, rows: int, users: int) -> None:
    """Rows of users in turn of chance, a hundredth of them anonymous, with a few properties."""
    rng = np.random.default_rng(7)
    who, item = rng.integers(users, size=rows), rng.integers(5_000, size=rows)
    with path.open("w") as stream:
        for n in range(rows):
            ids = f'"anon_id":"a{who[n]}"' if n % 100 == 0 else f'"user_id":"u{who[n]}","anon_id":"a{who[n]}"'
            at = (T0 + timedelta(seconds=n)).isoformat()
            more = f'"props":{{"variant":"{item[n] % 7}"}}'
            stream.write(f'{{{ids},"event_type":"view","item_id":"i{item[n]}","timestamp":"{at}",{more}}}\n')


def spoken(home: Home, receipts: int, state: str) -> None:
    """So many receipts, three an id of u0, u1, …."""
    who = pl.Series([f"u{n}" for n in range(receipts // 3 + 1)])
    words = pl.DataFrame({"subject": subjects(home, who)}).join(pl.DataFrame({"purpose": COVERING}), how="cross")
    nothing = [pl.lit(None, dtype=pl.String).alias(name) for name in ("notice", "notice_sha256", "source", "proof")]
    at = pl.lit(T0).cast(pl.Datetime("us", "UTC")).alias("at")
    append_words(home, words.head(receipts).with_columns(pl.lit(state).alias("state"), at, *nothing))


def batch_of(home: Home, path: Path):  # type: ignore[no-untyped-def]
    """The first batches of the file, as a function that makes them anew."""
    source: Input = find([str(path)])[0]
    return list(batches(source, "events", [], home.settings, 2**60))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--receipts", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    logging.getLogger("persona").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lines = folder / "events.jsonl"
        events(lines, options.rows, options.users)
        silent = create(folder / "silent")
        plain = create(folder / "spoken")
        spoken(plain, options.receipts, "given")
        home = dataclasses.replace(plain, settings=plain.settings.with_flags(CONSENT))
        gates(home, options.users, options.repeat)
        doors(silent, home, lines, options.repeat)
        ingests(folder, silent, home, lines, options.repeat, options.rows)
        imports(folder, options.receipts, options.repeat)


def gates(home: Home, users: int, repeat: int) -> None:
    ids = pl.Series([f"u{n}" for n in range(100_000)])
    gate = Gate.of(home)
    opened, asked = best(repeat, lambda: Gate.of(home), lambda: gate.permits("analytics", ids))
    print(f"{gate.words.height:,} words: Gate.of {opened:.2f} s; permits for {len(ids):,} ids {asked:.2f} s")


def doors(silent: Home, home: Home, lines: Path, repeat: int) -> None:
    """One batch of rows at the door."""
    batch = max(batch_of(silent, lines), key=lambda one: one.rows.num_rows)
    rows = batch.rows
    known = Consenting.of(home, "run", T0)

    def through(consenting: Consenting) -> None:
        batch.rows = rows
        consenting.let_in(batch, "events")

    def fresh(home: Home) -> Callable[[], None]:
        def side() -> None:
            consenting.append(Consenting.of(home, "run", T0))
            began = time.process_time()
            through(consenting[-1])
            taken.append(time.process_time() - began)

        consenting, taken = list[Consenting](), list[float]()
        side.taken = taken  # type: ignore[attr-defined]
        return side

    first, idle = fresh(home), fresh(silent)
    through(known)
    _, _, again = best(repeat, first, idle, lambda: through(known))
    print(f"a batch of {rows.num_rows:,} rows: nothing said {1e3 * min(idle.taken):.1f} ms, "  # type: ignore[attr-defined]
          f"ids not met before {1e3 * min(first.taken):.0f} ms, ids met before {1e3 * again:.0f} ms")  # type: ignore[attr-defined]  # fmt: skip


def ingests(folder: Path, silent: Home, home: Home, lines: Path, repeat: int, rows: int) -> None:
    """A whole ingest without the gate, with it and nothing said, and where all purposes rest on consent."""
    made = 0

    def into(like: Home) -> Callable[[], object]:
        def side() -> object:
            nonlocal made
            made += 1
            new = create(folder / f"w{made}")
            if like is home:
                (like.path("consents")).rename(new.path("consents"))
                new = dataclasses.replace(new, settings=like.settings, salt=like.salt)
            try:
                report = ingest(new, [str(lines)])
            finally:
                if like is home:
                    new.path("consents").rename(like.path("consents"))
            assert report.read == rows
            return report

        return side

    def ungated() -> object:
        with mock.patch.object(Consenting, "let_in", lambda *_: Counter()):
            return into(silent)()

    without, gated, consented = best(repeat, ungated, into(silent), into(home))
    print(f"ingest of {rows:,} rows: {without:.2f} s without the gate, {gated:.2f} s with nothing said "
          f"({gated / without:.3f}), {consented:.2f} s on consent with {Gate.of(home).words.height:,} receipts "
          f"({consented / without:.3f})")  # fmt: skip


def imports(folder: Path, lines: int, repeat: int) -> None:
    rows = [f"u{n},{COVERING[n % 3]},given,2026-03-01T10:00:00Z,cmp\n" for n in range(lines)]
    (folder / "c.csv").write_text("user_id,purpose,state,at,source\n" + "".join(rows))
    homes = iter([create(folder / f"i{n}") for n in range(repeat)])
    seconds = best(repeat, lambda: import_words(next(homes), str(folder / "c.csv")))[0]
    print(f"consent import of {lines:,} lines: {seconds:.1f} s")


if __name__ == "__main__":
    main()
