"""A small card world for tests of the whole worker: settings, a stream, a worker over it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any

import msgspec

from worker.arrow import read_batch
from worker.checkpoint import space_of, updates_space_of
from worker.contracts.settings import Settings
from worker.features.spec import FeatureSpec, compile_features
from worker.models.catalogue import build_models
from worker.runner import Parts, Runner
from worker.secondary import target_of
from worker.snapshots import Snapshots
from worker.stores import StateStore
from worker.streams import Stream
from worker.streams.memory import MemoryLog, MemoryStream
from worker.telemetry import Telemetry

START_MS = 1_600_000_000_000


def settings(**changes: Any) -> Settings:
    """Return the configuration; ``changes`` replace whole sections."""
    return Settings.model_validate(
        {
            "name": "world",
            "events": {
                "topic": "transactions",
                "id": "id",
                "key": "card",
                "time": {"field": "at", "unit": "ms"},
                "fields": {
                    "id": "string",
                    "card": "string",
                    "terminal": "string",
                    "at": {"type": "timestamp", "unit": "ms"},
                    "amount": {"type": "decimal", "resolution": 0.01},
                },
            },
            "labels": {"topic": "labels", "horizon": "30d"},
            "entities": {
                "card": {"key": "card", "ring": 4},
                "terminal": {"key": "terminal", "ring": 4},
            },
            "features": {
                "amount": "$amount",
                "card": {"count": ["1h", "1d"], "mean(amount)": ["1d"], "time_since_last": {}},
                "terminal": {"count": ["1d"], "std(amount)": ["1d"]},
            },
            "models": {"fraud": {"preset": "logistic"}, "odd": {"preset": "half_space_trees"}},
            "decision": {"model": "fraud", "threshold": 0.6},
            "runner": {"batch_records_max": 40},
            **changes,
        }
    )


def events(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return events in time order; about one in fifty repeats an id of its card."""
    draw = random.Random(seed)
    made: list[dict[str, Any]] = []
    for i in range(count):
        card = f"c{draw.randrange(12)}"
        id_ = f"e{i}"
        mine = [e["id"] for e in made[-20:] if e["card"] == card]
        if mine and draw.random() < 0.02:
            id_ = mine[-1]
        made.append(
            {
                "id": id_,
                "card": card,
                "terminal": f"t{draw.randrange(5)}",
                "at": START_MS + 600_000 * i + draw.randrange(-900_000, 900_000),
                "amount": draw.randrange(1, 90_000) / 100,
            }
        )
    return made


def partition_of(card: str, partitions: int) -> int:
    """Return the partition of a card's events and labels."""
    return int(card[1:]) % partitions


def fill(log: MemoryLog, stream: Sequence[dict[str, Any]], bad_every: int = 37) -> None:
    """Put events and their labels, ten events later, on a log; some records are no events."""
    partitions = log.partitions["transactions"]
    for i, event in enumerate(stream):
        p, key = partition_of(event["card"], partitions), event["card"].encode()
        time_ms = START_MS + 600_000 * i
        value = b"{broken" if i % bad_every == bad_every - 1 else msgspec.json.encode(event)
        log.append("transactions", p, value, key, time_ms)
        if i >= 10:
            _label(log, stream[i - 10], time_ms)


def _label(log: MemoryLog, event: dict[str, Any], time_ms: int) -> None:
    value = {"event_id": event["id"], "label": int(event["amount"] > 700)}
    card = event["card"]
    p = partition_of(card, log.partitions["labels"])
    log.append("labels", p, msgspec.json.encode(value), card.encode(), time_ms)


def new_log(partitions: int = 1) -> MemoryLog:
    """Return an empty log with the topics of the configuration."""
    shared = ("transactions", "labels", "journal", "alerts", "dead-letters", "scores",
              "entity-updates")  # fmt: skip
    return MemoryLog({**dict.fromkeys(shared, partitions), "training": 1})


class _Waited(Future[Any]):
    """What `Late` was given: it is done when somebody asks whether it is."""

    def __init__(self, late: Late, work: Callable[[], Any]) -> None:
        super().__init__()
        self.late, self.work = late, work

    def done(self) -> bool:
        self.late.do_until(self)
        return super().done()

    def result(self, timeout: float | None = None) -> Any:
        self.late.do_until(self)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self.late.do_until(self)
        return super().exception(timeout)


class Late(Executor):
    """A background thread that does everything as late as it can be, in order."""

    def __init__(self) -> None:
        self._left: list[_Waited] = []

    def submit(self, work: Callable[..., Any], /, *args: Any, **words: Any) -> Future[Any]:
        self._left.append(_Waited(self, partial(work, *args, **words)))
        return self._left[-1]

    def do_until(self, wanted: _Waited) -> None:
        while wanted in self._left:
            one = self._left.pop(0)
            try:
                one.set_result(one.work())
            except Exception as error:
                one.set_exception(error)


def worker(
    log: MemoryLog,
    store: StateStore,
    *,
    slot: str = "0",
    config: Settings | None = None,
    stream: Stream | None = None,
    flush_every_s: float | None = 0.0,
    stop: Callable[[], bool] = lambda: False,
    snapshots: Snapshots | None = None,
    late: bool = False,
) -> Runner:
    """Return a worker over a log and a store; it flushes after every step by default.

    With ``late`` it writes from the background, as late as can be.
    """
    config = config or settings()
    spec = compile_features(config)
    stream = stream or MemoryStream(
        log, group="world", slot=slot, events_topic="transactions", labels_topic="labels"
    )
    parts = Parts(
        config, spec, build_models(config, spec.names), stream, store, Telemetry(lambda: 0.0), slot,
        snapshots, *((Late(), Late()) if late else ()),
    )  # fmt: skip
    return Runner(parts, stop, flush_every_s=flush_every_s, sleep=lambda s: None)


def drain(*runners: Runner, steps_max: int = 500) -> None:
    """Step workers in turn until none of them has anything to do."""
    quiet = 0
    for _ in range(steps_max):
        quiet = 0 if sum(runner.step() for runner in runners) else quiet + 1
        if quiet > 15:
            return
    raise AssertionError("the workers never came to rest")


def journal(log: MemoryLog, partition: int = 0) -> list[dict[str, Any]]:
    """Return all journal rows of a partition."""
    records = log.read("journal", partition, 0, 10**9)
    batches = [read_batch(value or b"", "journal") for value in records.values]
    return [row for batch in batches for row in batch.to_pylist()]


def terminals_of(
    store: StateStore, spec: FeatureSpec, told: Sequence[dict[str, Any]], partitions: int
) -> dict[str, bytes]:
    """Return what is stored of every terminal: what happened, and what became known."""
    found = {}
    for id_ in sorted({event["terminal"] for event in told}):
        space = space_of("world", spec, 0)
        if partitions > 1:
            space = updates_space_of("world", spec, target_of(id_, partitions))
        for key in (f"terminal:{id_}", f"terminal~labels:{id_}"):
            blob = store.load([(space, [key])])[0][1][0]
            assert blob is not None, key
            found[key] = blob
    return found
