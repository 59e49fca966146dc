"""Features: folding and reading 90 and 15 of them, and packing the state of entities.

The cards of the benchmark buy 90 times in 30 days, so rings of 32 are full and the longest windows
read tiles. Every figure is the median over batches (or rounds) of CPU time after a warm-up.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tests.features.streams import call_dirty, taken_from
from worker.contracts.records import Events
from worker.contracts.settings import Settings
from worker.features.learned import Learned
from worker.features.rows import RowFeatures
from worker.features.spec import FeatureSpec, compile_features
from worker.features.table import FeatureTables

BATCH = 500
ENTITIES = ("card", "terminal", "device")
WINDOWS_HOURS = {"1h": 1, "6h": 6, "1d": 24, "3d": 72, "7d": 168, "30d": 720}
HOUR_MS = 3_600_000
MONTH_MS = 720 * HOUR_MS
AGGREGATIONS = ("count", "mean(amount)", "std(amount)", "min(amount)", "max(amount)")
WIDE: dict[str, Any] = {
    entity: {key: list(WINDOWS_HOURS) for key in AGGREGATIONS} for entity in ENTITIES
}
HANDBOOK: dict[str, Any] = {
    "amount": "$amount",
    "weekend": "is_weekend($time)",
    "night": "is_night($time)",
    "card": {"count": ["1d", "7d", "30d"], "mean(amount)": ["1d", "7d", "30d"]},
    "terminal": {
        "count": {"windows": ["1d", "7d", "30d"], "delay": "7d"},
        "mean(amount)": {"windows": ["1d", "7d", "30d"], "delay": "7d"},
    },
}
ROWS: dict[str, Any] = {
    "amount": "$amount",
    "log": "log1p($amount)",
    "night": "hour($time) < 6",
    "night_paris": "hour($time, 'Europe/Paris') < 6",
    "round": "$amount % 10 == 0",
    "share": "clip($amount, 0, 100) / 100",
    "late_log": "if($amount > 100 and hour($time) < 6, log1p($amount), 0)",
    "bucket": "onehot(bucket($amount, 10, 50, 100, 200))",
    "habit": "cross(bucket($amount, 10, 50), is_weekend($time))",
    "hashed": "hashed($terminal, 16)",
    "level": "quantile_bucket($amount, 10)",
}

Row = dict[str, Any]
History = dict[tuple[str, str], list[tuple[int, float]]]


def run(quick: bool = False) -> list[Row]:
    """Return the rows of this benchmark."""
    warm, measured = (2, 3) if quick else (200, 200)
    plain_us = _plain_us(2 if quick else 8)
    tables, wide_us = _process_us(_spec(WIDE), warm, measured)
    _, handbook_us = _process_us(_spec(HANDBOOK), warm, measured)
    to = "plain Python over lists"
    return [
        row("features_90", wide_us, "us/event", plain_us / wide_us, to),
        row("features_15", 1e6 / handbook_us, "events/s"),
        row("rows_11", _rows_us(warm + measured), "us/event"),
        *_blob_rows(tables, 1 if quick else 9),
    ]


def row(
    name: str, value: float, unit: str, ratio: float | None = None, to: str | None = None
) -> Row:
    return {"name": name, "value": value, "unit": unit, "ratio": ratio, "ratio_to": to}


def settings_of(features: dict[str, Any]) -> Settings:
    """Return a configuration with three entities and two numbers, an amount and minutes."""
    fields: dict[str, Any] = dict.fromkeys(("id", *ENTITIES), "string")
    settings = {
        "name": "bench",
        "events": {
            "topic": "events", "id": "id", "key": "card", "time": {"field": "time"},
            "fields": {
                **fields,
                "amount": {"type": "decimal", "resolution": 0.01},
                "minutes": "integer",
            },
        },
        "entities": {entity: {"key": entity} for entity in ENTITIES},
        "features": features,
        "models": {"m": {"preset": "none"}},
        "decision": {"model": "m", "threshold": 1.0},
    }  # fmt: skip
    return Settings.model_validate(settings)


def _spec(features: dict[str, Any]) -> FeatureSpec:
    return compile_features(settings_of(features))


def batches(count: int, entities: int = 1_000) -> Iterator[Events]:
    """Yield batches in which each entity is in 90 events of 30 days."""
    draw = np.random.default_rng(1)
    now_ms = 1_700_000_000_000
    for batch in range(count):
        times = now_ms + np.sort(draw.integers(0, BATCH * MONTH_MS // (entities * 90), BATCH))
        now_ms = int(times[-1])
        yield Events(
            index=np.arange(BATCH),
            offsets=np.arange(BATCH),
            time_ms=times,
            ids=[f"{batch}-{i}" for i in range(BATCH)],
            id_hash=draw.integers(0, 2**63, BATCH).astype(np.uint64),
            entity_ids={
                entity: [str(i) for i in draw.integers(0, entities, BATCH)] for entity in ENTITIES
            },
            columns={"amount": draw.integers(100, 50_000, BATCH)},
        )


def _process_us(spec: FeatureSpec, warm: int, measured: int) -> tuple[FeatureTables, float]:
    """Return warm tables, and the median time an event takes in `process`."""
    tables = FeatureTables(spec, "card", 1_000_000)
    took: list[float] = []
    for events in batches(warm + measured):
        missing = tables.missing(events)
        tables.load(missing, [None] * len(missing))
        took.append(timed(lambda events=events: tables.process(events)))  # type: ignore[misc]
    return tables, statistics.median(took[warm:]) / BATCH * 1e6


def _rows_us(count: int) -> float:
    """Return the median time an event takes for features of the row alone."""
    spec = _spec(ROWS)
    rows, learned = RowFeatures(spec.features), Learned(spec.features)
    duplicate = np.zeros(BATCH, np.bool_)
    took: list[float] = []
    for events in batches(count):
        events.columns["terminal"] = events.entity_ids["terminal"]
        X = np.zeros((BATCH, len(spec.features)))
        took.append(timed(lambda e=events, X=X: rows.write(e, learned.update(e, duplicate), X)))  # type: ignore[misc]
    return statistics.median(took) / BATCH * 1e6


def _blob_rows(tables: FeatureTables, rounds: int) -> list[Row]:
    """Return what packing and unpacking one entity costs, and how long its blob is."""
    taken = taken_from(tables)
    keys = [(entity, id_) for entity, id_, _ in taken]
    reader = FeatureTables(_spec(WIDE), "card", 1)
    packing, unpacking = [], []
    for _ in range(rounds + 1):
        call_dirty(tables, keys)
        packing.append(timed(tables.take_dirty))
        unpacking.append(timed(lambda: reader.load(keys, [blob for _, _, blob in taken])))
        reader.evict()
    each = 1e6 / len(keys)
    return [
        row("blob_encode", statistics.median(packing[1:]) * each, "us/entity"),
        row("blob_decode", statistics.median(unpacking[1:]) * each, "us/entity"),
        row("blob_size", statistics.mean(len(blob) for _, _, blob in taken), "B"),
    ]


def _plain_us(rounds: int) -> float:
    """Return the time of an event when each window is a pass over the entity's list of events."""
    history: History = defaultdict(list)
    took = []
    for i, events in enumerate(batches(180 + rounds)):
        if i < 180:  # a month
            _plain_add(history, events)
        else:
            took.append(timed(lambda e=events: _plain_read(history, e)))  # type: ignore[misc]
    return statistics.median(took) / BATCH * 1e6


def _plain_add(history: History, events: Events) -> None:
    amounts = events.columns["amount"]
    for i, t in enumerate(events.time_ms.tolist()):
        for entity in ENTITIES:
            history[entity, events.entity_ids[entity][i]].append((t, float(amounts[i]) / 100))


def _plain_read(history: History, events: Events) -> None:
    amounts = events.columns["amount"]
    for i, t in enumerate(events.time_ms.tolist()):
        for entity in ENTITIES:
            past = history[entity, events.entity_ids[entity][i]]
            past.append((t, float(amounts[i]) / 100))
            for hours in WINDOWS_HOURS.values():
                values = [v for at, v in past if t - hours * HOUR_MS < at <= t]
                mean = sum(values) / len(values)
                sum((v - mean) ** 2 for v in values)
                min(values)
                max(values)


def timed(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started
