"""When a message is sent: opens a message by the hours that were learned, and how long 100,000 decisions take.

    python benchmarks/messages.py [--users 5000] [--sent 10,30,100] [--speed 100000]

Generated users: three cohorts of people, whose habits lie around an hour of each cohort (deviation 3 hours); a message
d hours from the habit is opened with the chance a (0.1 + 0.9 exp(-d²/2 1.5²)), with a of each user from Beta(2, 5)
times 0.6. Each was sent some messages at random hours from 8 to 20. Every policy then takes an hour for each user, by
what was opened; its expected opens a message follow from the chances, which it does not know. Seeds are fixed. Prints
Markdown.

    best              the hour of each user's greatest chance: nobody can do better
    individual, raw   the user's own opens a message by hour, of equals the first; without any everybody's best hour

--speed decides a surface for that many users with twelve messages each, once, in a new workspace: seconds of
`decisions` alone, and with keeping them (`feedback.deciding.decide`).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from persona_cli.events.schema import stored_schema
from persona_cli.feedback.deciding import decide
from persona_cli.profiles.sync import sync
from persona_cli.serving.surfaces import message_learning as learning
from persona_cli.serving.surfaces import surface_of
from persona_cli.serving.surfaces.deciding import decisions
from persona_cli.workspace import runs, tables
from persona_cli.workspace.home import SETTINGS_FILE, create, open_home
from persona_cli.workspace.surface_declarations import CHANNELS, MESSAGE

FIRST, LAST = 8, 21
OPTIONS = {name: default for name, (default, _) in MESSAGE.items()}
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def opens(users: int, sent: int, prior: float, seed: int = 7) -> dict[str, float]:
    """Expected opens a message by policy."""
    rng = np.random.default_rng(seed)
    cohort = rng.integers(0, 3, users)
    habit = np.array([9.0, 13.0, 19.0])[cohort] + rng.normal(0, 3, users)
    apart = np.abs(np.arange(24)[None, :] - habit[:, None]) % 24
    near = np.exp(-0.5 * (np.minimum(apart, 24 - apart) / 1.5) ** 2)
    truth = 0.6 * rng.beta(2, 5, users)[:, None] * (0.1 + 0.9 * near)  # (n, 24)
    hour = rng.integers(FIRST, LAST, (users, sent))
    opened = rng.random((users, sent)) < np.take_along_axis(truth, hour, axis=1)
    n = users * sent
    frame = pl.DataFrame(
        {
            "channel": np.zeros(n, dtype=np.int64),
            "hour": hour.ravel(),
            "moment": np.full(n, -1),
            "n": np.ones(n),
            "opened": opened.ravel(),
        }
    )
    of = np.repeat(np.arange(users), sent)
    rates = learning.rates(frame, cohort[of] + 1, 4, np.zeros(len(CHANNELS), dtype=np.int64), OPTIONS)
    k, m = learning.counts(frame, of, users, OPTIONS["open_rate"])
    mine = np.ascontiguousarray(rates.by_hour[cohort + 1])
    own = learning.own(k, m, mine, rates.overall, prior, OPTIONS["spread_hours"])
    window = slice(FIRST, LAST)
    real, everybody = truth[:, window], rates.by_hour[0, 0, window].argmax()
    raw = (k / np.maximum(m, 1))[:, 0, window]
    chosen = {
        "best global hour": np.full(users, everybody),
        "cohort": mine[:, 0, window].argmax(axis=1),
        "individual, raw": np.where(raw.max(axis=1) > 0, raw.argmax(axis=1), everybody),
        "ours": own[:, 0, window].argmax(axis=1),
        "best": real.argmax(axis=1),
    }
    found = {name: float(real[np.arange(users), place].mean()) for name, place in chosen.items()}
    return {"random hour": float(real.mean()), **found}


def speed(users: int, messages: int = 12) -> None:
    """Seconds of deciding for so many users."""
    rng = np.random.default_rng(7)
    with tempfile.TemporaryDirectory() as folder:
        home = create(Path(folder) / "w")
        path = home.root / SETTINGS_FILE
        head, tail = path.read_text().split("[privacy.purposes.messaging]")
        tail = tail.replace('basis = "consent"', 'basis = "contract"', 1)
        path.write_text(f'{head}[privacy.purposes.messaging]{tail}\n[surface.mail]\nkind = "message"\n')
        home = open_home(home.root)
        n = users * messages
        at = [NOW - timedelta(days=30) + timedelta(hours=int(one)) for one in rng.integers(0, 29 * 24, n)]
        channel = np.array(CHANNELS)[rng.integers(0, len(CHANNELS), n)]
        zone = np.array(["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Tokyo"])
        sent = pl.DataFrame(
            {
                "event_id": [str(one) for one in range(n)],
                "user_id": np.repeat([f"u{one:06d}" for one in range(users)], messages),
                "event_type": "message_sent",
                "timestamp": at,
                "target": channel,
                "tz": np.repeat(zone[rng.integers(0, len(zone), users)], messages),
                "device": np.repeat(np.array(["mobile", "desktop"])[rng.integers(0, 2, users)], messages),
            }
        )
        answered = sent.filter(pl.Series(rng.random(n) < 0.15)).with_columns(
            pl.col("timestamp") + timedelta(minutes=10),
            event_type=pl.lit("message_open"),
            event_id=pl.concat_str("event_id", pl.lit("o")),
        )
        schema = pl.DataFrame(pl.from_arrow(stored_schema("events").empty_table())).schema
        rows = pl.concat([sent, answered]).with_columns(
            ingested_at=pl.lit(NOW), month=pl.col("timestamp").dt.strftime("%Y-%m")
        )
        rows = rows.select((pl.col(name) if name in rows.columns else pl.lit(None)).cast(kind).alias(name)
                           for name, kind in schema.items())  # fmt: skip
        table = tables.open_or_create(home, "events", stored_schema("events"), ["month"])
        parts = rows.partition_by("month", as_dict=True)
        table.commit([table.write(part, {"month": key[0]}) for key, part in parts.items()])
        sync(home)
        begin = time.perf_counter()
        found, _ = decisions(home, surface_of(home, "mail"), at=NOW)
        took = time.perf_counter() - begin
        share = found["choice"].struct.field("send").mean()
        begin = time.perf_counter()
        with runs.recording(home, ["decide", "mail"]) as run:
            decide(home, "mail", run)
        both = time.perf_counter() - begin
        again = time.perf_counter()
        with runs.recording(home, ["decide", "mail"]) as run:
            decide(home, "mail", run)
        again = time.perf_counter() - again
    print(f"\n{found.height:,} users, {rows.height:,} events: decided in {took:.1f} s ({share:.0%} get a message); "
          f"decided and kept in {both:.1f} s, once more with these decisions there in {again:.1f} s")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--sent", default="10,30,100")
    parser.add_argument("--priors", default=f"{OPTIONS['prior_sends']:g}")
    parser.add_argument("--speed", type=int, default=100_000)
    given = parser.parse_args()
    header = None
    for sent in (int(one) for one in given.sent.split(",")):
        for prior in (float(one) for one in given.priors.split(",")):
            found = opens(given.users, sent, prior)
            if header is None:
                header = list(found)
                print("| messages each | prior |", " | ".join(header), "|\n|---|---|" + "---|" * len(header))
            print(f"| {sent} | {prior:g} |", " | ".join(f"{value:.4f}" for value in found.values()), "|")
    if given.speed:
        speed(given.speed)


if __name__ == "__main__":
    main()
