"""How well what `persona train` chooses holds on the future of real logs: chosen on the past, judged on what followed.

    python benchmarks/choosing.py [--sets NAME,NAME] [--time-limit 5m] [--give-up 10m] [--users 10000] [--folder DIR]

Sets with times are cut where 70, 80 and 90 % of the events have happened. At each moment the choice is made as `train`
makes it, with the events before it alone; then everything that was raced is fitted on these events and asked about all
that followed until the next moment, whoever it was about. Sets that come as train and test pairs have one moment: the
choice is made within the train pairs and judged on the test pairs. Prints Markdown: a row a set, each user's mean over
the moments, and a row a moment.

    regret   (best - chosen) / best, of NDCG@20. The best is found on the same users, so it is partly luck, and a regret
             is too large rather than too small; it is noise where the paired 95 % interval of best - chosen holds 0

Seconds and processor seconds are those of the choices alone, peak memory is that of the process that chooses and
judges. A set that is not done after --give-up is left there, with the moments it has. The sets are looked for as
convert.py does, and are not part of the project.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import convert
import polars as pl
from real_logs import PERSONA, run

from persona_cli.evaluation import exams, splits
from persona_cli.evaluation.exams import Exam
from persona_cli.evaluation.intervals import Interval, mean_interval, paired_difference
from persona_cli.evaluation.judging import Beside
from persona_cli.evaluation.rolling import pooled
from persona_cli.feedback.candidates import METRIC, POPULAR, judged, portfolio, sampled
from persona_cli.feedback.choosing import NEEDED, choose
from persona_cli.models.preparing import prepare
from persona_cli.profiles.history import signal_events
from persona_cli.workspace import home as homes
from persona_cli.workspace.setting import seconds

TESTED, MOMENTS = 0.3, 3
"""The last 30 % of the events in 3 windows: moments at 70, 80 and 90 %."""


class Held(NamedTuple):
    """What became of one choice."""

    moment: str
    """The instant of the choice."""
    chosen: str
    why: str
    """What was found when choosing."""
    figures: pl.DataFrame
    """user_id and the NDCG@20 of every candidate in what followed."""
    skipped: tuple[str, ...]
    """Models that the time did not allow."""
    seconds: float
    """Time of the choice."""
    processor: float
    """Processor seconds of the choice, over all threads."""
    mebibytes: float
    """Peak memory so far of the process."""


def ml_latest_small(data: Path, target: Path) -> None:
    """Ratings of half stars with times, over 22 years."""
    pl.read_parquet(data / "events.parquet").select(
        pl.col("user").cast(pl.String).alias("user_id"),
        pl.lit("rating").alias("event_type"),
        pl.col("item").cast(pl.String).alias("item_id"),
        pl.from_epoch("timestamp", "s").dt.strftime("%Y-%m-%dT%H:%M:%SZ").alias("timestamp"),
        pl.col("rating").cast(pl.Float64).alias("value"),
    ).write_ndjson(target / "events.jsonl")


TIMED = ("ml-100k", "ml-latest-small", "taobao", "online-retail-2010")
PAIRS = ("ml-1m-ultragcn", "gowalla", "yelp2018")  # all of the form that gowalla has
convert.SETS.update({"ml-latest-small": ml_latest_small} | dict.fromkeys(PAIRS, convert.gowalla))


def ingested(name: str, folder: Path) -> Path:
    """A fresh workspace with the events of a set and, where it has one, its catalogue."""
    files, workspace = convert.convert(name, folder), folder / f"workspace-{name}"
    shutil.rmtree(workspace, ignore_errors=True)
    subprocess.run([*PERSONA, "init", "--quiet", str(workspace)], check=True)
    for kind in ("events", "items"):
        for path in sorted(files.glob(f"{kind}.*")):
            run(workspace, "ingest", str(path), "--kind", kind, "--max-rejected", "1.0", "--json")
    return workspace


def moments(events: pl.DataFrame, test: Path | None) -> Iterator[Exam]:
    """What is asked about the future: the windows after each moment, or the pairs of the file."""
    if test is not None:
        yield exams.by_pairs(events, pl.read_csv(test, schema_overrides=[pl.String, pl.String]), str(test))
        return
    for split in splits.rolling_time(events, TESTED, MOMENTS):
        assert split.cut is not None
        until = events if split.end is None else events.filter(pl.col("timestamp") < split.end)
        yield exams.by_cut(until, split.cut, "what is chosen")


def held(workspace: Path, test: Path | None, time_limit: float | None, users: int) -> Iterator[Held]:
    """The choice at each moment, as `persona train` makes it, and what followed; at most `users` people are asked."""
    home = homes.locate(workspace)
    settings, beside = home.settings, Beside.of(home)
    limit = settings.seconds("train.time_limit") if time_limit is None else time_limit
    for exam in moments(signal_events(home).select(NEEDED).collect(), test):
        began, worked = time.monotonic(), time.process_time()
        past = exam.train.select(NEEDED)
        catalogue = beside.items(exam)
        afford = portfolio(prepare(past, settings, exam.as_of, catalogue=catalogue), settings, limit, catalogue)
        choice = choose(past, afford.settings, afford.names, tune=True, cuts=afford.cuts, beside=beside)
        spent, worked = time.monotonic() - began, time.process_time() - worked
        (asked,) = sampled([exam], users)
        followed = judged(asked, afford.settings, afford.names, choice.further, beside=beside)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        moment = "train pairs" if test is not None else f"{exam.as_of:%Y-%m-%d %H:%M}"
        yield Held(moment, choice.served, choice.why, followed.figures, tuple(afford.skipped), spent, worked, peak)


def _send(to: Connection, workspace: Path, test: Path | None, time_limit: float | None, users: int) -> None:
    for one in held(workspace, test, time_limit, users):
        to.send(one)
    to.send(None)


def within(give_up: float, workspace: Path, test: Path | None, time_limit: float | None, users: int) -> list[Held]:
    """The moments that a process of its own is done with after `give_up` seconds."""
    spawn = get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_send, args=(theirs, workspace, test, time_limit, users), daemon=True)
    process.start()
    theirs.close()
    until, done = time.monotonic() + give_up, list[Held]()
    try:
        while ours.poll(max(until - time.monotonic(), 0.0)) and (one := ours.recv()) is not None:
            done.append(one)
    except EOFError:
        print(f"{workspace.name}: failed, see above", file=sys.stderr)
    process.terminate()
    process.join()
    return done


def best_of(one: Held) -> str:
    """The best candidate in hindsight; the one chosen, where it is as good."""
    means = {name: float(one.figures[name].to_numpy().mean()) for name in one.figures.columns[1:]}
    return max(means, key=lambda name: (means[name], name == one.chosen))


def by_user(done: Sequence[Held]) -> pl.DataFrame:
    """user_id, chosen, best, popular: NDCG@20, each user's mean over the moments; the best is that of each moment."""
    return pooled(
        [
            one.figures.select("user_id", chosen=one.chosen, best=best_of(one), popular=POPULAR).with_columns(
                pl.exclude("user_id").cast(pl.Float64)
            )
            for one in done
        ]
    )


def cells(done: Sequence[Held]) -> list[str]:
    """Users, figure of what was chosen, its gain over the popular list, figure of the best, regret."""
    users = by_user(done)
    chosen, best, popular = (users[name].to_numpy() for name in ("chosen", "best", "popular"))
    gain, top = paired_difference(chosen, popular), float(best.mean())
    regret = 100 * float((best - chosen).mean()) / top if top else 0.0
    return [f"{users.height:,}", _ranged(mean_interval(chosen)), _ranged(gain, "+"), f"{top:.4f}", f"{regret:.1f} %"]


def noise(one: Held) -> bool:
    """Whether what was chosen may be as good as the best."""
    low = paired_difference(one.figures[best_of(one)].to_numpy(), one.figures[one.chosen].to_numpy()).low
    return low is None or low <= 0.0


def _ranged(figure: Interval, sign: str = "") -> str:
    if figure.low is None or figure.high is None:
        return f"{figure.value:{sign}.4f}"
    return f"{figure.value:{sign}.4f} ({figure.low:{sign}.4f} to {figure.high:{sign}.4f})"


def _short(name: str) -> str:
    return name.removeprefix("layered around ").replace(", evidence", " evidence")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print()


def report(found: Mapping[str, Sequence[Held]], give_up: float) -> None:
    """Print both tables, and under them the figure of every candidate at every moment."""
    figures = ["users", f"chosen: {METRIC}", "gain over popular", "best in hindsight", "regret", "within noise"]
    sets, each, notes = [], [], []
    for name, done in found.items():
        if len(done) < (wanted := MOMENTS if name in TIMED else 1):
            notes.append(f"- {name}: {len(done)} of {wanted} moments done after {give_up:.0f} s, then given up")
        if not done:
            continue
        raced = str(max(one.figures.width - 1 for one in done))
        chosen = ", ".join(dict.fromkeys(_short(one.chosen) for one in done))
        best = ", ".join(dict.fromkeys(_short(best_of(one)) for one in done))
        near = f"{sum(map(noise, done))} of {len(done)}"
        times = [f"{sum(one.seconds for one in done):,.0f}", f"{sum(one.processor for one in done):,.0f}"]
        sets.append([name, raced, chosen, best, *cells(done), near, *times, f"{done[-1].mebibytes:,.0f}"])
        for one in done:
            near = "yes" if noise(one) else "no"
            each.append([name, one.moment, _short(one.chosen), _short(best_of(one)), *cells([one]), near])
            means = {column: float(one.figures[column].to_numpy().mean()) for column in one.figures.columns[1:]}
            every = ", ".join(f"{_short(column)} {mean:.4f}" for column, mean in means.items())
            skipped = f"; no time for {', '.join(one.skipped)}" if one.skipped else ""
            notes.append(f"- {name}, {one.moment}: chosen by {one.why}; what followed: {every}{skipped}")
    _table(["set", "raced", "chosen", "best", *figures, "seconds", "processor", "peak MiB"], sets)
    _table(["set", "moment", "chosen", "best", *figures], each)
    print("\n".join(notes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join((*TIMED, *PAIRS)), metavar="NAME,NAME", help="default: %(default)s")
    parser.add_argument("--time-limit", type=seconds, metavar="TIME", help="as of `persona train`: what is raced")
    parser.add_argument("--give-up", type=seconds, default=600.0, metavar="TIME", help="for a set; default: 10m")
    parser.add_argument("--users", type=int, default=10_000, help="people asked at each moment at most")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "persona-choosing")
    options = parser.parse_args()
    names = options.sets.split(",")
    if unknown := set(names) - {*TIMED, *PAIRS}:
        parser.error(f"no set is named {', '.join(sorted(unknown))}; known: {', '.join((*TIMED, *PAIRS))}")
    found: dict[str, list[Held]] = {}
    for name in names:
        workspace = ingested(name, options.folder)
        test = options.folder / name / "test.csv" if name in PAIRS else None
        found[name] = within(options.give_up, workspace, test, options.time_limit, options.users)
    report(found, options.give_up)


if __name__ == "__main__":
    main()
