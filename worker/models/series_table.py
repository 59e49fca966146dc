"""A series per entity: part of the shard's state, beside what features keep of the entity."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from worker.contracts.records import Bool, Events, Float64
from worker.contracts.settings import Settings
from worker.errors import StateDamagedError
from worker.features.spec import FeatureSpec
from worker.models import series_kernels as kernels
from worker.models.compiled import usable_rows
from worker.models.series import Series

SEPARATOR = "~"
_SLOTS_FIRST = 256
_EVICT_TO = 15 / 16


def series_tables(settings: Settings, spec: FeatureSpec) -> dict[str, SeriesTable]:
    """Return an empty table per model of ``scope: entity``; its keys are those of an entity type
    called ``ENTITY~MODEL``.
    """
    found = {}
    for column, feature in enumerate(spec.features):
        if feature.series is not None:
            model = Series(**settings.models[feature.series.model].params)
            columns = [spec.names.index(name) for name in feature.series.features]
            where = f"{feature.series.entity}{SEPARATOR}{feature.series.model}"
            found[where] = SeriesTable(
                where, feature.series.entity, columns, column, model, spec.state_hash,
                settings.runner.entities_max,
            )  # fmt: skip
    return found


class OwnPast:
    """What the series of a shard say of its events, for reasons.

    Parameters
    ----------
    tables
        By name, see `series_tables`.
    """

    def __init__(self, tables: Mapping[str, SeriesTable]) -> None:
        self._tables = tables

    def of(self, rows: NDArray[np.intp]) -> Float64:
        """Return (n, columns of all series, 2) of some of the events just processed."""
        parts = [table.past(rows) for table in self._tables.values()]
        return np.concatenate([np.empty((len(rows), 0, 2)), *parts], axis=1)

    def explain(self, model: str, past: Float64, contributions: Float64) -> Float64:
        """Return the levels (k, features) of the series that are the model's, NaN for all else.

        Their features' contributions are filled in: how unusual each is; the score is the largest.
        """
        levels, first = np.full_like(contributions, np.nan), 0
        for name, table in self._tables.items():
            last = first + len(table.columns)
            if name == f"{table.entity}{SEPARATOR}{model}":
                levels[:, table.columns] = past[:, first:last, 0]
                contributions[:, table.columns] = past[:, first:last, 1]
            first = last
        return levels


class SeriesTable:
    """The series of the entities of one type, each 72 bytes a feature in memory and store.

    Parameters
    ----------
    name
        Of the table, for messages.
    columns, column
        Of X: what a series is made of, and where its score goes.
    """

    def __init__(
        self, name: str, entity: str, columns: list[int], column: int, model: Series,
        state_hash: str, entities_max: int,
    ) -> None:  # fmt: skip
        self.entity = entity
        self.dirty_count = 0
        self._where = f"stored state of a {name}"
        self.columns, self._column = np.array(columns, np.int64), column
        self._bounds = float(model.window), float(model.warm_up)
        self._prefix = b"rws1" + bytes.fromhex(state_hash)[:8]
        self._entities_max = entities_max
        self._states = np.zeros((_SLOTS_FIRST, len(columns), kernels.NUMBERS))
        self._dirty = np.zeros(_SLOTS_FIRST, np.bool_)
        self._used = np.zeros(_SLOTS_FIRST, np.int64)  # number of the batch that used a slot last
        self._slots: dict[str, int] = {}
        self._free = list(range(_SLOTS_FIRST - 1, -1, -1))
        self._batch = 0
        self._past = np.empty((0, len(columns), 2))

    def missing(self, ids: list[str]) -> list[str]:
        """Return the ids that are not in memory, each once."""
        return [id_ for id_ in dict.fromkeys(ids) if id_ and id_ not in self._slots]

    def check(self, part: Mapping[str, bytes | None]) -> None:
        """Refuse blobs that are damaged or of another spec.

        Raises
        ------
        StateDamagedError
            Drop the space and acquire the shard again: it is rebuilt from the log.
        """
        length = len(self._prefix) + self._states[0].nbytes
        for blob in part.values():
            if blob is not None and not (
                len(blob) == length + 4
                and blob.startswith(self._prefix)
                and zlib.crc32(blob[:-4]) == int.from_bytes(blob[-4:], "little")
            ):
                hint = "the worker rebuilds it from the log"
                raise StateDamagedError(self._where, "a series as it was written", "another", hint)

    def load(self, part: Mapping[str, bytes | None]) -> None:
        """Take states that passed `check`; None is an entity never seen."""
        for id_, blob in part.items():
            if id_ in self._slots:
                continue
            slot = self._slots[id_] = self._new_slot()
            self._used[slot] = self._batch
            if blob is not None:
                numbers = np.frombuffer(blob[len(self._prefix) : -4], "<f8")
                self._states[slot] = numbers.reshape(self._states[0].shape)

    def process(self, events: Events, duplicate: Bool, X: Float64) -> None:
        """Write each event's score into X, and learn it; a duplicate changes nothing."""
        ids = events.entity_ids[self.entity]
        slots = np.fromiter((self._slots.get(id_, -1) for id_ in ids), np.int64, len(ids))
        slots[duplicate] = -1
        here = np.unique(slots[slots >= 0])
        self._batch += 1
        self._used[here] = self._batch
        x = np.ascontiguousarray(X[:, self.columns])
        usable = usable_rows(x)
        scores, self._past = np.empty(len(ids)), np.empty((len(ids), x.shape[1], 2))
        kernels.fold(x, usable, slots, self._states, *self._bounds, scores, self._past)
        X[:, self._column] = scores
        self.dirty_count += int((~self._dirty[here]).sum())
        self._dirty[here] = True

    def past(self, rows: NDArray[np.intp]) -> Float64:
        """Return of some of the events just processed what their entity's past says of each number:
        its level before, NaN where too little was known, and how unusual it was, (n, columns, 2).
        """
        return self._past[rows]

    def take_dirty(self) -> tuple[list[str], list[bytes]]:
        """Return ids and blobs of all changed entities and call them clean."""
        taken = [(id_, slot) for id_, slot in self._slots.items() if self._dirty[slot]]
        self._dirty[:] = False
        self.dirty_count = 0
        return [id_ for id_, _ in taken], [self._blob(slot) for _, slot in taken]

    def evict(self) -> None:
        """Drop the clean entities that were used longest ago where there are too many."""
        if len(self._slots) <= self._entities_max:
            return
        excess = len(self._slots) - int(self._entities_max * _EVICT_TO)
        clean = [(int(self._used[s]), s, id_) for id_, s in self._slots.items()
                 if not self._dirty[s]]  # fmt: skip
        for _, slot, id_ in sorted(clean)[:excess]:
            self._states[slot] = 0.0
            del self._slots[id_]
            self._free.append(slot)

    def _blob(self, slot: int) -> bytes:
        body: bytes = self._prefix + self._states[slot].astype("<f8").tobytes()
        return body + zlib.crc32(body).to_bytes(4, "little")

    def _new_slot(self) -> int:
        if not self._free:
            have = len(self._dirty)
            self._states = np.concatenate([self._states, np.zeros_like(self._states)])
            self._dirty = np.concatenate([self._dirty, np.zeros(have, np.bool_)])
            self._used = np.concatenate([self._used, np.zeros(have, np.int64)])
            self._free = list(range(2 * have - 1, have - 1, -1))
        return self._free.pop()
