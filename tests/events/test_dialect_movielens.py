"""MovieLens files of all releases."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_cli.events.dialects.dialect import Dialect
from persona_cli.events.dialects.movielens import DIALECTS
from persona_cli.events.judge import Rules, judge
from persona_cli.events.schema import resolve
from tests.events.speaking import LATEST, SHARED, dialect, hear, heard, reason

EVENTS = dialect("movielens")
MOVIES = dialect("movielens", "items")
U_DATA, RATINGS_DAT, TAGS_DAT = (one for one in DIALECTS if one.kind == "events" and one.columns)
U_ITEM = dialect("movielens", "items", columns=24)
MOVIES_DAT = dialect("movielens", "items", columns=3)
PEOPLE = [one for one in DIALECTS if one.kind == "users"]
ML_100K = SHARED.parent / "ml-100k"
EVENT = {
    "user_id": st.integers(1, 10**6).map(str),
    "item_id": st.integers(1, 10**6).map(str),
    "timestamp": st.integers(8 * 10**8, 2 * 10**9).map(lambda seconds: seconds * 10**6),
}
RATED = st.fixed_dictionaries(
    EVENT | {"event_type": st.just("rating"), "value": st.integers(1, 10).map(lambda halves: halves / 2)}
)
TAGGED = st.fixed_dictionaries(
    EVENT | {"event_type": st.just("tag"), "target": st.text("ab c|é'", min_size=1, max_size=9).filter(str.strip)}
)


def cells(speaks: Dialect, line: str) -> dict[str, str | None]:
    """A line of a file without header, cut as its reader cuts it."""
    return {name: cell or None for name, cell in zip(speaks.columns, line.split(speaks.separator or "\t"), strict=True)}


def four(row: dict[str, Any]) -> list[str]:
    said = row["target"] if row["event_type"] == "tag" else f"{row['value']:g}"
    return [row["user_id"], row["item_id"], said, str(row["timestamp"] // 10**6)]


@given(st.one_of(RATED, TAGGED))
def test_events_with_a_header_read_back(row: dict[str, Any]) -> None:
    names = ("userId", "movieId", "tag" if row["event_type"] == "tag" else "rating", "timestamp")
    record = dict(zip(names, four(row), strict=True))
    assert EVENTS.recognises([record]) == (row["event_type"] == "tag")  # ratings.csv is native by its aliases
    assert hear(EVENTS, record) == [row]
    if row["event_type"] == "rating":
        judged = judge(dict(record), Rules(resolve("events", {(name,) for name in names}, [], nested=False), LATEST))
        assert {name: value for name, value in judged.items() if value is not None} == row


@given(RATED, TAGGED)
def test_events_without_a_header_read_back(rated: dict[str, Any], tagged: dict[str, Any]) -> None:
    for speaks, row, between in ((U_DATA, rated, "\t"), (RATINGS_DAT, rated, "::"), (TAGS_DAT, tagged, "::")):
        record = cells(speaks, between.join(four(row)))
        assert hear(speaks, record) == [row]
        assert speaks.recognises([record]) or (speaks is U_DATA and row["value"] % 1)


TITLE = st.text("abc (é,)'", min_size=1).filter(str.strip).map(str.strip)


@given(TITLE, st.integers(1900, 2030), st.lists(st.sampled_from("WXYZ"), min_size=1))
def test_movies_read_back(title: str, year: int, genres: list[str]) -> None:
    record = {"movieId": "7", "title": f"{title} ({year})", "genres": "|".join(genres)}
    row = {"item_id": "7", "title": title, "tags": genres, "props": {"year": year}}
    assert hear(MOVIES, record) == [row]
    assert hear(MOVIES_DAT, cells(MOVIES_DAT, "::".join(record.values()))) == [row]


def test_movies_without_year_or_genres() -> None:
    record = {"movieId": "7", "title": "Babylon 5", "genres": "(no genres listed)"}
    assert hear(MOVIES, record) == [{"item_id": "7", "title": "Babylon 5"}]
    series = {"movieId": "8", "title": "Fawlty Towers (1975-1979)", "genres": "Comedy"}
    assert hear(MOVIES, series) == [
        {"item_id": "8", "title": "Fawlty Towers", "tags": ["Comedy"], "props": {"year": 1975}}
    ]


def test_films_and_people_of_the_100k_set() -> None:
    line = "1|Toy Story (1995)|01-Jan-1995||http://imdb.example/1|0|0|0|1|1|1" + "|0" * 13
    record = cells(U_ITEM, line)
    assert U_ITEM.recognises([record])
    assert hear(U_ITEM, record) == [
        {"item_id": "1", "title": "Toy Story", "url": "http://imdb.example/1", "published_at": 788_918_400_000_000,
         "tags": ["Animation", "Children's", "Comedy"], "props": {"year": 1995}}
    ]  # fmt: skip
    assert reason(U_ITEM, record | {"released": "1995"}) == "released: expected a day as 01-Jan-1995"
    assert reason(U_ITEM, record | {"War": "yes"}) == "War: expected 0 or 1"
    others = {"age": "24", "gender": "M", "zip": "85711"}
    for speaks, line, row in (
        (PEOPLE[0], "1|24|M|technician|85711", {"role": "technician", "props": others}),
        (PEOPLE[1], "1::M::24::7::85711", {"props": others | {"occupation": "7"}}),
    ):
        assert speaks.recognises([cells(speaks, line)])
        assert hear(speaks, cells(speaks, line)) == [{"user_id": "1"} | row]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"timestamp": "yesterday"}, "timestamp: expected whole seconds since 1970, got text"),
        ({"timestamp": "1500000000000"}, "timestamp: expected whole seconds since 1970"),
        ({"rating": "five"}, "rating: expected a number, got text"),
        ({"rating": None}, "rating: missing or empty"),
        ({"movieId": None}, "movieId: missing or empty"),
        ({"userId": ""}, "userId: missing or empty"),
    ],
)
def test_reasons_name_the_column(changed: dict[str, Any], why: str) -> None:
    good = {"userId": "1", "movieId": "2", "rating": "4.5", "timestamp": "1500000000"}
    assert reason(EVENTS, good | changed) == why


def test_a_table_with_other_numbers_is_no_ratings() -> None:
    record = dict(zip(U_DATA.columns, ("1", "2", "3", "900000000"), strict=True))
    assert U_DATA.recognises([record])
    for name, other in (("rating", "17"), ("timestamp", "42"), ("userId", "u1"), ("movieId", None)):
        assert not U_DATA.recognises([record, record | {name: other}])


@pytest.mark.skipif(not ML_100K.exists(), reason="real files are not here")
def test_the_real_ratings_are_taken_whole() -> None:
    theirs = pl.read_parquet(ML_100K / "events.parquet").select("user", "item", "rating", "timestamp")
    lines = ("\t".join(map(str, row)) for row in theirs.head(5_000).iter_rows())
    rows, reasons = heard(U_DATA, (cells(U_DATA, line) for line in lines))
    assert (len(rows), reasons) == (5_000, {})
    assert sum(row["value"] for row in rows) == theirs.head(5_000)["rating"].sum()
    films = pl.read_parquet(ML_100K / "items.parquet")
    records = (
        {"movieId": str(one["item_id"]), "title": f"{one['movie_title']} ({one['release_year']})",
         "genres": (one["class"] or "").replace(" ", "|")}
        for one in films.iter_rows(named=True)
    )  # fmt: skip
    rows, reasons = heard(MOVIES, records)
    assert (len(rows), reasons) == (1_682, {})
    assert rows[0]["title"] == "Toy Story" and rows[0]["props"] == {"year": 1995}
