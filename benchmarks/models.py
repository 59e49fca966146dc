"""How fast models are: compiled twins against River on the same events, scored and learned.

Times are of the processor, not of the wall: nothing here waits, and other programs disturb less.

Run it with ``python -m benchmarks.models``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any  # rows of a benchmark

import numpy as np
from numpy.typing import NDArray

from worker.contracts.records import Events
from worker.contracts.settings import ModelSettings, Settings
from worker.decisions import Decider, Scores
from worker.models.calibration import CALIBRATORS
from worker.models.catalogue import build_model_set
from worker.models.plain import pack, unpack
from worker.models.reasons import FeatureStatistics
from worker.models.versioned import ModelSet

FEATURES = 90
RIVER_EVENTS, TWIN_EVENTS, BATCH = 1_000, 20_000, 500

DECISIONS: dict[str, Any] = {
    "name": "t",
    "events": {
        "topic": "t", "id": "id", "key": "card", "time": {"field": "at"},
        "fields": {"id": "string", "card": "string", "at": "timestamp"},
    },
    "entities": {"card": {"key": "card"}},
    "features": {},
    "models": {"m": {"preset": "logistic"}},
    "decision": {
        "model": "m", "alert_rate": 0.005, "suppress": {"entity": "card", "within": "1h"},
        "incidents": {"entity": "card"}, "severity": {"high": 0.9},
    },
}  # fmt: skip

_NAMES = [f"f{i}" for i in range(30)]

# Name, features, and what a configuration says. 10 x 8 and 25 x 15 are trees x height.
CASES: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("logistic_sgd", FEATURES, {"preset": "logistic", "params": {"optimizer": "sgd"}}),
    ("logistic_adam", FEATURES, {"preset": "logistic", "params": {"optimizer": "adam"}}),
    ("logistic_adagrad", FEATURES, {"preset": "logistic", "params": {"optimizer": "adagrad"}}),
    ("binned_logistic", FEATURES, {"preset": "binned_logistic", "params": {"warm_up": 400}}),
    (
        "causes_2x15",
        30,
        {
            "preset": "causes",
            "params": {
                "heads": {"card": _NAMES[:15], "terminal": _NAMES[15:]},
                "warm_up": 400,
            },
        },
    ),
    ("mahalanobis_15", 15, {"preset": "mahalanobis"}),
    (
        "half_space_trees_10x8",
        FEATURES,
        {"preset": "half_space_trees", "params": {"scaling": "range"}},
    ),
    ("half_space_trees_sampled", FEATURES, {"preset": "half_space_trees"}),
    (
        "half_space_trees_25x15",
        FEATURES,
        {"preset": "half_space_trees", "params": {"scaling": "range", "n_trees": 25, "height": 15}},
    ),
)


def run() -> list[dict[str, Any]]:
    """Return rows of name, value, unit, ratio, ratio_to; a ratio is River's time over ours."""
    rows = [row for name, count, words in CASES for row in _compare(name, count, words)]
    return [*rows, *_snapshot(), _statistics(), *_decided()]


def _compare(name: str, count: int, words: dict[str, Any]) -> list[dict[str, Any]]:
    names = tuple(f"f{i}" for i in range(count))
    river = _measure(_built(words, names, False), names, RIVER_EVENTS)
    twin = _measure(_built(words, names, True), names, TWIN_EVENTS)
    return [
        _row(f"{name}_river", river, None, None),
        _row(f"{name}_twin", twin, river / twin, f"{name}_river"),
    ]


def _built(words: dict[str, Any], names: tuple[str, ...], is_compiled: bool) -> ModelSet:
    return build_model_set({"m": ModelSettings(**words, compiled=is_compiled)}, names, seed=1)


def _measure(models: ModelSet, names: tuple[str, ...], events: int) -> float:
    """Return µs an event, scored and then learned, in batches; trees are grown and full before."""
    X, y = _stream(len(names), events)
    labels = y if models.learns_from_labels else np.full(events, -1, np.int8)

    def embedded() -> None:
        for start in range(0, events, BATCH):
            part = X[start : start + BATCH]
            n = len(part)
            taught = labels[start : start + n]
            models.score_learn(part, part, taught, np.ones(n), np.arange(1, n + 1))

    models.learn(X[:500], labels[:500], np.ones(500))
    models.score(X[:1])
    return _best_s(embedded, 3) / events * 1e6


def _snapshot() -> list[dict[str, Any]]:
    """Measure the state of 25 trees of height 15 to bytes and back; both with a warm process."""
    names = tuple(f"f{i}" for i in range(FEATURES))
    words = {
        "preset": "half_space_trees",
        "params": {"scaling": "range", "n_trees": 25, "height": 15},
    }
    models, other = _built(words, names, True), _built(words, names, True)
    X, _ = _stream(FEATURES, 2_000)
    models.learn(X, np.full(len(X), -1, np.int8), np.ones(len(X)))
    data = pack(models.to_state())
    out = _best_s(lambda: pack(models.to_state()), 5)
    back = _best_s(lambda: other.restore(unpack(data)), 5)
    assert other.state_hash() == models.state_hash()
    rows = [("snapshot_25x15_out", out * 1e3, "ms"), ("snapshot_25x15_back", back * 1e3, "ms")]
    rows.append(("snapshot_25x15_size", len(data) / 1e6, "MB"))
    return [{"name": n, "value": v, "unit": u, "ratio": None, "ratio_to": None}
            for n, v, u in rows]  # fmt: skip


def _statistics() -> dict[str, Any]:
    X, _ = _stream(FEATURES, TWIN_EVENTS)
    statistics = FeatureStatistics(FEATURES)
    flagged = np.arange(0, len(X), 100)
    statistics.update(X, flagged)
    seconds = _best_s(lambda: statistics.update(X, flagged), 3)
    return _row("feature_statistics", seconds / len(X) * 1e6, None, None)


def _decided() -> list[dict[str, Any]]:
    """Return rows of calibrator and decision, learning each event's raw score, by kind."""
    return [_decide("tail"), _decide("probability")]


def _decide(kind: str) -> dict[str, Any]:
    """Measure a calibrator that learns every event, and a share with suppression and incidents."""
    settings = Settings.model_validate(DECISIONS)
    decider, calibrator = Decider(settings, ("amount",)), CALIBRATORS[kind](10_000)
    rng = np.random.default_rng(2)
    raw, y = rng.random(TWIN_EVENTS), np.full(TWIN_EVENTS, -1, np.int8)
    if kind == "probability":
        y = (rng.random(TWIN_EVENTS) < 0.05).astype(np.int8)
    time_ms = np.arange(TWIN_EVENTS, dtype=np.int64) * 1_000
    cards = [f"c{i}" for i in rng.integers(0, 5_000, TWIN_EVENTS)]
    rows, before, weight = np.arange(BATCH), np.arange(1, BATCH + 1), np.ones(BATCH)
    batches = []
    for start in range(0, TWIN_EVENTS, BATCH):
        part = slice(start, start + BATCH)
        events = Events(
            rows, rows, time_ms[part], cards[part], np.zeros(BATCH, np.uint64),
            {"card": cards[part]}, {},
        )  # fmt: skip
        batches.append((raw[part], y[part], events, raw[part, None]))

    def work() -> None:
        for scores, labels, events, X in batches:
            out = calibrator.calibrate_learn(scores, scores, labels, weight, before)
            decider.decide(Scores(events, rows, out, X, "t-0"))

    work()
    return _row(f"calibrate_{kind}_and_decide", _best_s(work, 5) / TWIN_EVENTS * 1e6, None, None)


def _stream(count: int, events: int) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    rng = np.random.default_rng(1)
    X = np.abs(rng.normal(size=(events, count))) * 10.0 ** rng.uniform(-3, 3, count)
    return X, (rng.random(events) < 0.05).astype(np.int8)


def _best_s(work: Callable[[], None] | Callable[[], object], times: int) -> float:
    taken = []
    for _ in range(times):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def _row(name: str, us: float, ratio: float | None, ratio_to: str | None) -> dict[str, Any]:
    return {"name": name, "value": us, "unit": "us/event", "ratio": ratio, "ratio_to": ratio_to}


if __name__ == "__main__":
    for row in run():
        ratio = f"{row['ratio']:8.1f} x" if row["ratio"] else ""
        print(f"{row['name']:32} {row['value']:10.2f} {row['unit']} {ratio}")
