"""What a surface decides for each user: the kinds behind one function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

import polars as pl

from persona_cli.serving.surfaces import Surface
from persona_cli.serving.surfaces.visitors import Visitors, visitors
from persona_cli.workspace.home import Home
from persona_cli.workspace.surface_declarations import ARMS

if TYPE_CHECKING:
    from persona_cli.serving.surfaces import content, feature, message, plan, survey, ui


class Kind(Protocol):
    """What a module of this folder offers."""

    @property
    def KEY(self) -> str:
        """What its choice is called in a line: items, config or choice."""

    def needs(self, home: Home, surface: Surface) -> set[str]:
        """Columns that it wants to know of visitors; `BadSettings` where the surface cannot be decided."""

    def decide(self, home: Home, surface: Surface, visitors: Visitors, explain: bool = False) -> pl.DataFrame:
        """KEY, policy, propensity, rules, and what else the line tells; aligned with the visitors."""


if TYPE_CHECKING:  # that each is a Kind; loaded is only the one that is asked for
    KINDS: dict[str, Kind] = {
        "content": content,
        "ui": ui,
        "feature": feature,
        "message": message,
        "survey": survey,
        "plan": plan,
    }


def kind_of(surface: Surface) -> Kind:
    """The module of a kind of surface, which has its name."""
    return cast(Kind, import_module(f"{__package__}.{surface.kind}"))


def decisions(
    home: Home,
    surface: Surface,
    *,
    at: datetime,
    users: pl.Series | None = None,
    segment: str | None = None,
    context: Mapping[str, str] | None = None,
    as_of: datetime | None = None,
    explain: bool = False,
    earlier: Callable[[pl.Series], pl.DataFrame] | None = None,
    kept: Callable[[pl.Series], pl.Series] | None = None,
) -> tuple[pl.DataFrame, Visitors]:
    """One row a user, sorted: user_id, surface, items | config | choice, policy, propensity, stage, rules[, arm]
    [, model, base][, layers][, confidence][, reasons], holdout (true or null) and, where somebody is not covered,
    consent (false or null).

    Of a `segment` only the members; users are all who are known where none are given. The same of the same: nothing is
    drawn by chance but arms, by a number that follows from the person and the period. Raises what the kinds and
    `visitors` raise.
    """
    kind = kind_of(surface)
    if ARMS in surface.options:
        from persona_cli.serving.surfaces import arms  # loaded only where there are some

        needed = arms.needs(home, surface, kind)
    else:
        needed = kind.needs(home, surface)
    if segment is not None:
        from persona_cli.serving.recommend import in_segment  # with all that makes lists

        users = in_segment(home, segment, users, as_of)
    asked = visitors(home, needed, at=at, users=users, as_of=as_of, context=context, earlier=earlier, kept=kept)
    if ARMS in surface.options:
        found = arms.decide(home, surface, kind, asked, explain)
    else:
        found = kind.decide(home, surface, asked, explain)
    more = [name for name in ("arm", "model", "base", "layers", "confidence", "reasons") if name in found.columns]
    rows = found.select(
        asked.users,
        pl.lit(surface.name).alias("surface"),
        kind.KEY,
        "policy",
        "propensity",
        asked.rows["stage"],
        "rules",
        *more,
        holdout=pl.when(pl.Series(asked.holdout)).then(True),
    )
    if asked.generic.any():
        rows = rows.with_columns(consent=pl.when(~pl.Series(asked.generic)).then(None).otherwise(False))
    return rows, asked
