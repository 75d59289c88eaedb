"""The verbs of the command line for a notebook or a program: polars frames and plain dataclasses out.

shop = Workspace.create("shop"); shop.ingest("events/*.jsonl.gz"); shop.train(); shop.recommend(top=10)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persona_cli.experiments.api import Serving
from persona_cli.feedback.api import Decisions
from persona_cli.privacy.api import Privacy
from persona_cli.serving.api import Explaining
from persona_cli.workspace import home as homes
from persona_cli.workspace import locks, runs
from persona_cli.workspace.home import Home
from persona_cli.workspace.setting import moment_of

if TYPE_CHECKING:
    import polars as pl

    from persona_cli.evaluation.document import Evaluation
    from persona_cli.events.dedupe import Policy
    from persona_cli.events.ingest import Progress, Report
    from persona_cli.events.opening import Format
    from persona_cli.events.retry import Retried
    from persona_cli.events.schema import Kind
    from persona_cli.feedback.strengths import Learned
    from persona_cli.feedback.training import TrainReport
    from persona_cli.profiles.sync import Synced

Moment = str | date | datetime | None


class Workspace(Serving, Explaining):
    """An existing workspace: the folder named, else $PERSONA_WORKSPACE, else the nearest; MissingInput without one."""

    def __init__(self, path: str | Path | None = None) -> None:
        self.home: Home = homes.locate(path)

    @classmethod
    def of(cls, home: Home) -> Workspace:
        """The workspace of a `Home` that is open already."""
        made = cls.__new__(cls)
        made.home = home
        return made

    @classmethod
    def create(cls, path: str | Path) -> Workspace:
        """Make the folder a workspace; one that is there stays as it is."""
        return cls.of(homes.create(Path(path).expanduser()))

    @classmethod
    def find_or_create(cls, path: str | Path | None = None) -> Workspace:
        """As `Workspace(path)`, but where none is named and none is found, ./persona-workspace is created."""
        return cls.of(homes.find_or_create(path))

    def __repr__(self) -> str:
        return f"Workspace({str(self.home.root)!r})"

    @property
    def privacy(self) -> Privacy:
        """What protects the people in the data: requests, access, preferences and more."""
        return Privacy(self.home)

    @property
    def decisions(self) -> Decisions:
        """What was served, and what became of it."""
        return Decisions(self.home)

    def ingest(
        self,
        *inputs: str | Path,
        kind: Kind = "events",
        maps: Sequence[str] = (),
        format: Format | None = None,
        dialect: str = "auto",
        max_rejected: float | None = None,
        on_duplicate: Policy | None = None,
        replace: bool = False,
        wait: float = 0.0,
        profiles: bool = True,
        progress: Progress | None = None,
        words: Sequence[str] | None = None,
    ) -> Report:
        """Read files of events or of a catalogue, and bring the profiles up to date (unless `profiles` is False).

        `words` is the command as the run manifest names it. Raises what `events.ingest.ingest` raises.
        """
        from persona_cli.events.ingest import ingest

        names = [str(name) for name in inputs]
        with (
            runs.recording(self.home, words or ["ingest", *names]) as run,
            locks.hold(self.home, "tables", "ingest", wait),
        ):
            report = ingest(
                self.home, names, kind=kind, maps=maps, format=format, dialect=dialect, max_rejected=max_rejected,
                on_duplicate=on_duplicate, replace=replace, progress=progress, run=run.id,
            )  # fmt: skip
            counted = ("read", "accepted", "duplicates", "rejected", "dropped", "replaced", "users", "items", "version")
            run.counts = {name: getattr(report, name) for name in counted}
            run.counts |= {"removed": report.removed, "bots": report.bots, "withdrawn": report.withdrawn}
            run.counts["ingested_at"] = report.ingested_at.isoformat()
            if profiles and kind == "events":
                self.sync()  # also after nothing new: the run before may have been killed before it got here
            return self.privacy.spread(report)

    def dialects(self) -> pl.DataFrame:
        """What `ingest` can read besides native files: dialect, kinds, formats, about."""
        import polars as pl

        from persona_cli.events.dialects import overview

        return pl.DataFrame(overview(self.home.settings))

    def undo(self, run: str = "latest", *, wait: float = 0.0, profiles: bool = True, words: Sequence[str] = ()) -> int:
        """Take back what an ingest added and took away (`replace`); answers how many rows left or came back."""
        from persona_cli.events.undo import find, undo

        full = find(self.home, run)
        with (
            runs.recording(self.home, words or ["ingest", "undo", full]) as record,
            locks.hold(self.home, "tables", "ingest undo", wait),
        ):
            removed = undo(self.home, full)
            record.counts = {"undone": full, "removed": removed}
            if profiles and removed:
                self.sync()
        return removed

    def retry(
        self,
        *,
        maps: Sequence[str] = (),
        dialect: str | None = None,
        where: dict[str, str | None] | None = None,
        wait: float = 0.0,
        profiles: bool = True,
        words: Sequence[str] = (),
    ) -> Retried:
        """Judge quarantined lines again by the rules of now; what passes is taken in and leaves the quarantine."""
        from persona_cli.events.retry import retry

        with (
            runs.recording(self.home, words or ["quarantine", "retry"]) as run,
            locks.hold(self.home, "tables", "quarantine retry", wait),
        ):
            done = retry(self.home, maps=maps, dialect=dialect, where=where, run=run.id)
            run.counts = {name: value for name, value in vars(done).items() if isinstance(value, int)}
            if profiles and done.accepted:
                self.sync()
        return done

    def quarantine(self, by: Sequence[str] = ("run", "source", "reason")) -> pl.DataFrame:
        """How many rejected lines are kept for each combination of `by`, with `first_line`, newest and most first."""
        from persona_cli.events.quarantine import groups

        return groups(self.home, by)

    def rejected(self, **where: str | None) -> pl.DataFrame:
        """The rejected lines themselves: run, kind, source, line, offset, reason, raw (bytes), rejected_at."""
        from persona_cli.events.quarantine import lines

        return lines(self.home, where).collect()

    def events(self, as_of: Moment = None, known_at: Moment = None) -> pl.LazyFrame:
        """Stored events before `as_of` that were ingested until `known_at`, of those whom analytics cover."""
        from persona_cli.profiles.permitted import ANALYTICS, stored_events

        return stored_events(self.home, moment_of(as_of), moment_of(known_at), purpose=ANALYTICS)

    def catalogue(self, kind: Kind, as_of: Moment = None) -> pl.DataFrame:
        """Items, users or accounts as they are at `as_of`: one row an id, sorted by id."""
        from persona_cli.events.catalogue import current
        from persona_cli.profiles.permitted import ANALYTICS, allowed

        rows = current(self.home, kind, moment_of(as_of))
        return allowed(self.home, ANALYTICS, rows["user_id"]).rows(rows) if kind == "users" else rows

    def sync(self, rebuild: bool = False) -> Synced:
        """Bring the profiles up to date with the events; `ingest` and `undo` do it by themselves."""
        from persona_cli.profiles.sync import sync

        return sync(self.home, rebuild)

    def profiles(self, as_of: Moment = None, known_at: Moment = None) -> pl.LazyFrame:
        """One row a user with derived columns and features; as of `as_of`, by what was ingested until `known_at`."""
        from persona_cli.profiles.people import people

        return people(self.home, moment_of(as_of), moment_of(known_at), purpose="analytics").lazy()

    def profile(self, user: str, as_of: Moment = None, known_at: Moment = None) -> dict[str, Any]:
        """What is known of one user, by the events before `as_of` that were ingested until `known_at`."""
        from persona_cli.profiles.people import person
        from persona_cli.serving.layer_weights import layers_of

        moments = moment_of(as_of), moment_of(known_at)
        return person(self.home, user, moments[0], known_at=moments[1], purpose="analytics", layers=layers_of)

    def profile_diff(self, user: str, since: Moment, until: Moment = None, known_at: Moment = None) -> dict[str, Any]:
        """What changed in one user's profile between two moments (`until` None: now); see `profiles.people`."""
        from persona_cli.profiles.people import difference

        return difference(self.home, user, moment_of(since), moment_of(until), moment_of(known_at))

    def segments(self, as_of: Moment = None) -> pl.DataFrame:
        """One row a segment of persona.toml: segment, when, users, share (null below 20 users)."""
        from persona_cli.profiles.people import sizes

        return sizes(self.home, moment_of(as_of))

    def members(self, name: str | None = None, when: str | None = None, as_of: Moment = None) -> pl.Series:
        """The ids of a segment's users, or of those who meet a condition, sorted."""
        from persona_cli.profiles.people import members

        return members(self.home, name, when, moment_of(as_of), purpose="analytics")

    def history(self, as_of: Moment = None) -> pl.DataFrame:
        """Strength of each user, item and day (thousandths), sorted."""
        from persona_cli.profiles.history import history

        return history(self.home, moment_of(as_of), purpose="analytics")

    def sql(self, query: str) -> pl.DataFrame:
        """The answer to one SELECT over the workspace's tables."""
        from persona_cli.profiles.views import ask

        return ask(self.home, query)

    def train(
        self,
        *models: str,
        settings: Mapping[str, Any] | None = None,
        time_limit: float | None = None,
        as_of: Moment = None,
        wait: float = 0.0,
        words: Sequence[str] | None = None,
    ) -> TrainReport:
        """Train the models named, or what fits `time_limit` (seconds), and serve the best; see `feedback.training`."""
        from persona_cli.feedback.training import train

        with runs.recording(self.home, words or ["train", *models]) as run:
            report = train(self.home, models, settings or {}, time_limit, moment_of(as_of), wait)
            run.counts |= {n: getattr(report, n) for n in ("users", "items", "events", "latest", "skipped")}
            run.counts["models"] = [f"{one.model}/{one.version}" for one in report.models]
        return report

    def strengths(
        self,
        target: str | None = None,
        *,
        model: str = "knn",
        settings: Mapping[str, Any] | None = None,
        as_of: Moment = None,
        words: Sequence[str] | None = None,
    ) -> Learned:
        """Learn what each event type says about a wish for the `target`; nothing changes. See `feedback.strengths`."""
        from persona_cli.feedback.strengths import learn

        with runs.recording(self.home, words or ["strengths"]) as run:
            found = learn(self.home, target, model, settings, moment_of(as_of))
            run.counts |= {"users": found.users, "cuts": len(found.cuts), "target": found.target}
            run.counts["changed"] = [one.event_type for one in (*found.signals, found.half_life) if one.changed]
        return found

    def models(self) -> pl.DataFrame:
        """One row a trained version."""
        import polars as pl

        from persona_cli.models.registry import list_models

        return pl.DataFrame([one | {"settings": str(one["settings"])} for one in list_models(self.home)])

    def evaluate(
        self,
        *models: str,
        split: str | None = None,
        settings: Mapping[str, Any] | None = None,
        k: Sequence[int] | None = None,
        test: str | Path | None = None,
        cuts: int = 1,
        slices: Sequence[str] = (),
        compat: Sequence[str] = (),
        inflation: bool = False,
        holdout: bool = False,
        refit: bool = True,
        as_of: Moment = None,
        words: Sequence[str] | None = None,
    ) -> Evaluation:
        """Score models on what they have not seen; `.result` is the JSON document, `.per_user` a frame.

        See `evaluation.evaluate.evaluate`. `.leaks` says what the lists could only know from later, if anything.
        """
        from persona_cli.evaluation.evaluate import evaluate
        from persona_cli.workspace.artifacts import file_digest

        with runs.recording(self.home, words or ["evaluate", *models]) as run:
            if test is not None and Path(test).is_file():
                run.inputs[str(test)] = file_digest(Path(test))
            done = evaluate(
                self.home,
                run.id,
                split=split,
                models=models,
                overrides=settings,
                ks=k,
                test=None if test is None else str(test),
                cuts=cuts,
                slices=slices,
                compat=compat,
                inflation=inflation,
                holdout=holdout,
                refit=refit,
                as_of=moment_of(as_of),
            )
            run.counts |= {name: done.result[name] for name in ("users", "test_pairs", "items", "train_events")}
            run.outputs |= done.files or {}
        return done

    def evaluate_lists(
        self,
        lists: Sequence[str | Path],
        test: str | Path,
        *,
        k: Sequence[int] | None = None,
        slices: Sequence[str] = (),
        compat: Sequence[str] = (),
        as_of: Moment = None,
        words: Sequence[str] | None = None,
    ) -> Evaluation:
        """Score lists from files, anybody's, against the pairs of `test`; see `evaluation.given.evaluate_lists`."""
        from persona_cli.evaluation.given import evaluate_lists
        from persona_cli.workspace.artifacts import file_digest

        names = [str(name) for name in lists]
        with runs.recording(self.home, words or ["evaluate", "--from", *names, "--test", str(test)]) as run:
            run.inputs |= {name: file_digest(Path(name)) for name in (*names, str(test)) if Path(name).is_file()}
            done = evaluate_lists(
                self.home, run.id, names, str(test), ks=k, slices=slices, compat=compat, as_of=moment_of(as_of)
            )
            run.counts |= {name: done.result[name] for name in ("users", "test_pairs", "items")}
            run.outputs |= done.files or {}
        return done

    def similar(self, item: str | None = None, *, top: int | None = None, model: str | None = None) -> pl.DataFrame:
        """The items that go with `item`, or with every item: item_id, rank, similar_id, score."""
        from persona_cli.serving.similar import similar

        return similar(self.home, item, top=top, model=model)

    def score(self, pairs: pl.DataFrame, *, model: str | None = None, as_of: Moment = None) -> pl.DataFrame:
        """`pairs` (user_id, item_id, …) with a column `score`, rows and order kept."""
        from persona_cli.serving.similar import score

        return score(self.home, pairs, model=model, as_of=moment_of(as_of))
