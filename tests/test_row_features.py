"""Features of the row in a whole worker: what they learned survives restarts and lost stores."""

from __future__ import annotations

from typing import Any

import pytest

from tests.worlds import drain, events, fill, journal, new_log, settings, worker
from worker.stores.memory import MemoryStore
from worker.streams.memory import MemoryLog

FEATURES: dict[str, Any] = {
    "log": "log1p($amount)",
    "level": "quantile_bucket($amount, 20)",
    "habit": "cross(quantile_bucket($amount, 4), is_night($time))",
    "terminal_hash": "hashed($terminal, 8)",
    "card": {"count": ["1d"]},
}
STREAM = events(300)


def rows_of(log: MemoryLog, count: int) -> list[str]:
    rows = journal(log)
    assert len(rows) == count
    return [str((row["event_id"], row["outcome"], row["x"])) for row in rows]


def log_of(*, half: bool = False) -> MemoryLog:
    log = new_log()
    fill(log, STREAM[:150])
    if not half:
        fill(log, STREAM[150:])
    return log


@pytest.mark.parametrize("loses", ["nothing", "the last writes", "the store"])
def test_what_was_learned_is_there_after_a_restart(loses: str) -> None:
    """In mid-stream, from the store, from one that lags, and from the log alone."""
    config = settings(features=FEATURES)
    quiet = log_of()
    drain(worker(quiet, MemoryStore(), config=config))
    log, store = log_of(half=True), MemoryStore()
    lags = loses == "the last writes"
    drain(worker(log, store, config=config, flush_every_s=1e9 if lags else 0.0))
    fill(log, STREAM[150:])
    drain(worker(log, MemoryStore() if loses == "the store" else store, config=config))
    assert rows_of(log, 300) == rows_of(quiet, 300)


def test_the_size_of_batches_changes_no_feature() -> None:
    """Two runs of one stream, in batches of 7 and of 100."""
    runs = []
    for size in (7, 100):
        log = log_of()
        config = settings(features=FEATURES, runner={"batch_records_max": size})
        drain(worker(log, MemoryStore(), config=config))
        runs.append(rows_of(log, 300))
    assert runs[0] == runs[1]
    assert len({row.split("[")[1].split(",")[1] for row in runs[0] if "[" in row}) > 15
