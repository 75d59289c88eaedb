"""Lists of ids: every form gives the same rows, and what is wrong is named by file, line and field."""

from __future__ import annotations

import bz2
import gzip
import io
import json
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from persona_cli.errors import BadData, MissingInput, UsageError
from persona_cli.events.lists import read_ids

PAIRS = [("u1", "007"), ("u2", "7"), ("a,b", "x y")]


@pytest.fixture
def write(tmp_path: Path):
    def written(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return written


def as_jsonl(pairs: list[tuple[str, str]], user: str = "user_id", item: str = "item_id") -> str:
    return "".join(json.dumps({user: u, item: i, "more": 1}) + "\n" for u, i in pairs)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.csv", 'user_id,item_id\nu1,007\nu2,7\n"a,b",x y\n'),
        ("p.csv", '\ufeffitem_id,user_id,n\r\n007,u1,1\r\n\r\n7,u2,2\r\nx y,"a,b",3\r\n'),
        ("p.tsv", "userId\tsku\nu1\t007\nu2\t7\na,b\tx y\n"),
        ("p.jsonl", as_jsonl(PAIRS)),
        ("p.ndjson", as_jsonl(PAIRS, "uid", "product_id")),
        ("unnamed", as_jsonl(PAIRS)),
        ("unnamed", 'user_id,item_id\nu1,007\nu2,7\n"a,b",x y\n'),
        ("unnamed", "user_id\titem_id\nu1\t007\nu2\t7\na,b\tx y\n"),
        ("p.csv.gz", gzip.compress(b'user_id,item_id\nu1,007\nu2,7\n"a,b",x y\n', mtime=0)),
        ("p.jsonl.bz2", bz2.compress(as_jsonl(PAIRS).encode())),
    ],
)
def test_every_form_gives_the_same_pairs(write, name: str, content: str | bytes) -> None:
    found = read_ids(write(name, content), ["user_id", "item_id"])
    assert found.rows() == PAIRS
    assert found.schema == {"user_id": pl.String, "item_id": pl.String}


def test_parquet_with_text_or_whole_numbers(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": ["u1", "u2"], "item": [7, 10**15]}).write_parquet(tmp_path / "p.parquet")
    assert read_ids(str(tmp_path / "p.parquet"), ["user_id", "item_id"]).rows() == [("u1", "7"), ("u2", str(10**15))]


def test_text_is_one_id_a_line_with_the_blanks_around_it_gone(write) -> None:
    assert read_ids(write("users.txt", " u1 \n\nu,2\r\nu1\n"), ["user_id"])["user_id"].to_list() == ["u1", "u,2", "u1"]


def test_standard_input_is_read_and_its_form_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (b"user_id\nu1\n", b'{"user_id": "u1"}\n', b"u1\n", gzip.compress(b"u1\n", mtime=0)):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))
        assert read_ids("-", ["user_id"]).rows() == [("u1",)]


def test_optional_columns_are_there_where_the_file_has_them(write) -> None:
    both = write("a.csv", "item_id,user_id\ni,u\n")
    assert read_ids(both, ["item_id"], ["user_id"]).rows() == [("i", "u")]
    assert read_ids(write("b.csv", "item_id\ni\n"), ["item_id"], ["user_id"]).columns == ["item_id"]
    assert read_ids(write("c.jsonl", '{"item_id": "i"}\n'), ["item_id"], ["user_id"]).columns == ["item_id"]


def test_an_empty_file_holds_nobody(write) -> None:
    for name in ("e.txt", "e.csv", "e.jsonl"):
        assert read_ids(write(name, "\n"), ["user_id"]).height == 0


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"user_id": "u1"}\n{"user_id": 1.5}\n', "line 2: user_id is 1.5"),
        ("a.jsonl", '{"user_id": "u1"}\n\n{"user_id": true}\n', "line 3: user_id is true"),
        ("a.jsonl", '{"user_id": "u1"}\n{"item_id": "i"}\n', "line 2: user_id is missing"),
        ("a.jsonl", '{"user_id": "u1"}\n{"user_id": ""}\n', "line 2: user_id is empty"),
        ("a.jsonl", "[1]\n", "line 1: expected an object"),
        ("a.jsonl", '{"user_id": \n', "line 1: not JSON"),
        ("a.csv", "user_id,n\nu1,1\n,2\n", "line 3: user_id is empty"),
        ("a.csv", "user_id,n\n\nu1,1,5\n", "line 3: 3 cells; expected 2"),
        ("a.csv", "item_id\ni\n", "there is no column user_id"),
        ("a.csv", "user_id\n" + "x" * 1001 + "\n", "line 2: user_id is longer than 1,000 bytes"),
        ("a.txt", b"u1\nu\xff2\n", "line 2: not UTF-8"),
        ("a.csv.gz", gzip.compress(b"user_id\nu1\n", mtime=0)[:-6], "the gzip stream is damaged"),
        ("a.parquet", b"PAR1 not really", "not a Parquet file"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_line(write, name: str, content: str | bytes, said: str) -> None:
    source = write(name, content)
    with pytest.raises(BadData) as error:
        read_ids(source, ["user_id"])
    assert said in error.value.message
    assert name in error.value.message


def test_text_cannot_hold_two_columns(write) -> None:
    with pytest.raises(BadData, match="user_id and item_id are needed") as error:
        read_ids(write("a.txt", "u1 i1\n"), ["user_id", "item_id"])
    assert "user_id,item_id" in str(error.value.hint)


def test_what_is_not_there_and_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="no such file"):
        read_ids(str(tmp_path / "none.txt"), ["user_id"])
    with pytest.raises(UsageError, match="is a folder"):
        read_ids(str(tmp_path), ["user_id"])
