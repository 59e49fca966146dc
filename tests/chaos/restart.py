"""How long one worker takes to be ready again, and to end: ``python -m tests.chaos.restart``.

One node, four partitions, nothing to learn, to fold or to process: what a restart costs by itself.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from tests.chaos.world import Worker, World
from tests.services.kafka import KafkaServer
from tests.services.valkey import ValkeyServer

_TIMES = 5
_LIMIT_S = 120.0


def ready_s(worker: Worker) -> float:
    """Start a worker; return the seconds until /readyz says that all partitions are live."""
    started_s = time.monotonic()
    worker.start()
    while not worker.ready:
        if time.monotonic() > started_s + _LIMIT_S:
            raise TimeoutError(f"not ready in {_LIMIT_S:g} s: {worker.said[-2000:]}")
        time.sleep(0.02)
    return time.monotonic() - started_s


def main() -> None:
    """Run, print the table."""
    killed, ended, again = [], [], []
    with KafkaServer() as kafka, ValkeyServer() as store:
        world = World(
            Path(tempfile.mkdtemp(prefix="restart-")), kafka.bootstrap, store.url, "restart"
        )
        try:
            world.begin(("0",))
            world.flow(10)
            world.rest()
            worker = world.workers["0"]
            for _ in range(_TIMES):
                worker.kill()
                killed.append(ready_s(worker))
                ended.append(worker.stop())
                again.append(ready_s(worker))
        finally:
            world.close()
    table = Table(title=f"one worker, {_TIMES} times; load {os.getloadavg()[0]:.0f}")
    for column in ("seconds", "median", "least", "most"):
        table.add_column(column, justify="left" if column == "seconds" else "right")
    rows = {
        "kill -9 to ready": killed, "SIGTERM to exit": ended, "start after an exit to ready": again,
    }  # fmt: skip
    for name, seconds in rows.items():
        table.add_row(name, *(f"{s:.1f}" for s in (median(seconds), min(seconds), max(seconds))))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
