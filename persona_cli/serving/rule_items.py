"""What rules look at in items, over a vocabulary: numbers of categories and tags, and when each came out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_cli.errors import MissingInput
from persona_cli.events.catalogue import described
from persona_cli.events.schema import stored_schema
from persona_cli.serving.rule_settings import Rules
from persona_cli.workspace import tables
from persona_cli.workspace.home import Home

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Catalogue:
    """The items that rules know."""

    rows: pl.DataFrame | None
    """As `events.catalogue.described`, with `born`: when each came out; None: there is no catalogue."""
    moment: datetime
    """What "lately" is counted back from."""

    @property
    def dated(self) -> bool:
        """Whether it is known of any item when it came out."""
        return self.rows is not None and self.rows["born"].count() > 0

    def lately(self, days: int) -> pl.Series:
        """item_id of what came out within so many days."""
        if self.rows is None:
            return pl.Series("item_id", [], dtype=pl.String)
        since = self.moment - timedelta(days=days)
        return self.rows.filter((pl.col("born") > since) & (pl.col("born") <= self.moment))["item_id"]


def catalogue_for(home: Home, rules: Rules, moment: datetime, as_of: datetime | None) -> Catalogue:
    """The catalogue; MissingInput where there is none, or nothing in it, of what a rule needs."""
    found = Catalogue(dated(home, as_of), moment)
    if (lacking := missing(rules, found)) is not None:
        raise MissingInput(lacking, "persona ingest items.csv --kind items, or take the rule out of persona.toml")
    return found


def dated(home: Home, as_of: datetime | None) -> pl.DataFrame | None:
    """The items as they are described at `as_of`, with `born`: when published, else first valid; None: no catalogue."""
    rows = described(home, as_of)
    if rows is None:
        return None
    table = tables.scan(home, "items", stored_schema("items"))
    first = table.group_by("item_id").agg(first=pl.col("valid_from").min()).collect()
    rows = rows.join(first, on="item_id", how="left", maintain_order="left")
    return rows.with_columns(born=pl.coalesce("published_at", "first"))


def missing(rules: Rules, catalogue: Catalogue) -> str | None:
    """What a rule needs and the catalogue has not, in a sentence; None where all is there."""
    rows = catalogue.rows
    wants = {
        "max_per_category": ("category", "a category") if rules.max_per_category else None,
        "min_categories": ("category", "a category") if rules.min_categories else None,
        "max_per_tag": ("tags", "tags") if rules.max_per_tag else None,
        "fresh.share": ("born", "a date (published_at, valid_from)") if rules.fresh_share > 0 else None,
        'rerank = "calibrated"': ("category", "a category") if rules.rerank == "calibrated" else None,
    }
    for name, wanted in wants.items():
        if wanted is not None:
            if rows is None or not rows.height:
                return f"rules.{name} is set, and there is no catalogue of items to apply it to"
            if not rows[wanted[0]].count():
                return f"rules.{name} is set, and no item of the catalogue has {wanted[1]}"
    if rules.rerank == "mmr" and (rows is None or not (rows["category"].count() or rows["tags"].count())):
        return 'rules.rerank = "mmr" is set, and no item of the catalogue has a category or tags'
    return None


def numbered(names: pl.Series) -> Integers:
    """The number of each name among the sorted different ones, -1 for null (n,)."""
    ranks = names.rank("dense").cast(pl.Int64) - 1
    return ranks.fill_null(-1).to_numpy()


def numbered_lists(names: pl.Series) -> Integers:
    """The same of lists of names, each name once (n, longest list), -1 from the end of each on."""
    rows = (
        pl.DataFrame({"row": np.arange(len(names)), "name": names})
        .explode("name")
        .drop_nulls()
        .unique()
        .sort("row", "name")
    )
    if not rows.height:
        return np.zeros((len(names), 0), dtype=np.int64)
    row = rows["row"].to_numpy()
    starts = np.searchsorted(row, np.arange(len(names)))
    column = np.arange(len(row)) - starts[row]
    found = np.full((len(names), int(column.max()) + 1), -1, dtype=np.int64)
    found[row, column] = numbered(rows["name"])
    return found


def sensitive_items(home: Home, as_of: datetime | None = None) -> pl.Series:
    """item_id of the items that `rules.sensitive` keeps out of reasons and messages, sorted."""
    names = list(home.settings.texts("rules.sensitive"))
    rows = described(home, as_of) if names else None
    if rows is None:
        return pl.Series("item_id", [], dtype=pl.String)
    tagged = pl.col("tags").list.set_intersection(names).list.len() > 0
    return rows.filter(pl.col("category").is_in(names).fill_null(False) | tagged.fill_null(False))["item_id"]
