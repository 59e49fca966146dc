"""Run every benchmark, print one table, write ``build/bench.json``: what ``make bench`` does.

A benchmark is a module here with ``run() -> list[dict]``, rows of name, value, unit, ratio,
ratio_to. One that takes ``quick`` is told whether this is only a check that it runs.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import pkgutil
import sys
import time
from pathlib import Path
from typing import Any  # rows of a benchmark

from rich.console import Console
from rich.table import Table

import benchmarks

REPORT = Path(__file__).parents[1] / "build" / "bench.json"
Row = dict[str, Any]


def main() -> int:
    """Run what the arguments ask for; 1 when a benchmark failed, 2 when there is none of a name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run: figures mean nothing")
    parser.add_argument("--only", metavar="NAME", help="one benchmark, for example pipeline")
    arguments = parser.parse_args()
    names = [n for n in _names() if arguments.only in (None, n)]
    if not names:
        print(f"no benchmark {arguments.only!r}; there are: {', '.join(_names())}", file=sys.stderr)
        return 2
    rows, failed = [], []
    for name in names:
        try:
            rows += _run(name, arguments.quick)
        except Exception:
            Console(stderr=True).print_exception()
            failed.append(name)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(rows, indent=1) + "\n")
    Console().print(_table(rows), f"written to {REPORT.relative_to(REPORT.parents[1])}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _names() -> list[str]:
    """Return the modules that define ``run``, found by their text: importing them is slow."""
    modules = (m.name for m in pkgutil.iter_modules(benchmarks.__path__))
    folder = Path(__file__).parent
    return [m for m in modules if "\ndef run(" in (folder / f"{m}.py").read_text()]


def _run(name: str, quick: bool) -> list[Row]:
    started_s = time.monotonic()
    run = importlib.import_module(f"benchmarks.{name}").run
    takes_quick = "quick" in inspect.signature(run).parameters
    rows: list[Row] = run(quick=quick) if takes_quick else run()
    print(f"{name}: {time.monotonic() - started_s:.0f} s", file=sys.stderr)
    return rows


def _table(rows: list[Row]) -> Table:
    table = Table("name", "value", "unit", "ratio", "to", highlight=False)
    for column in (1, 3):
        table.columns[column].justify = "right"
    for row in rows:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.1f}"
        value = f"{row['value']:,.0f}" if row["value"] >= 1000 else f"{row['value']:.2f}"
        table.add_row(row["name"], value, row["unit"], ratio, row["ratio_to"] or "")
    return table


if __name__ == "__main__":
    sys.exit(main())
