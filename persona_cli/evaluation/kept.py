"""Two kept evaluations against each other: the same models, or any two, on the users who were asked in both.

An evaluation is named by its run: the id, the beginning of it, `latest` or `previous`; `RUN:MODEL` names one model in
it. The second is judged over the first, as a change is: its models are better or worse than those of the first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from persona_cli.errors import BadData, MissingInput, UsageError, nearest
from persona_cli.evaluation.comparisons import ALPHA, MARGIN, Comparison, as_json, compared
from persona_cli.evaluation.document import FOLDER
from persona_cli.reports import words
from persona_cli.reports.parts import Part
from persona_cli.workspace import artifacts
from persona_cli.workspace.home import Home

_NEWEST = ("latest", "previous")


@dataclass(frozen=True)
class Kept:
    """An evaluation as it was kept."""

    run: str
    result: Mapping[str, Any]
    per_user: pl.DataFrame
    """model, user_id and every metric by user."""

    @property
    def models(self) -> dict[str, Mapping[str, Any]]:
        """Entry of each model, in the order of the result."""
        return {entry["model"]: entry for entry in self.result["models"]}

    def of(self, model: str) -> pl.DataFrame:
        return self.per_user.filter(pl.col("model") == model).drop("model")


@dataclass(frozen=True)
class Contest:
    """What two kept evaluations come to, side by side."""

    first: Kept
    second: Kept
    metric: str
    users: int
    """Asked in both; the others are left out."""
    only: tuple[int, int]
    """Users asked in the first alone, and in the second alone."""
    differences: list[str]
    """Why the two are not the same exam; empty where they are."""
    rows: list[dict[str, Any]]
    """A comparison each, with "first" and "second": run, model and mean of the metric; and "changed": settings."""


def names(home: Home) -> list[str]:
    """Runs with a kept evaluation, newest first."""
    folder = home.path(FOLDER)
    if not folder.is_dir():
        return []
    found = (path.name for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())
    return sorted(found, reverse=True)


def find(home: Home, name: str) -> str:
    """The run meant by `name`; MissingInput where there is none, UsageError where there are several."""
    known = names(home)
    if not known:
        raise MissingInput("no evaluation is kept in this workspace", "persona evaluate")
    if name in _NEWEST:
        place = _NEWEST.index(name)
        if place >= len(known):
            raise MissingInput(f"there is no previous evaluation: {known[0]} is the only one kept", "persona evaluate")
        return known[place]
    matches = [name] if name in known else [run for run in known if name and run.startswith(name)]
    if len(matches) > 1:
        raise UsageError(f"{len(matches)} evaluations begin with {name!r}: {', '.join(matches[:5])}")
    if not matches:
        raise MissingInput(f"there is no evaluation {name!r}{nearest(name, [*known[:20], *_NEWEST])}")
    return matches[0]


def read(home: Home, name: str) -> Kept:
    """The evaluation meant by `name`, after its files were checked against the manifest.

    Raises BadData where they differ, MissingInput where there is none or its figures by user have expired.
    """
    run = find(home, name)
    folder = home.path(FOLDER, run)
    if "users.parquet" in artifacts.verify(folder).get("expired", ()):
        raise MissingInput(
            f"the figures by user of {run} have expired (privacy.retention.evaluations_days); those of all users "
            f"together are in {folder / 'result.json'}",
            "persona evaluate",
        )
    try:
        result = json.loads((folder / "result.json").read_bytes())
        per_user = pl.read_parquet(folder / "users.parquet")
        whole = {entry["model"] for entry in result["models"]} <= set(per_user["model"].unique())
    except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
        raise BadData(f"{folder} cannot be read as an evaluation ({error})", "persona evaluate") from error
    if not whole:
        raise BadData(f"{folder / 'users.parquet'} lacks a model that result.json names", "persona evaluate")
    return Kept(run, result, per_user)


def contest(
    home: Home,
    first: str = "previous",
    second: str = "latest",
    models: Sequence[str] = (),
    metric: str | None = None,
    margin: float = MARGIN,
) -> Contest:
    """Compare the second evaluation with the first, model by model; all rows are one family for Holm.

    Models: those that `RUN:MODEL` names; else `models`, each in both; else every model in both that is no baseline;
    else the best of each. `metric` defaults to what the second leads with. MissingInput where a run is not there or no
    user was asked in both; UsageError for a model or metric that is not there, or the same model of the same run twice.
    """
    one, other = (name.partition(":") for name in (first, second))
    a, b = read(home, one[0]), read(home, other[0])
    measured = _metric(a, b, metric)
    pairs = _pairs(a, b, one[2], other[2], models, measured)
    asked = [_asked(kept) for kept in (a, b)]
    users = asked[0].join(asked[1], on="user_id", how="semi")
    if not users.height:
        raise MissingInput(f"no user was asked in both {a.run} and {b.run}: nothing can be paired")
    sides = {}
    for mine, theirs in pairs:
        sides[_title(a, mine, b)] = a.of(mine).join(users, on="user_id", how="semi")
        sides[_title(b, theirs, a)] = b.of(theirs).join(users, on="user_id", how="semi")
    titled = [(_title(b, theirs, a), _title(a, mine, b)) for mine, theirs in pairs]
    found = compared(sides, measured, titled, margin, ALPHA)
    rows = [
        _row(a, mine, b, theirs, comparison, sides) for (mine, theirs), comparison in zip(pairs, found, strict=True)
    ]
    only = (asked[0].height - users.height, asked[1].height - users.height)
    return Contest(a, b, measured, users.height, only, differences(a, b), rows)


def differences(first: Kept, second: Kept) -> list[str]:
    """In what the exams of two evaluations differ, a sentence each."""
    a, b = first.result, second.result
    found = []
    for said, one, other in (
        ("split", a["split"]["kind"], b["split"]["kind"]),
        ("cut", a["split"].get("cut"), b["split"].get("cut")),
        ("k", a["k"], b["k"]),
        ("right answers", a["test_pairs"], b["test_pairs"]),
        ("events to learn from", a.get("train_events"), b.get("train_events")),
        ("trained again for it", a.get("refit"), b.get("refit")),
    ):
        if one != other:
            found.append(f"{said}: {_said(one)} in the first, {_said(other)} in the second")
    if not found and a.get("as_of") != b.get("as_of"):
        found.append(f"data until: {_said(a.get('as_of'))} in the first, {_said(b.get('as_of'))} in the second")
    if not found and a["split"]["headline"] != b["split"]["headline"]:
        found.append(f"what was tested: {a['split']['headline']!r}, then {b['split']['headline']!r}")
    return found


def document(contest: Contest) -> dict[str, Any]:
    """The contest as JSON types."""
    return {
        "metric": contest.metric,
        **{
            side: {"run": kept.run, "split": kept.result["split"], "users": kept.result["users"], "only": only}
            for side, kept, only in zip(("first", "second"), (contest.first, contest.second), contest.only, strict=True)
        },
        "users": contest.users,
        "same_exam": not contest.differences,
        "differences": contest.differences,
        "comparisons": contest.rows,
        "conclusion": [words.comparison(row) for row in contest.rows],
    }


def records(contest: Contest) -> list[dict[str, Any]]:
    """One flat record a row."""
    found = []
    for row in contest.rows:
        record: dict[str, Any] = {
            f"{side}_{name}": row[side][name] for side in ("first", "second") for name in ("run", "model", "value")
        }
        record["metric"] = row["metric"]
        for name in ("difference", "lift"):
            interval = row[name] or {}
            record |= {
                name + bound: interval.get(key) for bound, key in (("", "value"), ("_low", "low"), ("_high", "high"))
            }
        plain = ("p", "p_holm", "verdict", "no_worse", "margin", "users", "users_needed", "detectable")
        found.append(record | {name: row[name] for name in plain})
    return found


def parts(contest: Contest) -> list[Part]:
    """The contest for people: what was compared, a row a pair of models, and what it comes to in sentences."""
    a, b = contest.first, contest.second
    left_out = [f"{n:,} only in the {side}" for n, side in zip(contest.only, ("first", "second"), strict=True) if n]
    asked = f"{contest.users:,} users asked in both" if a.run != b.run else f"{contest.users:,} users asked"
    top = [f"first:  {a.run}, {a.result['split']['headline']}"]
    if a.run != b.run:
        top.append(f"second: {b.run}, {b.result['split']['headline']}")
    top.append(f"{asked}{'; left out: ' + ', '.join(left_out) if left_out else ''}")
    table = Part(
        columns=[words.metric_name(contest.metric), "first", "second", "difference", "lift", "p"],
        rows=[
            [
                _models(row),
                *(words.value_text(contest.metric, row[side]["value"]) for side in ("first", "second")),
                words.interval_text(contest.metric, row["difference"], signed=True),
                "-" if row["lift"] is None else words.lift_text(row["lift"]),
                words.p_text(row["p_holm"]),
            ]
            for row in contest.rows
        ],
    )
    several = ", p corrected for making several comparisons (Holm)" if len(contest.rows) > 1 else ""
    said = [sentence for row in contest.rows for sentence in _sentences(row)]
    said.append(f"paired by user, second over first; 95 % intervals{several}")
    return [Part(top), table, Part(said)]


def _sentences(row: Mapping[str, Any]) -> list[str]:
    found = [words.comparison(row)]
    if row["verdict"] == "within noise" and row["detectable"] is not None:
        shown = words.value_text(row["metric"], row["detectable"])
        found.append(f"  these {row['users']:,} users would show a difference of {shown} four times in five")
    if row["changed"]:
        changed = (f"{name} {_said(one)} → {_said(other)}" for name, (one, other) in row["changed"].items())
        found.append(f"  settings that differ: {', '.join(changed)}")
    return found


def _models(row: Mapping[str, Any]) -> str:
    first, second = row["first"]["model"], row["second"]["model"]
    return str(first) if first == second else f"{first} → {second}"


def _row(
    a: Kept, mine: str, b: Kept, theirs: str, comparison: Comparison, sides: Mapping[str, pl.DataFrame]
) -> dict[str, Any]:
    def side(kept: Kept, model: str, title: str) -> dict[str, Any]:
        return {"run": kept.run, "model": model, "value": sides[title][comparison.metric].mean()}

    one, other = (kept.models[model].get("settings") or {} for kept, model in ((a, mine), (b, theirs)))
    changed = {
        name: [one.get(name), other.get(name)]
        for name in sorted(one.keys() | other.keys())
        if mine == theirs and one.get(name) != other.get(name)
    }
    return {
        **as_json(comparison),
        "first": side(a, mine, comparison.against),
        "second": side(b, theirs, comparison.model),
        "changed": changed,
    }


def _asked(kept: Kept) -> pl.DataFrame:
    """The users asked, sorted."""
    return kept.per_user.select("user_id").unique().sort("user_id")


def _title(kept: Kept, model: str, beside: Kept) -> str:
    return model if kept.run == beside.run else f"{model} of {kept.run}"


def _metric(a: Kept, b: Kept, wanted: str | None) -> str:
    own, known = (set(kept.per_user.columns) - {"model", "user_id"} for kept in (a, b))
    both = own & known
    if wanted is not None:
        if wanted not in both:
            where = "neither" if wanted not in own | known else f"only {a.run if wanted in own else b.run}"
            raise UsageError(f"{where} has the metric {wanted!r} by user{nearest(wanted, both)}")
        return wanted
    leading = [words.leading(kept.result) for kept in (b, a)]
    found = next((name for name in (*leading, *sorted(both)) if name in both), None)
    if found is None:
        raise UsageError(
            f"{a.run} and {b.run} have no metric in common: lists of {_said(a.result['k'])} and of "
            f"{_said(b.result['k'])}",
            "persona evaluate --k 10,20",
        )
    return found


def _pairs(a: Kept, b: Kept, mine: str, theirs: str, models: Sequence[str], metric: str) -> list[tuple[str, str]]:
    """(model of the first, model of the second) of every row."""
    if (mine or theirs) and models:
        raise UsageError("RUN:MODEL names the models already; leave --model out")
    if mine or theirs:
        found = [(mine or theirs, theirs or mine)]
    elif models:
        found = [(model, model) for model in dict.fromkeys(models)]
    else:
        own = [name for name, entry in a.models.items() if not words.is_baseline(entry)]
        found = [(name, name) for name in own if name in b.models]
        if not found:
            found = [(_best(a, metric), _best(b, metric))]
    for kept, wanted in ((a, [one for one, _ in found]), (b, [other for _, other in found])):
        for name in wanted:
            if name not in kept.models:
                raise UsageError(f"{kept.run} has no model {name!r}{nearest(name, kept.models)}")
    if a.run == b.run and (same := [one for one, other in found if one == other]):
        some = list(a.models)[:2] if len(a.models) > 1 else ["MODEL", "MODEL"]
        raise UsageError(
            f"{same[0]} of {a.run} would be compared with itself",
            f"persona compare {a.run}:{some[0]} {a.run}:{some[1]}",
        )
    return found


def _best(kept: Kept, metric: str) -> str:
    """The model with the highest mean that is no baseline; of baselines alone, the best of them."""
    means = kept.per_user.group_by("model").agg(pl.col(metric).mean())
    values = dict(means.iter_rows())
    own = [name for name, entry in kept.models.items() if not words.is_baseline(entry)] or list(kept.models)
    return min(own, key=lambda name: (-values[name], name))


def _said(value: Any) -> str:
    """A value of a result in a sentence."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_said, value))
    return f"{value:,}" if isinstance(value, int) else words.moment(value) if isinstance(value, str) else str(value)
