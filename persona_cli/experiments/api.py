"""`Workspace.recommend`, `Workspace.decide` and `Workspace.experiments`: what is served, and what is tried with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from persona_cli.experiments import any_there
from persona_cli.workspace import runs
from persona_cli.workspace.home import Home
from persona_cli.workspace.setting import moment_of

if TYPE_CHECKING:
    import polars as pl

    from persona_cli.experiments.running import Experiment


class Experiments:
    """The experiments of a workspace: start, list, look at and stop them."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def start(self, name: str, variants: Sequence[str], **how: Any) -> Experiment:
        """Begin one with variants such as "a=latest", "b=ease"; `how` as `experiments.running.start` has it."""
        from persona_cli.experiments.running import start

        with runs.recording(self.home, ["experiment", "start", name]):
            return start(self.home, name, variants, **how)

    def list(self) -> list[Experiment]:
        """All there are, sorted by name."""
        from persona_cli.experiments.running import load, names

        return [load(self.home, name) for name in names(self.home)]

    def show(self, name: str) -> dict[str, Any]:
        """What it compares, people by variant, crossovers, and whether the shares are those planned."""
        from persona_cli.experiments.running import load
        from persona_cli.experiments.standing import state

        return state(self.home, load(self.home, name))

    def assign(self, name: str, users: Sequence[str] | pl.Series) -> pl.DataFrame:
        """user_id, variant (null: in none) and share of each of `users`."""
        from persona_cli.experiments.applied import members

        return members(self.home, name, users)

    def crossovers(self, name: str) -> pl.DataFrame:
        """People seen in more than one variant: user_id, variants, first_at, decisions, after_drop."""
        from persona_cli.experiments.standing import crossovers

        return crossovers(self.home, name)

    def update(
        self, name: str, *, ramp: float | None = None, drop: Sequence[str] = (), days: float | None = None
    ) -> Experiment:
        """Enrol more people, drop variants, and let a bandit allocate anew by what came of people `days` ago."""
        from persona_cli.experiments.standing import update

        with runs.recording(self.home, ["experiment", "update", name]):
            return update(self.home, name, ramp=ramp, drop=drop, days=days)[0]

    def stop(self, name: str) -> Experiment:
        """End it: from now on nobody is in it."""
        from persona_cli.experiments.running import stop

        with runs.recording(self.home, ["experiment", "stop", name]):
            return stop(self.home, name)


class Serving:
    """What `Workspace` serves, by the experiments that run."""

    home: Home

    @property
    def experiments(self) -> Experiments:
        """Variants that are tried on parts of the people."""
        return Experiments(self.home)

    def recommend(
        self,
        users: Sequence[str] | pl.Series | None = None,
        *,
        segment: str | None = None,
        candidates: Sequence[str] | pl.Series | pl.DataFrame | None = None,
        top: int | None = None,
        model: str | None = None,
        as_of: str | date | datetime | None = None,
        context: Mapping[str, str] | None = None,
        explain: bool = False,
        include_holdout: bool = False,
        log: bool = False,
        experiments: bool = True,
        interleave: str | None = None,
    ) -> pl.DataFrame:
        """One row a list entry: user_id, rank, item_id, score, model, base, stage, holdout; see `serving.recommend`.

        `candidates`: items to rank, or a frame of pairs (user_id, item_id). `log`: and decision_id; not with `as_of`.
        Where an experiment runs, and `experiments` is not False: and variant, share. `interleave` names one whose two
        lists are merged: and team.
        """
        import polars as pl

        from persona_cli.feedback.decisions import serving
        from persona_cli.serving.writing import flat

        asked = None if users is None else pl.Series("user_id", users, dtype=pl.String)
        only = candidates
        if not (only is None or isinstance(only, pl.DataFrame)):
            only = pl.Series("item_id", only, dtype=pl.String)
        with runs.recording(self.home, ["recommend"]) as run, serving(self.home, run, log, as_of is not None) as served:
            given: dict[str, Any] = {
                "users": asked, "segment": segment, "candidates": only, "top": top, "model": model,
                "as_of": moment_of(as_of), "context": context, "explain": explain, "include_holdout": include_holdout,
            }  # fmt: skip
            if any_there(self.home) or interleave is not None:
                from persona_cli.experiments.applied import recommend as tried

                made = tried(self.home, experiments=experiments, interleave=interleave, **given)
            else:
                from persona_cli.serving.recommend import recommend

                made = recommend(self.home, **given)
            run.counts = {"users": made.users, "holdout": made.holdout, "model": made.model}
            with served(made.blocks, made.context) as blocks:
                return pl.concat([flat(block) for block in blocks])

    def decide(
        self,
        surface: str,
        users: Sequence[str] | pl.Series | None = None,
        *,
        segment: str | None = None,
        context: Mapping[str, str] | None = None,
        as_of: str | date | datetime | None = None,
        dry_run: bool = False,
        explain: bool = False,
        experiments: bool = True,
        wait: float = 0.0,
    ) -> pl.DataFrame:
        """One row a user: decision_id, user_id, surface, items | config | choice, policy, …; see `feedback.deciding`.

        Where an experiment runs on the surface, and `experiments` is not False: and variant.
        """
        import polars as pl

        from persona_cli.feedback.deciding import decide

        asked = None if users is None else pl.Series("user_id", users, dtype=pl.String)
        with runs.recording(self.home, ["decide", surface]) as run:
            deciding = None
            if experiments and as_of is None and any_there(self.home):
                from persona_cli.experiments.applied import deciding_on

                deciding = deciding_on(self.home, surface)
            made = decide(
                self.home, surface, run, users=asked, segment=segment, context=context, as_of=moment_of(as_of),
                dry_run=dry_run, explain=explain, wait=wait, deciding=deciding,
            )  # fmt: skip
        return made.rows
