"""Lists and right answers that others wrote: each format as its makers write it, and what is refused."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from persona_cli.errors import BadData, MissingInput, UsageError
from persona_cli.evaluation.foreign import read_lists, read_pairs
from persona_cli.events.schema import MAX_ID_BYTES
from persona_cli.serving.writing import write_csv, write_lines, write_parquet

Entry = tuple[str, str, int, float | None]
EXPECTED: list[Entry] = [("007", "b", 1, 2.5), ("007", "a", 2, 1.0), ("u", "a", 1, 3.0)]


def wrote(folder: Path, text: str | bytes, name: str = "lists") -> str:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def entries(source: str) -> list[Entry]:
    lists = read_lists(source).lists
    schema = {"user_id": pl.String, "item_id": pl.String, "rank": pl.Int64, "score": pl.Float64}
    assert dict(lists.schema) == schema
    return lists.rows()  # type: ignore[return-value]


OURS = (
    '{"user_id":"u","items":[{"item_id":"a","score":3}],"model":"ease/1","holdout":true}\n\n'
    '{"user_id":"007","items":[{"item_id":"b","score":2.5},{"item_id":"a","score":1.0,"reasons":["x"]}]}\n'
)
PERSONALIZE = (
    '{"input":{"userId":"u"},"output":{"recommendedItems":["a"],"scores":[3.0]},"error":null}\n'
    '{"input":{"userId":"007"},"output":{"recommendedItems":["b","a"],"scores":[2.5,1.0]},"error":null}\n'
)
RECTOOLS = "user_id,item_id,score,rank\n007,a,1.0,2\n007,b,2.5,1\nu,a,3.0,1\n"
REPLAY = "query_id,item_id,rating\n007,a,1.0\nu,a,3.0\n007,b,2.5\n"
LENSKIT = "user_id\titem_id\trank\tscore\n007\tb\t1\t2.5\n007\ta\t2\t1.0\nu\ta\t1\t3\n"
RECOMMENDERS = "userID,itemID,prediction\nu,a,3.0\n007,b,2.5\n007,a,1.0\n"
LONG = "".join(
    json.dumps({"user": user, "item": item, "weight": score}) + "\n" for user, item, _, score in reversed(EXPECTED)
)


@pytest.mark.parametrize(
    ("text", "format"),
    [
        (OURS, "persona"),
        (PERSONALIZE, "personalize"),
        (RECTOOLS, "csv"),
        (REPLAY, "csv"),
        (LENSKIT, "tsv"),
        (RECOMMENDERS, "csv"),
        ("\ufeff" + RECOMMENDERS.replace("\n", "\r\n"), "csv"),
        (LONG, "jsonl"),
    ],
)
def test_every_format_gives_the_same_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, format: str
) -> None:
    plain, packed = wrote(tmp_path, text), wrote(tmp_path, gzip.compress(text.encode()), "lists.gz")
    assert entries(plain) == entries(packed) == EXPECTED
    assert read_lists(plain).format == format and read_lists(plain).notes == []
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert entries("-") == EXPECTED


def test_parquet_with_whole_numbers_as_ids(tmp_path: Path) -> None:
    frame = pl.DataFrame({"userId": [2, 1, 1], "itemId": [10, 10, 9], "prediction": [1.0, 0.5, 0.5]})
    frame.write_parquet(tmp_path / "lists")
    assert entries(str(tmp_path / "lists")) == [("1", "10", 1, 0.5), ("1", "9", 2, 0.5), ("2", "10", 1, 1.0)]


def test_what_persona_writes_is_read_back(tmp_path: Path) -> None:
    block = pl.DataFrame(
        {
            "user_id": ["-u", "=v", "'w"],
            "items": [[{"item_id": "@a", "score": 2.0}, {"item_id": "-7", "score": 1.0}], [], [{"item_id": "b"}]],
            "model": ["ease"] * 3,
            "base": [None] * 3,
            "stage": ["ease"] * 3,
            "holdout": [None, True, None],
        },
        schema_overrides={"base": pl.String, "items": pl.List(pl.Struct({"item_id": pl.String, "score": pl.Float64}))},
    )
    expected = [("'w", "b", 1, None), ("-u", "@a", 1, 2.0), ("-u", "-7", 2, 1.0)]
    for write in (write_lines, write_csv, write_parquet):
        stream = io.BytesIO()
        write([block], stream)
        assert entries(wrote(tmp_path, stream.getvalue())) == expected, write.__name__


def test_a_file_without_rank_and_score_is_in_its_own_order(tmp_path: Path) -> None:
    assert entries(wrote(tmp_path, "user,item\nv,z\nu,b\nv,a\n")) == [
        ("u", "b", 1, None), ("v", "z", 1, None), ("v", "a", 2, None),
    ]  # fmt: skip


def test_a_rank_wins_over_a_score(tmp_path: Path) -> None:
    assert entries(wrote(tmp_path, "user,item,rank,score\nu,a,1,0.1\nu,b,2,0.9\n")) == [
        ("u", "a", 1, 0.1), ("u", "b", 2, 0.9),
    ]  # fmt: skip


def test_errors_of_personalize_are_empty_lists_that_count(tmp_path: Path) -> None:
    failed = '{"input":{"userId":"v"},"output":null,"error":"no such user"}\n'
    empty = '{"input":{"userId":"w"},"output":{"recommendedItems":[],"scores":[]},"error":null}\n'
    found = read_lists(source := wrote(tmp_path, PERSONALIZE + failed + empty))
    assert found.lists.rows() == EXPECTED
    assert found.notes == [
        f"{source}: 1 lines report an error; these users count with an empty list",
        f"{source}: 1 users have an empty list",
    ]


def test_places_that_ranks_leave_out_are_told(tmp_path: Path) -> None:
    found = read_lists(wrote(tmp_path, "user,item,rank\nu,a,2\nu,b,3\nv,a,1\nv,b,4\n"))
    assert found.lists["rank"].to_list() == [2, 3, 1, 4]
    assert len(found.notes) == 1 and "leave out places 2 times" in found.notes[0]


HEAD = "user_id,item_id,rank,score\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD + "u,a,1,1\nu,a,2,1\n", "row 2: item_id 'a' is in the list of user_id 'u' twice"),
        (HEAD + "u,a,1,1\nv,a,1,1\nu,b,1,1\n", "row 3: rank 1 is in the list of user_id 'u' twice"),
        (HEAD + "u,a,1,1\nu,b,0,1\n", "row 2: rank is '0'; expected a whole number from 1"),
        (HEAD + "u,a,1.5,1\n", "row 1: rank is '1.5'"),
        (HEAD + "u,a,,1\n", "row 1: rank is None"),
        (HEAD + "u,a,1,high\n", "row 1: score is 'high'; expected a number"),
        (HEAD + "u,a,1,nan\n", "row 1: score is 'nan'"),
        (HEAD + "u,a,1,1\n,b,1,1\n", "row 2: user_id is missing or empty; expected an id as text"),
        (HEAD + 'u,"",1,1\n', "row 1: item_id is missing or empty"),
        (HEAD + f"u,{'x' * (MAX_ID_BYTES + 1)},1,1\n", "row 1: item_id is longer than"),
        ("user,item,score\nu,a,1\nu,b,\n", "row 2: score is missing"),
        ("user,thing\nu,a\n", "no column item_id; it has user, thing; expected one of item_id, itemID"),
        ("u1\nu2\n", "no column user_id"),
        (" \n", "is empty"),
        ('[{"user_id":"u","items":[]}]\n', "JSON array"),
        ('{"user_id":"u","items":[]}\n\n{"user_id":1.0,"items":[]}\n', r"line 3: .*float.*user_id"),
        ('{"user_id":"u","items":[]}\n{"user_id":"v"}\n', "line 2: .*items"),
        ('{"user_id":"u","items":[]}\n{"user_id":"v",\n', "line 2: "),
        ('{"user_id":"u","items":[{"item_id":null}]}\n', r"line 1: .*null.*item_id"),
        ('\n{"user_id":"u","items":[]}\n{"user_id":"u","items":[]}\n', "line 3: a second list of user_id 'u'"),
        ('{"user_id":"u","items":[{"item_id":"a"},{"item_id":"a"}]}\n', "line 1: item_id 'a' .* twice"),
        ('{"user_id":"u","items":[]}\n{"user_id":"","items":[]}\n', "line 2: user_id is missing or empty"),
        ('{"user":"u","item":"a"}\n{"user":"u","item":true}\n', r"line 2: .*bool.*item"),
        ('{"user":"u","item":"a","rank":1}\n\n{"user":"u","item":"b","rank":0}\n', "line 3: rank is 0"),
        (PERSONALIZE.replace("[2.5,1.0]", "[2.5]"), "line 2: output.scores and output.recommendedItems"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    source = wrote(tmp_path, text)
    with pytest.raises(BadData, match=words) as error:
        read_lists(source)
    assert source in error.value.message


@pytest.mark.parametrize("ids", [[1.0, 2.0], [True, False], [b"a", b"b"]])
def test_ids_of_other_types_are_refused(tmp_path: Path, ids: list[Any]) -> None:
    pl.DataFrame({"user_id": ids, "item_id": ["a", "b"]}).write_parquet(tmp_path / "lists.parquet")
    with pytest.raises(BadData, match="user_id is of type"):
        read_lists(str(tmp_path / "lists.parquet"))


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="Parquet"):
        read_lists(wrote(tmp_path, b"PAR1 and no more", "a.parquet"))
    with pytest.raises(BadData, match="gzip stream"):
        read_lists(wrote(tmp_path, gzip.compress(OURS.encode())[:-12], "a.gz"))
    with pytest.raises(MissingInput, match="no such file"):
        read_lists(str(tmp_path / "absent.csv"))
    with pytest.raises(UsageError, match="folder"):
        read_lists(str(tmp_path))


def test_pairs_are_distinct_and_sorted(tmp_path: Path) -> None:
    expected = [("007", "b"), ("1", "a")]
    assert read_pairs(wrote(tmp_path, "userID,itemID,rating\n1,a,5\n007,b,3\n1,a,4\n")).rows() == expected
    assert read_pairs(wrote(tmp_path, '{"user":1,"item":"a"}\n{"user":"007","item":"b"}\n')).rows() == expected
    with pytest.raises(BadData, match="lists in it"):
        read_pairs(wrote(tmp_path, OURS))
    with pytest.raises(BadData, match="row 1: item_id is missing"):
        read_pairs(wrote(tmp_path, "user,item\nu,\n"))
