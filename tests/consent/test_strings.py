"""TCF v2 strings: published vectors, one put together by hand bit by bit, and what cannot be read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona_cli.consent.gate import decode, opts_out, said

DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
PUBLISHED = {
    # The specification's own example.
    "COvFyGBOvFyGBAbAAAENAPCAAOAAAAAAAAAAAEEUACCKAAA.IFoEUQQgAIQwgIwQABAEAAAAOIAACAIAAAAQAIAgEAACEAAAAAgAQBAAAAAAAGBAA"
    "gAAAAAAAFAAECAAAgAAQARAEQAAAAAJAAIAAgAAAYQEAAAQmAgBC3ZAYzUw": {1, 2, 3},
    # Vectors of a tag manager's tests.
    "CPh7_cXPh7_cXKMAAAENCZCAAKqAAAAAAAAAAAAAAAAA.II7Nd_X__bX9n-_7_6ft0eY1f9_r37uQzDhfNs-8F3L_W_LwX32E7NF36tq4KmR4ku1b"
    "BIQNtHMnUDUmxaolVrzHsak2cpyNKJ_JkknsZe2dYGF9Pn9lD-YKZ7_5_9_f52T_9_9_-39z3_9f___dv_-__-vjf_599n_v9fV_78_Kf9______-"
    "____________8A": {1, 3, 5, 7, 9},
    "CPh8CeXPh8CeXMgAAAENCZCAAFVAAAAAAAAAAAAAAAAA": {2, 4, 6, 8, 10},
    "CPh8CoIPh8CoINYAAAENCZCAAP_AAAAAAAAAAAAAAAAA": set(range(1, 11)),
}  # fmt: skip


def string(consents: set[int], interests: set[int] = frozenset(), version: int = 2) -> str:  # type: ignore[assignment]
    """A core by its bits: version, 146 of nothing, 24 and 24 of purposes, and no vendors."""
    bits = f"{version:06b}" + "0" * 146
    bits += "".join("1" if n in consents else "0" for n in range(1, 25))
    bits += "".join("1" if n in interests else "0" for n in range(1, 25))
    bits += "0" * 64
    return "".join(DIGITS[int(bits[at : at + 6], 2)] for at in range(0, len(bits), 6))


@pytest.mark.parametrize(("text", "purposes"), PUBLISHED.items(), ids=lambda value: str(value)[:12])
def test_published_strings(text: str, purposes: set[int]) -> None:
    found = decode(text)
    assert found is not None and found.consents == purposes


@given(st.sets(st.integers(1, 24)), st.sets(st.integers(1, 24)))
def test_every_combination_of_bits(consents: set[int], interests: set[int]) -> None:
    assert decode(string(consents, interests)) == (frozenset(consents), frozenset(interests))


@pytest.mark.parametrize(
    "text",
    [
        string({5, 6}, version=1),
        string({5, 6}, version=3),
        "BOVeoB_OVeoFxC-AHAFRBtAAAAAhGAEAD4AXAA2YCEQ",  # version 1, published
        string({5, 6})[:30],
        string({5, 6})[:20] + "*" + string({5, 6})[21:],
        "DBABMA~CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA",
        "C",
        "",
    ],
)
def test_unknown_versions_and_damaged_strings_are_no_consent(text: str) -> None:
    assert decode(text) is None
    assert not said(text, {}), "None, or nothing said"


@given(st.text(max_size=60))
def test_nothing_makes_the_reader_fail_or_grants_by_chance(text: str) -> None:
    words = said(text, {})
    assert words is None or set(words.values()) <= {"given", "withdrawn"}
    assert isinstance(opts_out(text), bool)


def test_purposes_of_a_string_are_ours() -> None:
    yes, no = "given", "withdrawn"
    assert said(string({1, 5, 6, 8, 9}), {}) == {"personalization": yes, "analytics": yes, "model_training": no}
    assert said(string({5, 8, 10}), {}) == {"personalization": no, "analytics": no, "model_training": yes}
    by_interest = {"analytics": "legitimate_interest", "model_training": "consent"}
    assert said(string({8}, {9, 10}), by_interest) == {"personalization": no, "analytics": yes, "model_training": no}


@pytest.mark.parametrize(
    ("text", "personalization", "analytics", "model_training"),
    [
        ("granted", "given", "given", "given"),
        (" Denied ", "withdrawn", "withdrawn", "withdrawn"),
        ("analytics, personalization", "given", "given", "withdrawn"),
        ("model_training marketing", "withdrawn", "withdrawn", "given"),
        ("advertising=no,analytics=yes", None, "given", None),
        ("ad_storage=granted,analytics_storage=denied", None, "withdrawn", None),
        ("analytics=yes;analytics_storage=denied", None, "withdrawn", None),
        ("advertising=no", None, None, None),
        ("legitimate_interests", None, None, None),
        (None, None, None, None),
    ],
)
def test_words(
    text: str | None, personalization: str | None, analytics: str | None, model_training: str | None
) -> None:
    given = {"personalization": personalization, "analytics": analytics, "model_training": model_training}
    assert said(text, {}) == {purpose: word for purpose, word in given.items() if word is not None}


@pytest.mark.parametrize("text", ["perhaps", "C0001,C0003", "analytics=perhaps", "v3;accepted"])
def test_what_cannot_be_read(text: str) -> None:
    assert said(text, {}) is None


@pytest.mark.parametrize(
    ("props", "out"),
    [
        ('{"gpc":1}', True),
        ('{"context":{"gpc":true}}', True),
        ('{"headers":{"Sec-GPC":"1"}}', True),
        ('{"request":{"headers":{"sec-gpc":1}}}', True),
        ('{"globalPrivacyControl":"true"}', True),
        ('{"gpc":0}', False),
        ('{"gpc":"0","context":{"gpc":false}}', False),
        ('{"gpc":null}', False),
        ('{"note":"gpc"}', False),
        ("[1]", False),
        ("gpc", False),
    ],
)
def test_global_privacy_control(props: str, out: bool) -> None:
    assert opts_out(props) is out
