"""How tests read a store at a version: as a worker does, through its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from worker.checkpoint import Checkpoint
from worker.stores import Meta, StateStore


def read(
    store: StateStore, space: str, version: bytes | None, keys: Sequence[str]
) -> list[bytes | None]:
    """Return the values of keys, or raise as `Checkpoint.load`."""
    seen = None if version is None else Meta(version, 0, 0, 0)
    return Checkpoint(store, space, seen, 1, 1).load(keys)
