"""The store's path: what the worker pays to flush and to load a state, on a real Valkey.

CPU of this process per key, checkpoint and client included, for 2,000 entities of 400 B; and beside
it one MSET and one MGET of the same bytes, without guard, TTL or checks.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import redis
from pydantic import SecretStr

from tests.services.valkey import ValkeyServer
from worker.checkpoint import Checkpoint
from worker.contracts.settings import RedisSettings
from worker.stores.redis import RedisStore

Row = dict[str, Any]
KEYS, BYTES = 2_000, 400
_DAY_MS = 86_400_000


class _State:
    """A fold whose every entity is dirty all the time."""

    events_next = labels_next = 0

    def __init__(self) -> None:
        self.names = [str(4539578763621486 + i) for i in range(KEYS)]
        self.values = [os.urandom(BYTES) for _ in range(KEYS)]

    def take_writes(self) -> list[tuple[str, list[str], list[bytes]]]:
        return [("card", self.names, self.values)]

    def evict(self) -> None:
        """Hold on to everything."""


def run(quick: bool = False) -> list[Row]:
    """Return the rows of this benchmark."""
    rounds = 2 if quick else 60
    state = _State()
    keys = [f"card:{name}" for name in state.names]
    with ValkeyServer(persistent=False) as server:
        url = SecretStr(server.url)
        store = RedisStore(RedisSettings.model_construct(url=url, timeout=10_000))
        client = redis.Redis.from_url(server.url)
        checkpoint = Checkpoint(store, "bench.0", None, 60 * _DAY_MS, 60 * _DAY_MS)
        plain = dict(zip(keys, state.values, strict=True))
        flush_us, mset_us = _alternately(
            rounds, lambda: checkpoint.flush(state, 0), lambda: client.mset(plain)
        )
        load_us, mget_us = _alternately(
            rounds, lambda: checkpoint.load(keys), lambda: client.mget(keys)
        )
        store.close()
    return [
        _row("store_flush", flush_us, flush_us / mset_us, "MSET, no guard, no TTL"),
        _row("store_load", load_us, load_us / mget_us, "MGET"),
    ]


def _alternately(
    rounds: int, first: Callable[[], object], second: Callable[[], object]
) -> tuple[float, float]:
    """Return the median CPU time per key, in µs, of two calls made in turn."""
    took: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for call, times in zip((first, second), took, strict=True):
            started = time.process_time()
            call()
            times.append(time.process_time() - started)
    mine, plain = (statistics.median(times[1:]) / KEYS * 1e6 for times in took)
    return mine, plain


def _row(name: str, value: float, ratio: float, ratio_to: str) -> Row:
    return {"name": name, "value": value, "unit": "us/key", "ratio": ratio, "ratio_to": ratio_to}
