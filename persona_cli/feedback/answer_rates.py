"""How often decisions are answered, by what made them: shares of exposed, else of delivered, with their intervals."""

from __future__ import annotations

import polars as pl

from persona_cli.evaluation.intervals import wilson
from persona_cli.feedback.outcomes import CLICK, CONVERSION, NEGATIVE
from persona_cli.profiles import SMALLEST_CELL

BY = ("surface", "policy", "model", "stage", "holdout")
SHARES = (CLICK, CONVERSION, NEGATIVE, "bounce")
_DELAYS = {f"{kind}_hours": f"{kind}_seconds" for kind in (CLICK, CONVERSION)}


def rates(decisions: pl.DataFrame) -> pl.DataFrame:
    """Rates of `outcomes.Joined.decisions`, one row for each of `BY`, sorted.

    per: impression, where impressions of the surface are sent, else delivered; decisions: how many of these; people;
    click, conversion, negative: share with at least one, each with _low and _high (Wilson, JASA 1927, 95 %); bounce:
    share, of those whose clicks can be judged, of which no click led anywhere; click_hours, conversion_hours: median
    until the first. Null is what would be about fewer than 20 people.
    """
    told = decisions.filter(pl.col("exposed") | ~pl.col("tracked")).with_columns(
        pl.when("tracked").then(pl.lit("impression")).otherwise(pl.lit("delivered")).alias("per")
    )
    counts = [
        pl.len().alias("decisions"),
        pl.col("user_id").n_unique().alias("people"),
        *((pl.col(f"{kind}s") > 0).sum().alias(kind) for kind in (CLICK, CONVERSION, NEGATIVE)),
        pl.col("bounced").sum().alias("bounce"),
        pl.col("bounced").is_not_null().sum().alias("judged"),
        pl.col("user_id").filter(pl.col("bounced").is_not_null()).n_unique().alias("judged_people"),
        *(pl.col(name).median().truediv(3600).alias(hours) for hours, name in _DELAYS.items()),
        *(pl.col("user_id").filter(pl.col(name).is_not_null()).n_unique().alias(name) for name in _DELAYS.values()),
    ]
    groups = told.group_by(*BY, "per").agg(counts).sort(*BY, nulls_last=True)
    return pl.DataFrame([_row(group) for group in groups.iter_rows(named=True)], schema=_SCHEMA)


_SCHEMA = {
    **dict.fromkeys(BY, pl.String),
    "holdout": pl.Boolean,
    "per": pl.String,
    "decisions": pl.Int64,
    "people": pl.Int64,
    **{f"{share}{end}": pl.Float64 for share in SHARES for end in ("", "_low", "_high")},
    **dict.fromkeys(_DELAYS, pl.Float64),
}


def _row(group: dict[str, object]) -> dict[str, object]:
    row = dict.fromkeys(_SCHEMA) | {name: group[name] for name in (*BY, "per")}
    if _few(group["people"]):
        return row
    row |= {"decisions": group["decisions"], "people": group["people"]}
    for share in SHARES:
        of, whose = ("judged", "judged_people") if share == "bounce" else ("decisions", "people")
        if not _few(group[whose]):
            hits, n = int(str(group[share])), int(str(group[of]))
            row[share] = hits / n
            row[f"{share}_low"], row[f"{share}_high"] = map(float, wilson(hits, n))
    for hours, seconds in _DELAYS.items():
        row[hours] = None if _few(group[seconds]) else group[hours]
    return row


def _few(people: object) -> bool:
    return int(str(people)) < SMALLEST_CELL
