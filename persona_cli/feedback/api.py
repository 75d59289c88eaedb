"""`Workspace.decisions`: what was served and logged, and what became of it, for a notebook or a program."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING

from persona_cli.workspace.home import Home
from persona_cli.workspace.setting import moment_of

if TYPE_CHECKING:
    import polars as pl

    from persona_cli.feedback.outcomes import Joined

Moment = str | date | datetime | None


class Decisions:
    """The decisions of one workspace, those of people whom analytics cover."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def read(self, since: Moment = None, until: Moment = None, as_of: Moment = None) -> pl.LazyFrame:
        """Decisions as they were logged, in no order; see `feedback.decisions.read`."""
        from persona_cli.feedback.decisions import read

        return read(self.home, since=moment_of(since), until=moment_of(until), as_of=moment_of(as_of))

    def join(self, since: Moment = None, until: Moment = None, as_of: Moment = None) -> Joined:
        """Decisions and their items, each with what became of it; see `feedback.outcomes`."""
        from persona_cli.feedback.outcomes import join

        return join(self.home, moment_of(since), moment_of(until), moment_of(as_of))

    def rates(self, since: Moment = None, until: Moment = None, as_of: Moment = None) -> pl.DataFrame:
        """How often decisions were answered, by what made them; see `feedback.outcomes.rates`."""
        from persona_cli.feedback.outcomes import rates

        return rates(self.join(since, until, as_of).decisions)
