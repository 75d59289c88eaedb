"""How long `persona decide` takes: for everybody, and for one user in a process of its own, by kind of surface.

    python benchmarks/surfaces.py [--users 100000] [--repeat 3] [--kinds content,ui,feature,survey,plan,message]

A new workspace with that many generated users, 12 events each (uses of 6 features, clicks on 500 items, device and
country), profiles built, `popular` trained. Seconds of the whole process, by the clock (the smallest and the
median) and of the processor, for one user; everybody is decided for once. Decisions are not kept (--dry-run).
`python -c pass` and `persona --version` beside them say what no surface can go below.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl

SURFACES = {
    "content": 'kind = "content"\ntop = 10',
    "ui": 'kind = "ui"\nentries = ["f0", "f1", "f2", "f3"]\npanels = ["f4", "f5"]',
    "feature": 'kind = "feature"\nitems.tour = { type = "onboarding", when = "maturity < 0.2" }\n'
    'items.sql = { type = "panel", when = "maturity >= 0.6", feature = "f3", default = false }',
    "survey": 'kind = "survey"',
    "message": 'kind = "message"',
    "plan": 'kind = "plan"\nplans.free = { price = 0, limits = { f0 = 10 } }\nplans.pro = { price = 20 }',
}
MORE = '[survey.area]\ntext = "What?"\nanswers.a = { categories = ["c1"] }\nanswers.b = { categories = ["c2"] }\n'


def persona(root: Path, *words: str) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "persona_cli", *words, "-w", str(root)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    if done.returncode:
        raise SystemExit(f"persona {' '.join(words)}: {done.stderr.decode()[-600:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def build(root: Path, users: int, kinds: list[str]) -> None:
    rng = np.random.default_rng(5)
    n = users * 12
    who = np.repeat(np.arange(users), 12)
    use = rng.random(n) < 0.5
    seconds = rng.integers(0, 90 * 86_400, n) * 1_000_000 + int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1e6)
    item = (500 * rng.random(n) ** 2).astype(int)
    frame = pl.DataFrame({"who": who, "use": use, "at": seconds, "item": item, "f": rng.integers(0, 6, n)})
    device, country = rng.integers(0, 3, users), rng.integers(0, 4, users)
    text = frame.select(
        user_id=pl.format("u{}", pl.col("who").cast(pl.String).str.zfill(6)),
        event_type=pl.when("use").then(pl.lit("feature_use")).otherwise(pl.lit("click")),
        timestamp=pl.from_epoch("at", "us").dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        target=pl.when("use").then(pl.format("f{}", "f")),
        item_id=pl.when(~pl.col("use")).then(pl.format("i{}", "item")),
        device=pl.Series(np.array(["mobile", "desktop", "tablet"])[device[who]]),
        country=pl.Series(np.array(["DE", "FR", "US", "JP"])[country[who]]),
    )
    persona_init(root)
    with (root / "persona.toml").open("a") as file:
        file.write("".join(f"\n[surface.{kind}]\n{SURFACES[kind]}\n" for kind in kinds) + MORE)
    text.write_csv(root.parent / "events.csv")
    items = {"item_id": [f"i{n}" for n in range(500)], "category": [f"c{n % 9}" for n in range(500)]}
    pl.DataFrame(items).write_csv(root.parent / "items.csv")
    persona(root, "ingest", str(root.parent / "items.csv"), "--kind", "items")
    persona(root, "ingest", str(root.parent / "events.csv"))
    persona(root, "profile", "build")
    persona(root, "train", "--model", "popular")


def persona_init(root: Path) -> None:
    subprocess.run([sys.executable, "-m", "persona_cli", "init", str(root)], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--kinds", default="content,ui,feature,survey,message,plan")
    parser.add_argument("--folder", type=Path, help="a workspace that is kept, and used where it is there")
    parser.add_argument("--one", action="store_true", help="one user alone")
    given = parser.parse_args()
    kinds = given.kinds.split(",")
    with tempfile.TemporaryDirectory() as folder:
        root = (given.folder or Path(folder)) / "w"
        if not root.exists():
            root.parent.mkdir(parents=True, exist_ok=True)
            build(root, given.users, kinds)
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        bare = time.perf_counter() - began
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "persona_cli", "--version"], check=True, stdout=subprocess.DEVNULL)
        print(f"{given.users:,} users; python {bare:.2f} s, persona --version {time.perf_counter() - began:.2f} s")
        print("| kind | one user, best | median | processor | everybody |\n|---|---|---|---|---|")
        for kind in kinds:
            one = [
                persona(root, "decide", kind, "--user", f"u{number:06d}", "--dry-run") for number in range(given.repeat)
            ]
            clock, processor = zip(*one, strict=True)
            everybody = "" if given.one else f"{persona(root, 'decide', kind, '--dry-run')[0]:.1f} s"
            told = f"{min(clock):.2f} s | {median(clock):.2f} s | {median(processor):.2f} s"
            print(f"| {kind} | {told} | {everybody} |", flush=True)


if __name__ == "__main__":
    main()
