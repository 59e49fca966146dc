"""The whole worker without servers, driven one event at a time: for tests of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from worker.contracts.messages import Alert
from worker.contracts.needs import satisfy
from worker.contracts.records import Label, Output, Records
from worker.contracts.settings import Settings
from worker.features.spec import compile_features
from worker.models.catalogue import build_models
from worker.outputs import Emitter
from worker.shard import Shard


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one event.

    ``features`` maps names to values; it is empty, and ``score`` None, unless the outcome is
    ``scored``. ``outputs`` are the records that a stream would have been given.
    """

    outcome: str
    reason: str | None
    score: float | None
    features: dict[str, float]
    alert: Alert | None
    outputs: list[Output]


class Driver:
    """Runs a configuration in this process with zero lag: a label is learned before the next event.

    Time moves only by the events' own times.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._spec = compile_features(settings)
        models = build_models(settings, self._spec.names)
        self._shard = Shard(settings, self._spec, models, 0, learns_inline=True)
        self._emitter = Emitter(settings, self._spec, models, "driver", trains=False)
        self._version = 0

    def send(self, event: Mapping[str, Any] | bytes) -> Answer:
        """Process one event, given as fields or as the bytes of its record."""
        value = event if isinstance(event, bytes) else msgspec.json.encode(event)
        return self._step([value], [])

    def label(self, event_id: str, y: int, time_ms: int | None = None, weight: float = 1.0) -> None:
        """Make the truth about an event known now, or at ``time_ms``."""
        now_ms = self._shard.clock.now_ms
        label = Label(event_id, y, now_ms if time_ms is None else time_ms, weight)
        fields = {"event_id": event_id, "label": y, "time": label.time_ms, "weight": weight}
        self._step([], [msgspec.json.encode(fields)])

    def _step(self, events: list[bytes], labels: list[bytes]) -> Answer:
        shard = self._shard
        topic = self._settings.events.topic
        batch = shard.prepare(
            _records(topic, shard.events_next, events),
            _records("labels", shard.labels_next, labels),
            np.zeros(len(labels), np.int64),
        )
        satisfy(shard.supply(batch), lambda keys: [None] * len(keys))
        result = shard.process(batch, self._version)
        self._version += len(result.join.examples)
        outcome = self._emitter.outcome(shard, result)
        rows = outcome.rows
        if not len(rows):
            return Answer("none", None, None, {}, None, outcome.outputs())
        scored = bool(rows.outcome[0] == 0)
        return Answer(
            outcome=("scored", "duplicate", "rejected")[int(rows.outcome[0])],
            reason=rows.reason[0],
            score=float(rows.score[0]) if scored else None,
            features=dict(zip(self._spec.names, rows.X[0].tolist(), strict=True)) if scored else {},
            alert=outcome.alerts[0] if outcome.alerts else None,
            outputs=outcome.outputs(),
        )


def _records(topic: str, first: int, values: list[bytes]) -> Records:
    n = len(values)
    offsets = list(range(first, first + n))
    return Records(topic, 0, offsets, [-1] * n, [None] * n, list(values), first + n)
