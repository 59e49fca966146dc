"""The input of a simulation: a few cards, late and contradicting labels, broken records."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

from tests.worlds import START_MS, partition_of, settings
from worker.contracts.settings import Settings
from worker.features.spec import FeatureSpec, compile_features
from worker.streams.memory_log import MemoryLog

HOUR_MS = 3_600_000
FEATURES: dict[str, Any] = {
    "amount": "$amount",
    "card": {"count": ["1h", "1d"], "sum(amount)": ["1d"], "frauds": ["1d"]},
    "terminal": {"count": ["1d"]},
}
MORE = {**FEATURES, "card": {**FEATURES["card"], "mean(amount)": ["1d"]}}
"""One feature more, of the same state."""
LONGER = {**FEATURES, "card": {**FEATURES["card"], "count": ["1h", "1d", "2d"]}}
"""A window more: another state."""
VERSIONS = (FEATURES, MORE, LONGER)
RING = 32  # more events than an entity has: everything is exact

THRESHOLD = 0.55
"""From this score on an event is an alert; nothing is suppressed, budgeted or listed."""


@dataclass(frozen=True, slots=True)
class Item:
    """One record to be appended: of the events when ``is_event``, else of the labels."""

    is_event: bool
    partition: int
    key: bytes
    value: bytes
    time_ms: int

    def append_to(self, log: MemoryLog) -> None:
        """Put it at the end of its topic partition."""
        topic = "transactions" if self.is_event else "labels"
        log.append(topic, self.partition, self.value, self.key, self.time_ms)


@cache
def config(batch: int, *, degrades: bool = False, version: int = 0) -> Settings:
    """Return the configuration, with so many events a transaction; ``version`` is of `VERSIONS`."""
    return settings(
        entities={
            "card": {"key": "card", "ring": RING},
            "terminal": {"key": "terminal", "ring": RING},
        },
        features=VERSIONS[version],
        models={"fraud": {"preset": "logistic", "calibration": "none"}},
        decision={"model": "fraud", "threshold": THRESHOLD},
        degrade={"learning": "30s", "challengers": "60s", "recover": "10s"} if degrades else None,
        runner={"batch_records_max": batch, "dirty_max": batch + 25},
    )


@cache
def spec(version: int = 0) -> FeatureSpec:
    """Return what the configuration compiles to; it is the same for every size of batch."""
    return compile_features(config(8, version=version))


@cache
def names_of(spec_hash: str) -> tuple[str, ...]:
    """Return the names of the features of the version with this hash."""
    every = map(spec, range(len(VERSIONS)))
    return {one.spec_hash: one.names for one in every}[spec_hash]


def items(
    draw: random.Random,
    partitions: int,
    count: int,
    cards: int = 6,
    terminals: int = 3,
    step_ms: int = HOUR_MS // 3,
) -> list[Item]:
    """Return records in the order in which they come; ``step_ms`` is from event to event."""
    made: list[tuple[float, Item]] = []
    ids: dict[str, list[str]] = {}
    for i in range(count):
        card, at = f"c{draw.randrange(cards)}", START_MS + i * step_ms
        id_ = f"e{i}"
        if ids.get(card) and draw.random() < 0.05:
            id_ = draw.choice(ids[card])
        ids.setdefault(card, []).append(id_)
        event = {
            "id": id_, "card": card, "terminal": f"t{draw.randrange(terminals)}",
            "at": at - draw.randrange(2 * HOUR_MS), "amount": draw.randrange(1, 90_000) / 100,
        }  # fmt: skip
        value = b"{broken" if draw.random() < 0.04 else msgspec.json.encode(event)
        made.append((i, _item(True, card, partitions, value, at)))
        for _ in range(draw.choice((0, 1, 1, 1, 2))):
            label = {"event_id": id_, "label": int(draw.random() < 0.4)}
            when = i + draw.choice((-3.5, 0.5, 2.5, 9.5, 25.5))
            made.append((when, _item(False, card, partitions, msgspec.json.encode(label), at)))
    return [item for _, item in sorted(made, key=lambda one: one[0])]


def _item(is_event: bool, card: str, partitions: int, value: bytes, time_ms: int) -> Item:
    return Item(is_event, partition_of(card, partitions), card.encode(), value, time_ms)
