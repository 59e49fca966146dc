"""What waits for labels after a crash: as if nothing had happened, wherever it was."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.worlds import START_MS, drain, events, journal, new_log, settings, worker
from worker.contracts.settings import Settings
from worker.runner import Runner
from worker.stores.memory import MemoryStore
from worker.streams.memory import MemoryLog

COUNT = 60
MODES: list[dict[str, Any]] = [
    {"mode": "explicit"},
    {"mode": "positives_only", "maturity": "1h", "negative_rate": 0.5},
    {"mode": "explicit", "has_label_features": True},
]
LABEL_FEATURES: dict[str, Any] = {
    "amount": "$amount",
    "card": {"count": ["1d"], "genuine_count": ["1d"]},
    "terminal": {"fraud_rate": ["1d"], "frauds": {"windows": ["1d"], "weight": "1 - raw:fraud"}},
}


def config(labels: dict[str, Any]) -> Settings:
    rules = {name: value for name, value in labels.items() if name != "has_label_features"}
    features = {"features": LABEL_FEATURES} if "has_label_features" in labels else {}
    return settings(
        labels={"topic": "labels", "horizon": "5h", "cached_max": 5, **rules},
        runner={"batch_records_max": 7, "dirty_max": 20},
        **features,
    )


def log_of_labels() -> MemoryLog:
    """Labels three events later, some early, some twice, some revised, some of no event."""
    log, stream = new_log(), events(COUNT)
    for i, event in enumerate(stream):
        time_ms = START_MS + 600_000 * i
        log.append("transactions", 0, msgspec.json.encode(event), event["card"].encode(), time_ms)
        told = [(i - 3, i % 2), (i - 3, i % 2) if i % 5 == 0 else (-1, 0)]
        told += [(i - 9, 1), (i + 2, 0)] if i % 4 == 0 else []
        for of, y in told:
            name = stream[of]["id"] if 0 <= of < COUNT else f"none{i}"
            value = msgspec.json.encode({"event_id": name, "label": y})
            log.append("labels", 0, value, event["card"].encode(), time_ms)
    return log


def state_of(runner: Runner, store: MemoryStore) -> dict[str, object]:
    """Return what is kept of labels, wherever it is, without what a queue has left behind."""
    (live,) = runner._live.values()
    live.checkpoint.flush(live.shard, live.journal_next)
    (space,) = store._spaces.values()
    pending = live.shard.pending
    assert pending is not None
    kept = ("pend~x", "pend~y")
    return {
        **{key: value for key, value in space.values.items() if key.startswith(kept)},
        "early": list(pending.early.items()),
        "queue": list(pending.queue),
        "place": (pending.clock_ms, pending.number),
    }


@pytest.mark.parametrize("labels", MODES, ids=str)
@pytest.mark.parametrize("flush_every_s", [0.0, None], ids=["flushed", "lagging"])
def test_pending_after_a_crash_anywhere_is_that_of_a_quiet_run(
    labels: dict[str, Any], flush_every_s: float | None
) -> None:
    """After each step the worker dies; the next one goes on, from the store and from nothing.

    Label features are computed again on the way and must be those of the journal, bit for bit.
    """
    quiet_log, quiet_store = log_of_labels(), MemoryStore()
    quiet = worker(quiet_log, quiet_store, config=config(labels))
    drain(quiet)
    wanted = state_of(quiet, quiet_store)
    steps = len(journal(quiet_log)) // 7 + 2
    for step in range(1, steps):
        log, store = log_of_labels(), MemoryStore()
        first = worker(log, store, config=config(labels), flush_every_s=flush_every_s)
        for _ in range(step):
            first.step()
        second_store = MemoryStore() if step % 2 else store
        second = worker(log, second_store, config=config(labels))
        drain(second)
        certain = state_of(second, second_store)
        assert without_scores(certain) == without_scores(wanted), step


def without_scores(state: dict[str, object]) -> dict[str, object]:
    """Return the state without packed events, whose scores depend on when the models learned."""
    return {
        key: value[:32] if isinstance(value, bytes) and key.startswith("pend~x") else value
        for key, value in state.items()
    }


def test_recorded_scores_come_from_the_journal() -> None:
    """A worker that rebuilds everything keeps of each event what it was served with."""
    log, store = log_of_labels(), MemoryStore()
    drain(worker(log, store, config=config(MODES[0])))
    again_store = MemoryStore()
    again = worker(log, again_store, config=config(MODES[0]))
    drain(again)
    (live,) = again._live.values()
    live.checkpoint.flush(live.shard, live.journal_next)
    assert live.shard.pending is not None
    (space,) = again_store._spaces.values()
    served = {row["event_id"]: row for row in journal(log) if row["outcome"] == "scored"}
    kept = {k: v[:-4] for k, v in space.values.items() if k.startswith("pend~x:")}
    assert len(kept) == len(served)
    waiting = live.shard.pending.codec.unpack(list(kept.values()))
    for i, key in enumerate(kept):
        row = served[key.removeprefix("pend~x:")]
        assert waiting.score[i] == row["score"]
        assert waiting.raw[i].tolist() == [row["raw_fraud"], row["raw_odd"]]
