"""What it costs not to collect everything: [privacy.collect] against no such settings, in one run.

    python benchmarks/collecting.py [--rows 300000] [--repeat 3] [--folder DIR]

Web hits with a page, a referrer, a locale, a value and six keys of props (all texts of props differ). Processor seconds
inside the step and of the whole ingest (one process, no profiles), medians; ratios to the ingest without settings.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from persona_cli.events import door
from persona_cli.events.ingest import ingest
from persona_cli.workspace.home import create, open_home

COLUMNS = '["event_id", "user_id", "anon_id", "event_type", "timestamp", "item_id", "value", "locale", "page"]'
COARSE = (
    '[privacy.collect.coarsen]\ntimestamp = "hour"\nvalue = 0.5\nlocale = "language"\npage = "section"\n'
    'referrer = "host"\ndevice = "family"\n'
)
RULES = {
    "nothing set": "",
    "columns left out": f"[privacy.collect]\nevents = {COLUMNS}\n",
    "coarse columns": COARSE,
    "no props": "[privacy.collect]\nprops = []\n",
    "2 of 6 keys of props": '[privacy.collect]\nprops = ["plan", "cart.total"]\n',
    "all of it": f'[privacy.collect]\nevents = {COLUMNS}\nprops = ["plan", "cart.total"]\n{COARSE}',
}


def lines(out: Path, rows: int) -> None:
    rng = np.random.default_rng(7)

    def numbers(below: int) -> pl.Series:
        return pl.Series(rng.integers(0, below, rows)).cast(pl.String)

    at = pl.Series(np.sort(rng.integers(0, 30 * 86_400, rows)) + 1_767_225_600).cast(pl.String)
    locales = pl.Series(["de-AT", "de-DE", "en-GB", "fr-FR"]).gather(rng.integers(0, 4, rows))
    frame = pl.DataFrame({"user": numbers(rows // 20 + 1), "at": at, "item": numbers(5_000), "n": numbers(10**9),
                          "cents": numbers(100), "locale": locales})  # fmt: skip
    template = (
        '{"user_id":"u|user|","event_type":"view","timestamp":|at|,"item_id":"i|item|","value":3.|cents|,'
        '"context":{"page":"https://shop.test/p/|item|","referrer":"https://news.test/|item|","locale":"|locale|",'
        '"device":"SM-S91|cents|"},"props":{"plan":"pro","form":"a|n|","cart":{"total":|cents|,"note":"n|n|"},'
        '"mail":"p|n|@x.test","tab":1,"build":"b|cents|"}}'
    )
    parts = [pl.lit(part) if place % 2 == 0 else pl.col(part) for place, part in enumerate(template.split("|"))]
    frame.select(pl.concat_str(parts)).write_csv(out, include_header=False, quote_style="never")


def measured(folder: Path, source: Path, rules: str) -> tuple[float, float, Any]:
    """Seconds inside the step and of the whole ingest."""
    inside, plain = 0.0, door.collect

    def timed(*args: Any) -> Any:
        nonlocal inside
        began = time.thread_time()
        found = plain(*args)
        inside += time.thread_time() - began
        return found

    with tempfile.TemporaryDirectory(dir=folder) as place:
        root = create(Path(place) / "w").root
        (root / "persona.toml").write_text(rules)
        home = open_home(root)
        door.collect = timed  # type: ignore[assignment]
        try:
            began = time.process_time()
            report = ingest(home, [str(source)])
            return inside, time.process_time() - began, report
        finally:
            door.collect = plain  # type: ignore[assignment]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "persona-bench")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    source = options.folder / f"collecting-{options.rows}.jsonl"
    lines(source, options.rows)
    runs: dict[str, list[tuple[float, float, Any]]] = {name: [] for name in RULES}
    for _ in range(options.repeat):
        for name, rules in RULES.items():
            runs[name].append(measured(options.folder, source, rules))
    none = statistics.median(run[1] for run in runs["nothing set"])
    print(
        "| settings | the step, s | whole ingest, s | x nothing set | rows that lost something |\n|---|---|---|---|---|"
    )
    for name, found in runs.items():
        inside, whole = (statistics.median(run[place] for run in found) for place in (0, 1))
        told = ", ".join(f"{field} {n:,}" for field, n in found[0][2].removed.items()) or "none"
        print(f"| {name} | {inside:.3f} | {whole:.2f} | {whole / none:.2f} | {told} |", flush=True)


if __name__ == "__main__":
    main()
