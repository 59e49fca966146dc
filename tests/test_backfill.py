"""Backfill: the state of new features beside a worker of the old; the switch is one restart."""

from __future__ import annotations

import json
import uuid
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from tests.test_changed_features import (
    OTHER_STATE,
    SAME_STATE,
    certain,
    continued,
    log_of,
)
from tests.worlds import drain, events, journal, settings, worker
from worker.backfill import Backfill, Built
from worker.checkpoint import space_of, ttls_ms_of
from worker.contracts.settings import Settings
from worker.errors import ConfigError, FatalError, TransientError
from worker.features.spec import compile_features
from worker.models.catalogue import build_models
from worker.stores import Meta, StateStore
from worker.stores.memory import MemoryStore
from worker.streams.memory import MemoryLog, MemoryStream
from worker.streams.recorded_log import RecordedLog

COUNT = 400


def configs(**runner: int) -> tuple[Settings, Settings]:
    """Return an old and a new configuration of one name."""
    name = f"w{uuid.uuid4().hex[:8]}"
    bounds = {"batch_records_max": 40, **runner}
    return (
        settings(name=name, runner=bounds),
        settings(name=name, features=OTHER_STATE, runner=bounds),
    )


def backfill(
    log: MemoryLog, store: StateStore, config: Settings, recording: Path | None = None
) -> list[Built]:
    spec = compile_features(config)
    view: Any = MemoryStream(
        log, group="world", slot="beside", events_topic="transactions", labels_topic="labels"
    )
    models = build_models(config, spec.names)
    view = view if recording is None else RecordedLog(view, "transactions", recording)
    return Backfill(view, store, config, spec, models, ttls_ms_of(config, spec)).run()


def from_scratch(stream: list[dict[str, Any]], config: Settings) -> list[tuple[Any, ...]]:
    log = log_of(stream)
    drain(worker(log, MemoryStore(), config=config))
    return certain(journal(log))


def test_after_a_backfill_the_switch_folds_only_what_came_since() -> None:
    """x is that of a run with the new file all along; the old worker was never disturbed."""
    old, new = configs()
    store, stream = MemoryStore(), events(COUNT)
    log = log_of(stream[: COUNT // 2])
    serving = worker(log, store, config=old)
    drain(serving)
    (built,) = backfill(log, store, new)
    assert (built.events_folded, built.events_offset) == (COUNT // 2, COUNT // 2)
    continued(log, log_of(stream[: COUNT // 2 + 30]))
    drain(serving)
    assert serving.parts.telemetry.acquired._value.get() == 1
    continued(log, log_of(stream))
    switched = worker(log, store, config=new)
    switched.step()
    assert [live.folded for live in switched._live.values()] == [30]
    drain(switched)
    done = COUNT // 2 + 30
    assert certain(journal(log))[:done] == from_scratch(stream, old)[:done]
    assert certain(journal(log))[done:] == from_scratch(stream, new)[done:]


class DyingStore(MemoryStore):
    """A store that is away from its n-th flush into a space on."""

    def __init__(self) -> None:
        super().__init__()
        self.space, self.left = "", -1

    def flush(self, space: str, version: bytes | None, meta: Meta, writes: Any) -> None:
        if space == self.space:
            self.left -= 1
            if self.left < 0:
                raise TransientError("store", "an answer", "none")
        super().flush(space, version, meta, writes)


def test_a_backfill_that_died_goes_on_from_its_last_flush() -> None:
    """It flushes with positions on the way; the second run folds the rest only."""
    old, new = configs(dirty_max=60)
    store, stream = DyingStore(), events(COUNT)
    log = log_of(stream)
    drain(worker(log, store, config=old))
    store.space, store.left = space_of(new.name, compile_features(new), 0), 2
    with pytest.raises(TransientError):
        backfill(log, store, new)
    meta = store.meta(store.space)
    assert meta is not None
    assert 0 < meta.events_offset < COUNT
    store.left = 10**9
    (built,) = backfill(log, store, new)
    assert built.events_folded == COUNT - meta.events_offset
    later = events(COUNT + 50)
    continued(log, log_of(later))
    drain(worker(log, store, config=new))
    assert certain(journal(log))[COUNT:] == from_scratch(later, new)[COUNT:]


def test_the_state_of_the_serving_workers_is_never_written() -> None:
    """The same features, or others that need no new state: refused, with what to do instead."""
    old, _ = configs()
    store, log = MemoryStore(), log_of(events(60))
    drain(worker(log, store, config=old))
    before = store.meta(space_of(old.name, compile_features(old), 0))
    for features in (None, SAME_STATE):
        change = {} if features is None else {"features": features}
        with pytest.raises(ConfigError, match="restart the workers with this file"):
            backfill(log, store, settings(name=old.name, **change))
    assert store.meta(space_of(old.name, compile_features(old), 0)) == before


def test_a_log_that_lost_its_beginning_is_refused() -> None:
    """What cannot be built in full is not built."""
    old, new = configs()
    store, log = MemoryStore(), log_of(events(100))
    drain(worker(log, store, config=old))
    log.truncate("transactions", 0, 50)
    with pytest.raises(FatalError, match="a log from 0 on"):
        backfill(log, store, new)
    assert store.meta(space_of(new.name, compile_features(new), 0)) is None


def recorded(log: MemoryLog, path: Path, left_out: int = -1) -> Path:
    """Write the events as `riverwatch-produce record --envelope` does."""
    r = log.read("transactions", 0, 0, 10**9)
    lines = [
        {"partition": 0, "offset": o, "timestamp_ms": t, "key": (k or b"").decode(),
         "value_base64": b64encode(v or b"").decode()}
        for o, t, k, v in zip(r.offsets, r.timestamps_ms, r.keys, r.values, strict=True)
    ]  # fmt: skip
    path.write_text("\n".join(json.dumps(x) for x in lines if x["offset"] != left_out))
    return path


def test_events_that_the_topic_lost_come_from_a_recording(tmp_path: Path) -> None:
    """The state stands where the log goes on, and is that of the whole log."""
    old, new = configs()
    store, stream = MemoryStore(), events(COUNT)
    log = log_of(stream[: COUNT // 2])
    drain(worker(log, store, config=old))
    path = recorded(log, tmp_path / "events.jsonl")
    log.truncate("transactions", 0, COUNT // 4)
    with pytest.raises(FatalError, match="a log from 0 on"):
        backfill(log, store, new)
    (built,) = backfill(log, store, new, path)
    assert (built.events_folded, built.events_offset) == (COUNT // 2, COUNT // 2)
    continued(log, log_of(stream))
    drain(worker(log, store, config=new))
    assert certain(journal(log))[COUNT // 2 :] == from_scratch(stream, new)[COUNT // 2 :]


def test_a_recording_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    """A record that the journal has, and lines that say no offset."""
    old, new = configs()
    store = MemoryStore()
    log = log_of(events(COUNT))
    drain(worker(log, store, config=old))
    path = recorded(log, tmp_path / "events.jsonl", left_out=COUNT // 8)
    log.truncate("transactions", 0, COUNT // 4)
    with pytest.raises(FatalError, match="the offsets that the journal has"):
        backfill(log, store, new, path)
    path.write_text('{"id": "e1", "card": "c1"}')
    with pytest.raises(ConfigError, match="record --envelope"):
        backfill(log, store, new, path)
