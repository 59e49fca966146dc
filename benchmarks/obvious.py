"""The loop that one would write today with the same libraries: what `pipeline` is compared with.

It is idiomatic and not slowed down: one MGET and one MSET per event, hiredis, a window pass that
touches each remembered event once, models of River called as their documentation says. It is kinder
to itself than the worker is: it remembers 32 events of an entity and forgets the rest, it learns
each label at once from the event, and after a crash it loses, doubles or contradicts.

Run as a process of its own: ``python -m benchmarks.obvious BOOTSTRAP REDIS_URL|- COUNT``.
"""

from __future__ import annotations

import json
import pickle
import sys
import time
import uuid
from typing import Any, Protocol  # Any: redis-py's types allow str

from kafka import KafkaConsumer, KafkaProducer
from pydantic import BaseModel
from redis import Redis
from river import anomaly, linear_model, preprocessing

from benchmarks import memory_peak_mb
from benchmarks.load import EVENTS

ALERTS = "bench-obvious-alerts"
WINDOWS_MS = (60_000, 600_000, 3_600_000, 86_400_000, 7 * 86_400_000, 30 * 86_400_000)
REMEMBERED = 32
WARM_UP = 300
ENTITIES = ("card", "terminal", "device")
NAMES = tuple(
    f"{entity}_{what}_{window}"
    for entity in ENTITIES
    for window in ("1m", "10m", "1h", "1d", "7d", "30d")
    for what in ("count", "sum", "mean", "min", "max")
)
History = list[tuple[int, float]]


class Payment(BaseModel):
    """One event of the topic."""

    event_id: str
    time: int
    card_id: str
    terminal_id: str
    device_id: str
    amount: float
    currency: str
    channel: str
    country: str
    category: int
    lat: float
    is_fraud: int


class State(Protocol):
    """Where histories are kept."""

    def get(self, keys: list[str]) -> list[History]:
        """Return the histories of entities; new ones are empty."""

    def put(self, keys: list[str], histories: list[History]) -> None:
        """Keep the histories."""


class RedisState:
    """Histories as pickles in Redis."""

    def __init__(self, url: str) -> None:
        self._redis = Redis.from_url(url)

    def get(self, keys: list[str]) -> list[History]:
        """Return the histories in one round trip."""
        blobs: list[Any] = self._redis.mget(keys)
        return [pickle.loads(blob) if blob else [] for blob in blobs]

    def put(self, keys: list[str], histories: list[History]) -> None:
        """Write the histories in one round trip."""
        pickled = [pickle.dumps(history, pickle.HIGHEST_PROTOCOL) for history in histories]
        self._redis.mset(dict(zip(keys, pickled, strict=True)))


class ProcessState:
    """Histories in a dict: gone with the process."""

    def __init__(self) -> None:
        self._histories: dict[str, History] = {}

    def get(self, keys: list[str]) -> list[History]:
        """Return the histories."""
        return [self._histories.setdefault(key, []) for key in keys]

    def put(self, keys: list[str], histories: list[History]) -> None:
        """Do nothing: the lists were changed in place."""


def window_features(history: History) -> list[float]:
    """Return count, sum, mean, min and max of each window, in one pass from the newest back."""
    now_ms = history[-1][0]
    count, total, least, most = 0, 0.0, float("inf"), float("-inf")
    values: list[float] = []
    i = len(history) - 1
    for size_ms in WINDOWS_MS:
        start_ms = now_ms - size_ms
        while i >= 0 and history[i][0] > start_ms:
            amount = history[i][1]
            count += 1
            total += amount
            least = min(amount, least)
            most = max(amount, most)
            i -= 1
        values += (count, total, total / count, least, most)
    return values


class Scorer:
    """Features and models of the loop."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._odd = preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(seed=1)
        self._fraud = preprocessing.StandardScaler() | linear_model.LogisticRegression()

    def score(self, payment: Payment) -> tuple[float, float]:
        """Return the fraud probability and the oddness of a payment, then learn from it."""
        x = self._features(payment)
        odd = self._odd.score_one(x)
        self._odd.learn_one(x)
        fraud = self._fraud.predict_proba_one(x).get(True, 0.0)
        self._fraud.learn_one(x, bool(payment.is_fraud))
        return fraud, odd

    def _features(self, payment: Payment) -> dict[str, float]:
        ids = (payment.card_id, payment.terminal_id, payment.device_id)
        keys = [f"{entity}:{id_}" for entity, id_ in zip(ENTITIES, ids, strict=True)]
        histories = self._state.get(keys)
        values: list[float] = []
        for history in histories:
            history.append((payment.time, payment.amount))
            del history[:-REMEMBERED]
            values += window_features(history)
        self._state.put(keys, histories)
        return dict(zip(NAMES, values, strict=True))


def consume(bootstrap: str, state: State, count: int) -> dict[str, float]:
    """Process ``count`` events and return what it took, without the first `WARM_UP`."""
    consumer = KafkaConsumer(
        EVENTS,
        bootstrap_servers=bootstrap,
        group_id=f"obvious-{uuid.uuid4().hex[:8]}",
        auto_offset_reset="earliest",
        enable_auto_commit=True,
    )
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    scorer = Scorer(state)
    started_s = cpu_s = 0.0
    for done, record in enumerate(consumer, start=1):
        if done == WARM_UP + 1:
            started_s, cpu_s = time.perf_counter(), time.process_time()
        payment = Payment.model_validate_json(record.value)
        fraud, odd = scorer.score(payment)
        if fraud >= 0.5 or odd >= 0.98:
            alert = {"event_id": payment.event_id, "fraud": fraud, "odd": odd}
            producer.send(ALERTS, json.dumps(alert).encode(), key=record.key)
        if done == count + WARM_UP:
            break
    producer.flush()
    figures = {
        "events": count,
        "seconds": time.perf_counter() - started_s,
        "cpu_seconds": time.process_time() - cpu_s,
        "memory_mb": memory_peak_mb(),
    }
    consumer.close()
    producer.close()
    return figures


def main() -> None:
    """Run once and print the figures as JSON."""
    bootstrap, url, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    state = ProcessState() if url == "-" else RedisState(url)
    print(json.dumps(consume(bootstrap, state, count)))


if __name__ == "__main__":
    main()
