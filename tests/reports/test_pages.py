"""Pages: text stays text, markup is well nested, and nothing comes from elsewhere."""

from __future__ import annotations

from documents import HOSTILE, Reader
from hypothesis import given
from hypothesis import strategies as st

from persona_cli.reports import pages
from persona_cli.reports.pages import Section


def whole(text: str) -> str:
    """A page with `text` in every place that takes text."""
    body = [
        pages.paragraph(text),
        pages.listing([text]),
        pages.definitions([(text, text)]),
        pages.table([text, text], [[text], [text, pages.number(0.25, text)]], text),
        pages.details(text, [pages.paragraph(pages.joined(text, pages.small(text)))]),
        pages.figure("<svg></svg>", text),
    ]
    return pages.page(text, [pages.paragraph(text, "lead")], [Section(text, body), Section("other", body)], text)


@given(st.text(min_size=1) | st.just(HOSTILE))
def test_text_never_becomes_markup(text: str) -> None:
    read, plain = Reader(whole(text)), Reader(whole("x"))
    assert read.names == plain.names
    assert [name for name, _ in read.attributes] == [name for name, _ in plain.attributes]


def test_direction_marks_are_written_out() -> None:
    page = whole(HOSTILE)
    assert "\u202e" not in page and "\\u202egp" in page and "<script" not in page
    assert HOSTILE.replace("\u202e", "\\u202e") in Reader(page).text


def test_a_page_keeps_itself_from_scripts_and_connections() -> None:
    read = Reader(whole("x"))
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in read.attributes
    assert not {"script", "link", "img", "iframe"} & set(read.names)
    assert "http" not in whole("x").replace("http-equiv", "")


def test_empty_parts_leave_nothing() -> None:
    empty = [
        pages.listing([]),
        pages.definitions([]),
        pages.table(["a"], []),
        pages.details("more", []),
        pages.figure(""),
        pages.side_by_side([]),
    ]
    assert empty == [""] * 6
    page = pages.page("t", [], [Section("nothing", empty), Section("some", [pages.paragraph("here")])])
    assert Reader(page).headings == ["some"]


def test_figures_stand_to_the_right_and_keep_their_exact_value() -> None:
    table = pages.table(["model", "kind", "n"], [["a", "b", pages.number(0.123456789, "0.1235")]], words=2)
    assert '<td class="text">b</td><td><data value="0.123456789">0.1235</data></td>' in table
    assert pages.number(None, "-") == "-"


def test_links_of_the_contents_lead_to_sections() -> None:
    page = pages.page("t", [], [Section(name, [pages.paragraph("x")]) for name in ("One & two", "Three")])
    read = Reader(page)
    wanted = {value.removeprefix("#") for name, value in read.attributes if name == "href"}
    assert wanted == {value for name, value in read.attributes if name == "id"} == {"one-two", "three"}
