"""The load of the pipeline benchmark: seeded card payments, and how they come onto topics.

Every event has 12 fields. The last one is its truth: the obvious loop learns from it at once, the
worker is given the same truth on the ``labels`` topic, two events later.
"""

from __future__ import annotations

import json
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

PARTITIONS = 4
EVENTS, LABELS = "bench-events", "bench-labels"
CARDS, TERMINALS, DEVICES = 20_000, 3_000, 30_000
FIRST_TIME_MS, STEP_MS = 1_790_000_000_000, 2_000
LABEL_DELAY_MS = 2 * STEP_MS
_CHANNELS, _CURRENCIES = ("chip", "contactless", "online"), ("EUR", "USD", "GBP")
_COUNTRIES = ("FR", "BE", "DE", "ES", "GB", "US", "BR")
_CLIENT = {"log_level": 3}
_QUEUE = {**_CLIENT, "queue.buffering.max.messages": 2_000_000, "linger.ms": 5}


@dataclass(frozen=True, slots=True)
class Payment:
    """One event with its truth, ready to be sent; times are Unix ms."""

    partition: int
    key: bytes
    time_ms: int
    event: bytes
    label: bytes


def payments(count: int, seed: int = 1, first: int = 0) -> Iterator[Payment]:
    """Yield ``count`` payments, numbered from ``first``; the same seed gives the same bytes.

    Cards, terminals and devices are drawn with a weight of rank ** -0.6: some are busy.
    Frauds (2 %) have larger amounts and come online more often, so both models have work to do.
    """
    rng = np.random.default_rng(seed)
    is_fraud = rng.random(count) < 0.02
    amount = np.round(rng.lognormal(3, 1, count) * np.where(is_fraud, 6, 1), 2) + 0.01
    cards, terminals, devices = (_ranks(rng, count, n) for n in (CARDS, TERMINALS, DEVICES))
    channel = np.where(is_fraud, 2, rng.integers(0, 3, count))
    lat = rng.random(count)
    for i in range(count):
        card = f"card-{cards[i]:06d}"
        event_id, time_ms = f"pay-{first + i:09d}", FIRST_TIME_MS + (first + i) * STEP_MS
        fields = {
            "event_id": event_id,
            "time": time_ms,
            "card_id": card,
            "terminal_id": f"term-{terminals[i]:05d}",
            "device_id": f"dev-{devices[i]:06d}",
            "amount": round(float(amount[i]), 2),
            "currency": _CURRENCIES[i % 3],
            "channel": _CHANNELS[channel[i]],
            "country": _COUNTRIES[cards[i] % 7],
            "category": int(terminals[i] % 40),
            "lat": round(45 + 5 * float(lat[i]), 5),
            "is_fraud": int(is_fraud[i]),
        }
        yield Payment(
            zlib.crc32(card.encode()) % PARTITIONS,
            card.encode(),
            time_ms,
            json.dumps(fields).encode(),
            json.dumps({"event_id": event_id, "label": int(is_fraud[i])}).encode(),
        )


def _ranks(rng: np.random.Generator, count: int, among: int) -> np.ndarray:
    return np.floor(among * rng.random(count) ** 2.5).astype(np.int64)


def create_topics(bootstrap: str, names: Sequence[str], partitions: int = PARTITIONS) -> None:
    """Create topics that keep records whatever their timestamps, and wait until they are there."""
    admin = AdminClient({**_CLIENT, "bootstrap.servers": bootstrap})
    config = {"retention.ms": "-1"}
    made = admin.create_topics([NewTopic(n, partitions, 1, config=config) for n in names])
    for future in made.values():
        future.result(30)
    while not set(names) <= admin.list_topics(timeout=30).topics.keys():
        time.sleep(0.05)  # the controller knows them, the broker not yet


def delete_topics(bootstrap: str, names: Sequence[str]) -> None:
    """Delete topics, so that the broker's disk and cache serve the next run alike."""
    admin = AdminClient({**_CLIENT, "bootstrap.servers": bootstrap})  # its futures die with it
    for future in admin.delete_topics(list(names)).values():
        future.result(30)


def fill_topics(bootstrap: str, count: int) -> None:
    """Write payments and their labels, stamped with event time; returns when all are stored."""
    producer = Producer({"bootstrap.servers": bootstrap, **_QUEUE})
    for p in payments(count):
        producer.produce(EVENTS, p.event, p.key, p.partition, timestamp=p.time_ms)
        later_ms = p.time_ms + LABEL_DELAY_MS
        producer.produce(LABELS, p.label, p.key, p.partition, timestamp=later_ms)
        producer.poll(0)
    _flush(producer)


def produce_paced(bootstrap: str, topics: tuple[str, str], rate: float, seconds: float) -> int:
    """Send payments and labels at ``rate`` events/s in bursts of 5 ms; return how many.

    The event's own time is the wall clock at its sending, so that an alert tells its age.
    """
    producer = Producer({"bootstrap.servers": bootstrap, **_QUEUE, "linger.ms": 1})
    prepared = list(payments(int(rate * seconds), seed=2))
    sent = 0
    started_s = time.monotonic()
    while sent < len(prepared):
        due = min(len(prepared), int((time.monotonic() - started_s) * rate))
        for p in prepared[sent:due]:
            now_ms = time.time_ns() // 1_000_000
            event = p.event.replace(b"%d" % p.time_ms, b"%d" % now_ms, 1)
            producer.produce(topics[0], event, p.key, p.partition, timestamp=now_ms)
            producer.produce(topics[1], p.label, p.key, p.partition, timestamp=now_ms + 1)
        sent = max(sent, due)
        producer.poll(0)
        time.sleep(0.005)
    _flush(producer)
    return sent


def main() -> None:
    """Send at a pace: ``python -m benchmarks.load BOOTSTRAP EVENTS LABELS RATE SECONDS``."""
    bootstrap, events, labels, rate, seconds = sys.argv[1:]
    produce_paced(bootstrap, (events, labels), float(rate), float(seconds))


def _flush(producer: Producer) -> None:
    left = producer.flush(60)
    assert left == 0, f"{left} records were not taken by the broker"


if __name__ == "__main__":
    main()
