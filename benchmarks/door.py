"""What the door costs: its share of an ingest of native lines, of web hits, and of lines with URLs in their props.

    python benchmarks/door.py [--rows 1000000] [--repeat 3] [--folder DIR]

Native lines have nothing for the door to take (those of benchmarks/ingest.py). Web hits have a page with a query (half
of the pages are there once), a referrer, a user agent (2,000 different ones) and an IP address. The third kind has the
URLs and the address in props. Processor seconds inside the step and of the whole ingest, in one process, medians.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from persona_cli.api import Workspace
from persona_cli.events import door, ingest

AGENT = (
    "Mozilla/5.0 (Linux; Android 14; SM-S{}B) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/{}.0.0.0 Mobile Safari/537.36"
)


def web_lines(out: Path, rows: int, *, in_props: bool) -> None:
    rng = np.random.default_rng(7)
    page = pl.Series(rng.integers(0, 500, rows)).cast(pl.String)
    token = pl.Series(np.where(rng.random(rows) < 0.5, rng.integers(0, 50, rows), rng.integers(0, 10**9, rows))).cast(
        pl.String
    )
    agent = pl.Series([AGENT.format(900 + n % 100, 100 + n // 100) for n in range(2_000)]).gather(
        rng.integers(0, 2_000, rows)
    )
    frame = pl.DataFrame(
        {
            "user": pl.Series(rng.integers(0, rows // 20 + 1, rows)).cast(pl.String),
            "at": pl.Series(np.sort(rng.integers(0, 30 * 86_400, rows)) + 1_767_225_600).cast(pl.String),
            "page": "https://shop.test/p/" + page + "?session=" + token + "&utm_campaign=spring",
            "referrer": pl.Series(["https://www.google.com/", "https://t.co/x?a=1", "https://shop.test/?q=a b"]).gather(
                rng.integers(0, 3, rows)
            ),
            "agent": agent,
            "ip": "10.0.0." + page,
        }
    )

    def text(template: str) -> pl.Expr:
        """The template with columns for what stands between bars."""
        parts = [pl.lit(part) if place % 2 == 0 else pl.col(part) for place, part in enumerate(template.split("|"))]
        return pl.concat_str(parts)

    head = text('{"user_id":"u|user|","event_type":"page_view","timestamp":|at|,')
    rest = text(
        '"props":{"url":"|page|","from":"|referrer|","ip":"|ip|"}}'
        if in_props
        else '"context":{"page":"|page|","referrer":"|referrer|","userAgent":"|agent|","ip":"|ip|"}}'
    )
    frame.select(head + rest).write_csv(out, include_header=False, quote_style="never")


def measured(folder: Path, lines: Path) -> tuple[float, float, Any]:
    """Seconds inside the door and of the whole ingest."""
    inside = 0.0

    def timed(*args: Any) -> door.Admitted:
        nonlocal inside
        began = time.thread_time()
        admitted = door.admit(*args)
        inside += time.thread_time() - began
        return admitted

    ingest.admit = timed  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory(dir=folder) as place:
        began = time.process_time()
        report = Workspace.create(Path(place) / "w").ingest(str(lines), profiles=False)
        return inside, time.process_time() - began, report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "persona-bench")
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    inputs = {name: folder / f"{name}-{options.rows}.jsonl" for name in ("native", "web", "props")}
    if not inputs["native"].exists():
        generator = Path(__file__).with_name("native_lines.py")
        subprocess.run([sys.executable, generator, inputs["native"], "--rows", str(options.rows)], check=True)
    web_lines(inputs["web"], options.rows, in_props=False)
    web_lines(inputs["props"], options.rows, in_props=True)
    print("| lines | door, s | whole ingest, s | share | removed |\n|---|---|---|---|---|")
    for name, lines in inputs.items():
        runs = [measured(folder, lines) for _ in range(options.repeat)]
        inside, whole = (statistics.median(run[place] for run in runs) for place in (0, 1))
        print(f"| {name} | {inside:.3f} | {whole:.2f} | {inside / whole:.1%} | {runs[0][2].removed} |", flush=True)


if __name__ == "__main__":
    main()
