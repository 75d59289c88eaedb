"""All profiles as of a moment: what folding only the events of before, as they were known then, gives.

Nothing is stored for it: a bucket at a time is folded from the events; files that begin later are not opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import polars as pl

from persona_cli.events.store import NAME, files_before, were_known
from persona_cli.profiles import fold as folding
from persona_cli.profiles.buckets import shared_out
from persona_cli.profiles.folds.part import FoldRules
from persona_cli.profiles.identity import persons, raw_key
from persona_cli.profiles.permitted import Purpose, allowed
from persona_cli.profiles.sync import ALL_COLUMNS, history_of, keyed, texts
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

_PIECE = 1 << 20


def past(
    home: Home, as_of: datetime | None, known_at: datetime | None, *, purpose: Purpose = None
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """The profile rows (every column) and the history rows of the users of each bucket; each sorted by user."""
    events = tables.open_table(home, NAME)
    if events is None:
        return
    who = persons(home, as_of, known_at)
    who_may = allowed(home, purpose)
    known = were_known(as_of, known_at) or [pl.lit(True)]
    pieces = (
        keyed(who_may.rows(events.scan([file]).slice(start, _PIECE).filter(*known), raw_key()), who, *ALL_COLUMNS)
        for file in files_before(events, as_of)
        for start in range(0, file.rows, _PIECE)
    )
    rules = FoldRules.of(home.settings)
    with shared_out(home, pieces, texts(*ALL_COLUMNS), home.settings.whole("profiles.buckets")) as shared:
        for _, load in shared:
            part = load()
            yield folding.fold_coded(part, rules), history_of(part, home.settings)
