"""Pseudonyms of files: their exact values, nothing else touched, and no two recipients that can be joined."""

from __future__ import annotations

import bz2
import csv
import gzip
import hashlib
import hmac
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_cli.errors import BadData, MissingInput, PersonaError, Refused, UsageError
from persona_cli.privacy.pseudonymize import (
    Done,
    Naming,
    naming,
    pseudonymize_file,
    remap_file,
    rotating,
)
from persona_cli.privacy.pseudonyms import Places, places
from persona_cli.privacy.recipients import Key

KEY, NEW_KEY = Key.of(bytes(range(32))), Key.of(bytes(range(100, 132)))


def oracle(kind: str, id: str, domain: str = "partner-a", key: Key = KEY) -> str:
    """The definition in the documentation, with the standard library alone: HKDF of one block, then HMAC."""
    extracted = hmac.new(b"persona pseudonyms 1", key.secret, hashlib.sha256).digest()
    subkey = hmac.new(extracted, f"domain {domain}".encode() + b"\x01", hashlib.sha256).digest()
    return kind[0] + hmac.new(subkey, f"{kind}\0{id}".encode(), hashlib.sha256).hexdigest()[:32]


def run(path: Path, out: Path, where: Places | None = None, names: Naming | None = None, **more: bool) -> Done:
    return pseudonymize_file(path, out, io.BytesIO(), names or naming(KEY, "partner-a"), where or Places(), **more)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_pseudonym_is_for_ever() -> None:
    assert naming(KEY, "partner-a").rename("person", "7") == oracle("person", "7")
    assert oracle("person", "7") == "pa0b6637b908e808a19f1c043333a1903"


def test_the_documentation_makes_the_same_pseudonym() -> None:
    page = (Path(__file__).parents[2] / "docs" / "privacy.md").read_text()
    (block,) = [block for block in page.split("```python\n")[1:] if "pseudonym =" in block]
    names: dict[str, Any] = {}
    exec(block.partition("```")[0], names)
    assert names["pseudonym"] == naming(KEY, "partner-a").rename("person", "u1042")


def test_json_lines_keep_everything_but_ids(tmp_path: Path) -> None:
    line = (
        '{"user_id": 7, "anon_id": "ä\\u00e4", "account_id": "7", "session_id": " ", "event_id": null,'
        '"event_type": "user_id", "value": 1.10, "n": -0, "big": 12345678901234567890123, "ok": true,'
        '"context": {"user_id": "007", "page": "/user/7"},'
        '"props": {"seen": [{"userId": "7"}, 1e3, {"user": {"id": 7}}]}}'
    )
    (tmp_path / "in.jsonl").write_text(line + "\n\n")
    done = run(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == (
        f'{{"user_id":"{oracle("person", "7")}","anon_id":"{oracle("person", "ää")}",'
        f'"account_id":"{oracle("account", "7")}","session_id":" ","event_id":null,"event_type":"user_id",'
        '"value":1.10,"n":-0,"big":12345678901234567890123,"ok":true,'
        f'"context":{{"user_id":"{oracle("person", "007")}","page":"/user/7"}},'
        f'"props":{{"seen":[{{"userId":"{oracle("person", "7")}"}},1e3,{{"user":{{"id":7}}}}]}}}}\n'
    )
    assert done.replaced == {"user_id": 1, "anon_id": 1, "account_id": 1, "context.user_id": 1, "props.*.userId": 1}
    said = json.loads((tmp_path / "out.jsonl.manifest.json").read_text())
    assert said["key"] == KEY.id and said["domain"] == "partner-a" and said["rows"] == 1
    assert said["sha256"] == hashlib.sha256((tmp_path / "out.jsonl").read_bytes()).hexdigest()
    assert KEY.secret.hex() not in json.dumps(said)


def test_tables_of_text(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(
        b"\xef\xbb\xbfuser_id,city,amount,props\r\n"
        b'007,"Paris, ""FR""",1.10,"{""user_id"": 7, ""x"": 1.0}"\r\n'
        b'7,"two\nlines",=1+1,\r\n'
        b",Rome,2,{}\r\n"
    )
    run(tmp_path / "in.csv", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows == [
        ["user_id", "city", "amount", "props"],
        [oracle("person", "007"), 'Paris, "FR"', "1.10", f'{{"user_id":"{oracle("person", "7")}","x":1.0}}'],
        [oracle("person", "7"), "two\nlines", "=1+1", ""],
        ["", "Rome", "2", "{}"],
    ]
    (tmp_path / "in.tsv").write_text("visitorid\titem\n7\t9\n")
    run(tmp_path / "in.tsv", tmp_path / "out.tsv")
    assert (tmp_path / "out.tsv").read_text() == f"visitorid\titem\n{oracle('person', '7')}\t9\n"


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    person = pa.struct([("anon_id", pa.int32()), ("age", pa.int8())])
    table = pa.table(
        {
            "user_id": pa.array([7, None, 8], pa.int64()),
            "session_id": pa.array(["a", "b", "a"]).dictionary_encode(),
            "who": pa.array([{"anon_id": 7, "age": 3}, None, {"anon_id": None, "age": 4}], person),
            "price": pa.array([1, 2, 3], pa.decimal128(9, 2)),
            "tags": pa.array([["x"], None, []], pa.list_(pa.string())),
            "props": pa.array(['{"user_id": 7}', "no json", None], pa.large_string()),
        }
    ).replace_schema_metadata({"made": "by ann"})
    pq.write_table(table, tmp_path / "in.parquet")
    run(tmp_path / "in.parquet", tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.to_pylist() == [
        {
            "user_id": oracle("person", "7"),
            "session_id": oracle("session", "a"),
            "who": {"anon_id": oracle("person", "7"), "age": 3},
            "price": table["price"][0].as_py(),
            "tags": ["x"],
            "props": f'{{"user_id":"{oracle("person", "7")}"}}',
        },
        {
            "user_id": None,
            "session_id": oracle("session", "b"),
            "who": None,
            "price": table["price"][1].as_py(),
            "tags": None,
            "props": "no json",
        },
        {
            "user_id": oracle("person", "8"),
            "session_id": oracle("session", "a"),
            "who": {"anon_id": None, "age": 4},
            "price": table["price"][2].as_py(),
            "tags": [],
            "props": None,
        },
    ]
    assert found.schema.field("price").type == pa.decimal128(9, 2) and not found.schema.metadata
    assert b"by ann" not in (tmp_path / "out.parquet").read_bytes()


@pytest.mark.parametrize("packed", [gzip.compress, bz2.compress, lambda data: pa.compress(data, "zstd", asbytes=True)])
def test_compressed_files(tmp_path: Path, packed: Any) -> None:
    (tmp_path / "in.jsonl.gz").write_bytes(packed(b'{"user_id":"7"}\n'))
    for name in ("out.jsonl", "out.jsonl.gz", "again.jsonl.gz", "out.jsonl.zst"):
        run(tmp_path / "in.jsonl.gz", tmp_path / name)
    expected = f'{{"user_id":"{oracle("person", "7")}"}}\n'.encode()
    assert (tmp_path / "out.jsonl").read_bytes() == expected
    assert gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes()) == expected
    assert (tmp_path / "out.jsonl.gz").read_bytes() == (tmp_path / "again.jsonl.gz").read_bytes()
    assert pa.input_stream(str(tmp_path / "out.jsonl.zst"), compression="zstd").read() == expected


def test_places_of_ids_can_be_added_and_kept(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"user_id":"7","session_id":"s","buyer":{"no":5},"firm":"f"}\n')
    where = places(["buyer.no", "firm=account"], ["session_id"])
    run(tmp_path / "in.jsonl", tmp_path / "out.jsonl", where)
    assert lines(tmp_path / "out.jsonl") == [
        {
            "user_id": oracle("person", "7"),
            "session_id": "s",
            "buyer": {"no": oracle("person", "5")},
            "firm": oracle("account", "f"),
        }
    ]
    for wrong in (["x=robot"], ["=person"]):
        with pytest.raises(UsageError, match="NAME=KIND"):
            places(wrong)
    with pytest.raises(UsageError, match="--keep"):
        places(["a"], ["a"])


def test_a_field_of_which_the_name_does_not_say_whose_id_it_is_is_told(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"id":5,"account_id":"a"}\n')
    (tmp_path / "in.csv").write_text("id,account_id\n5,a\n")
    pq.write_table(pa.table({"id": [5], "account_id": ["a"]}), tmp_path / "in.parquet")
    for name in ("in.jsonl", "in.csv", "in.parquet"):
        out = tmp_path / name.replace("in", "out")
        assert run(tmp_path / name, out).bare
        assert not run(tmp_path / name, out, places(["id"])).bare
        assert not run(tmp_path / name, out, places([], ["id"])).bare


@pytest.mark.parametrize(
    ("name", "content", "kind", "words"),
    [
        ("a.jsonl", '{"user_id":"7"}\n{"user_id":1.5}\n', BadData, "line 2: user_id: expected text or a whole number"),
        ("a.jsonl", '{"user_id":"7"}\n{"user_id":["7"]}\n', BadData, "got an array"),
        ("a.jsonl", '{"user_id":"7"}\n{"user_id":true}\n', BadData, "got a boolean"),
        ("a.jsonl", '{"user_id":"7"}\n{"user_id":\n', BadData, "line 2: not valid JSON"),
        ("a.jsonl", '{"user_id":"7","user_id":"8"}\n', BadData, "duplicate key"),
        ("a.jsonl", '{"name":"7"}\n', UsageError, "no ids were found"),
        ("a.csv", "user_id,x\n7,1\n8\n", BadData, "line 3: expected 2 columns, got 1"),
        ("a.csv", "user_id,user_id\n7,1\n", BadData, "twice"),
        ("a.csv", "", BadData, "empty"),
        ("a.parquet", "no", BadData, "not a readable Parquet"),
        ("a.xml", "", BadData, "format"),
    ],
)
def test_what_cannot_be_read_leaves_nothing(
    tmp_path: Path, name: str, content: str, kind: type[PersonaError], words: str
) -> None:
    (tmp_path / name).write_text(content)
    (tmp_path / "out").mkdir()
    with pytest.raises(kind, match=words):
        run(tmp_path / name, tmp_path / "out" / "result")
    assert not list((tmp_path / "out").iterdir())


def test_parquet_with_ids_that_are_none(tmp_path: Path) -> None:
    for column in (pa.array([1.5]), pa.array([b"7"]), pa.array([{"x": 1}])):
        pq.write_table(pa.table({"user_id": column}), tmp_path / "in.parquet")
        with pytest.raises(BadData, match="user_id: expected text or whole numbers"):
            run(tmp_path / "in.parquet", tmp_path / "out.parquet")
    pq.write_table(pa.table({"a": pa.array([[{"user_id": "7"}]])}), tmp_path / "in.parquet")
    with pytest.raises(BadData, match="inside lists"):
        run(tmp_path / "in.parquet", tmp_path / "out.parquet")


def test_the_input_is_not_overwritten_and_formats_agree(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"user_id":"7"}\n')
    with pytest.raises(UsageError, match="is the file itself"):
        run(tmp_path / "in.jsonl", tmp_path / "in.jsonl")
    with pytest.raises(UsageError, match="same format"):
        run(tmp_path / "in.jsonl", tmp_path / "out.csv")
    with pytest.raises(MissingInput):
        run(tmp_path / "nothing.jsonl", tmp_path / "out.jsonl")
    run(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    with pytest.raises(UsageError, match="carries pseudonyms already"):
        run(tmp_path / "out.jsonl", tmp_path / "twice.jsonl")


IDS = st.text(st.characters(exclude_categories=["Cs"], min_codepoint=32), min_size=1, max_size=8).filter(
    lambda text: bool(text.strip())
)
ROWS = st.lists(st.fixed_dictionaries({"user_id": IDS, "session_id": IDS, "event_id": IDS}), min_size=1, max_size=12)


@settings(max_examples=40)
@given(ROWS, ROWS)
def test_rotation_joins_to_nothing_under_the_old_key_and_fully_under_the_remap(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]], others: list[dict[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("rotation")
    (folder / "ids.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows + others))
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(folder / "in.jsonl", folder / "old.jsonl")
    names = rotating(KEY, NEW_KEY, "partner-a", [folder / "ids.jsonl"], Places())
    with remap_file(folder / "remap.csv", names):
        run(folder / "old.jsonl", folder / "new.jsonl", names=names)
    old, new = lines(folder / "old.jsonl"), lines(folder / "new.jsonl")
    assert not {id for row in old for id in row.values()} & {id for row in new for id in row.values()}
    with (folder / "remap.csv").open(newline="") as stream:
        table = {row["old"]: row["new"] for row in csv.DictReader(stream)}
    assert [{name: table[id] for name, id in row.items()} for row in old] == new
    assert len(set(table.values())) == len(table)
    # What is rotated is what the new key would have made of the ids.
    run(folder / "in.jsonl", folder / "direct.jsonl", names=naming(NEW_KEY, "partner-a"))
    assert (folder / "direct.jsonl").read_bytes() == (folder / "new.jsonl").read_bytes()


@given(ROWS)
def test_two_recipients_have_no_pseudonym_in_common(rows: list[dict[str, str]]) -> None:
    kinds = {"user_id": "person", "session_id": "session", "event_id": "event"}
    one, two = naming(KEY, "partner-a").rename, naming(KEY, "partner-b").rename
    ids = {(kinds[name], id) for row in rows for name, id in row.items()}
    first, second = {one(*id) for id in ids}, {two(*id) for id in ids}
    assert len(first) == len(second) == len(ids) and not first & second


def test_ids_that_are_gone_cannot_be_rotated(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"user_id":"7","n":1}\n{"user_id":"8","n":2}\n{"user_id":"7","n":3}\n')
    (tmp_path / "ids.csv").write_text("user_id\n7\n")
    run(tmp_path / "in.jsonl", tmp_path / "old.jsonl")
    names = rotating(KEY, NEW_KEY, "partner-a", [tmp_path / "ids.csv"], Places())
    with pytest.raises(Refused, match=r"1 of 3 records"), remap_file(tmp_path / "remap.csv", names):
        run(tmp_path / "old.jsonl", tmp_path / "new.jsonl", names=names)
    assert not (tmp_path / "new.jsonl").exists() and not (tmp_path / "remap.csv").exists()
    done = run(tmp_path / "old.jsonl", tmp_path / "new.jsonl", names=names, drop_unknown=True)
    expected = oracle("person", "7", key=NEW_KEY)
    assert lines(tmp_path / "new.jsonl") == [{"user_id": expected, "n": 1}, {"user_id": expected, "n": 3}]
    assert (done.rows, done.unknown, done.manifest["left_out"]) == (2, 1, 1)
    pq.write_table(
        pa.table({"user_id": [oracle("person", "7"), None, oracle("person", "8")], "n": [1, 2, 3]}),
        tmp_path / "old.parquet",
    )
    with pytest.raises(Refused):
        run(tmp_path / "old.parquet", tmp_path / "new.parquet", names=names)
    run(tmp_path / "old.parquet", tmp_path / "new.parquet", names=names, drop_unknown=True)
    assert pq.read_table(tmp_path / "new.parquet").to_pydict() == {"user_id": [expected, None], "n": [1, 2]}


def test_rotation_with_the_wrong_key_domain_or_no_ids(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"user_id":"7"}\n')
    run(tmp_path / "in.jsonl", tmp_path / "old.jsonl")
    ids = [tmp_path / "in.jsonl"]
    with pytest.raises(UsageError, match="made with the key"):
        run(tmp_path / "old.jsonl", tmp_path / "x.jsonl", names=rotating(NEW_KEY, KEY, "partner-a", ids, Places()))
    with pytest.raises(UsageError, match="made with the domain"):
        run(tmp_path / "old.jsonl", tmp_path / "x.jsonl", names=rotating(KEY, NEW_KEY, "partner-b", ids, Places()))
    with pytest.raises(UsageError, match="the same"):
        rotating(KEY, KEY, "partner-a", ids, Places())
    with pytest.raises(UsageError, match="needs the ids"):
        rotating(KEY, NEW_KEY, "partner-a", [], Places())
    with pytest.raises(MissingInput, match="no workspace"):
        rotating(KEY, NEW_KEY, "partner-a", [tmp_path], Places())


def test_the_remap_is_for_its_owner_only_and_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"user_id":"7"}\n')
    names = rotating(KEY, NEW_KEY, "partner-a", [tmp_path / "in.jsonl"], Places())
    with remap_file(tmp_path / "remap.csv", names):
        pass
    assert (tmp_path / "remap.csv").stat().st_mode & 0o777 == 0o600
    (tmp_path / "there").write_text("x")
    with pytest.raises(PersonaError, match="exists already"), remap_file(tmp_path / "there", names):
        pass
    with pytest.raises(UsageError, match="--rotate"), remap_file(tmp_path / "x", naming(KEY, "a")):
        pass
    assert not (tmp_path / "x").exists() and (tmp_path / "there").read_text() == "x"


def test_the_share_of_users_who_can_be_told_apart_is_in_the_manifest(tmp_path: Path) -> None:
    rows = [{"user_id": user, "item_id": item} for user in "abc" for item in ("wxyz" if user == "a" else "wxyv")]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "in.csv").write_text("userId,itemId\n" + "".join(f"{r['user_id']},{r['item_id']}\n" for r in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    for name in ("in.jsonl", "in.csv", "in.parquet"):
        done = run(tmp_path / name, tmp_path / name.replace("in", "out"))
        assert done.unicity is not None and (done.unicity.unique, done.unicity.sampled) == (1, 3)
        assert done.manifest["unicity"]["share"] == pytest.approx(1 / 3)
