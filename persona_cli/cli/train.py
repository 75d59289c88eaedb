"""Commands: train and model: from history to models, and what was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona_cli.cli.common import (
    AsOfOption,
    FormatOption,
    JsonOption,
    OutOption,
    SetOption,
    WaitOption,
    chosen_format,
    command,
    emit_json,
    group,
    invocation,
    locate_home,
    pairs,
    render,
    say,
    warn,
)
from persona_cli.cli.propensity import EventOption, WithinOption, is_asked, train_chances
from persona_cli.errors import UsageError

if TYPE_CHECKING:
    from persona_cli.feedback.training import TrainReport


_WIDEST = 80  # characters of settings in the table of models


def register(app: typer.Typer) -> None:
    command(app, train, panel="Models", everyday=True)
    models = group(app, "model", "Trained models.", panel="Models")
    command(models, model_list, name="list")
    command(models, model_show, name="show")


def train(
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", metavar="NAME", help="popular, knn, ease or layered; may repeat."),
    ] = None,
    settings: SetOption = None,
    time_limit: Annotated[
        str | None,
        typer.Option("--time-limit", metavar="TIME", help="What may be spent without --model: 90s, 5m, 1h30m."),
    ] = None,
    event: EventOption = None,
    within: WithinOption = None,
    as_of: AsOfOption = None,
    as_json: JsonOption = False,
    wait: WaitOption = 0,
) -> None:
    """Train models on everything ingested and serve the best.

    Without a name, the models that fit the time limit are compared on the latest fifth of the events (a simpler one
    stays unless another is clearly better), trained again on everything and saved; recommend then serves the layered
    model around the best. With names, these are trained by rule or by --set, without a comparison where there is one,
    and what is served is layered around them. The same events and settings make the same files and no new version.

    Examples:
    persona train
    persona train --time-limit 15m
    persona train --model ease --set lambda=300
    persona train --model knn --model ease --as-of 2026-03-01
    persona train --model propensity --event churn --within 30d
    """
    if is_asked(model or (), event, within):
        train_chances(event, within, (settings, time_limit), as_of, as_json, wait)
        return
    from persona_cli.api import Workspace
    from persona_cli.workspace.setting import seconds

    try:
        limit = None if time_limit is None else seconds(time_limit)
    except ValueError as error:
        raise UsageError(f"--time-limit is {time_limit!r}; expected {error}") from error
    report = Workspace.of(locate_home()).train(
        *(model or ()), settings=pairs(settings), time_limit=limit, as_of=as_of, wait=wait, words=invocation.words
    )
    for name, reason in report.skipped.items():
        warn(f"{name} was not trained: {reason}")
    if as_json:
        emit_json(_document(report))
    else:
        render(_rows(report))
        if report.headline:
            say(report.headline)
        say(f"served: {report.latest} ({report.why})")


def _document(report: TrainReport) -> dict[str, Any]:
    return {
        "models": [vars(one) for one in report.models],
        "latest": report.latest,
        "why": report.why,
        "skipped": report.skipped,
        "users": report.users,
        "items": report.items,
        "events": report.events,
        "split": report.headline,
    }


def _rows(report: TrainReport) -> list[dict[str, Any]]:
    rows = []
    for one in report.models:
        figure = one.validation or {}
        value, low, high = (figure.get(name) for name in ("value", "low", "high"))
        interval = "" if low is None or high is None else f"{low:.4f} – {high:.4f}"
        shown = None if value is None else round(value, 4)
        rows.append(
            {
                "model": f"{one.model}/{one.version}",
                "seconds": round(one.seconds, 1),
                "NDCG@20": shown,
                "95 % interval": interval,
                "served": "yes" if f"{one.model}/{one.version}" == report.latest else "",
            }
        )
    return rows


def model_list(format: FormatOption = None, as_json: JsonOption = False, out: OutOption = None) -> None:
    """List every trained version: until when it was trained, what is inside, which one is served.

    Examples:
    persona model list
    persona model list --json
    """
    from persona_cli.models.registry import list_models

    chosen = chosen_format(format, as_json)
    records = list_models(locate_home())
    if not records and chosen == "table":
        say("no models yet; the next step is: persona train")
        return
    if chosen in ("table", "md"):
        records = [
            record | {"parts": " ".join(record["parts"]), "settings": _shown(record["settings"])} for record in records
        ]
    render(records, chosen, out)


def _shown(settings: dict[str, Any]) -> str:
    """The first settings on a line; `persona model show` has all of them."""
    short = {key: f"{value:.5g}" if isinstance(value, float) else str(value) for key, value in settings.items()}
    text = ", ".join(f"{key}={value}" for key, value in short.items())
    return text if len(text) <= _WIDEST else text[: _WIDEST - 2] + " …"


def model_show(
    model: Annotated[
        str | None, typer.Argument(metavar="NAME[/V]", help="ease, or ease/3; default: what is served.")
    ] = None,
    out: OutOption = None,
) -> None:
    """Show the manifest of a model: settings, recipe, parts, until when it was trained, its files.

    Examples:
    persona model show
    persona model show ease/3
    """
    from persona_cli.models.registry import find
    from persona_cli.workspace.artifacts import read_manifest

    emit_json(read_manifest(find(locate_home(), model)), out)
