"""What models, arms and changed settings would have earned, by logged decisions, in words and figures.

A file of changed settings holds what is changed of one surface: `model` and `[rules]` of lists, `[shares]` of variants
or arms, or a `[bandit]` that allocates anew every day from what the log had shown by then. Whatever else it holds is
refused: the probability of a logged decision under it cannot be computed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from persona_cli.errors import BadSettings, MissingInput, Refused, UsageError, nearest
from persona_cli.experiments import allocation, logged
from persona_cli.experiments.logged import Arms, Drawn, Entry, Floats, Reward
from persona_cli.experiments.off_policy import SMALLEST_ESS
from persona_cli.feedback.decisions import LISTS
from persona_cli.reports.parts import Part
from persona_cli.serving.surfaces import surface_of
from persona_cli.workspace.home import Home
from persona_cli.workspace.rules_declarations import surface_rules

EXPLORED = "rules.exploration.share"
_READ = ("model", "rules", "shares", "bandit")
_BANDIT: dict[str, Any] = {"policy": "thompson", "floor": 0.05, "discount": 1.0}


class Asked(NamedTuple):
    """Which logged decisions are looked at, and what counts."""

    surface: str = LISTS
    reward: Reward = "click"
    since: datetime | None = None
    until: datetime | None = None
    as_of: datetime | None = None
    force: bool = False


class Answer(NamedTuple):
    """What was found: `result` as JSON has it, and the policies with their probabilities of what was logged."""

    result: dict[str, Any]
    entries: list[Entry]


def of_models(home: Home, models: Sequence[str], asked: Asked) -> Answer:
    """What an item that each model would add earns in a drawn slot. Raises as `logged.of_model`, and Refused where the
    log is too thin for all of them."""
    drawn = _drawn(home, asked)
    rules = _own_rules(home, asked.surface)
    entries = [logged.of_model(home, drawn, model, rules=rules, force=asked.force) for model in models]
    return _lists_answer(asked, drawn, entries, "an item that {} would add")


def of_arms(home: Home, asked: Asked) -> Answer:
    """What each variant or arm of a surface earns if everybody always gets it. Raises as `logged.arms`, and Refused."""
    found = _arms(home, asked)
    return _arms_answer(asked, found, logged.always(found, asked.force), "always {}")


def of_settings(home: Home, file: Path, asked: Asked) -> Answer:
    """What the settings of a file would have earned. BadSettings for a value that cannot be, Refused for settings under
    which the probability of what was logged cannot be computed, MissingInput for a file that is not there."""
    surface, said = _read(file)
    asked = asked._replace(surface=surface or asked.surface)
    if "shares" in said or "bandit" in said:
        if len(said) > 1:
            raise Refused(f"{file} changes {' and '.join(said)} at once; one kind of change is weighed at a time")
        found = _arms(home, asked)
        if "shares" in said:
            name, shares = "the new shares", _shares(file, found.names, said["shares"])
        else:
            given = _bandit(file, said["bandit"])
            if found.at.dt.date().n_unique() == 1:
                raise Refused(
                    f"all decisions are of {found.at.dt.date()[0]}, and the bandit would allocate at midnight: there "
                    "is nothing that it could have learned from",
                    "take a longer time (--since)",
                )
            name, shares = f"the bandit {given['policy']}", replayed(found, **given)
        entry = logged.of_shares(found, name, shares, asked.force)
        return _arms_answer(asked, found, [entry], "{}")
    try:
        rules = surface_rules(said.get("rules", {}))
    except ValueError as error:
        raise BadSettings(f"{file}: [rules]: expected {error}") from error
    share = float(rules.get(EXPLORED, 0.0))
    if share > 0 and ("model" in said or len(rules) > 1):
        raise Refused(
            f"{file} draws {share:g} of the entries by chance under another model or other rules, whose candidates are "
            "not those of the log, so their probabilities cannot be computed",
            f"change {EXPLORED} alone, or set it to 0 beside other changes",
        )
    drawn = _drawn(home, asked)
    rules = {**_own_rules(home, asked.surface), **rules}
    entry = logged.of_model(home, drawn, said.get("model"), rules=rules, explored=share, force=asked.force)
    changed = ", ".join([*(f"model = {said['model']}" for _ in range("model" in said)), *sorted(rules)])
    return _lists_answer(asked, drawn, [entry._replace(name=f"{entry.name} ({changed})")], "an item that {} would add")


def replayed(found: Arms, policy: allocation.Policy = "thompson", floor: float = 0.05, discount: float = 1.0) -> Floats:
    """Shares (n, k) that a bandit would have given, allocated anew every midnight (UTC) from what was in by then."""
    k = len(found.names)
    day = found.at.dt.truncate("1d")
    number = (day - day.min()).dt.total_days().to_numpy()
    arrived = found.at.dt.epoch("us").to_numpy() / 1e6 + found.seconds
    first = day.min()
    assert isinstance(first, datetime)
    shares = np.empty((len(found.arm), k))
    for one in np.unique(number):
        midnight = (first + timedelta(days=int(one))).timestamp()
        before = number < one
        age = discount ** (one - 1.0 - number[before])
        earned = found.reward[before] * (arrived[before] < midnight) * age
        sums = (np.bincount(found.arm[before], weights, k).astype(np.float64) for weights in (age, earned, earned))
        shares[number == one] = allocation.shares(allocation.Arms(*sums), policy, "binary", floor=floor)
    return shares


def page(result: Mapping[str, Any]) -> list[Part]:
    """Words first, then the estimates."""
    rows: list[list[str]] = []
    for one in result["policies"]:
        rows.append(
            [
                f"{one['name']}: effective sample {_few(one['ess'])} of {one['rows']:,} ({one['people']:,} people), "
                f"largest weight {_few(one['largest'])}, mean weight {one['mean_weight']:.3f}"
            ]
        )
        for name in ("ips", "snips", "dm", "dr", "gain", "logged"):
            if (value := one[name]) is not None:
                label = {"gain": "SNIPS less logged", "logged": "as logged"}.get(name, name.upper())
                rows.append([label, *(_number(value[part]) for part in ("value", "low", "high"))])
    if result["served"] is not None:
        rows += [["ranked entries of the same pages"]]
        rows += [["as served", *(_number(result["served"][part]) for part in ("value", "low", "high"))]]
    return [Part(result["words"], ("mean reward", "value", "low", "high"), rows, result["notes"])]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5f}"


def _drawn(home: Home, asked: Asked) -> Drawn:
    return logged.drawn_slots(home, asked.surface, asked.reward, asked.since, asked.until, asked.as_of)


def _arms(home: Home, asked: Asked) -> Arms:
    return logged.arms(home, asked.surface, asked.reward, asked.since, asked.until, asked.as_of)


def _own_rules(home: Home, surface: str) -> dict[str, Any]:
    """What a surface has over [rules]."""
    if surface not in home.settings.values["surface"]:
        return {}
    return dict(surface_of(home, surface).options.get("rules", {}))


def _lists_answer(asked: Asked, drawn: Drawn, entries: list[Entry], subject: str) -> Answer:
    _refuse_thin(entries)
    ranked = logged.served(drawn)
    words = [_sentence(one, asked, subject, "what was drawn there") for one in entries]
    words.append(
        f"Entries that were ranked on the same pages: {_percent(ranked)}. They stand in better places than drawn ones, "
        "so the two are no comparison."
    )
    notes = []
    for one in entries:
        if one.aside:
            notes.append(
                f"{one.name}: {one.aside:,} drawn slots are left aside, for the page shows all of its list already."
            )
        if one.snips is not None and one.mean_weight < 0.9:
            notes.append(
                f"{one.name}: about {1 - one.mean_weight:.0%} of what it would add was no candidate of the draws: "
                "SNIPS is of the rest, DM and DR guess it, and IPS counts it as nothing."
            )
    return Answer(
        _result(asked, drawn.decisions["at"], words, notes, entries) | {"served": logged.value_record(ranked)}, entries
    )


def _arms_answer(asked: Asked, found: Arms, entries: list[Entry], subject: str) -> Answer:
    _refuse_thin(entries)
    words = [_sentence(one, asked, subject, "the arms as drawn") for one in entries]
    notes = [
        f"{one.name}: the mean weight is {one.mean_weight:.2f}, where 1 is expected: the logged propensities are "
        "wrong, or the arm was not drawn all the time."
        for one in entries
        if one.snips is not None and abs(one.mean_weight - 1) > 0.2
    ]
    return Answer(_result(asked, found.at, words, notes, entries) | {"served": None}, entries)


def _refuse_thin(entries: list[Entry]) -> None:
    """Raises Refused where the log is too thin for every one of them."""
    if any(one.snips is not None for one in entries):
        return
    most = max(entries, key=lambda one: one.ess)
    raise Refused(
        f"the logged decisions say too little: an effective sample of {most.ess:.1f} of {most.rows:,} for {most.name}, "
        f"where {SMALLEST_ESS:.0f} are needed (largest weight {most.largest:,.1f})",
        "log more that is drawn by chance (rules.exploration), take a longer time (--since), or add --force",
    )


def _result(asked: Asked, at: pl.Series, words: list[str], notes: list[str], entries: list[Entry]) -> dict[str, Any]:
    first, last = at.min(), at.max()
    assert isinstance(first, datetime) and isinstance(last, datetime)
    return {
        "surface": asked.surface,
        "reward": asked.reward,
        "decisions": len(at),
        "first": first.isoformat().replace("+00:00", "Z"),
        "last": last.isoformat().replace("+00:00", "Z"),
        "words": words,
        "notes": notes,
        "policies": [one.record for one in entries],
    }


def _sentence(one: Entry, asked: Asked, subject: str, beside: str) -> str:
    what = subject.format(one.name)
    what = what[0].upper() + what[1:]
    if one.snips is None or one.gain is None:
        return (
            f"{what}: not told, for the effective sample is {one.ess:.1f} of {one.rows:,}; 50 are needed, or --force."
        )
    said = f"{what}: {_percent(one.snips)} earn a {asked.reward}; {beside}: {_percent(one.logged)}."
    if one.gain.low > 0:
        verdict = "so it does better"
    elif one.gain.high < 0:
        verdict = "so it does worse"
    else:
        verdict = "so no difference is shown"
    low, high = 100 * one.gain.low, 100 * one.gain.high
    return f"{said} The difference is {100 * one.gain.value:+.2f} points ({low:+.2f} to {high:+.2f}), {verdict}."


def _few(value: float) -> str:
    """With a digit after the point where it says anything: 340.4, 2,291."""
    return f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def _percent(value: Any) -> str:
    return f"{100 * value.value:.2f} % ({100 * value.low:.2f} to {100 * value.high:.2f})"


def _read(file: Path) -> tuple[str | None, dict[str, Any]]:
    """The surface that a file is about, where it says one, and what it changes there."""
    try:
        said = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingInput(f"{file} is not there", "persona experiment what-if NEW.toml") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"{file} is no TOML: {error}") from error
    surface = said.pop("surface", None)
    if isinstance(surface, Mapping):
        if len(surface) != 1 or said:
            raise UsageError(f"{file} changes more than one surface; give each a file of its own")
        ((surface, said),) = surface.items()
    if surface is not None and not isinstance(surface, str):
        raise BadSettings(f"{file}: surface = {surface!r}; expected a name")
    if other := [key for key in said if key not in _READ]:
        raise Refused(
            f"{file} changes {other[0]}, and the probability of a logged decision under that cannot be computed",
            f"what can be weighed: {', '.join(_READ)} of a surface; for the rest: persona experiment start",
        )
    if not said:
        raise BadSettings(f"{file} changes nothing; expected {', '.join(_READ)}")
    if "model" in said and not isinstance(said["model"], str):
        raise BadSettings(f"{file}: model = {said['model']!r}; expected a name such as ease or ease/3")
    return surface, said


def _shares(file: Path, names: Sequence[str], given: Any) -> Floats:
    """Shares (k,) of the arms; they may be named by what follows their experiment's colon."""
    if not isinstance(given, Mapping):
        raise BadSettings(f"{file}: shares = {given!r}; expected a section of ARM = SHARE")
    found = np.zeros(len(names))
    for name, share in given.items():
        places = [place for place, one in enumerate(names) if name in (one, one.partition(":")[2])]
        if len(places) != 1:
            raise BadSettings(f"{file}: [shares] {name}: the log has no such arm{nearest(name, names)}")
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise BadSettings(f"{file}: [shares] {name} = {share!r}; expected a number from 0 to 1")
        found[places[0]] = share
    if abs(found.sum() - 1) > 1e-6:
        raise BadSettings(f"{file}: the shares add up to {found.sum():g}; expected 1")
    return found


def _bandit(file: Path, given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise BadSettings(f"{file}: bandit = {given!r}; expected a section with {', '.join(_BANDIT)}")
    for name, value in given.items():
        if name not in _BANDIT:
            raise BadSettings(f"{file}: [bandit] has no {name!r}{nearest(name, _BANDIT)}")
        if name == "policy" and value not in ("thompson", "ucb1"):
            raise BadSettings(f"{file}: [bandit] policy = {value!r}; expected thompson or ucb1")
        if name != "policy" and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1):
            raise BadSettings(f"{file}: [bandit] {name} = {value!r}; expected a number from 0 to 1")
    if given.get("discount") == 0:
        raise BadSettings(f"{file}: [bandit] discount = 0; expected a number over 0, up to 1")
    return {**_BANDIT, **given}
