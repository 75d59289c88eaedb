"""Digests: the function itself by hashlib, looking many up, and several writers at once."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from persona_cli.consent.receipts import record, scan
from persona_cli.consent.subjects import Index, halves, subject, subjects, suppress, suppressed
from persona_cli.workspace.home import create


def test_a_digest_is_keyed_blake2b(elsewhere: Path) -> None:
    home = create(Path("w"))
    by_hand = hashlib.blake2b("ä1".encode(), key=home.salt, person=b"consent subject", digest_size=16).hexdigest()
    assert subject(home, "ä1") == by_hand == subjects(home, pl.Series(["ä1"])).item()
    assert halves(home, ["ä1"]).tolist() == [[int(by_hand[:16], 16), int(by_hand[16:], 16)]]


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_who_is_there_is_found_and_nobody_else(elsewhere: Path, size: int) -> None:
    home = create(Path("w"))
    ids = [f"u{n}" for n in range(size)]
    index = Index.of(pl.Series([subject(home, id) for id in ids], dtype=pl.String))
    asked = [f"u{n}" for n in range(0, 2000, 3)]
    assert index.find(halves(home, asked)).tolist() == [int(id[1:]) if int(id[1:]) < size else -1 for id in asked]


def test_digests_with_one_first_half_are_told_apart() -> None:
    index = Index.of(pl.Series(["00000000000000ab" + end * 16 for end in "312"]))
    asked = np.array([[0xAB, int(end * 16, 16)] for end in "1234"], np.uint64)
    assert index.find(asked).tolist() == [1, 2, 0, -1]


def test_writers_at_once_lose_nothing(elsewhere: Path) -> None:
    home = create(Path("w"))
    record(home, ["first"], ["analytics"], "given")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: record(home, [f"u{n}"], ["analytics"], "withdrawn"), range(8)))
        list(pool.map(lambda n: suppress(home, [f"u{n}"], f"R-{n}"), range(4)))
    assert scan(home).collect().height == 9
    assert suppressed(home, pl.Series([f"u{n}" for n in range(5)])).to_list() == [True] * 4 + [False]
