"""Following the training log: the only way into models that do not learn inline."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np

from worker.arrow import read_examples
from worker.contracts.records import Float64
from worker.models.catalogue import ModelSet
from worker.streams import Stream


class TrainingFollower:
    """Applies the training log to the models, in its order.

    ``version`` is v: the models are the fold of the log before it. Records of another feature spec
    count in the order but teach nothing.
    """

    def __init__(self, stream: Stream, topic: str, models: ModelSet, spec_hash: str) -> None:
        self.version = 0
        self.learned = 0
        self._topic = topic
        self._stream = stream
        self._models = models
        self._spec_hash = spec_hash
        self._reader = stream.reader(topic, 0, stream.log_range(topic, 0)[0])

    def catch_up(self, tick: Callable[[], None]) -> int:
        """Apply everything committed until now; return the number of examples.

        May take long: ``tick`` is called between polls.
        """
        end = self._stream.settle(self._topic, 0)
        before = self.learned
        while self._reader.position < end:
            self.follow(timeout_ms=100)
            tick()
        return self.learned - before

    def follow(self, timeout_ms: int = 0) -> int:
        """Apply the records that are there; return the number of examples."""
        records = self._reader.poll(timeout_ms, 500)
        if records is None:
            return 0
        before = self.learned
        for offset, value in zip(records.offsets, records.values, strict=True):
            self._apply(offset, value)
        return self.learned - before

    def close(self) -> None:
        """Give back the reader."""
        self._reader.close()

    def _apply(self, offset: int, value: bytes | None) -> None:
        if value is not None:
            stamps, e = read_examples(value, f"{self._topic}/0@{offset}")
            if stamps.get("spec_hash") == self._spec_hash:
                y, nothing = e.y.astype(np.int8), np.empty((0, e.X.shape[1]))
                raw = _columns(e.raw, json.loads(stamps.get("models", "[]")), self._models.names)
                self._models.score_learn(nothing, e.X, y, e.weight, e.before)
                self._models.calibrate_learn(raw[:0], raw, y, e.weight, e.before)
                self.learned += len(e)
        self.version = offset + 1


def _columns(raw: Float64, written: Sequence[str], names: Sequence[str]) -> Float64:
    """Return raw scores (m, models) in the order of ``names``; NaN of a model that was not there.

    A record is written by workers whose configuration may have had other models.
    """
    if list(written) == list(names):
        return raw
    place = {name: i for i, name in enumerate(written)}
    known = [raw[:, place[n]] if n in place else np.full(len(raw), np.nan) for n in names]
    return np.stack(known, axis=1)
