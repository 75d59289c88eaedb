from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from persona_cli.errors import UsageError
from persona_cli.workspace.setting import moment_of, parse_moment


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-03-01T12:30:00Z", datetime(2026, 3, 1, 12, 30, tzinfo=UTC)),
        ("2026-03-01 12:30", datetime(2026, 3, 1, 12, 30, tzinfo=UTC)),
        ("2026-03-01T12:30:00.000001+02:00", datetime(2026, 3, 1, 10, 30, 0, 1, tzinfo=UTC)),
        (" 2026-03-01 ", datetime(2026, 3, 1, tzinfo=UTC)),
    ],
)
def test_a_moment_is_in_utc(text: str, moment: datetime) -> None:
    assert parse_moment(text) == moment
    assert parse_moment(text).tzinfo is UTC


@pytest.mark.parametrize("text", ["", "yesterday", "2026-02-30", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+14:00"])
def test_anything_else_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="is not a date or time; expected such as 2026-03-01"):
        parse_moment(text)


def test_a_program_may_give_dates_and_times() -> None:
    assert moment_of(None) is None
    assert moment_of(date(2026, 3, 1)) == moment_of("2026-03-01") == datetime(2026, 3, 1, tzinfo=UTC)
    assert moment_of(datetime(2026, 3, 1, 5)) == datetime(2026, 3, 1, 5, tzinfo=UTC)
