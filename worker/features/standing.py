"""What features an entity has at an instant, without an event: for readers of stored state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from worker.contracts.records import Events, Float64, Int64
from worker.contracts.settings import Settings
from worker.errors import ConfigError
from worker.features.aggregations import AGGREGATIONS
from worker.features.entity import EntitySpec
from worker.features.entity_table import Table
from worker.features.label_view import is_of_labels
from worker.features.spec import FeatureSpec

OF_THE_EVENT = "it is of an event, not of an entity"
COMPARES = "it compares an event with the history of its entity"
OF_LABELS = "it is of what became known about events, which is stored apart"

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
    """

    def __init__(self, settings: Settings, spec: FeatureSpec) -> None:
        self._settings = settings
        self._spec = before_the_event(spec)
        self._tables: dict[str, Table] = {}

    def names(self, entity: str) -> tuple[str, ...]:
        """Return the names of the features that `read` gives, in the order of its columns.

        Raises
        ------
        ConfigError
            There is no such entity, or nothing is kept of it.
        """
        return tuple(self._spec.features[c].name for c in self._columns(entity))

    def left_out(self, entity: str) -> dict[str, str]:
        """Return the other features of its events, which no entity has alone, with the reason."""
        compared = set(self._entity(entity)[1].columns) - set(self._columns(entity))
        reasons = {}
        for column, f in enumerate(self._spec.features):
            if f.entity is None:
                reasons[f.name] = OF_THE_EVENT
            elif is_of_labels(f) and f.entity == entity:
                reasons[f.name] = OF_LABELS
            elif column in compared:
                reasons[f.name] = COMPARES
        return reasons

    def read(self, entity: str, blobs: Sequence[bytes | None], at_ms: int) -> Float64:
        """Return a row of features per blob, shape (n, len(names)); None is one never seen.

        Raises
        ------
        StateLostError
            A blob is damaged, or of another state: the worker rebuilds it from the log.
        """
        index, _ = self._entity(entity)
        n = len(blobs)
        ids = [str(i) for i in range(n)]
        stored = dict(zip(ids, blobs, strict=True))
        table = self._tables.get(entity) or self._tables.setdefault(
            entity, Table(self._spec, index, n)
        )
        table.clear()
        table.check(stored)
        table.load(stored)
        X = np.zeros((n, len(self._spec.event_view)))
        table.process(self._imagined(ids, at_ms), ids, np.zeros(n, np.bool_), X)
        return X[:, self._columns(entity)]

    def _columns(self, entity: str) -> list[int]:
        """Return its columns of X: not those that compare events, nor those that only help label
        aggregates.
        """
        features = self._spec.features
        return [
            column
            for column in self._entity(entity)[1].columns
            if column < len(features) and not AGGREGATIONS[features[column].aggregation].compares
        ]

    def _entity(self, name: str) -> tuple[int, EntitySpec]:
        for index, entity in enumerate(self._spec.entities):
            if entity.name == name and entity.kept:
                return index, entity
        known = ", ".join(e.name for e in self._spec.entities if e.kept)
        raise ConfigError("entity", expected=f"one of {known}", got=name)

    def _imagined(self, ids: list[str], at_ms: int) -> Events:
        """Return an event per id at one instant; nobody reads its values."""
        n = len(ids)
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
            time_ms=np.full(n, at_ms, np.int64),
            ids=ids,
            id_hash=(_NUMBERS - np.arange(n)).astype(np.uint64),
            entity_ids=dict.fromkeys(self._settings.entities, ids),
            columns=columns,
        )


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
