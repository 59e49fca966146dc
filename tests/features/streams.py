"""Configurations and streams of events, for tests of features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from worker.contracts.records import Events
from worker.contracts.settings import Settings
from worker.features.codes import MISSING
from worker.features.spec import FeatureSpec, compile_features
from worker.features.table import FeatureTables

UNHURRIED = settings(deadline=None, max_examples=60)
"""The first example of a test may wait for a kernel to be compiled."""

START_MS = 1_700_000_000_123
FIELDS: dict[str, Any] = {
    "id": "string",
    "card_id": "string",
    "terminal_id": "string",
    "amount": {"type": "decimal", "resolution": 0.01},
    "items": {"type": "integer", "optional": True},
    "present": "boolean",
    "score": "float",
    "channel": {"type": "category", "values": ["web", "pos"]},
    "country": {"type": "string", "optional": True},
    "latitude": "float",
    "longitude": "float",
    "opened": "timestamp",
}


def settings_of(
    features: dict[str, Any], ring: int = 32, fields: dict[str, Any] | None = None
) -> Settings:
    return Settings.model_validate(
        {
            "name": "test",
            "events": {
                "topic": "events", "id": "id", "key": "card_id", "time": {"field": "at"},
                "fields": FIELDS if fields is None else fields,
            },
            "entities": {
                "card": {"key": "card_id", "ring": ring},
                "terminal": {"key": "terminal_id", "ring": ring},
            },
            "features": features,
            "models": {"m": {"preset": "none"}},
            "decision": {"model": "m", "threshold": 1.0},
        }
    )  # fmt: skip


def spec_of(features: dict[str, Any], ring: int = 32) -> FeatureSpec:
    return compile_features(settings_of(features, ring))


@dataclass(frozen=True)
class Row:
    """One event; times count from `START_MS`, the amount is in cents."""

    id: str
    at: int = 0
    card: str = "c"
    terminal: str = "t"
    amount: int = 0
    items: int | None = 0
    present: bool = True
    channel: int = 0
    score: float = 0.0
    country: str = ""
    latitude: float = math.nan
    longitude: float = math.nan

    @property
    def time_ms(self) -> int:
        return START_MS + self.at


def events_of(rows: Sequence[Row]) -> Events:
    """Return rows as a decoder would; an id's hash is any number that differs between ids."""
    n = len(rows)
    hashes = [int.from_bytes(row.id.encode().rjust(8, b"\xff")[-8:], "big") for row in rows]
    return Events(
        index=np.arange(n),
        offsets=np.arange(n),
        time_ms=np.array([row.time_ms for row in rows], np.int64),
        ids=[row.id for row in rows],
        id_hash=np.array(hashes, np.uint64),
        entity_ids={
            "card": [r.card for r in rows],
            "terminal": [r.terminal for r in rows],
            "target_of_channel": [("web", "pos", "*")[r.channel] for r in rows],
        },
        columns={
            "amount": np.array([row.amount for row in rows], np.int64),
            "items": np.array([MISSING if r.items is None else r.items for r in rows], np.int64),
            "present": np.array([row.present for row in rows], np.int64),
            "channel": np.array([row.channel for row in rows], np.int64),
            "score": np.array([row.score for row in rows], np.float64),
            "country": [row.country for row in rows],
            "latitude": np.array([row.latitude for row in rows], np.float64),
            "longitude": np.array([row.longitude for row in rows], np.float64),
        },
    )


def tables_of(spec: FeatureSpec, entities_max: int = 1_000_000) -> FeatureTables:
    return FeatureTables(spec, "card", entities_max)


def taken_from(tables: FeatureTables) -> list[tuple[str, str, bytes]]:
    """Return (entity, id, blob) of all changed entities, and call them clean."""
    return [
        (entity, id_, blob)
        for entity, ids, blobs in tables.take_dirty()
        for id_, blob in zip(ids, blobs, strict=True)
    ]


def call_dirty(tables: FeatureTables, keys: Sequence[tuple[str, str]]) -> None:
    """Have the next `take_dirty` pack these entities as if they had changed."""
    for name, table in tables._kept.items():
        ids, kept = [id_ for part, id_ in keys if part == name], cast(Any, table)
        kept._rows.dirty[kept._slots.find(ids)] = True
        kept.dirty_count = int(kept._rows.dirty.sum())


def step(
    tables: FeatureTables, rows: Sequence[Row], store: dict[tuple[str, str], bytes] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Process one batch; what memory lacks comes from ``store``."""
    events = events_of(rows)
    missing = tables.missing(events)
    tables.load(missing, [(store or {}).get(key) for key in missing])
    return tables.process(events)


def run(spec: FeatureSpec, rows: Sequence[Row]) -> list[dict[str, float]]:
    """Return the features of each event by name, processed as one batch."""
    X, _ = step(tables_of(spec), rows)
    return [dict(zip(spec.names, x, strict=True)) for x in X.tolist()]


STEPS_MS = (
    0, 1, 700, 4_999, 5_000, 5_001, 9_999, 10_000, 10_001, 30_000, 59_999, 60_000, 60_001,
    86_399_999, 86_400_000, 86_400_001,
)  # fmt: skip
LATE_MS = (1, 5_000, 9_999, 10_000, 10_001, 45_000, 60_000, 120_000, 86_400_000)
UNITS = st.one_of(
    st.integers(-300, 300), st.sampled_from((0, 0, 1, -1, 2**40, -(2**40), 2**31, 10_000))
)

LATITUDES = (52.52, 52.520001, -90.0, 89.9999999, 0.0, -33.45, math.nan, 1e300)
LONGITUDES = (13.405, 13.4, -179.9, 179.9, 0.0, -70.66, math.nan, -1e300)


@st.composite
def streams(draw: st.DrawFn, size_max: int = 40) -> list[Row]:
    """Return events with ties, gaps, late ones, duplicates, and negative, zero and huge values."""
    rows: list[Row] = []
    at = 0
    for i in range(draw(st.integers(1, size_max))):
        at += draw(st.sampled_from(STEPS_MS))
        late = draw(st.one_of(st.just(0), st.just(0), st.sampled_from(LATE_MS)))
        repeated = rows and draw(st.integers(0, 9)) == 0
        rows.append(
            Row(
                id=draw(st.sampled_from(rows)).id if repeated else f"e{i}",
                at=at - late,
                card=draw(st.sampled_from("ab")),
                terminal=draw(st.sampled_from("xy")),
                amount=draw(UNITS),
                items=draw(st.one_of(st.none(), st.integers(-3, 3))),
                present=draw(st.booleans()),
                channel=draw(st.integers(0, 2)),
                country=draw(st.sampled_from(("", "DE", "FR", "IT"))),
                latitude=draw(st.sampled_from(LATITUDES)),
                longitude=draw(st.sampled_from(LONGITUDES)),
            )
        )
    return rows
