"""Positions and logs that contradict each other: refused in words, never gone on with."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest

from tests.worlds import drain, events, fill, journal, new_log, settings, worker
from worker.checkpoint import space_of
from worker.errors import FatalError
from worker.features.spec import compile_features
from worker.stores.memory import MemoryStore
from worker.streams.memory import MemoryLog

COUNT = 200
STREAM = events(COUNT)
SPACE = space_of("world", compile_features(settings()), 0)


def run_of(stream: list[dict[str, object]]) -> tuple[MemoryLog, MemoryStore]:
    """Return a log whose events are all committed, and the store of who did it."""
    log, store = new_log(), MemoryStore()
    fill(log, stream)
    drain(worker(log, store))
    return log, store


@pytest.mark.parametrize("position", ["events_offset", "labels_offset"])
def test_a_store_beyond_what_is_committed_is_refused(position: str) -> None:
    """By one event or one label: nobody knows which of the two is right."""
    log, store = run_of(STREAM)
    meta = store.meta(SPACE)
    assert meta is not None
    beyond = replace(meta, version=b"beyond", **{position: getattr(meta, position) + 1})
    store.flush(SPACE, meta.version, beyond, [])
    with pytest.raises(FatalError, match="a store at or before"):
        drain(worker(log, store))


@pytest.mark.parametrize("topic", ["transactions", "labels"])
def test_a_log_that_begins_after_what_the_store_lacks_is_refused(topic: str) -> None:
    """Its state would lack what retention has removed: events as well as labels."""
    log, store = run_of(STREAM[: COUNT // 2])
    fill(log, STREAM[COUNT // 2 :])
    drain(worker(log, MemoryStore()))  # another store: this one stays behind
    meta = store.meta(SPACE)
    assert meta is not None
    stands = meta.events_offset if topic == "transactions" else meta.labels_offset
    log.truncate(topic, 0, stands)
    drain(worker(log, deepcopy(store)))
    log.truncate(topic, 0, stands + 1)
    with pytest.raises(FatalError, match="expected a log from"):
        drain(worker(log, store))


def test_a_log_that_lacks_an_event_with_a_row_is_refused() -> None:
    """What follows would be taken for it."""
    log, _ = run_of(STREAM)
    holed = new_log()
    for topic in log.partitions:
        records = log.read(topic, 0, 0, 10**9)
        columns = (records.offsets, records.values, records.keys, records.timestamps_ms)
        for offset, value, key, time_ms in zip(*columns, strict=True):
            if (topic, offset) == ("transactions", COUNT // 2):
                holed.skip(topic, 0)
            else:
                holed.append(topic, 0, value, key, time_ms)
    assert len(journal(holed)) == COUNT
    with pytest.raises(FatalError, match="the offsets that the journal has"):
        drain(worker(holed, MemoryStore()))
