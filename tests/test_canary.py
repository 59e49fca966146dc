"""Bytes from Kafka, Redis or disk never run code: a pickle that would sing, put in every place."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.worlds import drain, events, fill, new_log, settings, worker
from worker.commands import snapshots_of
from worker.contracts.settings import SnapshotSettings
from worker.errors import RiverwatchError
from worker.features.spec import compile_features
from worker.stores.memory import MemoryStore
from worker.streams.memory import MemoryLog

KEY = "0123456789abcdef"


class Canary:
    """Makes a directory when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place),)


def in_topic(topic: str, *, as_key: bool = False) -> Callable[..., None]:
    """Return what appends a canary to a topic."""

    def put(log: MemoryLog, store: MemoryStore, files: Path, song: bytes) -> None:
        log.append(topic, 0, b"{}" if as_key else song, song, 0)

    return put


def in_store(prefix: str, *, keep: int = 0) -> Callable[..., None]:
    """Return what replaces values in the store, but for their first bytes."""

    def put(log: MemoryLog, store: MemoryStore, files: Path, song: bytes) -> None:
        (space,) = store._spaces.values()
        found = [key for key in space.values if key.startswith(prefix)]
        assert found, prefix
        for key in found:
            space.values[key] = space.values[key][:keep] + song

    return put


def in_snapshot(log: MemoryLog, store: MemoryStore, files: Path, song: bytes) -> None:
    """Replace all snapshots, and one after a right beginning."""
    found = sorted(files.iterdir())
    assert found
    for i, path in enumerate(found):
        path.write_bytes(path.read_bytes()[: 8 * i] + song)


PLACES: dict[str, Callable[..., None]] = {
    "an event": in_topic("transactions"),
    "an event's key": in_topic("transactions", as_key=True),
    "a label": in_topic("labels"),
    "an example": in_topic("training"),
    "a journal record": in_topic("journal"),
    "an entity in the store": in_store("card:"),
    "an entity after a right header": in_store("card:", keep=20),
    "an event that waits": in_store("pend~x:"),
    "an event that waits, after its numbers": in_store("pend~x:", keep=78),
    "a shard's own state": in_store("shard"),
    "a snapshot": in_snapshot,
}


@pytest.mark.parametrize("place", PLACES)
def test_a_pickle_is_never_run(place: str, tmp_path: Path) -> None:
    """It is refused, dead-lettered or rebuilt; whatever else happens, it does not sing."""
    config, nest = settings(runner={"batch_records_max": 10}), tmp_path / "sang"
    spec, files = compile_features(config), tmp_path / "snapshots"
    declared = SnapshotSettings(directory=str(files), key=KEY, every=10)
    config = config.model_copy(update={"snapshots": declared})
    snapshots = snapshots_of(config, spec)
    log, store, stream = new_log(), MemoryStore(), events(80)
    fill(log, stream[:40])
    drain(worker(log, store, config=config, snapshots=snapshots))
    PLACES[place](log, store, files, pickle.dumps(Canary(nest)))
    fill(log, stream[40:])
    for stores in (store, MemoryStore()):
        with suppress(RiverwatchError):
            drain(worker(log, stores, config=config, snapshots=snapshots))
    assert not nest.exists()
    with suppress(TypeError):  # it would have
        pickle.loads(pickle.dumps(Canary(nest)))
    assert nest.exists()
