"""Entities: features with labels, few and many entities in memory, misses, and bytes in a store.

Figures of speed are CPU time, the median over batches; those of size are what a real Valkey says.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import redis
from numba import njit
from pydantic import SecretStr

from benchmarks.features import BATCH, ENTITIES, Row, batches, row, settings_of, timed
from tests.features.streams import call_dirty, taken_from
from tests.services.valkey import ValkeyServer
from worker.checkpoint import space_of
from worker.contracts.records import Bool, Events, Int64, LabelUpdates
from worker.contracts.settings import EntitySettings, LabelSettings, RedisSettings, Settings
from worker.features.compiling import prefetch
from worker.features.fetching import AHEAD, LINE_ITEMS
from worker.features.spec import compile_features
from worker.features.table import FeatureTables
from worker.stores import Meta, Writes
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
FEW, MANY, MOST = 10_000, 1_000_000, 10_000_000
MOST_BYTES = 8 << 30  # of memory, to measure so many: they take 6 GB
LOADED = 50_000  # at once
KNOWN_EVENTS = 4
RING = 8  # more than an entity of `_scaled` ever has events
DAY_MS = 86_400_000
NOW_MS = 1_700_000_000_000


def run(quick: bool = False) -> list[Row]:
    """Return the rows of this benchmark."""
    return [
        *_labelled_rows(5 if quick else 300),
        *_scaled_rows([100, 1_000, 10_000] if quick else [FEW, MANY, MOST], 3 if quick else 100),
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


def _scaled_rows(counts: list[int], rounds: int) -> list[Row]:
    """Return events a second when few, many and most entities, each with four events, are in
    memory: batches of each in turn, as other work of the machine is the same for all then.
    """
    counts = [count for count in counts if count < MOST or _available_bytes() > MOST_BYTES]
    draw = np.random.default_rng(3)
    tables = [_tables_of(count, draw) for count in counts]
    took: list[list[float]] = [[] for _ in counts]
    for i in range(rounds):
        for count, table, times in zip(counts, tables, took, strict=True):
            chosen = [_card(int(number)) for number in draw.integers(0, count, BATCH)]
            events = _cards(chosen, NOW_MS + KNOWN_EVENTS * DAY_MS + i, draw)
            times.append(timed(lambda t=table, e=events: t.process(e)))  # type: ignore[misc]
    few_s, *more_s = map(statistics.median, took)
    names = ("1_million", "10_million")[: len(more_s)]
    return [
        row("events_of_10_thousand", BATCH / few_s, "events/s"),
        *[
            row(f"events_of_{name}", BATCH / time_s, "events/s", few_s / time_s, "10 thousand")
            for name, time_s in zip(names, more_s, strict=True)
        ],
        *[
            row(f"touch_of_{name}", us, "us/event", us / few_us, "10 thousand")
            for few_us in [_touch_us(counts[0], rounds, draw)]
            for name, count in zip(names, counts[1:], strict=True)
            for us in [_touch_us(count, rounds, draw)]
        ],
    ]


def _touch_us(count: int, rounds: int, draw: np.random.Generator) -> float:
    """Return what an event takes that reads and writes the same memory as one above, and does
    nothing: places of an index, and rows of that length of so many entities.
    """
    meta, used, ring = (np.ones((count, width), np.int64) for width in (4, 1, 3 * RING))
    places = np.ones((1 << (2 * count - 1).bit_length(), 2), np.int64)
    dirty = np.ones(count, np.bool_)
    took = []
    for _ in range(rounds):
        slots, at = draw.integers(0, count, BATCH), draw.integers(0, len(places), BATCH)
        started = time.process_time()
        _touch(slots, at, places, meta, used, dirty, ring)
        took.append(time.process_time() - started)
    return statistics.median(took) / BATCH * 1e6


@njit
def _touch(
    slots: Int64, at: Int64, places: Int64, meta: Int64, used: Int64, dirty: Bool, ring: Int64
) -> None:
    for e in range(len(slots)):
        if e + AHEAD < len(slots):
            slot = slots[e + AHEAD]
            prefetch(places, at[e + AHEAD] * 2)
            prefetch(meta, slot * 4)
            prefetch(used, slot)
            prefetch(dirty, slot)
            for item in range(slot * ring.shape[1], (slot + 1) * ring.shape[1], LINE_ITEMS):
                prefetch(ring, item)
        slot = slots[e]
        meta[slot, 0] += places[at[e], 0]
        used[slot, 0] += 1
        dirty[slot] = True
        for item in range(0, ring.shape[1], LINE_ITEMS):
            ring[slot, item] += 1


def _available_bytes() -> int:
    """Return how much memory a process may still take, 0 where nobody says."""
    info = Path("/proc/meminfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))


def _tables_of(count: int, draw: np.random.Generator) -> FeatureTables:
    spec = compile_features(_with_ring(settings_of(CARD), RING))
    tables = FeatureTables(spec, "card", count)
    for first in range(0, count, LOADED):
        ids = [_card(number) for number in range(first, min(first + LOADED, count))]
        tables.load([("card", id_) for id_ in ids], [None] * len(ids))
        for i in range(KNOWN_EVENTS):
            tables.process(_cards(ids, NOW_MS + i * DAY_MS, draw))
    return tables


def _card(number: int) -> str:
    return str(4_000_000_000_000_000 + number)


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
    ids = [_card(i) for i in range(cards)]
    tables.load([("card", id_) for id_ in ids], [None] * cards)
    for i in range(events):
        tables.process(_cards(ids, NOW_MS + i * 30 * DAY_MS // events, draw))
    taken = taken_from(tables)
    tables.evict()
    blobs = {(entity, id_): blob for entity, id_, blob in taken}
    batch = _cards(ids, NOW_MS + 30 * DAY_MS, draw)

    def miss() -> None:
        missing = tables.missing(batch)
        tables.load(missing, [blobs[key] for key in missing])
        call_dirty(tables, missing)
        taken_from(tables)
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
        writes = [Writes.of(f"{entity}:{id_}", blob, 10**9) for entity, id_, blob in taken]
        store.flush(space, None, Meta(b"v" * 16, 1, 0, 1, 1), writes)
        store.close()
        client = redis.Redis.from_url(server.url)
        keys = list(client.scan_iter("fs:*card:*"))
        return [client.memory_usage(key, samples=0) or 0 for key in keys]
