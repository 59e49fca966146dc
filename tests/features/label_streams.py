"""Streams of events and of truths about them, as tables take them, for tests of label features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.features.streams import Row, events_of, settings_of, streams, tables_of, taken_from
from worker.contracts.records import MISSING, LabelUpdates
from worker.contracts.settings import LabelSettings, Settings
from worker.features.spec import FeatureSpec, compile_features
from worker.features.table import FeatureTables

Store = dict[tuple[str, str], bytes]


@dataclass(frozen=True)
class Told:
    """The truth about event number ``row``, told when ``at`` events have been read."""

    at: int
    row: int
    y: int


def label_settings(features: dict[str, Any], ring: int = 32) -> Settings:
    return settings_of(features, ring).model_copy(update={"labels": LabelSettings()})


def label_spec(features: dict[str, Any], ring: int = 32) -> FeatureSpec:
    return compile_features(label_settings(features, ring))


@st.composite
def labelled_streams(draw: st.DrawFn, size_max: int = 25) -> tuple[list[Row], list[Told]]:
    """Return events and truths in order: early, late, revised more than once, or never known."""
    rows = draw(streams(size_max))
    ids = [row.id for row in rows]
    once = [i for i, id_ in enumerate(ids) if ids.count(id_) == 1]
    told = []
    for _ in range(draw(st.integers(0, 40)) if once else 0):
        row = draw(st.sampled_from(once))
        told.append(Told(draw(st.integers(row + 1, len(rows))), row, draw(st.integers(0, 1))))
    return rows, fresh(sorted(told, key=lambda t: t.at))


def fresh(told: Sequence[Told]) -> list[Told]:
    """Leave out what says nothing new."""
    known: dict[int, int] = {}
    kept = []
    for one in told:
        if known.get(one.row) != one.y:
            kept.append(one)
        known[one.row] = one.y
    return kept


def score_of(row: Row) -> int | None:
    """Return the score that a row was served, in millionths; some have none."""
    return None if row.amount is None or row.items == 3 else row.amount * 7_919 % 1_000_001


PASSES = {"$items > 0": lambda row: row.items is not None and row.items > 0}
"""Conditions of label features, as plain Python has them."""


def units(values: Sequence[int | None]) -> np.ndarray:
    return np.array([MISSING if v is None else v for v in values], np.int64)


def updates_of(
    rows: Sequence[Row], told: Sequence[Told], first: int, known: dict[int, int]
) -> LabelUpdates:
    """Return truths as a shard hands them on; ``known`` is what was known, and is brought up to
    date.
    """
    of = [rows[t.row] for t in told]
    events = events_of(of)
    before = []
    for t in told:
        before.append(known.get(t.row, -1))
        known[t.row] = t.y
    return LabelUpdates(
        before=np.array([t.at - first for t in told], np.int64),
        event_ids=events.ids,
        id_hash=events.id_hash,
        time_ms=events.time_ms,
        entity_ids=events.entity_ids,
        y=np.array([t.y for t in told], np.int64),
        y_before=np.array(before, np.int64),
        weight=np.ones(len(told)),
        weight_before=np.array([float(y >= 0) for y in before]),
        values={
            "amount": units([row.amount for row in of]),
            "items": units([row.items for row in of]),
            "score": units([score_of(row) for row in of]),
            **{text: units([int(passes(row)) for row in of]) for text, passes in PASSES.items()},
        },
    )


@dataclass
class Stream:
    """Tables that are given events and truths batch by batch."""

    tables: FeatureTables
    rows: Sequence[Row]
    told: Sequence[Told]
    store: Store = field(default_factory=dict)
    known: dict[int, int] = field(default_factory=dict)
    at: int = 0
    given: int = 0

    def step(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Process so many events and the truths up to the last of them; at the end, all."""
        end = self.at + count
        last = end == len(self.rows)
        told = [t for t in self.told[self.given :] if t.at < end or last]
        updates = updates_of(self.rows, told, self.at, self.known)
        events = events_of(self.rows[self.at : end])
        missing = self.tables.missing(events)
        labelled = self.tables.missing_labelled(updates.entity_ids)
        missing += [key for key in labelled if key not in missing]
        self.tables.load(missing, [self.store.get(key) for key in missing])
        self.at, self.given = end, self.given + len(told)
        return self.tables.process(events, updates)

    def flush(self) -> None:
        """Write what is dirty and forget what may be."""
        self.store |= {(entity, id_): blob for entity, id_, blob in taken_from(self.tables)}
        self.tables.evict()


def run(
    spec: FeatureSpec, rows: Sequence[Row], told: Sequence[Told]
) -> tuple[np.ndarray, np.ndarray, Store]:
    """Return X, the duplicates and all blobs, of one batch."""
    stream = Stream(tables_of(spec), rows, told)
    X, duplicate = stream.step(len(rows))
    stream.flush()
    return X, duplicate, stream.store
