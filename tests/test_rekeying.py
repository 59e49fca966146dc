"""Secondary entities under changed features: rows are written again, each once, whoever dies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from tests.test_backfill import DyingStore
from tests.worlds import START_MS, drain, events, fill, journal, new_log, partition_of, terminals_of
from tests.worlds import settings as world_settings
from tests.worlds import worker as world_worker
from worker.arrow import read_batch, read_stamps
from worker.backfill import Backfill, Built
from worker.checkpoint import space_of, ttls_ms_of, updates_space_of
from worker.contracts.records import Output
from worker.contracts.settings import Settings
from worker.errors import StateLostError, TransientError
from worker.features.spec import compile_features
from worker.models.catalogue import build_models
from worker.rekeying import Rekeying
from worker.runner import Runner
from worker.stores.memory import MemoryStore
from worker.streams.memory import MemoryLog, MemoryStream, MemoryWriter

PARTITIONS, COUNT = 4, 400
TOPIC = "entity-updates"
BOUNDS = {"batch_records_max": 40, "dirty_max": 40}
OLD = world_settings(runner=BOUNDS)
NEW = world_settings(
    runner=BOUNDS,
    features={
        "amount": "$amount",
        "card": {"count": ["1h", "1d"], "mean(amount)": ["1d"], "fraud_rate": ["3d"]},
        "terminal": {
            "count": ["1h", "3d"], "std(amount)": ["1d"], "max(amount)": ["7d"],
            "fraud_rate": ["3d"], "frauds": {"windows": ["7d"], "weight": "$amount"},
            "time_since_last_fraud": {},
        },
    }
)  # fmt: skip
OLDER = world_settings(
    runner=BOUNDS, features={"amount": "$amount", "terminal": {"sum(amount)": ["2h"]}}
)
SPEC = compile_features(NEW)


def full_log(partitions: int = PARTITIONS) -> MemoryLog:
    """Return a log of events and labels; of every ninth event the label came before."""
    log, stream = new_log(partitions), events(COUNT)
    fill(log, stream)
    for i, event in enumerate(stream):
        if i % 9 == 0:
            label = {"event_id": event["id"], "label": 1, "weight": 2.0}
            p, key = partition_of(event["card"], partitions), event["card"].encode()
            value = msgspec.json.encode(label)
            log.append("labels", p, value, key, START_MS + 600_000 * i - 1)
    return log


def until(log: MemoryLog, whole: MemoryLog, share: float) -> MemoryLog:
    """Append what the first part of the whole log has beyond the log."""
    for topic in ("transactions", "labels"):
        for p in range(PARTITIONS):
            end = int(whole.end(topic, p) * share)
            rest = whole.read(topic, p, log.end(topic, p), max(0, end - log.end(topic, p)))
            for key, value, time_ms in zip(rest.keys, rest.values, rest.timestamps_ms, strict=True):
                log.append(topic, p, value, key, time_ms)
    return log


def worker(log: MemoryLog, store: MemoryStore, slot: str = "0", config: Settings = NEW) -> Runner:
    return world_worker(log, store, slot=slot, config=config)


def backfill(log: MemoryLog, store: MemoryStore) -> list[Built]:
    view: Any = MemoryStream(
        log, group="world", slot="beside", events_topic="transactions", labels_topic="labels"
    )
    log.leave("world", "beside", view._member)
    models = build_models(NEW, SPEC.names)
    return Backfill(view, store, NEW, SPEC, models, ttls_ms_of(NEW, SPEC)).run()


def served(log: MemoryLog, store: MemoryStore, config: Settings, workers: int = 2) -> None:
    """Let workers do all that is there, and stop them."""
    both = [worker(log, store, str(slot), config) for slot in range(workers)]
    drain(*both)
    for one in both:
        one._flush_last()
        one.parts.stream.close()


@pytest.fixture(scope="module")
def alone() -> dict[str, bytes]:
    """Return the states that one process with one partition makes of everything."""
    log, store = full_log(1), MemoryStore()
    served(log, store, NEW, workers=1)
    return terminals_of(store, SPEC, events(COUNT), 1)


def check(log: MemoryLog, store: MemoryStore, alone: dict[str, bytes]) -> None:
    """Every event has one journal row, every row is there once, the states are those of `alone`."""
    assert sum(len(journal(log, p)) for p in range(PARTITIONS)) == COUNT
    rows = [
        (row["entity"], row["id"], row["event_hash"], row["source"], str(row["values"]))
        for q in range(PARTITIONS)
        for value in log.read(TOPIC, q, 0, 10**9).values
        if read_stamps(value or b"", TOPIC)["state_hash"] == SPEC.state_hash
        for row in read_batch(value or b"", TOPIC).to_pylist()
    ]
    assert max(Counter(rows).values()) == 1
    assert terminals_of(store, SPEC, events(COUNT), PARTITIONS) == alone


def test_after_a_backfill_and_the_switch_states_are_those_of_one_process(
    alone: dict[str, bytes],
) -> None:
    """The old workers go on after the backfill; what they did is written by the new ones."""
    log, store, whole = new_log(PARTITIONS), MemoryStore(), full_log()
    served(until(log, whole, 0.4), store, OLD)
    built = backfill(log, store)
    assert sum(one.rekeyed for one in built) > COUNT * 0.3
    before = log.end(TOPIC, 0)
    assert [one.rekeyed for one in backfill(log, store)] == [0] * PARTITIONS
    assert log.end(TOPIC, 0) == before
    served(until(log, whole, 0.7), store, OLD)
    new = [worker(log, store, str(slot)) for slot in range(2)]
    for one in new:
        one.step()
    until(log, whole, 1.0)
    drain(*new)
    check(log, store, alone)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_without_a_backfill_the_workers_write_the_rows_themselves(
    share: float, alone: dict[str, bytes]
) -> None:
    """However much of the stream the old ones did."""
    log, store, whole = new_log(PARTITIONS), MemoryStore(), full_log()
    served(until(log, whole, share), store, OLD)
    served(until(log, whole, 1.0), store, NEW)
    check(log, store, alone)


@pytest.mark.parametrize("is_lost", [False, True])
def test_going_back_and_forth_writes_what_others_did_and_nothing_twice(
    alone: dict[str, bytes], *, is_lost: bool
) -> None:
    """New, old, new again; the store may be lost at each change, and in the end."""
    log, store, whole = new_log(PARTITIONS), MemoryStore(), full_log()
    for share, config in ((0.3, NEW), (0.5, OLD), (0.8, NEW), (0.9, OLD), (1.0, NEW), (1.0, NEW)):
        served(until(log, whole, share), store, config)
        if is_lost and share < 1.0:
            store = MemoryStore()
    check(log, store, alone)


def test_how_far_rows_of_another_state_were_written_says_nothing_of_this_one(
    alone: dict[str, bytes],
) -> None:
    """The third state's workers write the rows of both before it; the second left marks."""
    log, store, whole = new_log(PARTITIONS), MemoryStore(), full_log()
    for share, config in ((0.3, OLDER), (0.5, OLD), (1.0, NEW)):
        served(until(log, whole, share), store, config)
    check(log, store, alone)


class KilledError(Exception):
    """A process died."""


@contextmanager
def dying(monkey: pytest.MonkeyPatch, at: int, *, is_written: bool) -> Iterator[None]:
    """Have the n-th transaction of rows be the last: it is written, or it is one before a flush
    and is not.
    """
    write, left = MemoryWriter.write, [at]

    def last(self: MemoryWriter, outputs: list[Output]) -> None:
        left[0] -= 1
        if left[0] or is_written:
            write(self, outputs)
        if not left[0]:
            raise KilledError

    monkey.setattr(MemoryWriter, "write", last)
    monkey.setattr("worker.rekeying.ROWS_MAX", 30 if is_written else 10**6)
    yield
    monkey.undo()


@pytest.mark.parametrize("is_written", [False, True])
@pytest.mark.parametrize("at", [1, 2, 4])
@pytest.mark.parametrize("who", [backfill, served])
def test_who_dies_while_writing_rows_has_others_write_the_rest(
    who: Callable[..., object], at: int, alone: dict[str, bytes], *, is_written: bool
) -> None:
    """A backfill or a worker that starts; the next one writes what is missing, nothing twice."""
    log, store, whole = new_log(PARTITIONS), MemoryStore(), full_log()
    served(until(log, whole, 0.6), store, OLD)
    words = () if who is backfill else (NEW,)
    with (
        pytest.MonkeyPatch.context() as monkey,
        dying(monkey, at, is_written=is_written),
        pytest.raises(KilledError),
    ):
        who(log, store, *words)
    if who is backfill:
        served(until(log, whole, 0.7), store, OLD)
        backfill(log, store)
    served(until(log, whole, 1.0), store, NEW)
    check(log, store, alone)


def test_a_backfill_whose_store_goes_away_is_run_again(alone: dict[str, bytes]) -> None:
    """Rows are written before the state that stands behind them."""
    log, store, whole = new_log(PARTITIONS), DyingStore(), full_log()
    served(until(log, whole, 0.6), store, OLD)
    for space in [space_of("world", SPEC, 2), updates_space_of("world", SPEC, 1)]:
        store.space, store.left = space, 0
        with pytest.raises(TransientError):
            backfill(log, store)
    store.left = 10**9
    backfill(log, store)
    served(until(log, whole, 1.0), store, NEW)
    check(log, store, alone)


def test_who_had_the_name_before_writes_no_more_rows(alone: dict[str, bytes]) -> None:
    """A backfill that was held while a worker took over is refused."""
    log, store = full_log(), MemoryStore()
    served(log, store, OLD)
    view: Any = MemoryStream(
        log, group="world", slot="x", events_topic="transactions", labels_topic="labels"
    )
    held = Rekeying(view, NEW, SPEC, 0, lambda: None)
    assert held.lacks(0, {"state_hash": "another"})
    view.close()
    served(log, store, NEW)
    with pytest.raises(StateLostError):
        held.write(1)
    check(log, store, alone)


def test_what_became_known_early_is_told_once_though_a_worker_folds_it_again(
    alone: dict[str, bytes],
) -> None:
    """Labels that were before their events: a recovery does not tell the owners again."""
    log, whole = new_log(PARTITIONS), full_log()
    served(until(log, whole, 0.5), MemoryStore(), NEW)
    store = MemoryStore()
    served(until(log, whole, 1.0), store, NEW)
    check(log, store, alone)
