"""A small world for tests of labels: a shard over a stream of events and labels, cut anywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from tests.label_oracle import Event, Truth
from tests.worlds import settings
from worker.contracts.needs import satisfy
from worker.contracts.records import Events, LabelUpdates, Records
from worker.contracts.settings import Settings
from worker.features.spec import FeatureSpec, compile_features
from worker.models.catalogue import build_models
from worker.shard import SHARD_KEY, Batch, Shard

HORIZON_MS = 50
MODELS = {"fraud": {"preset": "logistic", "calibration": "none"}}  # served as it is
SOURCES = {"desk": {"weight": 3.0, "weight_max": 4.0}, "rules": {"learn": False}}
Stream = list[Event | Truth]


def config(**labels: Any) -> Settings:
    return settings(
        labels={"horizon": f"{HORIZON_MS}ms", "sources": SOURCES, **labels}, models=MODELS
    )


def spec_of(config: Settings, *, has_label_features: bool) -> FeatureSpec:
    spec = compile_features(config)
    if not has_label_features:
        return spec
    return replace(
        spec,
        label_entities=("card",),
        label_fields=("amount",),
        label_scores=("score", "raw_fraud"),
    )


class Told:
    """Feature tables that write down what label features are told, and have none."""

    def __init__(self, shard: Shard) -> None:
        self._tables: Any = shard.tables
        self.updates: list[tuple[Any, ...]] = []
        self._seen = shard.pending.number if shard.pending else 0

    def process(self, events: Events, updates: LabelUpdates | None = None) -> Any:
        if updates is not None:
            self.updates += rows_of(updates, self._seen)
        self._seen += len(events)
        return self._tables.process(events)

    def missing_labelled(self, entity_ids: dict[str, list[str]]) -> list[tuple[str, str]]:
        return []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tables, name)


def rows_of(updates: LabelUpdates, seen: int) -> list[tuple[Any, ...]]:
    columns = [
        updates.event_ids, (updates.before + seen).tolist(), updates.y.tolist(),
        updates.y_before.tolist(), updates.weight.tolist(), updates.weight_before.tolist(),
        updates.entity_ids["card"], updates.time_ms.tolist(), updates.values["amount"].tolist(),
        updates.values["score"].tolist(), updates.values["raw_fraud"].tolist(),
    ]  # fmt: skip
    return list(zip(*columns, strict=True))


class World:
    """A shard over a stream cut anywhere; between batches it may be flushed, or begun anew."""

    def __init__(self, config: Settings, *, has_label_features: bool) -> None:
        self.config = config
        self.spec = spec_of(config, has_label_features=has_label_features)
        self.models = build_models(config, self.spec.names)
        self.store: dict[str, bytes] = {}
        self.examples: list[tuple[Any, ...]] = []
        self.updates: list[tuple[Any, ...]] = []
        self.scores: list[float] = []
        self.duplicate: list[bool] = []
        self.fates: Counter[str] = Counter()
        self.begin()

    def begin(self) -> None:
        """Make a shard from what the store has."""
        self.shard = Shard(self.config, self.spec, self.models, 0, learns_inline=True)
        if SHARD_KEY in self.store:
            self.shard.restore(self.store[SHARD_KEY], self.load)
        self.told = self.shard.tables = Told(self.shard)  # type: ignore[assignment]

    def load(self, keys: Sequence[str]) -> list[bytes | None]:
        return [self.store.get(key) for key in keys]

    def flush(self) -> None:
        for kind, names, values in self.shard.take_writes():
            for name, value in zip(names, values, strict=True):
                if value is None:
                    self.store.pop(f"{kind}:{name}", None)
                else:
                    self.store[f"{kind}:{name}"] = value
        self.shard.evict()

    def batch_of(self, part: Stream) -> Batch:
        """Return a part of the stream as the shard decodes it."""
        events = [item for item in part if isinstance(item, Event)]
        labels = [(i, item) for i, item in enumerate(part) if isinstance(item, Truth)]
        before = [sum(isinstance(one, Event) for one in part[:i]) for i, _ in labels]
        return self.shard.prepare(
            records("transactions", [wire_event(event) for event in events]),
            records("labels", [wire_label(label) for _, label in labels]),
            np.array(before, np.int64),
        )

    def take(self, part: Stream) -> None:
        """Process a part of the stream and write down what came of it."""
        shard, batch = self.shard, self.batch_of(part)
        satisfy(shard.supply(batch), self.load)
        result = shard.process(batch, 0)
        e, done = result.join.examples, len(self.scores)
        self.examples += [
            (i, y, w, done + b, round(x * 100), score, tuple(raw))
            for i, y, w, b, x, score, raw in zip(
                e.event_ids, e.y.tolist(), e.weight.tolist(), e.before.tolist(),
                e.X[:, 0].tolist(), e.score.tolist(), e.raw.tolist(), strict=True,
            )
        ]  # fmt: skip
        self.scores += result.score.tolist()
        self.duplicate += result.duplicate.tolist()
        self.fates.update(result.join.counts)
        self.updates += self.told.updates
        self.told.updates = []

    def state(self) -> tuple[Any, ...]:
        """Return everything that is kept, after one more flush."""
        self.flush()
        assert self.shard.pending is not None
        kept = ("pend~x", "pend~y")  # a chunk of the queue may still have what has left it
        pend = {key: value for key, value in self.store.items() if key.startswith(kept)}
        early = list(self.shard.pending.early.values())
        queue = list(self.shard.pending.queue)
        return pend, early, queue, self.shard.pending.clock_ms, self.models.state_hash()


def records(topic: str, values: list[bytes]) -> Records:
    n = len(values)
    return Records(topic, 0, list(range(n)), [-1] * n, [None] * n, list(values), n)


def wire_event(event: Event) -> bytes:
    return msgspec.json.encode(
        {"id": event.id, "card": event.card, "terminal": event.terminal,
         "at": event.time_ms, "amount": event.amount / 100}
    )  # fmt: skip


def wire_label(label: Truth) -> bytes:
    return msgspec.json.encode(
        {"event_id": label.id, "label": label.y, "time": label.time_ms, "weight": label.weight,
         "source": label.source}
    )  # fmt: skip


def run(stream: Stream, cuts: Sequence[int], what: Sequence[str], **options: Any) -> World:
    """Run a stream cut into parts of these sizes; after each, do ``what`` says."""
    has_label_features = options.pop("has_label_features", True)
    world = World(config(**options), has_label_features=has_label_features)
    start = 0
    for size, then in zip([*cuts, len(stream)], [*what, "nothing"], strict=True):
        if stream[start : start + size]:
            world.take(stream[start : start + size])
        start += size
        if then != "nothing":
            world.flush()
        if then == "begin anew":
            world.begin()
    return world
