"""What features an entity has at an instant, without an event: for readers of stored state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from worker.contracts.records import Bool, EntityRows, Events, Float64, Int64
from worker.contracts.settings import Settings
from worker.errors import ConfigError
from worker.features.aggregations import AGGREGATIONS
from worker.features.entity import EntitySpec
from worker.features.entity_table import Table
from worker.features.label_table import LabelTable
from worker.features.label_view import empties, entity_of, is_of_labels, is_over_genuine
from worker.features.spec import FeatureSpec
from worker.features.state import clear_first, with_free_tiles

OF_THE_EVENT = "it is of an event, not of an entity"
COMPARES = "it compares an event with the history of its entity"

_NUMBERS = np.iinfo(np.int64).max  # hashes of the imagined events count down from here


class Standing:
    """Reads the features of entities from their blobs at any instant.

    An answer is what an event of that instant would read of the history before it: every window
    ends at the instant, or at the entity's newest event where that is later, since "now never moves
    back". It is made by the same kernel that serves events: an event is imagined, and the features
    are read before it is folded, into state that is thrown away.

    Parameters
    ----------
    settings, spec
        The configuration and what it compiles to.

    Attributes
    ----------
    names
        Called with an entity type, returns the names of the features that `read` gives, in the
        order of its columns. Raises `ConfigError` where there is no such entity, or nothing is kept
        of it.
    """

    def __init__(self, settings: Settings, spec: FeatureSpec) -> None:
        self._settings = settings
        self._spec = before_the_event(spec)
        self._tables: dict[str, _Numbered] = {}
        self._labels: dict[str, _NumberedLabels] = {}
        self._events = self._imagined(0)
        self._label_parts = {entity_of(part): part.name for part in spec.label_parts}
        self._columns = cache(self._find_columns)
        self.names = cache(self._find_names)

    def _find_names(self, entity: str) -> tuple[str, ...]:
        return tuple(self._spec.features[c].name for c in self._columns(entity).tolist())

    def parts(self, entity: str) -> tuple[str, ...]:
        """Return under which names an entity is stored: what happened, then what became known."""
        return (entity, *[part for name, part in self._label_parts.items() if name == entity])

    def left_out(self, entity: str) -> dict[str, str]:
        """Return the other features of its events, which no entity has alone, with the reason."""
        mine = self._columns(entity).tolist()
        reasons = {}
        for column, f in enumerate(self._spec.features):
            if f.entity is None:
                reasons[f.name] = OF_THE_EVENT
            elif f.entity == entity and column not in mine:
                reasons[f.name] = COMPARES
        return reasons

    def read(
        self,
        entity: str,
        blobs: Sequence[bytes | None],
        at_ms: int,
        known: Sequence[bytes | None] = (),
    ) -> Float64:
        """Return a row of features per blob, shape (n, len(names)); None is one never seen.

        ``known`` are the blobs of the second of `parts`, where there is one.

        Raises
        ------
        StateLostError
            A blob is damaged, or of another state: the worker rebuilds it from the log.
        """
        n = len(blobs)
        if len(self._events) != n:
            self._events = self._imagined(n)
        events, duplicate = self._events, np.zeros(n, np.bool_)
        events.time_ms.fill(at_ms)
        X = np.zeros((n, len(self._spec.event_view)))
        table = self._table(entity)
        table.hold(blobs)
        now = table.imagine(events, duplicate, X)
        if entity in self._label_parts:
            labels = self._label_table(entity)
            labels.hold(known)
            for column, empty in empties(self._spec.features):
                X[:, column] = empty
            labels.process_labels(events, None, now, duplicate, X)
            for rate in self._spec.rates:
                rate.apply(X)
        return X.take(self._columns(entity), axis=1)

    def _table(self, entity: str) -> _Numbered:
        if entity not in self._tables:
            index, _ = self._entity(entity)
            self._tables[entity] = _Numbered(self._spec, index, 1)
        return self._tables[entity]

    def _label_table(self, entity: str) -> _NumberedLabels:
        if entity not in self._labels:
            names = [part.name for part in self._spec.parts]
            index = names.index(self._label_parts[entity])
            self._labels[entity] = _NumberedLabels(self._spec, index, 1)
        return self._labels[entity]

    def _find_columns(self, entity: str) -> Int64:
        """Return its columns of X: not those that compare events, nor those that only help label
        aggregates.
        """
        columns = self._entity(entity)[1].columns
        found = [
            column
            for column, f in enumerate(self._spec.features)
            if (column in columns and not AGGREGATIONS[f.aggregation].compares)
            or (f.entity == entity and is_of_labels(f) and not is_over_genuine(f))
        ]
        return np.array(found, np.int64)

    def _entity(self, name: str) -> tuple[int, EntitySpec]:
        for index, entity in enumerate(self._spec.entities):
            if entity.name == name and entity.kept:
                return index, entity
        known = ", ".join(e.name for e in self._spec.entities if e.kept)
        raise ConfigError("entity", expected=f"one of {known}", got=name)

    def _imagined(self, n: int) -> Events:
        """Return n events of as many entities; nobody reads their values."""
        ids = [str(i) for i in range(n)]
        columns: dict[str, Int64 | Float64 | list[str]] = {}
        for name, declared in self._settings.events.fields.items():
            if declared.type == "string":
                columns[name] = [""] * n
            elif declared.type == "float":
                columns[name] = np.zeros(n, np.float64)
            else:
                columns[name] = np.zeros(n, np.int64)
        return Events(
            index=np.arange(n),
            offsets=np.zeros(n, np.int64),
            time_ms=np.zeros(n, np.int64),
            ids=ids,
            id_hash=(_NUMBERS - np.arange(n)).astype(np.uint64),
            entity_ids=dict.fromkeys(self._settings.entities, ids),
            columns=columns,
        )


class _Numbered(Table):
    """Entities by number: what is held and asked for is all of them, the first in slot 0."""

    _held = 0

    def hold(self, blobs: Sequence[bytes | None]) -> None:
        """Hold what these blobs say, None of an entity never seen, and nothing else.

        Each has a tile row, or there is a free one for its next event.

        Raises
        ------
        StateDamagedError
            A blob is damaged, or of another state.
        """
        stored = [blob for blob in blobs if blob is not None]
        self._codec.check(stored)
        self._make_room(len(blobs))
        clear_first(self._plan, self._rows, self._held)
        self._held = len(blobs)
        self._rows = with_free_tiles(self._plan, self._rows, len(blobs))
        if stored:
            places = np.array([i for i, blob in enumerate(blobs) if blob is not None], np.int64)
            self._codec.decode(self._rows, places, stored)

    def imagine(self, events: Events, duplicate: Bool, X: Float64) -> Int64:
        """Do as `process` for an event of each entity held; what is recorded of it is 0."""
        n = len(events)
        nothing = np.zeros((n, len(self._sources)), np.int64)
        rows = EntityRows(events.ids, events.time_ms, events.id_hash, nothing)
        return self._run(self._plan, events.index, rows, duplicate, X)

    def _here(self, ids: list[str]) -> Int64:
        return np.arange(len(ids))


class _NumberedLabels(_Numbered, LabelTable):
    """The L-parts of entities by number."""


def before_the_event(spec: FeatureSpec) -> FeatureSpec:
    """Return the spec of the same state whose every window leaves the current event out."""
    return replace(
        spec,
        features=tuple(
            replace(f, options=replace(f.options, include_current=False)) for f in spec.features
        ),
        entities=tuple(
            replace(
                e, windows=tuple(sorted({replace(w, include_current=False) for w in e.windows}))
            )
            for e in spec.entities
        ),
    )
