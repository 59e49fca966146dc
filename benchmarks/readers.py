"""Readers: the features of one entity and of a hundred, from a real Valkey on a unix socket.

Each question is timed on its own; a plain GET of the same blob, in turn with it, is the measure of
what the machine and the client cost.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import redis
from pydantic import SecretStr

from benchmarks.features import ENTITIES, WIDE, batches, settings_of
from tests.features.streams import taken_from
from tests.services.valkey import ValkeyServer
from worker.checkpoint import space_of
from worker.contracts.settings import RedisSettings
from worker.features.reader import Reader
from worker.features.sizes import bytes_estimate
from worker.features.spec import compile_features
from worker.features.table import FeatureTables
from worker.stores import Meta, Writes
from worker.stores.redis import RedisStore

Row = dict[str, Any]
PARTITIONS = 4


def run(quick: bool = False) -> list[Row]:
    """Return the rows of this benchmark."""
    settings = settings_of(WIDE)
    with ValkeyServer(persistent=False) as server:
        ids = _fill(server.url, 2 if quick else 200)
        client = redis.Redis.from_url(server.url)
        reader = Reader(settings, client, clock_ms=lambda: 1_700_000_000_000 + 30 * 86_400_000)
        key = next(client.scan_iter("fs:*card:*"))
        rounds = 3 if quick else 3_000
        one, get = _alternately(
            rounds, lambda i: reader.read("card", ids[i % len(ids)]), lambda i: client.get(key)
        )
        many, _ = _alternately(
            max(rounds // 10, 2), lambda i: reader.read_many("card", ids[:100]), lambda i: None
        )
        estimate = bytes_estimate(settings, compile_features(settings), "card")
        largest = max(client.memory_usage(k, samples=0) or 0 for k in client.keys("fs:*card:*"))
    to = "a plain GET in the same run"
    return [
        _row("read_one_p50", one[0], "us", one[0] / get[0], to),
        _row("read_one_p99", one[1], "us", one[1] / get[1], to),
        _row("read_hundred_p50", many[0], "us", many[0] / get[0], to),
        _row("entity_memory_usage", largest, "B", largest / estimate, "riverwatch check"),
    ]


def _fill(url: str, count: int) -> list[str]:
    """Store the state of some batches in one of the partitions; return the cards' ids."""
    settings = settings_of(WIDE)
    spec = compile_features(settings)
    tables = FeatureTables(spec, "card", 1_000_000)
    for events in batches(count):
        missing = tables.missing(events)
        tables.load(missing, [None] * len(missing))
        tables.process(events)
    taken = taken_from(tables)
    store = RedisStore(RedisSettings.model_construct(url=SecretStr(url), timeout=10_000))
    meta = Meta(b"v" * 16, count, 0, count, PARTITIONS)
    writes = [Writes.of(f"{entity}:{id_}", blob, 10**9) for entity, id_, blob in taken]
    store.flush(space_of(settings.name, spec, 1), None, meta, writes)
    store.close()
    return [id_ for entity, id_, _ in taken if entity == ENTITIES[0]]


def _alternately(
    rounds: int, first: Callable[[int], object], second: Callable[[int], object]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return p50 and p99 in µs of two questions that were asked in turn, after a warm-up."""
    took: tuple[list[float], list[float]] = ([], [])
    for i in range(rounds + rounds // 10 + 1):
        for ask, times in zip((first, second), took, strict=True):
            started = time.perf_counter()
            ask(i)
            times.append(time.perf_counter() - started)
    p50, p99 = ([np.percentile(t[-rounds:], q) * 1e6 for t in took] for q in (50, 99))
    return (float(p50[0]), float(p99[0])), (float(p50[1]), float(p99[1]))


def _row(
    name: str, value: float, unit: str, ratio: float | None = None, to: str | None = None
) -> Row:
    return {"name": name, "value": value, "unit": unit, "ratio": ratio, "ratio_to": to}
