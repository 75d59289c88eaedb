"""How well the choice between models has held: what was chosen before a moment, judged on what followed it.

At several past moments the choice is made as `persona train` makes it, with the events before the moment alone; then
every candidate is fitted on those events and judged on what happened until the next moment. Beside these, models that
were saved with the record of their choice are judged, as they are, on what happened since.

    regret      NDCG@20 of the best candidate in hindsight - of the one chosen, paired by user. The best is found on the
                same users, so it is partly luck: a regret is too large rather than too small
    agreement   Kendall's tau-b (Biometrika 1945) of the candidates' figures when chosen and afterwards
    optimism    figure when chosen - figure afterwards, of the candidate chosen: what choosing made it look better by,
                and what was easier or harder about the later time
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from persona_cli.errors import BadData, MissingInput
from persona_cli.evaluation import exams
from persona_cli.evaluation.exams import Exam
from persona_cli.evaluation.intervals import mean_interval
from persona_cli.evaluation.judging import Beside
from persona_cli.evaluation.rolling import pooled
from persona_cli.events.catalogue import described
from persona_cli.feedback.candidates import METRIC, POPULAR, Judged, Panel, around, judged, portfolio, sampled
from persona_cli.feedback.choosing import IF_CENTRED, NEEDED, choose
from persona_cli.models import registry
from persona_cli.models.layered import Layered
from persona_cli.models.popular import Popular
from persona_cli.models.preparing import prepare
from persona_cli.models.registry import Saved
from persona_cli.profiles.history import signal_events
from persona_cli.profiles.permitted import MEASURING
from persona_cli.workspace import artifacts
from persona_cli.workspace.doctor import model_versions
from persona_cli.workspace.home import Home
from persona_cli.workspace.settings import Settings


def held(
    home: Home,
    run: str,
    cuts: int = 3,
    as_of: datetime | None = None,
    time_limit: float | None = None,
    users: int | None = None,
) -> dict[str, Any]:
    """How past choices held, at `cuts` moments of the latest part of the events (evaluate.test_share), as JSON types.

    Only events before `as_of` exist. `time_limit` (seconds; default train.time_limit) decides which models are
    compared, as in training; at most `users` (default train.validation_users) people are asked at each moment.

        run, metric
        moments   one a moment: headline, cut, until, users; choice (`Choice.record`: what was known when choosing);
                  chosen and best: candidates; figures {candidate: {value, low, high}} of what followed; regret, and
                  gain over the popular list, {value, low, high} each; within_noise: whether the regret may be 0;
                  agreement (null with fewer than two candidates or all equal); validation, optimism
        stored    the same of saved models, with model: "layered/3"; candidates that are no longer saved are left out
        summary   of the moments, null where there are none: moments, best and within_noise (how many), regret and gain
                  {value, low, high} over users (each user's mean over the moments), agreement and optimism (means), and
                  fixed {candidate: mean figure}: what serving the same by rule at all moments would have got
        notes     sentences

    Raises MissingInput where there is neither a moment nor a saved model to judge.
    """
    settings = home.settings
    events = signal_events(home, as_of, purpose=MEASURING).select(*NEEDED, IF_CENTRED).collect()
    if not events["item_id"].count():
        raise MissingInput("there are no events with an item, so no choice can be judged", "persona ingest FILE")
    limit = settings.seconds("train.time_limit") if time_limit is None else time_limit
    asked = settings.whole("train.validation_users") if users is None else users
    beside = Beside.of(home, as_of, purpose=MEASURING)
    afford = portfolio(prepare(events, settings, exams.after(events)), settings, limit, described(home))
    moments: list[dict[str, Any]] = []
    frames: list[pl.DataFrame] = []
    notes: list[str] = []
    for exam in _moments(events, settings, cuts, notes):
        try:
            learned = exam.train.select(NEEDED)
            choice = choose(learned, afford.settings, afford.names, tune=True, cuts=afford.cuts, beside=beside)
        except MissingInput as error:
            notes.append(f"nothing could be chosen before {_text(exam.as_of)}: {error.message}")
            continue
        (paper,) = sampled([exam], asked)
        followed = judged(paper, afford.settings, afford.names, choice.further, beside=beside)
        entry, frame = _entry(choice.record() or {}, choice.served, followed)
        moments.append(entry)
        frames.append(frame)
    stored = _stored_choices(home, events, asked, beside)
    if not moments and not stored:
        raise MissingInput(
            "; ".join(["no past choice can be judged", *notes]), "ingest more events, or train and ingest newer ones"
        )
    summary = _summary(moments, frames) if moments else None
    return {"run": run, "metric": METRIC, "moments": moments, "stored": stored, "summary": summary, "notes": notes}


def page(found: Mapping[str, Any]) -> list[str]:
    """The same for people, a line each."""
    lines = [f"How past choices held, by {found['metric']}: chosen with what was known before, judged on what followed"]
    for entry in found["moments"]:
        moment = entry["cut"][:19].replace("T", " ")
        lines += ["", f"before {moment} UTC: {entry['chosen']} of {len(entry['figures'])} candidates", *_lines(entry)]
    for entry in found["stored"]:
        lines += ["", f"{entry['model']}, trained until {entry['cut']}: {entry['chosen']}", *_lines(entry)]
    if summary := found["summary"]:
        of = summary["moments"]
        fixed = ", ".join(f"{name} {value:.4f}" for name, value in summary["fixed"].items())
        lines += [
            "",
            f"at {summary['best']} of {of} moments the best was chosen, at {summary['within_noise']} of {of} the best "
            "or within noise of it",
            f"regret {_ranged(summary['regret'])}; gain over popular {_ranged(summary['gain'])}; "
            f"optimism {summary['optimism']:+.4f}{_agreeing(summary['agreement'])}",
            f"the same at all moments would have got: {fixed}",
        ]
    return [*lines, *(f"note: {note}" for note in found["notes"])]


def agreement(one: Mapping[str, float], other: Mapping[str, float]) -> float | None:
    """Kendall's tau-b of the figures of the candidates in both; None where fewer than two, or where all are equal."""
    names = sorted(one.keys() & other.keys())
    a, b = (np.array([figures[name] for name in names]) for figures in (one, other))
    left, right = (np.sign(values[:, None] - values[None, :]) for values in (a, b))  # (n, n)
    pairs = float(np.sqrt((left**2).sum() * (right**2).sum()))
    return float((left * right).sum()) / pairs if pairs else None


def _moments(events: pl.DataFrame, settings: Settings, cuts: int, notes: list[str]) -> list[Exam]:
    """As many exams, one after the other, as leave something to ask at each; of time wherever there is any.

    Choices may be made within each user's events, where few users go on after any one instant. What follows is the
    future all the same: it asks those who come then, many of them new.
    """
    share, reason = settings.number("evaluate.test_share"), ""
    for number in range(cuts, 0, -1):
        for always in (True, False):
            try:
                found = exams.rolling(events, "time", share, number, always)
            except (BadData, MissingInput) as error:
                reason = error.message
                continue
            if any(exam.split["kind"] != "time" for exam in found):
                notes.append(f"nothing here is the future of all: {found[0].split['reason']}")
            return found
    notes.append(reason)
    return []


def _entry(record: Mapping[str, Any], chosen: str, followed: Judged) -> tuple[dict[str, Any], pl.DataFrame]:
    """What became of one choice; and its regret and gain by user: user_id, regret, gain."""
    means = followed.means()
    best = max(means, key=lambda name: (means[name], name == chosen))
    regret = followed.values(best) - followed.values(chosen)
    gain = followed.values(chosen) - followed.values(POPULAR)
    interval = mean_interval(regret)
    when = _when_chosen(record)
    entry = {
        "headline": followed.headline,
        "cut": _text(followed.cut),
        "until": None if followed.until is None else _text(followed.until),
        "users": followed.figures.height,
        "choice": dict(record),
        "chosen": chosen,
        "best": best,
        "figures": {name: mean_interval(followed.values(name))._asdict() for name in means},
        "regret": interval._asdict(),
        "gain": mean_interval(gain)._asdict(),
        "within_noise": interval.low is None or interval.low <= 0.0,
        "agreement": agreement(when, means),
        "validation": when[chosen],
        "optimism": when[chosen] - means[chosen],
    }
    return entry, followed.figures.select("user_id").with_columns(regret=pl.Series(regret), gain=pl.Series(gain))


def _when_chosen(record: Mapping[str, Any]) -> dict[str, float]:
    """Candidate → mean of its figures at the cuts of a choice."""
    cuts = [one["figures"] for one in record["cuts"]]
    return {name: float(np.mean([figures[name] for figures in cuts])) for name in cuts[0]}


def _summary(moments: list[dict[str, Any]], frames: list[pl.DataFrame]) -> dict[str, Any]:
    together = pooled(frames)
    agreements = [entry["agreement"] for entry in moments if entry["agreement"] is not None]
    names = [name for name in moments[0]["figures"] if ", evidence " not in name]
    names = [name for name in names if all(name in entry["figures"] for entry in moments)]
    return {
        "moments": len(moments),
        "best": sum(entry["best"] == entry["chosen"] for entry in moments),
        "within_noise": sum(entry["within_noise"] for entry in moments),
        "regret": mean_interval(together["regret"].to_numpy())._asdict(),
        "gain": mean_interval(together["gain"].to_numpy())._asdict(),
        "agreement": float(np.mean(agreements)) if agreements else None,
        "optimism": float(np.mean([entry["optimism"] for entry in moments])),
        "fixed": {name: float(np.mean([entry["figures"][name]["value"] for entry in moments])) for name in names},
    }


def _stored_choices(home: Home, events: pl.DataFrame, users: int, beside: Beside) -> list[dict[str, Any]]:
    """Saved layered models that recorded how they were chosen and have events after it, oldest first."""
    found = []
    for version in model_versions(home).get("layered", ()):
        manifest = artifacts.read_manifest(home.path("models", "layered", version))
        if not manifest.get("choice"):
            continue
        saved = registry.load_model(home, f"layered/{version}")
        try:
            exam = exams.by_cut(events, saved.trained_until, saved.reference)
        except MissingInput:
            continue  # nothing has happened since that could be asked about
        followed = _since(home, saved, sampled([exam], users)[0], beside)
        entry, _ = _entry(manifest["choice"], manifest["choice"]["served"], followed)
        found.append({"model": saved.reference, **entry})
    return found


def _since(home: Home, saved: Saved, exam: Exam, beside: Beside) -> Judged:
    """A saved model and the candidates that were saved with it, as they are, on what happened since."""
    settings = saved.recipe(home.settings)
    panel = Panel(exam, settings, beside=beside)
    assert isinstance(saved.model, Layered)
    popular: Popular = saved.model.popular
    rule = Layered.from_settings(home.settings)
    cohort = None if rule.cohort is None else saved.model.cohort
    figures = {POPULAR: panel.values(popular)}
    for name, reference in sorted(dict(saved.manifest.get("candidates", {})).items()):
        try:
            model = registry.load_model(home, reference).model
        except (BadData, MissingInput):
            continue  # an old version that was removed
        made = Layered(popular, model, rule.evidence, cohort, rule.cohort_evidence, rule.few_users)
        figures[around(name)] = panel.values(made.joined())
    figures[str(saved.manifest["choice"]["served"])] = panel.values(saved.model)
    return panel.judged(figures)


def _lines(entry: Mapping[str, Any]) -> list[str]:
    figures = entry["figures"]
    after = f"{entry['chosen']} {_ranged(figures[entry['chosen']])}"
    if entry["best"] == entry["chosen"]:
        verdict = "the best"
    else:
        noise = ", within noise" if entry["within_noise"] else ""
        verdict = (
            f"best {entry['best']} {figures[entry['best']]['value']:.4f}, regret {_ranged(entry['regret'])}{noise}"
        )
    return [
        f"  {entry['users']:,} users since: {after}; {verdict}; popular {figures[POPULAR]['value']:.4f}",
        f"  when chosen {entry['validation']:.4f}: optimism {entry['optimism']:+.4f}{_agreeing(entry['agreement'])}",
    ]


def _agreeing(tau: float | None) -> str:
    return "" if tau is None else f"; ranks agree {tau:.2f} (Kendall)"


def _ranged(figure: Mapping[str, float | None]) -> str:
    if figure["low"] is None or figure["high"] is None:
        return f"{figure['value']:.4f}"
    return f"{figure['value']:.4f} ({figure['low']:.4f} to {figure['high']:.4f})"


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
