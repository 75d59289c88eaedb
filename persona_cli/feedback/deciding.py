"""`decide`: what a surface chooses for each user, kept as decisions so that it can be judged and is not repeated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from persona_cli.workspace import locks
from persona_cli.workspace.home import Home
from persona_cli.workspace.surface_declarations import ARMS

if TYPE_CHECKING:
    import polars as pl

    from persona_cli.serving.surfaces import Surface
    from persona_cli.serving.surfaces.visitors import Visitors
    from persona_cli.workspace.runs import Run


Deciding = Callable[..., "tuple[pl.DataFrame, Visitors]"]


@dataclass(frozen=True)
class Decided:
    """What was decided."""

    rows: pl.DataFrame
    """As `serving.surfaces.deciding.decisions`, after decision_id (null where a decision may not be kept) if logged."""
    kind: str
    logged: int
    """Decisions that were kept."""


def decide(
    home: Home,
    name: str,
    run: Run,
    *,
    users: pl.Series | None = None,
    segment: str | None = None,
    context: Mapping[str, str] | None = None,
    as_of: datetime | None = None,
    dry_run: bool = False,
    explain: bool = False,
    wait: float = 0.0,
    deciding: Deciding | None = None,
) -> Decided:
    """Decide on a surface for users (default: all who are known) and keep the decisions.

    `deciding` is what decides, in the place of `serving.surfaces.deciding.decisions`: an experiment may.

    Not kept are those of a `dry_run`, those as of a past moment, which nobody was served, and those of people whom
    analytics do not cover. Raises MissingInput for a surface that is not there, Busy while another run holds the tables
    for longer than `wait` seconds, and what the kind of surface raises.
    """
    import polars as pl

    from persona_cli.feedback.decisions import log, loggable, read
    from persona_cli.profiles.permitted import PERSONALIZATION
    from persona_cli.serving.surfaces import surface_of
    from persona_cli.serving.surfaces.deciding import decisions

    surface = surface_of(home, name)
    at = as_of or datetime.now(UTC)
    keeping = not dry_run and as_of is None
    sections = home.settings.values["surface"].items()
    together = [other for other, one in sections if other == name or one["kind"] == surface.kind == "message"]

    def earlier(ids: pl.Series) -> pl.DataFrame:
        # Caps are on all messages that reach a person, whichever surface decided them.
        made = read(home, until=at, purpose=PERSONALIZATION).filter(pl.col("surface").is_in(together))
        return made.filter(pl.col("user_id").is_in(ids.implode())).select("user_id", "at", "choice").collect()

    # Held from before anybody's data is read, so that nobody is erased before what was decided for them is kept.
    with locks.hold(home, "tables", f"decide {name}", wait) if keeping else nullcontext():
        rows, asked = (deciding or decisions)(
            home,
            surface,
            at=at,
            users=users,
            segment=segment,
            context=context,
            as_of=as_of,
            explain=explain,
            earlier=earlier,
            kept=lambda ids: loggable(home, ids),
        )
        run.counts |= {"users": rows.height, "holdout": int(asked.holdout.sum())}
        if not keeping:
            return Decided(rows, surface.kind, 0)
        ids = log(home, _to_keep(surface, rows, asked), run=run.id, at=at, wait=wait)
    run.counts["logged"] = logged = len(ids) - ids.null_count()
    return Decided(rows.insert_column(0, ids), surface.kind, logged)


def _to_keep(surface: Surface, rows: pl.DataFrame, asked: Visitors) -> pl.DataFrame:
    """The decisions as rows for `decisions.log`."""
    import polars as pl

    from persona_cli.feedback.decisions import contexts_as_text, of_lists

    known = asked.rows.select(sorted({"device", "country", "network", *asked.context} - {"hour"}))
    if ARMS in surface.options:
        from persona_cli.serving.surfaces.arms import PREFIX, told_features

        told = told_features(surface, asked.rows)
        known = known.with_columns(told[name] for name in told.columns if name not in known.columns)
        arm = PREFIX + pl.col("arm")
        variant = ["variant"] if "variant" in rows.columns else []
        there = pl.concat_str(*variant, arm, separator=",", ignore_nulls=True)
        rows = rows.with_columns(variant=pl.when(there != "").then(there))
    known = known.select(pl.when(~pl.Series(asked.holdout)).then(pl.all()).name.keep())
    if "hour" in asked.context:
        known = known.with_columns(hour=pl.lit(asked.context["hour"]))
    context = contexts_as_text(known)
    if "items" in rows.columns:
        lists = of_lists(rows, context, surface.name)
        return lists.with_columns(rows["policy"], rows["propensity"])
    tried = [name for name in ("variant",) if name in rows.columns]
    (key,) = {"config", "choice"} & set(rows.columns)
    return rows.select(
        "user_id",
        "surface",
        "policy",
        "propensity",
        "stage",
        "rules",
        *tried,
        pl.col("holdout").fill_null(False),
        choice=pl.when(pl.col(key).is_not_null()).then(pl.col(key).struct.json_encode()),
        context=context,
    )
