"""Experiments of a workspace: what each compares, on whom, and every change since it began.

An experiment is one file, `experiments/NAME/experiment.json`, without anybody's data: who is in which variant follows
from the person's first id, the workspace's salt and the experiment's (`assignment`), or from what was logged. Shares of
an ab test are never changed, since that would move people and mix two experiments into one: a new test gets a new name.
What may change is kept with its time: the ramp grows, variants are dropped, a bandit allocates anew.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from persona_cli.errors import BadData, MissingInput, UsageError, nearest
from persona_cli.experiments import FOLDER
from persona_cli.experiments.assignment import Part, checked_shares, free_part
from persona_cli.experiments.variants import NAME, RECOMMEND, Variant, check_overrides, parse_variant
from persona_cli.workspace import artifacts, locks
from persona_cli.workspace.home import Home

FILE = "experiment.json"
AB, INTERLEAVE, BANDIT = KINDS = ("ab", "interleave", "bandit")
POLICIES = ("thompson", "ucb1")
_MOST = 20


class Allocation(NamedTuple):
    """What held for new people from a moment on."""

    at: datetime
    shares: tuple[float, ...]
    ramp: float
    dropped: tuple[str, ...]


@dataclass(frozen=True)
class Experiment:
    """One experiment, as it is written down."""

    name: str
    kind: str
    surface: str
    variants: tuple[Variant, ...]
    """The first is the control."""
    shares: tuple[float, ...]
    """Planned (n_variants,), adding up to 1; what a bandit made of them is in `allocations`."""
    metric: str | None
    guardrails: tuple[str, ...]
    layer: str
    part: Part
    ramp: float
    """Share of the people in its part of the layer who are enrolled."""
    started: datetime
    stopped: datetime | None
    salt: str
    planned_units: int | None
    """People that the plan asks for, of all variants together."""
    allocations: tuple[Allocation, ...]
    """From the start on, the newest last."""
    method: str = "team-draft"
    """How lists are interleaved."""
    policy: str = "thompson"
    floor: float = 0.05
    discount: float = 1.0
    """Of a bandit: the least share of a variant, and what a period counts in the next."""
    looks: int | None = None
    """Of an ab test: how often it is to be looked at on the way to `planned_units`."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(variant.name for variant in self.variants)

    @property
    def control(self) -> str:
        return self.variants[0].name

    @property
    def dropped(self) -> tuple[str, ...]:
        return self.allocations[-1].dropped

    @property
    def current(self) -> tuple[float, ...]:
        """Shares of people who come now (n_variants,)."""
        return self.allocations[-1].shares

    def runs(self, at: datetime) -> bool:
        return self.started <= at and (self.stopped is None or at < self.stopped)


def names(home: Home) -> list[str]:
    """Names of all experiments, sorted."""
    return sorted(path.parent.name for path in home.path(FOLDER).glob(f"*/{FILE}"))


def load(home: Home, name: str) -> Experiment:
    """The experiment of that name; MissingInput where there is none, BadData where its file is damaged."""
    path = home.path(FOLDER, name, FILE)
    if not NAME.match(name) or not path.is_file():
        there = names(home)
        close = nearest(name, there) if there else "; there is none yet"
        raise MissingInput(f"no experiment is named {name!r}{close}", "persona experiment list")
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return _read(said)
    except (ValueError, KeyError, TypeError) as error:
        raise BadData(f"{path} is damaged ({error})", "restore it from a backup, or remove its folder") from error


def running(home: Home, at: datetime | None = None, surface: str | None = None) -> list[Experiment]:
    """Experiments that run at a moment (now), of a surface where one is named; sorted by name."""
    if not home.path(FOLDER).is_dir():
        return []
    moment = at or datetime.now(UTC)
    found = [load(home, name) for name in names(home)]
    return [one for one in found if one.runs(moment) and surface in (None, one.surface)]


def save(home: Home, experiment: Experiment) -> None:
    """Write it down, replacing what is there at once; the caller holds the lock `experiments`."""
    text = json.dumps(_written(experiment), indent=2, ensure_ascii=False) + "\n"
    artifacts.write_text(home.path(FOLDER, experiment.name, FILE), text)


def start(
    home: Home,
    name: str,
    variants: Sequence[str],
    *,
    kind: str = AB,
    surface: str = RECOMMEND,
    shares: Sequence[float] = (),
    metric: str | None = None,
    guardrails: Sequence[str] = (),
    layer: str | None = None,
    size: float | None = None,
    ramp: float = 1.0,
    planned_units: int | None = None,
    method: str = "team-draft",
    policy: str = "thompson",
    floor: float = 0.05,
    discount: float = 1.0,
    looks: int | None = None,
    at: datetime | None = None,
    wait: float = 0.0,
) -> Experiment:
    """Begin an experiment with `variants` such as "a=latest", "b=ease", "c=rules.strength=0.5".

    The layer is the surface's unless one is named, and the part of it the largest that is free unless a `size` is
    given. Raises UsageError for what cannot be an experiment, MissingInput for a surface or model that is not there,
    BadSettings for an override that is no setting, Busy while another run holds the experiments longer than `wait`.
    """
    moment = (at or datetime.now(UTC)).astimezone(UTC)
    _checked(name, kind, method, policy, floor, discount, ramp, planned_units)
    if looks is not None:
        _check_looks(kind, looks, planned_units)
    parsed = tuple(parse_variant(text) for text in variants)
    _check_variants(kind, [variant.name for variant in parsed], method)
    if kind == BANDIT and floor * len(parsed) > 1 + 1e-9:
        raise UsageError(f"a floor of {floor:g} for each of {len(parsed)} variants is more than everything")
    if kind == INTERLEAVE and surface != RECOMMEND:
        raise UsageError(f"lists of {RECOMMEND} are interleaved, not the surface {surface!r}", "leave --surface away")
    for variant in parsed:
        check_overrides(home, surface, variant)
    for one in (*([metric] if metric else []), *guardrails):
        check_metric(home, one)
    planned = checked_shares(shares, [variant.name for variant in parsed])
    with locks.hold(home, "experiments", f"experiment start {name}", wait):
        if name in names(home):
            raise UsageError(f"an experiment {name!r} is there already", "give another name: old ones are never reused")
        others = running(home, moment)
        layer = layer or surface
        part = free_part({one.name: one.part for one in others if one.layer == layer}, size, layer)
        made = Experiment(
            name, kind, surface, parsed, planned, metric, tuple(guardrails), layer, part, ramp, moment, None,
            secrets.token_hex(16), planned_units, (Allocation(moment, planned, ramp, ()),), method, policy, floor,
            discount, looks,
        )  # fmt: skip
        for other in others:
            _no_conflict(made, other)
        save(home, made)
    return made


def stop(home: Home, name: str, at: datetime | None = None, wait: float = 0.0) -> Experiment:
    """End an experiment: from now on nobody is in it, and its part of the layer is free."""
    moment = (at or datetime.now(UTC)).astimezone(UTC)
    with locks.hold(home, "experiments", f"experiment stop {name}", wait):
        found = load(home, name)
        if found.stopped is not None:
            raise UsageError(f"the experiment {name!r} was stopped at {_iso(found.stopped)}")
        made = replace(found, stopped=max(moment, found.started))
        save(home, made)
    return made


def change(
    home: Home,
    name: str,
    *,
    ramp: float | None = None,
    drop: Sequence[str] = (),
    shares: Sequence[float] | None = None,
    at: datetime | None = None,
    wait: float = 0.0,
) -> Experiment:
    """A larger ramp, variants to drop, a bandit's new shares: from now on, and written down with the time.

    Raises UsageError for a smaller ramp, a variant that is not there, or none that would be left.
    """
    moment = (at or datetime.now(UTC)).astimezone(UTC)
    with locks.hold(home, "experiments", f"experiment update {name}", wait):
        found = load(home, name)
        if found.stopped is not None:
            raise UsageError(f"the experiment {name!r} was stopped at {_iso(found.stopped)}: nothing changes any more")
        for one in drop:
            if one not in found.names:
                raise UsageError(f"{name} has no variant {one!r}{nearest(one, found.names)}")
        gone = tuple(one for one in found.names if one in {*found.dropped, *drop})
        if len(gone) == len(found.variants):
            raise UsageError(f"every variant of {name} would be dropped", f"persona experiment stop {name}")
        if found.kind == AB and found.control in gone:
            raise UsageError(
                f"{found.control} is the control that every variant of {name} is held against; it cannot be dropped",
                f"persona experiment stop {name}, and start another",
            )
        if found.kind == AB and len(gone) == len(found.variants) - 1:
            raise UsageError(
                f"only the control of {name} would be left, and nothing to compare it with",
                f"persona experiment stop {name}: its people so far stay measured",
            )
        if found.kind == INTERLEAVE and gone:
            raise UsageError("both lists of an interleaved experiment are needed", f"persona experiment stop {name}")
        if ramp is not None and not found.ramp <= ramp <= 1:
            raise UsageError(
                f"a ramp of {ramp:g}, and {found.ramp:.3g} of the people are enrolled: a ramp only grows, up to 1",
                f"persona experiment stop {name}",
            )
        after = found.current if shares is None else tuple(float(share) for share in shares)
        if shares is None and drop and found.kind == BANDIT:
            left = [0.0 if one in gone else share for one, share in zip(found.names, after, strict=True)]
            kept = len(left) - len(gone)
            total = sum(left)
            after = tuple(
                0.0 if one in gone else (share / total if total > 0 else 1 / kept)
                for one, share in zip(found.names, left, strict=True)
            )
        newest = Allocation(moment, after, found.ramp if ramp is None else ramp, gone)
        made = replace(found, ramp=newest.ramp, allocations=(*found.allocations, newest))
        save(home, made)
    return made


def check_metric(home: Home, name: str) -> None:
    """Raise UsageError for a metric that is not there, BadSettings for one that cannot be read."""
    from persona_cli.experiments.metrics import named

    named(home, [name])


def _checked(
    name: str, kind: str, method: str, policy: str, floor: float, discount: float, ramp: float, planned: int | None
) -> None:
    from persona_cli.experiments.interleaving import METHODS

    if not NAME.match(name):
        raise UsageError(
            f"{name!r} is no name of an experiment; expected up to 60 letters, digits, _, - and ., a letter first"
        )
    for what, given, known in (("kind", kind, KINDS), ("method", method, METHODS), ("policy", policy, POLICIES)):
        if given not in known:
            raise UsageError(f"no {what} {given!r}{nearest(given, known)}; expected one of {', '.join(known)}")
    for what, share in (("ramp", ramp), ("discount", discount)):
        if not 0 < share <= 1:
            raise UsageError(f"a {what} of {share:g}; expected a share over 0, up to 1")
    if floor < 0:
        raise UsageError(f"a floor of {floor:g}; expected a share from 0 on")
    if planned is not None and planned < 2:
        raise UsageError(f"{planned} planned people; expected at least 2")


def _check_looks(kind: str, looks: int, planned: int | None) -> None:
    from persona_cli.experiments.sequential import MOST_LOOKS

    if kind != AB:
        raise UsageError(f"looks are planned of an ab test, and this is of the kind {kind}")
    if not 2 <= looks <= MOST_LOOKS:
        raise UsageError(f"{looks} looks; expected 2 to {MOST_LOOKS}", "who looks at any time: measure --peek open")
    if planned is None:
        raise UsageError(
            "looks are taken on the way to the people planned, and these are missing",
            f"--planned-units N: persona experiment plan --looks {looks}",
        )


def _check_variants(kind: str, names: Sequence[str], method: str) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"the variant {twice[0]!r} is there twice")
    if kind == INTERLEAVE and len(names) > 2 and method != "team-draft":
        raise UsageError(
            f"{len(names)} variants, and {method} merges two", "more are merged by --method team-draft (the default)"
        )
    if not 2 <= len(names) <= _MOST:
        raise UsageError(f"{len(names)} variants; expected 2 to {_MOST}", "--variants a=latest b=ease")


def _no_conflict(made: Experiment, other: Experiment) -> None:
    """Two experiments may have the same person only where they change different things."""
    if made.surface != other.surface or made.layer == other.layer:
        return
    if INTERLEAVE in (made.kind, other.kind):  # its lists are asked for by name, and nothing else is applied to them
        return
    mine, theirs = ({key for variant in one.variants for key in variant.overrides} for one in (made, other))
    if both := sorted(mine & theirs):
        raise UsageError(
            f"{made.name} and {other.name} both set {both[0]}, and people may be in both",
            f"--layer {other.layer}: experiments of a layer have different people",
        )


def _written(experiment: Experiment) -> dict[str, Any]:
    said = asdict(experiment)
    said["variants"] = [variant._asdict() for variant in experiment.variants]
    said["allocations"] = [{**one._asdict(), "at": _iso(one.at)} for one in experiment.allocations]
    said["from"], said["to"] = said.pop("part")
    said["started"] = _iso(experiment.started)
    said["stopped"] = None if experiment.stopped is None else _iso(experiment.stopped)
    return said


def _read(said: dict[str, Any]) -> Experiment:
    rest = dict(said)
    rest["variants"] = tuple(Variant(one["name"], dict(one["overrides"])) for one in said["variants"])
    rest["allocations"] = tuple(
        Allocation(_moment(one["at"]), tuple(one["shares"]), float(one["ramp"]), tuple(one["dropped"]))
        for one in said["allocations"]
    )
    rest["part"] = Part(float(rest.pop("from")), float(rest.pop("to")))
    rest["shares"], rest["guardrails"] = tuple(said["shares"]), tuple(said["guardrails"])
    rest["started"] = _moment(said["started"])
    rest["stopped"] = None if said["stopped"] is None else _moment(said["stopped"])
    return Experiment(**rest)


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
