"""Ingest and profile fold against DuckDB's forgiving reader, as whole processes, side by side in one run.

    python benchmarks/ingest.py [--rows 10000000] [--shuffle] [--repeat 3] [--folder DIR]

The peer reads the seven native fields of the same file with `read_json(ignore_errors)` and writes zstd Parquet: no
quarantine, no ids, no dedupe. Printed: medians of seconds, processor seconds, their ratios to the peer, and peak
resident memory of each process.
The first ratio is of `persona ingest --no-profiles` into a new workspace, the second of `persona profile build`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PEER = """
import duckdb, sys
con = duckdb.connect()
con.execute("set threads to 2")
con.execute('''copy (select * from read_json(?, format='newline_delimited', ignore_errors=true, columns={
    'user_id': 'VARCHAR', 'event_type': 'VARCHAR', 'target': 'VARCHAR', 'item_id': 'VARCHAR', 'timestamp': 'TIMESTAMP',
    'value': 'DOUBLE', 'context': 'STRUCT(device VARCHAR, page VARCHAR, country VARCHAR)'}))
    to '%s' (format parquet, compression zstd)''' % sys.argv[2], [sys.argv[1]])
"""
PERSONA = [sys.executable, "-m", "persona_cli"]


def timed(command: list[str]) -> tuple[float, float, float, str]:
    """Seconds, processor seconds, peak resident MiB and stdout of a whole process."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command} ended with {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--shuffle", action="store_true")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "persona-bench")
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    lines = folder / f"native-{options.rows}{'-shuffled' if options.shuffle else ''}.jsonl"
    if not lines.exists():
        generator = Path(__file__).with_name("native_lines.py")
        extra = ["--shuffle"] if options.shuffle else []
        subprocess.run([sys.executable, generator, lines, "--rows", str(options.rows), *extra], check=True)
    workspace = folder / "workspace"
    results: dict[str, list[tuple[float, float, float]]] = {"peer": [], "ingest": [], "profiles": []}
    counts: dict[str, object] = {}
    for _ in range(options.repeat):
        *figures, _ = timed([sys.executable, "-c", PEER, str(lines), str(folder / "peer.parquet")])
        results["peer"].append(tuple(figures))
        shutil.rmtree(workspace, ignore_errors=True)
        subprocess.run([*PERSONA, "init", "--quiet", str(workspace)], check=True)
        ingest = [*PERSONA, "ingest", "-w", str(workspace), "--quiet", "--no-profiles", "--json", str(lines)]
        *figures, output = timed(ingest)
        counts = json.loads(output)
        results["ingest"].append(tuple(figures))
        *figures, _ = timed([*PERSONA, "profile", "build", "-w", str(workspace), "--quiet"])
        results["profiles"].append(tuple(figures))
    shown = {name: counts.get(name) for name in ("read", "accepted", "duplicates", "rejected")}
    print(f"{options.rows:,} lines, {lines.stat().st_size / 2**30:.2f} GiB, median of {options.repeat}: {shown}")
    print("| step | seconds | x peer | processor seconds | x peer | peak MiB |\n|---|---|---|---|---|---|")
    medians = {name: [statistics.median(part) for part in zip(*runs, strict=True)] for name, runs in results.items()}
    for name, (seconds, cpu, memory) in medians.items():
        base = medians["peer"]
        print(f"| {name} | {seconds:.2f} | {seconds / base[0]:.2f} | {cpu:.2f} | {cpu / base[1]:.2f} | {memory:.0f} |")


if __name__ == "__main__":
    main()
