"""Slices by segments of persona.toml: `segment:NAME` in a condition is whether the user was in it at the cut."""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

from persona_cli.errors import UsageError
from persona_cli.evaluation.exams import Exam
from persona_cli.profiles import segments
from persona_cli.profiles.people import described
from persona_cli.profiles.permitted import ANALYTICS
from persona_cli.workspace.filters import Filter
from persona_cli.workspace.home import Home

PREFIX = "segment:"
# Names stand outside of texts and of quoted columns.
_PARTS = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")+"|\bsegment:\s*(?P<name>[^\W\d]\w*)""")


def named(slices: Sequence[str]) -> list[str]:
    """The segments that conditions name as `segment:NAME`, each once."""
    found = (match["name"] for one in slices for match in _PARTS.finditer(one))
    return list(dict.fromkeys(name for name in found if name is not None))


def as_columns(condition: str) -> str:
    """The condition with `segment:NAME` as the column that `in_segments` calls so."""
    return _PARTS.sub(lambda match: match[0] if match["name"] is None else f'"{PREFIX}{match["name"]}"', condition)


def ready(home: Home | None, exam: Exam, names: Sequence[str]) -> dict[str, Filter]:
    """The conditions of these segments, where the exam has one moment to ask them at.

    UsageError where it has none (each user has a cut of their own, or lists whose moment nobody named) and without a
    workspace; MissingInput for a name that no segment has.
    """
    if not names:
        return {}
    if home is None:
        raise UsageError("slices by segment need a workspace, whose persona.toml defines the segments")
    found = {name: segments.condition(home, name) for name in names}
    kind = exam.split.get("kind")
    if exam.split.get("cut") is None and kind != "test":
        if kind == "lists":
            raise UsageError("segments are as of one moment, and that of the lists is not known", "add --as-of TIME")
        raise UsageError(
            f"segments are as of one moment, and a {kind} split has a cut for each user",
            "persona evaluate --split time, or a condition such as --slice \"activity = 'heavy'\"",
        )
    return found


def in_segments(home: Home | None, exam: Exam, names: Sequence[str]) -> pl.DataFrame:
    """Columns `segment:NAME` (n_users,): which of the users asked were in each segment at the cut.

    Profiles are folded from the events before the cut, so nothing later puts anybody into a segment, and features that
    measure a user against others see the others as of then. Whoever was not there yet is in none. Raises what `ready`
    raises.
    """
    conditions = ready(home, exam, names)
    if not conditions or home is None:
        return pl.DataFrame()
    rows = described(home, exam.as_of, purpose=ANALYTICS)
    members = rows.select("user_id", *(one.mask(rows).alias(PREFIX + name) for name, one in conditions.items()))
    aligned = exam.users.to_frame().join(members, on="user_id", how="left", maintain_order="left")
    return aligned.drop("user_id").select(pl.all().fill_null(False))
