from __future__ import annotations

import math

import pytest

from persona_cli.workspace.setting import Condition, parse_condition


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("click", Condition("click")),
        (" Product Viewed ", Condition("Product Viewed")),
        ("rating>=4", Condition("rating", ">=", 4.0)),
        ("rating <= 2.5", Condition("rating", "<=", 2.5)),
        ("dwell>-1e3", Condition("dwell", ">", -1000.0)),
        ("rating==4", Condition("rating", "=", 4.0)),
        ("a.b:c-d!=.5", Condition("a.b:c-d", "!=", 0.5)),
    ],
)
def test_what_is_understood(text: str, expected: Condition) -> None:
    assert parse_condition(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        ">=4",
        "rating>=",
        "rating>=four",
        "rating>=nan",
        "rating>=1e999",
        "rating>=0x10",
        "rating>4>5",
        "rating=>4",
        "rating<>4",
        "rating>=4 and view",
        "click or view",
        "not click",
        "rating in (4, 5)",
        "rating>=4; drop table events",
        "a\nb",
    ],
)
def test_anything_else_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r".{10,}"):
        parse_condition(text)


def test_text_form_parses_to_the_same_condition() -> None:
    for text in ("click", "rating>=4", "dwell<0.5"):
        assert str(parse_condition(text)) == text


def test_nothing_holds_for_a_value_that_is_not_a_number() -> None:
    for op in (">=", "<=", "!=", "=", ">", "<"):
        assert not Condition("rating", op, 3.0).holds("rating", None)
        assert not Condition("rating", op, 3.0).holds("rating", math.nan)
