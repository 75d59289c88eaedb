"""Residues planted in every place are each found, and what only looks like an id is not."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from forgetting import GONE, workspace

from persona_cli.cli.main import run
from persona_cli.evaluation.document import FOLDER
from persona_cli.feedback.training import train
from persona_cli.privacy.erasure import forget, verify
from persona_cli.privacy.places import Needles, common
from persona_cli.privacy.pseudonyms import pseudonym
from persona_cli.privacy.recipients import new_key, subkey
from persona_cli.privacy.searching import place_of
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home, open_home

WHO = "customer-4711"


@pytest.fixture(scope="module")
def clean_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with something in every place, from which people were erased."""
    home = workspace(tmp_path_factory.mktemp("verify") / "w")
    train(home, ["knn"])
    folder = home.path(FOLDER, "20260101T000000-abcdef")
    folder.mkdir(parents=True)
    pl.DataFrame({"model": ["knn"], "user_id": ["u05"]}).write_parquet(folder / "users.parquet")
    (folder / "result.json").write_text("{}")
    home.path("reports").mkdir()
    home.path("reports", "page.html").write_text("<p>u05</p>")
    home.path("runs").mkdir(exist_ok=True)
    home.path("runs", "20260101T000000-abcdef.json").write_text('{"arguments": ["train"]}')
    forget(home, GONE)
    return home.root


@pytest.fixture
def home(clean_once: Path, elsewhere: Path) -> Home:
    return open_home(Path(shutil.copytree(clean_once, elsewhere / "w")))


def _first(home: Home, pattern: str) -> Path:
    return min(home.root.glob(pattern))


def _put(path: Path, column: str, who: str) -> None:
    rows = pl.read_parquet(path)
    first = pl.int_range(pl.len()) == 0
    rows.with_columns(pl.when(first).then(pl.lit(who)).otherwise(pl.col(column)).alias(column)).write_parquet(path)


def in_column(pattern: str, column: str) -> Callable[[Home, str], None]:
    return lambda home, who: _put(_first(home, pattern), column, who)


def in_text(pattern: str, text: str) -> Callable[[Home, str], None]:
    def plant(home: Home, who: str) -> None:
        path = _first(home, pattern)
        path.write_text(path.read_text() + text.replace("WHO", who))

    return plant


def new_file(name: str, text: str = "WHO") -> Callable[[Home, str], None]:
    def plant(home: Home, who: str) -> None:
        path = home.path(name.replace("WHO", who))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("WHO", who))

    return plant


def in_props(home: Home, who: str) -> None:
    _put(_first(home, "events/*/*.parquet"), "props", json.dumps({"user": {"user_id": who}, "n": 1}))


def in_raw(home: Home, who: str) -> None:
    path = _first(home, "quarantine/*.parquet")
    rows = pl.read_parquet(path)
    rows.with_columns(raw=pl.lit(f'{{"user_id":"{who}","timestamp":"x\xff"}}'.encode())).write_parquet(path)


def in_old_version(home: Home, who: str) -> None:
    path = _first(home, "events/*/*.parquet")
    _put(Path(shutil.copy(path, path.with_name("part-0-old.parquet"))), "anon_id", who)


def in_dictionary(home: Home, who: str) -> None:
    """A value that no row has, in the dictionary of a column."""
    column = pa.DictionaryArray.from_arrays(pa.array([0, 0, 1], pa.int32()), pa.array(["a", "b", who]))
    pq.write_table(pa.table({"user_id": column}), home.path("history", "left.parquet"))
    assert who not in pl.read_parquet(home.path("history", "left.parquet"))["user_id"].to_list()


def in_statistics(home: Home, who: str) -> None:
    """Only the statistics of the file still say it: as if values had been overwritten in place."""
    path = home.path("profiles", "left.parquet")
    pq.write_table(pa.table({"user_id": [who, "z"]}), path, compression="zstd", use_dictionary=False)
    content = path.read_bytes()
    start = content.find(b"PAR1", 4)
    assert content.count(who.encode()) >= 1 and start > 0


def in_footer(home: Home, who: str) -> None:
    table = pa.table({"n": [1]}).replace_schema_metadata({"made for": f"the list of {who}, today"})
    pq.write_table(table, home.path("models", "gram", "left.parquet"))


def in_nested(home: Home, who: str) -> None:
    rows = pl.DataFrame({"items": [[{"id": "x", "likes": [who]}]]})
    rows.write_parquet(home.path(FOLDER, "left.parquet"))


def in_array(kind: str) -> Callable[[Home, str], None]:
    return lambda home, who: np.save(home.path("models", "left.npy"), np.array(["u05", who], dtype=kind))


def in_archive(home: Home, who: str) -> None:
    with zipfile.ZipFile(home.path("reports", "left.zip"), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("profile.json", json.dumps({"user_id": who}))


def in_arrow(home: Home, who: str) -> None:
    folder = home.path(".tmp-1-abcdefabcdef")
    folder.mkdir()
    pl.DataFrame({"user_id": [who]}).write_ipc(folder / "0-0.arrow", compression="lz4")


def half_a_file(home: Home, who: str) -> None:
    pl.DataFrame({"user_id": [who]}).write_parquet(home.path("events", "half.parquet"), compression="uncompressed")
    whole = home.path("events", "half.parquet").read_bytes()
    home.path("events", "half.parquet").write_bytes(whole[:-8])


PLANTS: dict[str, tuple[str, Callable[[Home, str], None]]] = {
    "events": ("events", in_column("events/*/*.parquet", "user_id")),
    "events by device": ("events", in_column("events/*/*.parquet", "anon_id")),
    "props": ("events", in_props),
    "source": ("events", in_column("events/*/*.parquet", "source")),
    "old version": ("events", in_old_version),
    "half a file": ("events", half_a_file),
    "log": ("events", in_text("events/_delta_log/*.json", '{"commitInfo":{"by":"WHO"}}\n')),
    "quarantine": ("quarantine", in_raw),
    "users": ("users", in_column("users/*.parquet", "user_id")),
    "profiles": ("profiles", in_column("profiles/*/*.parquet", "user_id")),
    "history": ("history", in_column("history/*/*.parquet", "user_id")),
    "dictionary": ("history", in_dictionary),
    "statistics": ("profiles", in_statistics),
    "links": (
        "identities",
        lambda home, who: pl.DataFrame({"id": [who]}).write_parquet(home.path("identities/x.parquet")),
    ),
    "gram rows": ("models/gram", in_column("models/gram/*/rows/*.parquet", "user_id")),
    "footer": ("models/gram", in_footer),
    "model manifest": ("models/knn", in_text("models/knn/*/manifest.json", "WHO")),
    "array of bytes": ("models", in_array("S32")),
    "array of texts": ("models", in_array("U32")),
    "evaluation": (FOLDER, in_column(f"{FOLDER}/*/users.parquet", "user_id")),
    "nested": (FOLDER, in_nested),
    "result": (FOLDER, in_text(f"{FOLDER}/*/result.json", '{"worst": "WHO"}')),
    "signals": ("derived", new_file("derived/signals/9/parameters.json", '{"of": "WHO"}')),
    "report": ("reports", in_text("reports/page.html", "<td>WHO</td>")),
    "archive": ("reports", in_archive),
    "run": ("runs", new_file("runs/x.json", '{"arguments": ["profile", "show", "WHO"]}')),
    "pending": ("privacy", new_file("privacy/pending/R-000000000000.json", '{"ids": ["WHO"]}')),
    "temporary text": ("temporary files", new_file("evaluations/.tmp-1-abcdefabcdef", "WHO,1\n")),
    "temporary frame": ("temporary files", in_arrow),
    "settings": ("persona.toml", in_text("persona.toml", '\n# testers: ["WHO"]\n')),
    "file name": ("reports", new_file("reports/of-WHO.html", "nothing")),
    "decisions": ("decisions", new_file("decisions/part.jsonl", '{"user_id":"WHO"}\n')),
    "lock": (".locks", new_file(".locks/x.lock", '{"command": "forget WHO"}')),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_residue_is_found(home: Home, plant: str) -> None:
    place, put = PLANTS[plant]
    put(home, WHO)
    found = verify(home, [WHO])
    assert {residue.place for residue in found} == {place}, found


def test_what_only_begins_or_ends_like_an_id_is_another(home: Home) -> None:
    for place, put in PLANTS.values():
        if place != "temporary files":
            put(home, WHO)
    assert verify(home, ["customer-471", "customer-47110", "ustomer-4711", "xcustomer-4711"]) == []


@pytest.mark.parametrize(
    "plant", ["events", "users", "history", "gram rows", "evaluation", "run", "props", "quarantine"]
)
def test_a_short_id_is_found_where_it_is_a_whole_value(home: Home, plant: str) -> None:
    before = verify(home, ["7"])
    place, put = PLANTS[plant]
    put(home, "7")
    assert {residue.place for residue in set(verify(home, ["7"])) - set(before)} == {place}


def test_the_id_7_is_not_everything(home: Home) -> None:
    assert verify(home, ["7"]) == []
    for number, text in enumerate(('{"rating": 7, "page": "/7"}', '{"width": "17"}', "7.5")):
        home.path("reports", f"{number}.json").write_text(text)
    home.path("reports", "chart.html").write_text('<svg width="7"><text>7</text></svg>')
    home.path("runs", "y.json").write_text(
        '{"arguments": ["recommend", "--top", "7", "-k", "7"], "counts": {"users": 7}}'
    )
    _put(_first(home, "events/*/*.parquet"), "item_id", "7")
    _put(_first(home, "events/*/*.parquet"), "props", '{"size": "7", "n": 7}')
    assert verify(home, ["7"]) == []
    home.path("runs", "y.json").write_text('{"arguments": ["profile", "show", "7"]}')
    assert [residue.place for residue in verify(home, ["7"])] == ["runs"]


def test_pseudonyms_under_keys_and_domains(home: Home, elsewhere: Path) -> None:
    key = new_key(elsewhere / "key")
    new_file("reports/a.csv", f"{pseudonym(subkey(key, 'lab'), 'person', WHO)},1\n")(home, "")
    assert verify(home, [WHO]) == [] and verify(home, [WHO], key=key, domains=["other"]) == []
    assert [one.place for one in verify(home, [WHO], key=key, domains=["other", "lab"])] == ["reports"]
    where = ["-w", str(home.root), "--key-file", str(elsewhere / "key"), "--domain", "lab"]
    assert run(["privacy", "verify-erasure", WHO, *where]) == 10
    assert run(["privacy", "verify-erasure", WHO, *where[:4]]) == 2


def test_what_a_request_erased_is_found_by_its_digests(home: Home) -> None:
    done = forget(home, ["u05"])
    assert done.request is not None and verify(home, request=done.request) == []
    event = "u05-b01-0"  # the id of one of their events
    table = tables.open_table(home, "events")
    assert table is not None
    new_file("runs/z.json", f'{{"arguments": ["privacy", "correct", "{event}"]}}')(home, "")
    _put(_first(home, "events/*/*.parquet"), "event_id", _an_event_of_u05())
    assert {residue.place for residue in verify(home, request=done.request)} == {"events", "runs"}


def _an_event_of_u05() -> str:
    from forgetting import lines

    return next(str(event["event_id"]) for event in lines() if event.get("user_id") == "u05")


def test_words() -> None:
    needles = Needles(frozenset(["anna@example.org", "7", "u-12345"]))
    assert needles.mentions("mail of <anna@example.org>, and more")
    assert not needles.mentions("joanna@example.org") and not needles.mentions("anna@example.organic")
    assert needles.mentions("exports/u-12345.csv") and not needles.mentions("u-123456")
    assert needles.mentions('{"userId": 7}') and needles.mentions('{"anonymousId":"7"}')
    assert not needles.mentions("7", quoted=False) and needles.mentions("7,click,a", fields=True, quoted=False)
    strange = Needles(frozenset(['zoë "z" & co']))
    for text in (
        '{"user_id":"zo\\u00eb \\"z\\" & co"}',
        "/of/zo%C3%AB%20%22z%22%20%26%20co/",
        "<b>zoë &quot;z&quot; &amp; co</b>",
    ):
        assert strange.mentions(text)
    assert [common(id) for id in ("7", "12345678901", "abcde", "abcdef")] == [True, True, True, False]
    assert place_of("models/ease/3/items.parquet") == "models/ease" and place_of("persona.toml") == "persona.toml"
