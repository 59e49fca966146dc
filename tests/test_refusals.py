"""Positions and logs that contradict each other: refused in words, never gone on with."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from tests.worlds import drain, events, fill, journal, new_log, settings, worker
from worker.arrow import read_batch
from worker.checkpoint import space_of
from worker.errors import FatalError
from worker.features.spec import compile_features
from worker.positions import start_of, topics_of
from worker.repair import plan_reset
from worker.stores.memory import MemoryStore
from worker.streams.memory import MemoryLog, MemoryStream

COUNT = 200
STREAM = events(COUNT)
SPACE = space_of("world", compile_features(settings()), 0)


def run_of(stream: list[dict[str, Any]]) -> tuple[MemoryLog, MemoryStore]:
    """Return a log whose events are all committed, and the store of who did it."""
    log, store = new_log(), MemoryStore()
    fill(log, stream)
    drain(worker(log, store))
    return log, store


@pytest.mark.parametrize("position", ["events_offset", "labels_offset"])
def test_a_store_beyond_what_is_committed_is_refused(position: str) -> None:
    """By one event or one label: nobody knows which of the two is right."""
    log, store = run_of(STREAM)
    meta = store.meta(SPACE)
    assert meta is not None
    beyond = replace(meta, version=b"beyond", **{position: getattr(meta, position) + 1})
    store.flush(SPACE, meta.version, beyond, [])
    with pytest.raises(FatalError, match="a store at or before"):
        drain(worker(log, store))


@pytest.mark.parametrize("topic", ["transactions", "labels"])
def test_a_log_that_begins_after_what_the_store_lacks_is_refused(topic: str) -> None:
    """Its state would lack what retention has removed: events as well as labels."""
    log, store = run_of(STREAM[: COUNT // 2])
    fill(log, STREAM[COUNT // 2 :])
    drain(worker(log, MemoryStore()))  # another store: this one stays behind
    meta = store.meta(SPACE)
    assert meta is not None
    stands = meta.events_offset if topic == "transactions" else meta.labels_offset
    log.truncate(topic, 0, stands)
    drain(worker(log, deepcopy(store)))
    log.truncate(topic, 0, stands + 1)
    with pytest.raises(FatalError, match=r"expected a log from .*repair reset"):
        drain(worker(log, store))


def quiet() -> tuple[MemoryLog, MemoryStore]:
    """Return a log at rest, with the marker of the last transaction behind the journal's records,
    and the store of who flushed before that was there.
    """
    log, store = run_of(STREAM)
    log.skip("journal", 0)
    return log, store


def expired(log: MemoryLog, *topics: str) -> None:
    """Remove everything from topics, as retention does where nothing new comes."""
    for topic in topics:
        log.truncate(topic, 0, log.end(topic, 0))


def test_a_quiet_partition_whose_topics_have_expired_goes_on() -> None:
    """The store has all that there was: later events have the features of their whole past."""
    log, store = quiet()
    whole = deepcopy(log)
    expired(log, "transactions", "labels", "journal")
    meta = store.meta(SPACE)
    assert meta is not None
    assert meta.journal_offset < log.first("journal", 0)
    for one, kept in ((whole, MemoryStore()), (log, store)):
        fill(one, events(COUNT + 50)[COUNT:])
        drain(worker(one, kept))
    before = len(journal(whole)) - 50
    rows = log.read("journal", 0, log.first("journal", 0), 10**9).values
    later = [row for value in rows for row in read_batch(value or b"", "journal").to_pylist()]
    assert [row["x"] for row in later] == [row["x"] for row in journal(whole)[before:]]
    assert len(later) == 50


def test_a_store_that_lags_behind_a_journal_that_has_expired_is_refused() -> None:
    """What it lacks is to be folded as the journal says, and that is gone."""
    log, store = run_of(STREAM[: COUNT // 2])
    fill(log, STREAM[COUNT // 2 :])
    drain(worker(log, MemoryStore()))
    meta = store.meta(SPACE)
    assert meta is not None
    at = meta.journal_offset
    log.truncate("journal", 0, at)
    drain(worker(log, deepcopy(store)))
    log.truncate("journal", 0, at + 1)
    gone = f"journal/0: expected a log from {at} on, got one from {at + 1} on"
    with pytest.raises(FatalError, match=f"{gone} .riverwatch repair reset"):
        drain(worker(log, store))


@pytest.mark.parametrize("topic", ["transactions", "labels"])
@pytest.mark.parametrize("empty", [True, False])
def test_records_that_are_gone_before_they_were_processed_are_refused(
    topic: str, empty: bool
) -> None:
    """Nobody scored them: a worker that went on would pass over them in silence."""
    log, store = run_of(STREAM)
    end = log.end(topic, 0)
    fill(log, STREAM)
    log.truncate(topic, 0, end)
    if not empty:
        drain(worker(deepcopy(log), deepcopy(store)))
    log.truncate(topic, 0, end + 1)
    gone = f"{topic}/0: expected a log from the committed {end} on, got one from {end + 1} on"
    with pytest.raises(FatalError, match=f"{gone} .riverwatch repair reset"):
        drain(worker(log, MemoryStore() if empty else store))


def test_records_that_are_gone_with_journal_and_store_are_refused() -> None:
    """Only the group's offsets tell that somebody was there before."""
    log, _ = quiet()
    fill(log, STREAM)
    expired(log, "journal", "transactions")
    with pytest.raises(FatalError, match=f"a log from the committed {COUNT} on"):
        drain(worker(log, MemoryStore()))


def changed(log: MemoryLog, at: int, value: bytes | None) -> MemoryLog:
    """Return a copy whose event at an offset has another value, or is not there."""
    copy = new_log()
    for topic in log.partitions:
        records = log.read(topic, 0, 0, 10**9)
        columns = (records.offsets, records.values, records.keys, records.timestamps_ms)
        for offset, old, key, time_ms in zip(*columns, strict=True):
            if (topic, offset) != ("transactions", at):
                copy.append(topic, 0, old, key, time_ms)
            elif value is None:
                copy.skip(topic, 0)
            else:
                copy.append(topic, 0, value, key, time_ms)
    return copy


def test_a_log_that_lacks_an_event_with_a_row_is_refused() -> None:
    """What follows would be taken for it."""
    log, _ = run_of(STREAM)
    holed = changed(log, COUNT // 2, None)
    assert len(journal(holed)) == COUNT
    with pytest.raises(FatalError, match=r"the offsets that the journal has, .*repair reset"):
        drain(worker(holed, MemoryStore()))


@pytest.mark.parametrize("part", ["amount", "id"])
def test_features_that_are_not_those_of_the_journal_are_refused(part: str) -> None:
    """Another code or another event: the states would be of a stream that nobody scored."""
    log, _ = run_of(STREAM)
    event = STREAM[COUNT // 2]
    other = {**event, "amount": event["amount"] + 1} if part == "amount" else None
    # The id of an event of the same card makes it a duplicate, which the journal says it is not.
    twin = next(e for e in STREAM[COUNT // 2 - 30 : COUNT // 2][::-1] if e["card"] == event["card"])
    value = msgspec.json.encode(other or {**event, "id": twin["id"]})
    with pytest.raises(FatalError, match="features as the journal has them"):
        drain(worker(changed(log, COUNT // 2, value), MemoryStore()))


@pytest.mark.parametrize("empty", [True, False])
def test_a_topic_that_has_grown_is_refused(empty: bool) -> None:
    """Nobody was running when it grew: keys are in other partitions than their past."""
    log, store = new_log(2), MemoryStore()
    fill(log, STREAM)
    drain(worker(log, store))
    grown = copied(log, 4)
    fill(grown, events(COUNT, seed=1)[COUNT // 2 :])
    with pytest.raises(FatalError, match="expected 2 partitions, as ever, got 4"):
        drain(worker(grown, MemoryStore() if empty else store))


def test_a_partition_that_was_added_is_refused_by_who_has_it_alone() -> None:
    """It has no past of its own; the first partition tells."""
    log, store = new_log(2), MemoryStore()
    fill(log, STREAM)
    drain(worker(log, store))
    grown = copied(log, 4)
    topics = topics_of(settings())
    for added in (2, 3):
        with pytest.raises(FatalError, match="expected 2 partitions, as ever, got 4"):
            start_of(view(grown), topics, added, None, {}, None, lambda: None)


def test_a_shard_that_begins_anew_may_have_another_number_of_partitions() -> None:
    """`repair reset` of every partition is the remedy: no entity has a past then."""
    log, _ = run_of(STREAM)
    config, spec = settings(), compile_features(settings())
    grown = copied(log, 2)
    for p in range(2):
        record = plan_reset(view(grown), config, spec, p, None, None, "grown").output
        grown.append("journal", p, record.value, None, record.timestamp_ms)
    fill(grown, events(COUNT, seed=1))
    drain(worker(grown, MemoryStore()))
    assert {r["outcome"] for r in journal(grown, 1)} >= {"scored"}


@pytest.mark.parametrize("topic", ["transactions", "labels"])
def test_an_empty_store_is_not_rebuilt_from_a_log_that_lost_its_beginning(topic: str) -> None:
    """Of events or labels: states would lack what nobody can tell any more."""
    log, _ = run_of(STREAM)
    fill(log, STREAM[:1])
    log.truncate(topic, 0, 30)
    with pytest.raises(FatalError, match=f"{topic}/0: expected a log from [0-9]+ on"):
        drain(worker(log, MemoryStore()))


@pytest.mark.parametrize("empty", [True, False])
def test_labels_that_were_declared_later_are_not_missing(empty: bool) -> None:
    """The first rows knew of none, and the topic began elsewhere even then."""
    log, store = new_log(), MemoryStore()
    fill(log, STREAM[: COUNT // 2])
    words: dict[str, Any] = {"models": {"odd": {"preset": "half_space_trees"}},
                             "decision": {"model": "odd", "threshold": 0.9}}  # fmt: skip
    alone = MemoryStream(
        log, group="world", slot="0", events_topic="transactions", labels_topic=None
    )
    drain(worker(log, store, config=settings(labels=None, **words), stream=alone))
    alone.close()
    log.truncate("labels", 0, 30)
    fill(log, STREAM[COUNT // 2 :])
    drain(worker(log, MemoryStore() if empty else store, config=settings(**words)))
    assert len(journal(log)) == COUNT


@pytest.mark.parametrize("topic", ["transactions", "labels"])
@pytest.mark.parametrize("empty", [True, False])
def test_a_log_that_ends_before_what_is_committed_is_refused(topic: str, empty: bool) -> None:
    """It was made anew or cut: nobody waits for ever for records that will not come."""
    log, store = run_of(STREAM)
    cut = copied(log, 1, {topic: 50})
    with pytest.raises(FatalError, match=f"{topic}/0: expected the record at [0-9]+, got a log"):
        drain(worker(cut, MemoryStore() if empty else store))


def view(log: MemoryLog) -> MemoryStream:
    return MemoryStream(
        log, group="beside", slot="0", events_topic="transactions", labels_topic="labels"
    )


def copied(log: MemoryLog, partitions: int, most: Mapping[str, int] | None = None) -> MemoryLog:
    """Return a log with the same records, of some topics so many at ``most``, and so many
    partitions of all but the training topic.
    """
    copy = new_log(partitions)
    for topic, count in log.partitions.items():
        for p in range(count):
            records = log.read(topic, p, 0, (most or {}).get(topic, 10**9))
            columns = (records.values, records.keys, records.timestamps_ms)
            for value, key, time_ms in zip(*columns, strict=True):
                copy.append(topic, p, value, key, time_ms)
    return copy
