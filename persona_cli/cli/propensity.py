"""What `persona train` and `persona score` do with --model propensity: chances of what users will do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona_cli.cli.common import (
    emit_json,
    invocation,
    locate_home,
    render,
    say,
)
from persona_cli.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from persona_cli.feedback.propensity import PropensityReport

NAME = "propensity"
EventOption = Annotated[
    str | None,
    typer.Option(
        "--event",
        metavar="TYPE",
        help="With --model propensity: upgrade, rating>=4, churn (no event at all) or none:TYPE.",
    ),
]
WithinOption = Annotated[
    str | None,
    typer.Option("--within", metavar="TIME", help="With --model propensity: how far ahead, such as 30d (the default)."),
]


def is_asked(models: Sequence[str], *options: str | None) -> bool:
    """Whether the models named are propensity alone; UsageError for it beside others, and for its options without."""
    named = [model for model in models if model.partition("/")[0] == NAME]
    if named and len(models) > 1:
        raise UsageError("--model propensity makes no lists and is trained by itself", "leave the other --model out")
    if not named and any(option is not None for option in options):
        raise UsageError("--event and --within belong to --model propensity", "persona train --model propensity")
    return bool(named)


def train_chances(
    event: str | None, within: str | None, other: Sequence[Any], as_of: str | None, as_json: bool, wait: float
) -> None:
    """`other`: --set and --time-limit, which do not apply."""
    from persona_cli.feedback.propensity import horizon_of, train_propensity
    from persona_cli.workspace.runs import recording
    from persona_cli.workspace.setting import moment_of

    if event is None:
        raise UsageError(
            "--model propensity needs to know of what: --event is missing",
            "persona train --model propensity --event churn --within 30d",
        )
    if any(other):
        raise UsageError("--set and --time-limit do not apply to --model propensity")
    home, horizon = locate_home(), horizon_of(within or "30d")
    with recording(home, invocation.words) as run:
        report = train_propensity(home, event, horizon, moment_of(as_of), wait)
        run.counts |= {name: report.test[name] for name in ("users", "positives")}
    if as_json:
        emit_json(vars(report))
        return
    render([_row(report)])
    say(f"forecast of the last {report.within_days:g} days, by what was known before; {report.why}")


def score_chances(file: str | None, model: str | None, as_of: str | None) -> pl.DataFrame:
    """user_id and score: chances of the users in `file`, in their order, else of everyone."""
    from persona_cli.events.lists import read_ids
    from persona_cli.feedback.propensity import score_propensity
    from persona_cli.workspace.runs import recording
    from persona_cli.workspace.setting import moment_of

    home = locate_home()
    with recording(home, invocation.words) as run:
        users = None if file is None else read_ids(file, ["user_id"])["user_id"]
        scored = score_propensity(home, model, users, moment_of(as_of))
        run.counts |= {"users": scored.height, "without_score": scored["score"].null_count()}
    return scored


def _row(report: PropensityReport) -> dict[str, Any]:
    test = report.test
    shown = {name: None if test[name] is None else round(test[name], 4) for name in ("base_rate", "auc", "log_loss")}
    of_calibration = {name: None if test[name] is None else round(test[name], 3) for name in ("ece", "slope")}
    return {
        "model": report.model,
        "event": report.event,
        "users": test["users"],
        "positives": test["positives"],
        **shown,
        "of base rate": round(test["log_loss_of_base_rate"], 4),
        **of_calibration,
        "by": f"{report.algorithm}, {report.calibration}",
    }
