"""MovieLens files of all releases: with a header (`ratings.csv`, `tags.csv`, `movies.csv`), the 100k set (`u.data`,
`u.item`, `u.user`; tabs and bars) and the 1M and 10M sets (`ratings.dat`, `movies.dat`, `users.dat`, `tags.dat`; `::`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from persona_cli.events.dialects.dialect import Dialect, Plain, Record, Rejected, Sources
from persona_cli.events.dialects.split import native, said, split, whole
from persona_cli.events.opening import Format
from persona_cli.events.schema import Kind

_EVENT = {"user_id": ("userId",), "item_id": ("movieId",), "timestamp": ("timestamp",)}
RATINGS = _EVENT | {"event_type": ("=rating",), "value": ("rating",)}
TAGS = _EVENT | {"event_type": ("=tag",), "target": ("tag",)}
EITHER = RATINGS | TAGS | {"event_type": ("=rating", "=tag")}
MOVIES = {"item_id": ("movieId",), "title": ("title",), "tags": ("genres",)}
FILMS = {"item_id": ("movieId",), "title": ("title",), "url": ("imdb",)}
PEOPLE = {"user_id": ("userId",), "role": ("occupation",)}

RATING_COLUMNS = ("userId", "movieId", "rating", "timestamp")
TAG_COLUMNS = ("userId", "movieId", "tag", "timestamp")
MOVIE_COLUMNS = ("movieId", "title", "genres")
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
FILM_COLUMNS = ("movieId", "title", "released", "video_released", "imdb", *GENRES)
PERSON_COLUMNS = {"|": ("userId", "age", "gender", "occupation", "zip"),
                  "::": ("userId", "gender", "age", "occupation", "zip")}  # fmt: skip
NO_GENRES = "(no genres listed)"
_YEAR = re.compile(r"(.*\S)\s*\((\d{4})(?:[-–]\d{0,4})?\)", re.DOTALL)


def columns_are(*wanted: Sequence[str]) -> Callable[[Sequence[Record]], bool]:
    """Whether the columns of all records are exactly one of these."""
    sets = [set(names) for names in wanted]
    return lambda records: all(set(record) in sets for record in records)


def cells_are(**patterns: str) -> Callable[[Sequence[Record]], bool]:
    """Whether the cells of all records look like this (patterns of whole cells), in a table without names."""
    compiled = {name: re.compile(pattern, re.ASCII) for name, pattern in patterns.items()}
    return lambda records: all(
        pattern.fullmatch(str(record.get(name) or "")) for record in records for name, pattern in compiled.items()
    )


def event(record: Record) -> list[Record]:
    """A rating or a tag, told apart by the column."""
    whole(record, "timestamp", "whole seconds since 1970", 0, 10**11)
    is_tag = "tag" in record
    fields, rest, _ = split(TAGS if is_tag else RATINGS, record)
    for name, column in (("item_id", "movieId"), ("target", "tag") if is_tag else ("value", "rating")):
        if name not in fields:
            raise Rejected(f"{column}: missing or empty")
    return [native(fields, rest)]


def plain(names: Sequence[str]) -> Plain:
    is_tag = "tag" in names
    needed = ("movieId", "tag" if is_tag else "rating")
    return Plain(TAGS if is_tag else RATINGS, seconds=("timestamp",), needed=needed)


def movie(record: Record) -> list[Record]:
    """A film: its genres as tags, its year (which the title carries in brackets) in props."""
    fields, rest, _ = split(MOVIES, record, kind="items")
    if fields.get("tags") == NO_GENRES:
        del fields["tags"]
    return [_dated(fields, rest)]


def film(record: Record) -> list[Record]:
    """A film of the 100k set: a column a genre, and the day it came out (`01-Jan-1995`)."""
    fields, rest, _ = split(FILMS, record, kind="items")
    tags = []
    for genre in GENRES:
        flag = rest.pop(genre, None)
        if flag not in (None, "0", "1"):
            raise Rejected(f"{genre}: expected 0 or 1")
        if flag == "1" and genre != "unknown":
            tags.append(genre)
    if tags:
        fields["tags"] = tags
    if (day := said(record, "released")) is not None:
        try:
            fields["published_at"] = datetime.strptime(day, "%d-%b-%Y").replace(tzinfo=UTC).isoformat()
        except ValueError:
            raise Rejected("released: expected a day as 01-Jan-1995") from None
        del rest["released"]
    return [_dated(fields, rest)]


def _dated(fields: Record, rest: Record) -> Record:
    if match := _YEAR.fullmatch(str(fields.get("title", "")).strip()):
        fields["title"] = match[1]
        rest["year"] = int(match[2])
    return native(fields, rest)


def person(record: Record) -> list[Record]:
    """Somebody of the 100k set, with an occupation in words, or of the 1M set, where it is a code and no role."""
    coded = str(record.get("occupation") or "").isdecimal()
    fields, rest, _ = split({"user_id": PEOPLE["user_id"]} if coded else PEOPLE, record, kind="users")
    return [native(fields, rest)]


_ID, _SECONDS = r"\d{1,9}", r"\d{8,10}"
_RATING = {"userId": _ID, "movieId": _ID, "timestamp": _SECONDS}
_PERSON = {"userId": _ID, "age": r"\d{1,3}", "gender": "[MF]"}


def _file(
    about: str,
    kind: Kind,
    sources: Sources,
    records: Callable[[Record], list[Record]],
    columns: tuple[str, ...],
    separator: str,
    *,
    encoding: str = "latin-1",
    **patterns: str,
) -> Dialect:
    """A table without a header row."""
    formats: tuple[Format, ...] = ("tsv",) if separator == "\t" else ("csv",)
    known = cells_are(**patterns)
    return Dialect(
        "movielens", f"MovieLens {about}", formats, sources, known, records, kind,
        columns=columns, separator=separator, encoding=encoding, plain=plain if kind == "events" else None,
    )  # fmt: skip


DIALECTS = (
    Dialect(
        "movielens",
        "MovieLens ratings.csv and tags.csv",
        ("csv", "parquet"),
        EITHER,
        columns_are(TAG_COLUMNS),
        event,
        plain=plain,
        notes=(
            "A rating is a `rating` with its stars as `value`; a tag is a `tag` with its text as `target`.",
            "`ratings.csv` gives the same events when it is read as native input, by its aliases: only `--dialect "
            "movielens` makes it go through the dialect.",
        ),
    ),
    Dialect(
        "movielens",
        "MovieLens movies.csv",
        ("csv", "parquet"),
        MOVIES,
        columns_are(MOVIE_COLUMNS),
        movie,
        "items",
        notes=("The year in brackets at the end of a title goes to `props` as `year`; genres are tags.",),
    ),
    _file("u.data (100k)", "events", RATINGS, event, RATING_COLUMNS, "\t", rating="[1-5]", **_RATING),
    _file("u.item (100k)", "items", FILMS, film, FILM_COLUMNS, "|", movieId=_ID, **dict.fromkeys(GENRES, "[01]")),
    _file("u.user (100k)", "users", PEOPLE, person, PERSON_COLUMNS["|"], "|", **_PERSON),
    _file("ratings.dat (1M, 10M)", "events", RATINGS, event, RATING_COLUMNS, "::", rating=r"[0-5](\.[05])?", **_RATING),
    _file("tags.dat (10M)", "events", TAGS, event, TAG_COLUMNS, "::", encoding="utf-8", tag=r".*\S.*", **_RATING),
    _file("movies.dat (1M, 10M)", "items", MOVIES, movie, MOVIE_COLUMNS, "::", movieId=_ID, title=r".*\S.*"),
    _file("users.dat (1M)", "users", PEOPLE, person, PERSON_COLUMNS["::"], "::", **_PERSON),
)
