"""A version of the models is the training log before it, to the bit, for whoever learns it."""

from __future__ import annotations

from typing import Any

import numpy as np
import structlog

from tests.worlds import drain, events, fill, new_log, settings, worker
from worker.arrow import order_record, read_examples, read_order
from worker.features.spec import compile_features
from worker.models.advance import advance
from worker.models.catalogue import ModelSet, build_models
from worker.models.plain import pack, unpack
from worker.stores.memory import MemoryStore
from worker.streams.memory import MemoryLog, MemoryStream
from worker.training import TrainingFollower

DRIFT = [{"on": "error", "model": "fraud", "do": "reset", "params": {"delta": 0.2}},
         {"on": "features", "window": 100, "threshold": 0.05}]  # fmt: skip
CONFIG = settings(drift=DRIFT, guard={"good_every": 500})


def log_of_examples() -> MemoryLog:
    """Return a log that workers wrote, with orders of people in between."""
    log, stream = new_log(), events(600)
    one = worker(log, MemoryStore(), config=CONFIG)
    for i, order in enumerate([("promote", "odd"), ("freeze", "fraud"), ("thaw", "fraud"), None]):
        fill(log, stream[150 * i : 150 * (i + 1)])
        drain(one)
        if order is not None:
            log.append("training", 0, order_record(*order), None, 0)
    return log


class Follower:
    """Learns what it is given of the log."""

    def __init__(self, log: MemoryLog, models: ModelSet) -> None:
        spec = compile_features(CONFIG)
        stream = MemoryStream(
            log, group="beside", slot="0", events_topic="transactions", labels_topic="labels"
        )
        self.models = models
        self._follower = TrainingFollower(
            stream, "training", models, spec.spec_hash, None, structlog.get_logger()
        )

    def take(self, *records: tuple[int, bytes | None]) -> int:
        self._follower.apply(records)
        return self._follower.version

    def scores(self, X: np.ndarray) -> bytes:
        raw = self.models.score(X)
        return raw.tobytes() + self.models.calibrate(raw).tobytes()


def fresh() -> ModelSet:
    return build_models(CONFIG, compile_features(CONFIG).names)


def test_two_workers_agree_at_every_version_to_the_last_bit() -> None:
    """One learned everything; the other stops at every version and goes on from its state there."""
    log = log_of_examples()
    records = log.read("training", 0, 0, 10**9)
    probes = np.random.default_rng(0).uniform(0, 900, (20, len(compile_features(CONFIG).names)))
    whole, other = Follower(log, fresh()), Follower(log, fresh())
    seen: set[str] = set()
    for offset, value in zip(records.offsets, records.values, strict=True):
        whole.take((offset, value))
        state = unpack(pack(other.models.to_state()))
        other = Follower(log, fresh())
        other.models.restore(state)
        other.take((offset, value))
        assert other.models.state_hash() == whole.models.state_hash(), offset
        assert pack(other.models.to_state()) == pack(whole.models.to_state()), offset
        assert other.scores(probes) == whole.scores(probes), offset
        assert other.models.champion_name == whole.models.champion_name
        seen.add(whole.models.state_hash())
    assert len(seen) == len(records.offsets)
    assert len(whole.models.steward.notices) >= 3


def test_records_learned_together_give_the_version_that_they_give_one_by_one() -> None:
    """Examples of one run end at an order of people, and at the last record."""
    log = log_of_examples()
    records = log.read("training", 0, 0, 10**9)
    steps = list(zip(records.offsets, records.values, strict=True))
    one, all_ = Follower(log, fresh()), Follower(log, fresh())
    versions = [one.take(step) for step in steps]
    assert all_.take(*steps) == versions[-1] == len(steps)
    assert all_.models.state_hash() == one.models.state_hash()
    assert pack(all_.models.to_state()) == pack(one.models.to_state())


def test_how_records_are_cut_changes_no_version() -> None:
    """Examples of several records as one, as another worker's batches would have them."""
    log = log_of_examples()
    records = log.read("training", 0, 0, 10**9)
    whole, parts = fresh(), fresh()
    steps: list[Any] = [v for v in records.values if v is not None]
    one = Follower(log, whole)
    for offset, value in enumerate(steps):
        one.take((offset, value))
    for value in steps:
        order = read_order(value, "t")
        if order is not None:
            parts.steward.order(*order)
            continue
        _, e = read_examples(value, "t")
        for start in range(0, len(e), 7):
            rows = slice(start, start + 7)
            part = type(e)(*(getattr(e, name)[rows] for name in e.__slots__))
            advance(parts, part.X[:0], part, np.full(len(part), -1))
    assert parts.state_hash() == whole.state_hash()
