"""The expression language against its plain definition, against a database, and against nonsense."""

from __future__ import annotations

import math
import re
import string
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_cli.workspace import filters
from persona_cli.workspace.filters import FilterError, parse, parse_value

MARCH = datetime(2026, 3, 1, tzinfo=UTC)
SCHEMA = {
    "plan": pl.String(),
    "events": pl.Int64(),
    "score": pl.Float64(),
    "held": pl.Boolean(),
    "signed_up": pl.Datetime("us", "UTC"),
}
ROWS: list[dict[str, Any]] = [
    {"plan": "free", "events": 3, "score": 0.5, "held": False, "signed_up": MARCH},
    {"plan": "pro", "events": 20, "score": None, "held": True, "signed_up": MARCH + timedelta(days=1)},
    {"plan": "it's 5%", "events": 21, "score": 2.0, "held": None, "signed_up": None},
    {"plan": None, "events": None, "score": -1.5, "held": True, "signed_up": MARCH - timedelta(microseconds=1)},
]
FRAME = pl.DataFrame(ROWS, schema=SCHEMA)


def matching(text: str) -> list[int]:
    """Rows of FRAME that meet the condition, by all three ways of asking, which must agree."""
    one = parse(text, SCHEMA)
    mask = one.mask(FRAME)
    assert mask.dtype == pl.Boolean and not mask.null_count()
    assert [one.holds(row) for row in ROWS] == mask.to_list()
    assert FRAME.filter(one.expression).equals(FRAME.filter(mask))
    return [place for place, met in enumerate(mask) if met]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("plan = 'free'", [0]),
        ("plan == 'free'", [0]),
        ("plan <> 'free'", [1, 2]),  # null is not another plan
        ("plan != 'free'", [1, 2]),
        ("not plan = 'free'", [1, 2]),
        ("plan is null", [3]),
        ("plan IS NOT NULL", [0, 1, 2]),
        ("plan = 'it''s 5%'", [2]),
        ("plan in ('free', 'pro')", [0, 1]),
        ("plan not in ('free', 'pro')", [2]),
        ("plan like 'p%'", [1]),
        ("plan like 'P%'", []),
        ("plan like '_re_'", [0]),
        ("plan not like '%r%'", [2]),
        ("plan > 'free'", [1, 2]),
        ("events >= 20", [1, 2]),
        ("20 <= events", [1, 2]),
        ("events between 3 and 20", [0, 1]),
        ("events not between 3 and 20", [2]),
        ("events in (3, 21.0)", [0, 2]),
        ("score < 0", [3]),
        ("score > -1.5e0", [0, 2]),
        ("events = 3.0", [0]),
        ("events * 2 - 1 > 6 + score", [2]),
        ("(events - 1) / (score - 2) < 0", [0]),
        ("events / (score - 2) is null", [1, 2, 3]),  # 21 / 0 has no value
        ("-events < -20", [2]),
        ("held", [1, 3]),
        ("not held", [0]),
        ("held = false", [0]),
        ("held in (true)", [1, 3]),
        ("(events > 3) is null", [3]),
        ("signed_up >= '2026-03-01'", [0, 1]),
        ("signed_up = '2026-03-01T01:00:00+01:00'", [0]),
        ("'2026-03-01' < signed_up", [1]),
        ("signed_up in ('2026-03-01', '2026-03-02')", [0, 1]),
        ("signed_up between '2026-02-01' and '2026-03-01'", [0, 3]),
        ("plan = 'free' or events > 20 and score > 5", [0]),
        ("(plan = 'free' or events > 20) and score > 1", [2]),
        ("score > 1 or held", [1, 2, 3]),  # null or true is true
        ("not (score > 1 and held)", [0, 3]),  # null and true is not known to be false
        ("\"plan\" = 'pro'", [1]),
        ("true", [0, 1, 2, 3]),
        ("false", []),
        ("true and held", [1, 3]),
        ("events=20 AND held", [1]),
    ],
)
def test_what_it_means(text: str, rows: list[int]) -> None:
    assert matching(text) == rows


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "an empty expression; expected a condition such as plan = 'free' or events >= 20"),
        ("plna = 'x'", "there is no column 'plna'; did you mean 'plan'? (at character 1)"),
        (
            "events > 2 and country = 'DE'",
            "there is no column 'country'; known: events, held, plan, score, signed_up; "
            "a text stands in single quotes (at character 16)",
        ),
        ("plan = 3", "plan is text and is compared with the number 3 (at character 1)"),
        ("true and events = '3'", "events is a number and is compared with the text '3' (at character 10)"),
        ("signed_up < 3", "signed_up is a time and is compared with the number 3 (at character 1)"),
        ("plan in ('free', 3)", "plan is text and is compared with the number 3 (at character 1)"),
        ("3 = plan", "the number 3 is compared with plan, which is text (at character 1)"),
        ("held > false", "true and false have no order; expected = or <> (at character 1)"),
        (
            "signed_up > '2026-13-01'",
            "'2026-13-01' is not a date or time; expected such as 2026-03-01 or 2026-03-01T12:00:00Z (at character 13)",
        ),
        (
            "plan",
            "plan, which is text, is no condition; expected a condition such as plan = 'free' or events >= 20 (at",
        ),
        ("events and held", "events, which is a number, is no condition; expected a condition such as"),
        ("events + plan > 3", "plan, which is text, is calculated with; expected a number (at character 10)"),
        ("plan = null", "a comparison with null is never true; expected is null or is not null (at character 8)"),
        ("plan not in ('a', null)", "a comparison with null is never true; expected is null or is not null (at"),
        ("1 < events < 3", "comparisons do not follow one another; join two with and (at character 12)"),
        ("lower(plan) = 'x'", "lower is called as a function; there are none here (at character 1)"),
        ("events like 'a'", "events, which is a number, cannot be like 'a': only texts can (at character 1)"),
        ("plan like held", "found 'held'; expected a pattern such as 'a%' after like (at character 11)"),
        ("1 = 2", "no column is compared here; the same holds for every row (at character 1)"),
        ("held or 'a' in ('a')", "no column is compared here; the same holds for every row (at character 9)"),
        ("held;", "found ';', which is no part of an expression (at character 5)"),
        ("held -- x", "found '--'; comments are no part of an expression (at character 6)"),
        ("plan = 'free", "a text without its closing ' (at character 8)"),
        ("3x = 1", "'3x' is no number; a text stands in single quotes (at character 1)"),
        ("events = 1e999", "the number 1e999 is too large (at character 10)"),
        ("events = 1 and", "the expression ends too early; expected a column, a number, a 'text' or ("),
        ("(held", "the expression ends too early; expected ) to close the ( before"),
        ("held)", "found ')'; expected and, or, or the end of the expression (at character 5)"),
        ("held held", "found 'held'; expected and, or, or the end of the expression (at character 6)"),
        ("events is 3", "found '3'; expected null or not null (at character 11)"),
        ("plan not = 'x'", "found '='; expected in, between or like after not (at character 10)"),
        ("plan = '\ud800'", "a character that is not valid Unicode (at character 8)"),
    ],
)
def test_anything_else_is_refused_with_a_sentence_that_says_where(text: str, sentence: str) -> None:
    with pytest.raises(FilterError, match=re.escape(sentence)):
        parse(text, SCHEMA)


def test_columns_used_are_named_and_the_text_is_kept() -> None:
    one = parse("plan = 'free' or (events > 3 and plan is null)", SCHEMA)
    assert one.columns == ("events", "plan") and one.text.startswith("plan = ")


def test_columns_that_cannot_be_compared_are_named_when_used() -> None:
    columns = {"tags": pl.List(pl.String()), "held": pl.Boolean()}
    assert parse("held", columns).columns == ("held",)
    with pytest.raises(FilterError, match="tags holds List"):
        parse("tags = 'a'", columns)


@pytest.mark.parametrize(
    ("dtype", "values", "text", "expected"),
    [
        (pl.Date, [date(2026, 3, 1), date(2026, 2, 28), None], "x >= '2026-03-01'", [True, False, False]),
        (
            pl.Datetime("ms"),
            [datetime(2026, 3, 1), datetime(2026, 3, 2), None],
            "x > '2026-03-01'",
            [False, True, False],
        ),
        (
            pl.Datetime("us", "Asia/Tokyo"),
            [datetime(2026, 3, 1, 8, tzinfo=timezone(timedelta(hours=9))), MARCH, None],
            "x < '2026-03-01'",
            [True, False, False],
        ),
        (pl.UInt8, [1, 200, None], "x - 2 < 0", [True, False, False]),
        (pl.UInt64, [1, 2**64 - 1, None], "x > -1", [True, True, False]),
        (pl.Float32, [0.5, math.nan, None], "x >= 0.5", [True, False, False]),
        (pl.Float64, [0.5, math.nan, None], "x is null", [False, True, True]),
        (pl.Categorical, ["a", "b", None], "x like 'a%'", [True, False, False]),
        (pl.Enum(["b", "a"]), ["a", "b", None], "x > 'a'", [False, True, False]),  # as texts, not by place
    ],
)
def test_other_types_of_columns(dtype: Any, values: list[Any], text: str, expected: list[bool]) -> None:
    frame = pl.DataFrame({"x": pl.Series(values, dtype=dtype)})
    one = parse(text, frame.schema)
    assert one.mask(frame).to_list() == expected
    assert [one.holds(row) for row in frame.iter_rows(named=True)] == expected


def test_long_chains_are_fine_and_what_is_too_long_or_too_deep_is_refused() -> None:
    assert matching(" or ".join(["events = 20"] * 650)) == [1]
    assert matching("(" * 32 + "held" + ")" * 32) == [1, 3]
    assert matching("events in (" + ",".join(map(str, range(1000))) + ")") == [0, 1, 2]
    assert matching("events = " + "+".join(["0.25"] * 80)) == [1]
    assert matching("events > " + "*".join(["score"] * 100)) == [0]
    assert matching("2 = " + "(1 / " * 31 + "score" + ")" * 31) == [0]  # what it costs does not double with each step
    for text, sentence in [
        ("held or " * 2000 + "held", "16,004 characters; expected at most 10,000"),
        ("(" * 33 + "held" + ")" * 33, "more than 32 parentheses"),
        ("not " * 2000 + "held", "more than 32 parentheses"),
        ("events = " + "- " * 2000 + "1", "more than 32 parentheses"),
        ("events in (" + ",".join(["1"] * 1001) + ")", "more than 1,000 values"),
        ("events = " + "+".join(["1"] * 102), "more than 100 calculations"),
        ("events = " + "(" * 30 + "+".join(["1"] * 99) + "+1)*1" * 30, "more than 100 calculations"),
        (f"plan like '{'_' * 201}'", "a pattern of 201 characters"),
    ]:
        with pytest.raises(FilterError, match=re.escape(sentence)):
            parse(text, SCHEMA)


def test_signs_of_regular_expressions_mean_themselves() -> None:
    texts = [r"a.c", "abc", r"[a-c]\d", "(x|y)*", "^a$", "line\nbreak", "c#~& -"]
    frame = pl.DataFrame({"plan": texts})
    for text in texts:
        one = parse(f"plan like '{text}'", SCHEMA)
        assert [place for place, met in enumerate(one.mask(frame)) if met] == [texts.index(text)]
    assert parse("plan like 'line_break'", SCHEMA).mask(frame).sum() == 1


def test_parsing_loads_no_polars() -> None:
    code = (
        "import sys; from persona_cli.workspace.filters import parse; parse('a = 1 or a is null', {'a': 'whole'}); "
        "print('polars' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


CONNECTION = duckdb.connect(":memory:")
CONNECTION.execute("SET TimeZone = 'UTC'")

# Conditions as texts, from a grammar of their own: what they mean is left to the oracles.
TEXTS = st.text(alphabet="ab%_'é\n.", max_size=4)
TIMES = st.datetimes(datetime(2026, 2, 27), datetime(2026, 3, 3), timezones=st.just(UTC))
WHOLES = st.integers(-3, 3) | st.integers(-(2**40), 2**40)
NUMBERS = st.sampled_from([-1.5, -1.0, 0.0, 0.25, 0.5, 2.0, 3.0])


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


LITERALS = {
    "plan": TEXTS.map(quoted),
    "number": WHOLES.map(str) | NUMBERS.map(str),
    "held": st.sampled_from(["true", "false"]),
    "signed_up": TIMES.map(lambda time: quoted(time.isoformat())),
}
WORDS = ["and", "or", "not", "in", "is", "null", "like", "between", "true", "1", "2.5"]
OPS = st.sampled_from(["=", "<>", "!=", "<", "<=", ">", ">="])


def numeric(marks: str) -> st.SearchStrategy[str]:
    """Columns, numbers and what is calculated from them with these signs."""

    def calculated(part: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.tuples(part, st.sampled_from(marks), part).map(lambda t: f"({t[0]} {t[1]} {t[2]})")

    return st.recursive(st.sampled_from(["events", "score"]) | LITERALS["number"], calculated, max_leaves=3)


@st.composite
def simple(draw: st.DrawFn, marks: str) -> str:
    kind = draw(st.sampled_from(["plan", "number", "held", "signed_up"]))
    left = draw(numeric(marks).filter(lambda text: "s" in text)) if kind == "number" else kind  # reads a column
    literal, word = LITERALS[kind], draw(st.sampled_from(["", "not "]))
    form = draw(st.sampled_from(["compare", "null", "in", "between", "like", "bare"]))
    if form == "null":
        return f"{left} is {word}null"
    if form == "in":
        return f"{left} {word}in ({', '.join(draw(st.lists(literal, min_size=1, max_size=3)))})"
    if form == "between" and kind != "held":
        return f"{left} {word}between {draw(literal)} and {draw(literal)}"
    if kind == "plan" and form == "like":
        return f"plan {word}like {draw(literal)}"
    if kind == "held":
        return draw(st.sampled_from(["held", "held = true", "held <> false"]))
    right = draw(numeric(marks)) if kind == "number" else draw(literal | st.just(kind))
    return f"{left} {draw(OPS)} {right}"


def _combined(part: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return (
        st.tuples(part, st.sampled_from(["and", "or"]), part).map(" ".join)
        | part.map(lambda text: f"not {text}")
        | part.map(lambda text: f"({text})")
    )


def conditions(marks: str = "+-*/") -> st.SearchStrategy[str]:
    return st.recursive(simple(marks), _combined, max_leaves=5)


TABLES = st.lists(
    st.fixed_dictionaries(
        {
            "plan": st.none() | TEXTS,
            "events": st.none() | WHOLES,
            "score": st.none() | NUMBERS,
            "held": st.none() | st.booleans(),
            "signed_up": st.none() | TIMES,
        }
    ),
    max_size=6,
)


@settings(max_examples=250, deadline=None)
@given(conditions(), TABLES)
def test_a_frame_and_its_rows_answer_alike(text: str, rows: list[dict[str, Any]]) -> None:
    one = parse(text, SCHEMA)
    assert one.mask(pl.DataFrame(rows, schema=SCHEMA)).to_list() == [one.holds(row) for row in rows]


def _wide(constant: str) -> str:
    """Constants of 32 bits and decimals overflow there when they are multiplied."""
    if constant.startswith("'"):
        return constant
    return f"({constant}::{'DOUBLE' if '.' in constant else 'HUGEINT'})"


@settings(max_examples=250, deadline=None)
@given(conditions("+-*"), TABLES)  # a division by zero is null here, infinite there
def test_a_database_answers_alike(text: str, rows: list[dict[str, Any]]) -> None:
    frame = pl.DataFrame(rows, schema=SCHEMA).with_row_index("place")
    sql = re.sub(r"'(?:[^']|'')*'|\d+(?:\.\d+)?", lambda found: _wide(found[0]), text)
    CONNECTION.register("rows", frame.to_arrow())
    found = CONNECTION.execute(f"SELECT place FROM rows WHERE {sql} ORDER BY place").fetchall()
    assert [place for (place,) in found] == frame.filter(parse(text, SCHEMA).mask(frame))["place"].to_list()


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=60)
    | st.lists(
        st.sampled_from([*"()=<>,+-*/'\"%;. ", *WORDS, *SCHEMA, *SCHEMA, "'a'", "'2026-03-01'", "9" * 30, "e5"]),
        max_size=25,
    ).map(" ".join)
    | st.text(alphabet=string.printable, max_size=40)
)
def test_nonsense_is_refused_in_its_own_way_or_has_a_meaning(text: str) -> None:
    try:
        one = parse(text, SCHEMA)
    except FilterError as error:
        assert len(str(error)) > 10
    else:
        assert one.mask(FRAME).to_list() == [one.holds(row) for row in ROWS]


@given(TEXTS | st.text(max_size=20), st.text(alphabet="ab%_'é\n.", max_size=6))
def test_like_against_a_regular_expression(text: str, pattern: str) -> None:
    body = "".join({"%": ".*", "_": "."}.get(letter, re.escape(letter)) for letter in pattern)
    expected = re.fullmatch(body, text, re.DOTALL) is not None
    one = parse(f"plan like {quoted(pattern)}", SCHEMA)
    assert one.holds({"plan": text}) == expected
    assert one.mask(pl.DataFrame({"plan": [text]})).to_list() == [expected]


def test_limits_are_what_the_messages_say() -> None:
    assert (filters.MAX_LENGTH, filters.MAX_NESTING, filters.MAX_VALUES) == (10_000, 32, 1_000)


def test_values_of_any_kind() -> None:
    columns = {"a": "whole", "b": "number", "c": "text"}
    frame = pl.DataFrame({"a": [1, 2], "b": [0.0, 4.0], "c": ["x", None]})
    for text, kind, expected in (
        ("a / b", "number", [None, 0.5]),
        ("a >= 2", "flag", [False, True]),
        ("c", "text", ["x", None]),
        ("3", "whole", [3, 3]),
    ):
        value = parse_value(text, columns)
        assert (value.kind, frame.with_columns(v=value.expression)["v"].to_list()) == (kind, expected)
    with pytest.raises(FilterError, match="an empty expression; expected a value"):
        parse_value(" ", columns)
