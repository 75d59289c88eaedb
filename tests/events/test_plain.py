"""Tables that a dialect only renames are read in columns: the same rows and verdicts as through the dialect."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persona_cli.events import plain, reading
from persona_cli.events.dialects import choose
from persona_cli.events.opening import Format, Input
from persona_cli.workspace.settings import load

SETTINGS = load(None, {})
LATEST_US = 1_800_000_000_000_000
ODD = (
    "", " ", "0", "-1", "1.5", "-0", "007", "1e3", "x", "a b", " a", "é", "\\", "2026-01-05", "1767225600000", "9" * 12,
    "99999999999", "x" * 300, "\x01", ":", "purchase", "Product Viewed", "a|b", "NaN",
)  # fmt: skip
HEADER = "USER_ID,ITEM_ID,TIMESTAMP,EVENT_TYPE,EVENT_VALUE,EVENT_ID,IMPRESSION,DEVICE,value"


def rating(dice: random.Random) -> list[str]:
    return [str(dice.randrange(9)), str(dice.randrange(9)), dice.choice("12345"), str(880_000_000 + dice.randrange(9))]


def interaction(dice: random.Random) -> list[str]:
    cells = [
        f"u{dice.randrange(3)}",
        "i1",
        "1767225600",
        dice.choice(("View", "Purchase", "click")),
        "2.50",
        "",
        "",
        "",
        "",
    ]
    if dice.random() < 0.3:
        cells[5:] = [f"e{dice.randrange(9)}", dice.choice(("", "a|b")), "mobile", dice.choice(("", "more"))]
    return cells


# name → dialect, format, first line, separator, a good row
TABLES: dict[str, tuple[str, Format, str, str, Callable[[random.Random], list[str]]]] = {
    "u.data": ("movielens", "tsv", "", "\t", rating),
    "ratings.dat": ("movielens", "csv", "", "::", rating),
    "ratings.csv": ("movielens", "csv", "userId,movieId,rating,timestamp", ",", rating),
    "tags.csv": ("movielens", "csv", "userId,movieId,tag,timestamp", ",", rating),
    "interactions": ("personalize", "csv", HEADER, ",", interaction),
    "two devices": ("personalize", "csv", HEADER.replace("value", "DEVICE_TYPE"), ",", interaction),
    "dialect's own props": ("personalize", "csv", HEADER.replace("value", "props"), ",", interaction),
}


def read(path: Path, dialect: str, format: Format, reader: reading.Reader) -> tuple[Any, ...]:
    choice = choose(dialect, "events", SETTINGS)
    source = Input("t", path, format)
    found = list(reading.batches(source, "events", [], SETTINGS, LATEST_US, choice=choice, reader=reader))
    rows = [row for batch in found for row in batch.rows.to_pylist()]
    return rows, [reject for batch in found for reject in batch.rejects], sum(batch.read for batch in found)


def text(name: str, n: int, oddness: float, dice: random.Random) -> tuple[str, bytes]:
    dialect, _, first, separator, good = TABLES[name]
    lines = [first] if first else []
    for number in range(n):
        cells = good(dice)
        while number and dice.random() < oddness:
            cells[dice.randrange(len(cells))] = dice.choice(ODD)
            if dice.random() < 0.1:
                cells.append("more")
        lines.append(separator.join(cells) + ("\r" if dice.random() < oddness / 5 else ""))
        if dice.random() < oddness / 9:
            lines.append(dice.choice(("", '"', '1"2', '"a,b"', "a\tb", "1::2")))
    return dialect, ("\n".join(lines) + "\n").encode()


@pytest.mark.parametrize("name", TABLES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), oddness=st.sampled_from((0, 0.05, 0.4)))
def test_the_same_rows_and_verdicts_as_through_the_dialect(
    name: str, tmp_path: Path, seed: int, oddness: float
) -> None:
    dialect, content = text(name, 30, oddness, random.Random(seed))
    path = tmp_path / "t"
    path.write_bytes(content)
    assert read(path, dialect, TABLES[name][1], "auto") == read(path, dialect, TABLES[name][1], "plain")


@pytest.mark.parametrize("name", [name for name in TABLES if "two" not in name and "props" not in name])
def test_good_rows_never_reach_the_dialect(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dialect, content = text(name, 50, 0, random.Random(5))
    path = tmp_path / "t"
    path.write_bytes(content)

    asked: list[int] = []
    add = plain.Translated.add

    def counted(self: plain.Translated, line: int, *more: Any) -> None:
        asked.append(line)
        add(self, line, *more)

    monkeypatch.setattr(plain.Translated, "add", counted)
    shown = content.count(b"a|b")  # such a row stands for three
    rows, rejects, read_rows = read(path, dialect, TABLES[name][1], "auto")
    assert not rejects and len(rows) == read_rows == 50 + 2 * shown
    assert len(asked) == shown
