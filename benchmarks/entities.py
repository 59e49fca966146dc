"""Entities: features with labels, few and many entities in memory, misses, and bytes in a store.

Figures of speed are CPU time, the median over batches; those of size are what a real Valkey says.
"""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import redis
from pydantic import SecretStr

from benchmarks.features import BATCH, ENTITIES, Row, batches, row, settings_of, timed
from tests.features.streams import call_dirty
from tests.services.valkey import ValkeyServer
from worker.checkpoint import space_of
from worker.contracts.records import Events, LabelUpdates
from worker.contracts.settings import EntitySettings, LabelSettings, RedisSettings, Settings
from worker.features.spec import compile_features
from worker.features.table import FeatureTables
from worker.stores import Meta, Write
from worker.stores.redis import RedisStore

DAYS = ["1d", "7d", "30d"]
DELAYED = {"windows": DAYS, "delay": "7d"}
HANDBOOK_25: dict[str, Any] = {
    "amount": "$amount",
    "weekend": "is_weekend($time)",
    "night": "is_night($time)",
    "card": {
        **dict.fromkeys(("count", "mean(amount)", "std(amount)", "max(amount)"), DAYS),
        "time_since_last": {},
    },
    "terminal": dict.fromkeys(("count", "mean(amount)", "fraud_rate"), DELAYED),
}
CARD: dict[str, Any] = {"card": {"count": DAYS, "mean(amount)": DAYS}}
TWO_FIELDS: dict[str, Any] = {"card": {"mean(amount)": DAYS, "sum(minutes)": DAYS}}
FEW, MANY = 10_000, 1_000_000
KNOWN_EVENTS = 4
RING = 8  # more than an entity of `_scaled` ever has events
DAY_MS = 86_400_000
NOW_MS = 1_700_000_000_000


def run(quick: bool = False) -> list[Row]:
    """Return the rows of this benchmark."""
    few, many = (100, 1_000) if quick else (FEW, MANY)
    batch_count = 3 if quick else 100
    few_us, many_us = _scaled_us(few, batch_count), _scaled_us(many, batch_count)
    return [
        *_labelled_rows(5 if quick else 300),
        row("events_of_10_thousand", 1e6 / few_us, "events/s"),
        row("events_of_1_million", 1e6 / many_us, "events/s", few_us / many_us, "10 thousand"),
        *_miss_and_memory_rows(3 if quick else 20, 50 if quick else 2_000),
    ]


def _labelled_rows(count: int) -> list[Row]:
    """Return events a second with 25 features, and what a label takes: of events two weeks old."""
    settings = settings_of(HANDBOOK_25).model_copy(update={"labels": LabelSettings()})
    spec = compile_features(settings)
    tables, draw = FeatureTables(spec, "card", 1_000_000), np.random.default_rng(2)
    nothing = _taken(next(batches(1)), 0)
    events_s, labels_s, past = [], [], []
    for events in batches(count):
        past.append(events)
        updates = _truths(past[len(past) // 2], draw)
        missing = tables.missing(events)
        known = dict.fromkeys([*missing, *tables.missing_labelled(updates.entity_ids)])
        tables.load(list(known), [None] * len(known))
        labels_s.append(timed(lambda u=updates: tables.process(nothing, u)))  # type: ignore[misc]
        events_s.append(timed(lambda e=events: tables.process(e)))  # type: ignore[misc]
    warm = count // 2
    return [
        row("features_25", BATCH / statistics.median(events_s[warm:]), "events/s"),
        row("label_update", statistics.median(labels_s[warm:]) / BATCH * 1e6, "us/label"),
    ]


def _taken(events: Events, count: int) -> Events:
    """Return the first events of a batch."""
    return Events(
        index=events.index[:count],
        offsets=events.offsets[:count],
        time_ms=events.time_ms[:count],
        ids=events.ids[:count],
        id_hash=events.id_hash[:count],
        entity_ids={name: ids[:count] for name, ids in events.entity_ids.items()},
        columns={name: values[:count] for name, values in events.columns.items()},
    )


def _truths(events: Events, draw: np.random.Generator) -> LabelUpdates:
    n = len(events)
    return LabelUpdates(
        before=np.zeros(n, np.int64),
        event_ids=events.ids,
        id_hash=events.id_hash,
        time_ms=events.time_ms,
        entity_ids=events.entity_ids,
        y=draw.integers(0, 2, n),
        y_before=np.full(n, -1),
        weight=np.ones(n),
        weight_before=np.zeros(n),
        values={"amount": np.asarray(events.columns["amount"])},
    )


def _with_ring(settings: Settings, ring: int) -> Settings:
    entities = {"card": EntitySettings(key="card", ring=ring)}
    return settings.model_copy(update={"entities": entities})


def _scaled_us(entities: int, count: int) -> float:
    """Return the median time of an event when so many entities, each with four, are in memory."""
    spec = compile_features(_with_ring(settings_of(CARD), RING))
    tables = FeatureTables(spec, "card", entities)
    draw = np.random.default_rng(3)
    ids = [str(4_000_000_000_000_000 + i) for i in range(entities)]
    tables.load([("card", id_) for id_ in ids], [None] * entities)
    now_ms = NOW_MS
    for _ in range(KNOWN_EVENTS):
        now_ms += DAY_MS
        for first in range(0, entities, 50_000):
            tables.process(_cards(ids[first : first + 50_000], now_ms, draw))
    took = []
    for _ in range(count):
        now_ms += 1
        chosen = [ids[i] for i in draw.integers(0, entities, BATCH)]
        events = _cards(chosen, now_ms, draw)
        took.append(timed(lambda e=events: tables.process(e)))  # type: ignore[misc]
    return statistics.median(took) / BATCH * 1e6


def _cards(ids: list[str], now_ms: int, draw: np.random.Generator) -> Events:
    n = len(ids)
    return Events(
        index=np.arange(n),
        offsets=np.arange(n),
        time_ms=np.full(n, now_ms),
        ids=ids,
        id_hash=draw.integers(0, 2**63, n).astype(np.uint64),
        entity_ids=dict.fromkeys(ENTITIES, ids),
        columns={"amount": draw.integers(100, 50_000, n), "minutes": draw.integers(0, 1_440, n)},
    )


def _miss_and_memory_rows(events: int, cards: int) -> list[Row]:
    """Return the cost of a card that is not in memory and goes again, and the bytes of cards."""
    settings = settings_of(TWO_FIELDS)
    spec = compile_features(settings)
    tables, draw = FeatureTables(spec, "card", 0), np.random.default_rng(4)
    ids = [str(4_000_000_000_000_000 + i) for i in range(cards)]
    tables.load([("card", id_) for id_ in ids], [None] * cards)
    for i in range(events):
        tables.process(_cards(ids, NOW_MS + i * 30 * DAY_MS // events, draw))
    taken = tables.take_dirty()
    tables.evict()
    blobs = {(entity, id_): blob for entity, id_, blob in taken}
    batch = _cards(ids, NOW_MS + 30 * DAY_MS, draw)

    def miss() -> None:
        missing = tables.missing(batch)
        tables.load(missing, [blobs[key] for key in missing])
        call_dirty(tables, missing)
        tables.take_dirty()
        tables.evict()

    took = [timed(miss) for _ in range(8)]
    used = max(_memory_usage(settings, taken[:20]))
    return [
        row("miss", statistics.median(took[1:]) / cards * 1e6, "us/entity"),
        row("card_of_20_events", used, "B", used / 600, "600 B"),
    ]


def _memory_usage(settings: Settings, taken: list[tuple[str, str, bytes]]) -> list[int]:
    """Return the bytes that a server says each entity takes, key included."""
    space = space_of(settings.name, compile_features(settings), 1)
    with ValkeyServer(persistent=False) as server:
        config = RedisSettings.model_construct(url=SecretStr(server.url), timeout=10_000)
        store = RedisStore(config)
        writes = [Write(f"{entity}:{id_}", blob, 10**9) for entity, id_, blob in taken]
        store.flush(space, None, Meta(b"v" * 16, 1, 0, 1, 1), writes)
        store.close()
        client = redis.Redis.from_url(server.url)
        keys = list(client.scan_iter("fs:*card:*"))
        return [client.memory_usage(key, samples=0) or 0 for key in keys]
