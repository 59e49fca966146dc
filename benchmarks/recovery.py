"""How fast shards are folded again when the store has lost everything.

``python -m benchmarks.recovery CONFIG`` prints figures as JSON, of the log that a run of
`benchmarks.worker_run` left behind.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.worker_run import parts_of
from worker.acquire import Live
from worker.checkpoint import space_of, updates_space_of
from worker.commands import load
from worker.contracts.settings import Settings
from worker.runner import Runner
from worker.stopping import relax_collector
from worker.streams import Polled
from worker.telemetry import configure_logging


class Recovery(Runner):
    """A worker that counts what it folds, and how long that takes.

    That is to acquire the shards that have something to fold, and to fold and flush what they own
    of secondary entities.
    """

    folded = 0
    seconds = 0.0

    def _acquire(self, partition: int) -> Live:
        started_s = time.perf_counter()
        live = super()._acquire(partition)
        if live.folded:
            self.seconds += time.perf_counter() - started_s
            self.folded += live.folded
        return live

    def _batch(self, polled: Polled) -> int:
        started_s = time.perf_counter()
        done = super()._batch(polled)
        self.seconds += time.perf_counter() - started_s
        return done


def recover(settings: Settings, lost: Sequence[int] | None = None) -> dict[str, Any]:
    """Drop what the store has, of some partitions or of all, and return what folding it took.

    ``events`` and ``seconds`` are of the shards that had something to fold, ``partitions`` is the
    number of all.
    """
    with ExitStack() as stack:
        parts = parts_of(settings, defaultdict(float), stack)
        partitions = parts.stream.partitions
        lost = range(partitions) if lost is None else lost
        for p in lost:
            parts.store.drop(space_of(settings.name, parts.spec, p))
            parts.store.drop(updates_space_of(settings.name, parts.spec, p))
        runner = Recovery(
            parts, lambda: parts.telemetry.acquired._value.get() >= partitions,
            flush_every_s=settings.runner.flush / 1000,
        )  # fmt: skip
        runner.run()
        return {"events": runner.folded, "seconds": runner.seconds, "partitions": partitions}


def main() -> None:
    """Recover all shards, once more to have the kernels loaded, then one; print the figures."""
    configure_logging("ERROR")
    relax_collector()
    settings = load(Path(sys.argv[1]))
    recover(settings)
    print(json.dumps({**recover(settings), "one": recover(settings, [0])}))


if __name__ == "__main__":
    main()
