"""A series per entity: its score is that of a plain loop, whatever restarts and batches do."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest

from tests.worlds import START_MS, drain, events, fill, journal, new_log, settings, worker
from worker.config_rules import semantic_problems
from worker.errors import ConfigError, StateDamagedError
from worker.features.spec import compile_features
from worker.models.catalogue import build_models
from worker.models.series_table import series_tables
from worker.stores.memory import MemoryStore
from worker.streams.memory import MemoryLog

OWN = {
    "preset": "series",
    "scope": "entity",
    "entity": "card",
    "features": ["amount", "card_count_1h"],
    "params": {"warm_up": 11, "window": 20},
}
MODELS = {"odd": OWN, "fraud": {"preset": "logistic", "features": ["amount"]}}
STREAM = events(400)


def world(**changes: Any) -> Any:
    return settings(models=MODELS, decision={"model": "odd", "threshold": 0.99}, **changes)


def log_of(*, half: bool = False) -> MemoryLog:
    log = new_log()
    fill(log, STREAM[:200])
    if not half:
        fill(log, STREAM[200:])
    return log


def scored(log: MemoryLog) -> list[tuple[str, list[float], float]]:
    rows = journal(log)
    return [(r["event_id"], r["x"], r["raw_odd"]) for r in rows if r["outcome"] == "scored"]


class Plain:
    """One number against its past, from the definition."""

    def __init__(self) -> None:
        self.n = 0

    def step(self, v: float) -> float:
        self.n += 1
        if self.n == 1:
            self.level = self.fast = self.low = self.high = v
            self.spread = self.residual = self.peak = self.jump = 0.0
            return 0.0
        floor = 0.001 * (self.high - self.low) + 1e-9 * abs(self.level) + 1e-12
        off, jump = v - self.level, v - self.fast
        far, step = abs(off) / (self.spread + floor), abs(jump) / (self.residual + floor)
        beyond = max(v - self.high, self.low - v, 0.0) / (self.spread + floor)
        shares = [a / (a + b) if a > 0 else 0.0 for a, b in ((far, self.peak), (step, self.jump))]
        score = max(shares) + beyond / (beyond + 3) if self.n > 11 else 0.0
        if self.n > 11:
            self.peak, self.jump = max(far, 0.95 * self.peak), max(step, 0.95 * self.jump)
        if self.n > 11:
            off = max(-8 * (self.spread + floor), min(off, 8 * (self.spread + floor)))
        self.fast += jump / min(self.n, 3)
        if self.n > 11:
            jump = max(-8 * (self.residual + floor), min(jump, 8 * (self.residual + floor)))
        rate = 1 / min(self.n, 20)
        self.level += rate * off
        self.spread += rate * (abs(off) - self.spread)
        self.residual += rate * (abs(jump) - self.residual)
        self.high = max(self.high + rate * (self.level - self.high), v)
        self.low = min(self.low + rate * (self.level - self.low), v)
        return score


@pytest.fixture(scope="module")
def quiet() -> MemoryLog:
    """The log of a worker that was never disturbed."""
    log = log_of()
    drain(worker(log, MemoryStore(), config=world()))
    return log


def test_every_score_is_that_of_a_plain_loop_over_the_cards_own_events(quiet: MemoryLog) -> None:
    """Scored before it is learned, duplicates left out; the column of x is the raw score."""
    cards = {event["id"]: event["card"] for event in STREAM}
    names = compile_features(world()).names
    amount, count, own = map(names.index, ("amount", "card_count_1h", "odd_series"))
    plain: dict[str, list[Plain]] = {}
    found = scored(quiet)
    for id_, x, raw in found:
        series = plain.setdefault(cards[id_], [Plain(), Plain()])
        expected = max(series[0].step(x[amount]), series[1].step(x[count]))
        assert raw == pytest.approx(expected, rel=1e-9)
        assert raw == x[own]
    assert sum(raw > 0.5 for _, _, raw in found) > 10


@pytest.mark.parametrize("loses", ["nothing", "the last writes", "the store"])
def test_a_restart_changes_no_score(loses: str, quiet: MemoryLog) -> None:
    """In mid-stream, from the store, from one that lags, and from the log alone."""
    log, store = log_of(half=True), MemoryStore()
    lags = loses == "the last writes"
    drain(worker(log, store, config=world(), flush_every_s=1e9 if lags else 0.0))
    fill(log, STREAM[200:])
    drain(worker(log, MemoryStore() if loses == "the store" else store, config=world()))
    assert scored(log) == scored(quiet)


def test_the_size_of_batches_changes_no_score(quiet: MemoryLog) -> None:
    """Seven events at a time."""
    log = log_of()
    drain(worker(log, MemoryStore(), config=world(runner={"batch_records_max": 7})))
    assert scored(log) == scored(quiet)


def test_a_planted_anomaly_is_among_the_first_three_reasons() -> None:
    """Of a card that spends 50 times as much, once in a while."""
    stream = [dict(event) for event in STREAM]
    planted = {event["id"] for event in stream[120::9]}
    for event in stream[120::9]:
        event["amount"] *= 50
    models = {**MODELS, "odd": {**OWN, "calibration": "none"}}
    config = settings(models=models, decision={"model": "odd", "threshold": 1.0, "reasons_max": 3})
    log = new_log()
    fill(log, stream)
    drain(worker(log, MemoryStore(), config=config))
    alerts = [json.loads(value) for value in log.read("alerts", 0, 0, 10**6).values]
    told = [{r["feature"] for r in a["reasons"]} for a in alerts if a["event_id"] in planted]
    assert len(told) >= 15
    assert sum("amount" in names for names in told) >= 0.95 * len(told)


def test_memory_is_bounded_and_what_was_evicted_comes_back_as_it_was() -> None:
    """Blobs go out, entities are dropped, and loaded again they give the same blobs."""
    config = world(runner={"entities_max": 100})
    spec = compile_features(config)
    [(name, table)] = series_tables(config, spec).items()
    assert name == "card~odd"
    ids = [f"c{i}" for i in range(600)]
    table.load(dict.fromkeys(ids))
    for id_ in ids:
        table._dirty[table._slots[id_]] = True
    blobs = dict(zip(*table.take_dirty(), strict=True))
    assert len(blobs) == 600
    table.evict()
    gone = table.missing(ids)
    assert len(gone) == 600 - 93
    again = {id_: blobs[id_] for id_ in gone}
    table.check(again)
    table.load(again)
    for id_ in gone:
        table._dirty[table._slots[id_]] = True
    assert dict(zip(*table.take_dirty(), strict=True)) == again


def test_a_damaged_or_foreign_blob_is_refused() -> None:
    """A byte that fell over, a blob cut short, and one of other parameters."""
    config = world()
    other = settings(
        models={**MODELS, "odd": {**OWN, "params": {"warm_up": 12}}},
        decision={"model": "odd", "threshold": 0.9},
    )
    tables = [next(iter(series_tables(c, compile_features(c)).values())) for c in (config, other)]
    for table in tables:
        table.load({"a": None})
        table._dirty[table._slots["a"]] = True
    blob, foreign = (table.take_dirty()[1][0] for table in tables)
    tables[0].check({"a": blob})
    for bad in (blob[:40] + bytes([blob[40] ^ 1]) + blob[41:], blob[:-1], b"", foreign):
        with pytest.raises(StateDamagedError):
            tables[0].check({"a": bad})


WRONG = {
    "another preset": ({"preset": "mahalanobis"}, "preset"),
    "a secondary entity": ({"entity": "terminal"}, "entity"),
    "no entity": ({"entity": None}, "entity"),
    "no features": ({"features": None}, "features"),
    "an entity without the scope": ({"scope": "log"}, "entity"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_no_series_can_be_made_of_is_a_problem(case: str) -> None:
    """Each at its key."""
    change, key = WRONG[case]
    config = settings(models={"odd": {**OWN, **change}}, decision={"model": "odd", "threshold": 1})
    assert [p.path for p in semantic_problems(config)] == [("models", "odd", key)]


@pytest.mark.parametrize("name", ["amuont", "terminal_count_1d"])
def test_a_feature_that_is_not_there_or_not_the_entitys_is_a_problem(name: str) -> None:
    """With its place in the list."""
    config = settings(models={"odd": {**OWN, "features": ["amount", name]}},
                      decision={"model": "odd", "threshold": 1})  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        compile_features(config)
    assert [p.path for p in caught.value.problems] == [("models", "odd", "features", 1)]


def test_a_parameter_that_is_wrong_is_a_problem() -> None:
    """As of any preset."""
    config = settings(models={"odd": {**OWN, "params": {"windw": 5}}},
                      decision={"model": "odd", "threshold": 1})  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        build_models(config, compile_features(config).names)
    assert [p.path for p in caught.value.problems] == [("models", "odd", "params", "windw")]


SENSOR: dict[str, Any] = {
    "events": {
        "topic": "transactions", "id": "id", "key": "sensor",
        "time": {"field": "at", "unit": "ms"},
        "fields": {
            "id": "string", "sensor": "string", "at": {"type": "timestamp", "unit": "ms"},
            "load": "float", "heat": "float", "flow": "float",
        },
    },
    "labels": None,
    "entities": {"sensor": {"key": "sensor", "ring": 4}},
    "features": {"load": "$load", "heat": "$heat", "flow": "$flow"},
    "models": {
        "own": {
            "preset": "series", "scope": "entity", "entity": "sensor",
            "features": ["load", "heat", "flow"], "params": {"warm_up": 50, "window": 500},
            "calibration": "none",
        },
    },
    "decision": {"model": "own", "threshold": 1.5},
}  # fmt: skip
NAMES = ("load", "heat", "flow")
SENSORS, READINGS = 40, 60


def level_of(sensor: int, name: str) -> float:
    """Return levels that lie far apart, some below zero."""
    return {"load": 10.0 * 1.2**sensor, "heat": 20.0 - 7 * sensor, "flow": 0.5 + sensor}[name]


def sensors() -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return readings of sensors about their own levels, and by event which number is odd: once a
    sensor, at its end, and no odder than what others have always.
    """
    draw, made, odd = random.Random(3), [], {}
    for i in range(SENSORS * READINGS):
        sensor = i % SENSORS
        values = {name: level_of(sensor, name) * draw.uniform(0.95, 1.05) for name in NAMES}
        if i >= SENSORS * (READINGS - 1):
            odd[f"e{i}"] = name = NAMES[sensor % 3]
            values[name] = level_of(sensor, name) * draw.choice([1.6, 0.4])
        at = START_MS + 60_000 * i
        made.append({"id": f"e{i}", "sensor": f"s{sensor}", "at": at, **values})
    return made, odd


def alerts_of(stream: list[dict[str, Any]], die_at: int | None) -> list[dict[str, Any]]:
    """Return the alerts of a worker that dies, if so, and of one that begins without a store."""
    log, config = new_log(), settings(**SENSOR)
    for i, event in enumerate(stream):
        log.append("transactions", 0, json.dumps(event).encode(), event["sensor"].encode(), i)
    if die_at is not None:
        first = worker(log, MemoryStore(), config=config)
        for _ in range(die_at):
            first.step()
    drain(worker(log, MemoryStore(), config=config))
    return [json.loads(value or b"") for value in log.read("alerts", 0, 0, 10**6).values]


@pytest.mark.parametrize("die_at", [None, 17])
def test_reasons_of_a_series_are_about_the_entitys_own_past(die_at: int | None) -> None:
    """The odd number comes first, with the sensor's own level, though other sensors have such."""
    stream, odd = sensors()
    alerts = alerts_of(stream, die_at)
    found = {a["event_id"]: a for a in alerts if a["event_id"] in odd}
    assert len(found) == len(alerts) == len(odd)
    values = {event["id"]: event for event in stream}
    first = 0
    for event_id, alert in found.items():
        reason = alert["reasons"][0]
        first += reason["feature"] == odd[event_id]
        level = level_of(int(values[event_id]["sensor"][1:]), reason["feature"])
        assert reason["typical"] == pytest.approx(level, rel=0.05)
        assert reason["contribution"] == pytest.approx(alert["score"])
        assert "this sensor's level of" in reason["text"]
    assert first >= 0.95 * len(odd)


def test_the_words_of_a_level_are_a_ratio_or_a_distance() -> None:
    """A ratio near one, or of numbers below zero, says nothing."""
    stream, odd = sensors()
    texts = {a["event_id"]: a["reasons"][0]["text"] for a in alerts_of(stream, None)}
    values = {event["id"]: event for event in stream}
    for event_id, name in odd.items():
        value, text = values[event_id][name], texts[event_id]
        assert re.fullmatch(rf"{name} -?[\d.]+ is [\d.]+ (times|above|below) this .*", text), text
        assert ("times" in text) == (value > 0), text
