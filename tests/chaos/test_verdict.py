"""The judge finds what was planted: one that never saw an error proves nothing."""

from __future__ import annotations

import random
from collections.abc import Callable

import pyarrow as pa
import pytest

from tests.chaos.verdict import judge
from tests.simulation.world import config, items
from tests.worlds import drain, new_log, worker
from worker.arrow import read_batch, to_bytes
from worker.stores.memory import MemoryStore
from worker.streams.memory_log import MemoryLog


@pytest.fixture(scope="module")
def log() -> MemoryLog:
    """Return what one undisturbed worker made of 300 events."""
    made = new_log(2)
    for item in items(random.Random(3), 2, 300, cards=20, terminals=20):
        item.append_to(made)
    drain(worker(made, MemoryStore(), config=config(20)))
    return made


def test_nothing_is_found_where_nothing_was_planted(log: MemoryLog) -> None:
    """Counts are zero, and records are those of the input."""
    verdict = judge(log, "transactions")
    assert verdict.good, verdict
    assert verdict.records == 300


@pytest.mark.parametrize("topic", ["journal", "alerts", "dead-letters"])
def test_a_record_that_is_missing_is_lost(log: MemoryLog, topic: str) -> None:
    """In the journal a record is several rows."""
    assert judge(_with(log, topic, lambda values: values[:-1]), "transactions").lost > 0


@pytest.mark.parametrize("topic", ["journal", "alerts", "dead-letters"])
def test_a_record_that_is_there_twice_is_doubled(log: MemoryLog, topic: str) -> None:
    """In the journal a record is several rows."""
    twice = _with(log, topic, lambda values: [*values, values[-1]])
    assert judge(twice, "transactions").doubled > 0


def test_rows_out_of_order_are_wrong(log: MemoryLog) -> None:
    """Nothing is lost or doubled by it."""
    verdict = judge(_with(log, "journal", lambda values: values[::-1]), "transactions")
    assert (verdict.lost, verdict.doubled, verdict.wrong) == (0, 0, 1)


@pytest.mark.parametrize("column", ["raw_fraud", "x"])
def test_a_number_that_is_not_the_oracles_is_wrong(log: MemoryLog, column: str) -> None:
    """A score, and a value of x, of one batch."""
    change = lambda values: [*values[:-1], _plus_one(values[-1], column)]  # noqa: E731
    verdict = judge(_with(log, "journal", change), "transactions")
    assert (verdict.lost, verdict.doubled) == (0, 0)
    assert verdict.wrong > 0


def test_an_example_that_is_missing_is_wrong(log: MemoryLog) -> None:
    """Scores of later versions are wrong too."""
    assert judge(_with(log, "training", lambda values: values[1:]), "transactions").wrong > 0


def _with(
    log: MemoryLog, topic: str, change: Callable[[list[bytes | None]], list[bytes | None]]
) -> MemoryLog:
    """Return a copy with other records in partition 0 of a topic."""
    made = MemoryLog(log.partitions)
    for name, count in log.partitions.items():
        for p in range(count):
            values = log.read(name, p, 0, 10**9).values
            for value in change(values) if (name, p) == (topic, 0) else values:
                made.append(name, p, value)
    return made


def _plus_one(value: bytes | None, column: str) -> bytes:
    batch = read_batch(value or b"", "journal")
    index = batch.schema.get_field_index(column)
    field = batch.schema.field(index)
    found = [None if one is None else _more(one) for one in batch.column(index).to_pylist()]
    return to_bytes(batch.set_column(index, field, pa.array(found, field.type)))


def _more(one: float | list[float]) -> float | list[float]:
    return [number + 1 for number in one] if isinstance(one, list) else one + 1
