"""Remedies: a shard that was refused goes on, and nothing is scored twice."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.worlds import drain, events, fill, journal, new_log, settings, worker
from worker.arrow import read_batch, stamps_of
from worker.checkpoint import space_of, together, updates_space_of
from worker.errors import ConfigError, FatalError, UnknownLayoutError
from worker.features.spec import compile_features
from worker.owned import Owned
from worker.repair import (
    Reset,
    begin_updates,
    check_rebuild,
    plan_reset,
    spaces,
    trimmed_updates,
)
from worker.stores import Meta, Writes
from worker.stores.memory import MemoryStore
from worker.streams.memory import MemoryLog, MemoryStream

CONFIG = settings()
SPEC = compile_features(CONFIG)
COUNT, MORE = 200, 120
STREAM = events(COUNT + MORE)
SPACE = space_of("world", SPEC, 0)


def view(log: MemoryLog) -> MemoryStream:
    """Return the topics as who is no member of the group sees them."""
    stream = MemoryStream(
        log, group="world", slot="beside", events_topic="transactions", labels_topic="labels"
    )
    stream.close()
    return stream


def planned(log: MemoryLog, events: int | None = None, **words: Any) -> Reset:
    reason = words.pop("reason", "the disk was lost")
    return plan_reset(view(log), CONFIG, SPEC, words.pop("partition", 0), events, None, reason)


def done(log: MemoryLog, reset: Reset) -> None:
    """Write the record of a reset, as the command does."""
    output = reset.output
    log.append(output.topic, output.partition, output.value, None, output.timestamp_ms)


def ruined() -> tuple[MemoryLog, MemoryStore]:
    """Return a log that lost its first events, and a store that lost everything."""
    log = new_log()
    fill(log, STREAM[:COUNT])
    drain(worker(log, MemoryStore()))
    log.truncate("transactions", 0, 50)
    fill(log, STREAM[COUNT:])
    return log, MemoryStore()


def offsets(log: MemoryLog) -> list[int]:
    return [row["source_offset"] for row in journal(log)]


def test_a_shard_that_was_refused_begins_anew_after_what_was_scored() -> None:
    """Every event has one row; those after the reset have the features of a first history."""
    log, store = ruined()
    with pytest.raises(FatalError, match=r"got one from 50 on \(riverwatch repair"):
        drain(worker(log, store))
    reset = planned(log)
    assert (reset.begin.events, reset.committed[0], reset.skipped) == (COUNT, COUNT, 0)
    done(log, reset)
    drain(worker(log, store))
    assert offsets(log) == list(range(COUNT + MORE))
    alone = new_log()
    fill(alone, STREAM[COUNT:])
    drain(worker(alone, MemoryStore()))
    assert [row["x"] for row in journal(log)[COUNT:]] == [row["x"] for row in journal(alone)]


@pytest.mark.parametrize("keeps_store", [True, False])
def test_a_reset_holds_for_every_later_owner(keeps_store: bool) -> None:
    """Its place and reason are in all later records: an empty store is rebuilt from there."""
    log, store = ruined()
    done(log, planned(log))
    first = worker(log, store)
    while len(offsets(log)) == COUNT:
        first.step()
    assert COUNT < len(offsets(log)) < COUNT + MORE
    drain(worker(log, store if keeps_store else MemoryStore()))
    assert offsets(log) == list(range(COUNT + MORE))
    values = log.read("journal", 0, 0, 10**9).values
    stamps = [stamps_of(read_batch(value or b"", "journal")) for value in values]
    begins = [json.loads(s["begins"]) for s in stamps if "begins" in s]
    assert {(b["events"], b["reason"]) for b in begins} == {(COUNT, "the disk was lost")}
    assert ["begins" in s for s in stamps] == sorted("begins" in s for s in stamps)
    assert stamps[-1]["begins"]
    quiet = new_log()
    fill(quiet, STREAM[COUNT:])
    drain(worker(quiet, MemoryStore()))
    assert [row["x"] for row in journal(log)[COUNT:]] == [row["x"] for row in journal(quiet)]


def test_offsets_that_no_journal_row_bears_out_are_skipped_with_a_reason() -> None:
    """The group's offsets were moved by hand: refused, then told; the rest is scored once."""
    log, store = new_log(), MemoryStore()
    fill(log, STREAM)
    first = worker(log, store)
    for _ in range(3):
        first.step()
    first.parts.stream.close()
    here = len(offsets(log))
    log.group("world").offsets["transactions", 0] = here + 30
    store.drop(SPACE)
    with pytest.raises(FatalError, match=f"a row of the event at {here}.*repair reset"):
        drain(worker(log, store))
    reset = planned(log)
    assert (reset.begin.events, reset.skipped) == (here + 30, 0)
    done(log, reset)
    drain(worker(log, store))
    assert offsets(log) == [*range(here), *range(here + 30, COUNT + MORE)]


def test_events_can_be_passed_over_but_never_scored_again() -> None:
    """From the first that is not committed to the end of the topic; nothing else."""
    log, _ = ruined()
    assert planned(log, COUNT + 7).skipped == 7
    assert planned(log, COUNT + MORE).skipped == MORE
    for wrong in (COUNT - 1, COUNT + MORE + 1):
        with pytest.raises(ConfigError, match=f"from {COUNT} to {COUNT + MORE}, got {wrong}"):
            planned(log, wrong)
    for words in ({"reason": " "}, {"reason": "x" * 501}, {"partition": 1}):
        with pytest.raises(ConfigError, match="--"):
            planned(log, **words)


def test_a_store_of_before_a_reset_is_refused() -> None:
    """The command died before it dropped the space, or the space came from a backup."""
    log, store = new_log(), MemoryStore()
    fill(log, STREAM[:COUNT])
    drain(worker(log, store))
    done(log, planned(log))
    with pytest.raises(FatalError, match=rf"a store of after the reset at {COUNT}, .*rebuild"):
        drain(worker(log, store))
    store.drop(SPACE)
    fill(log, STREAM[COUNT:])
    drain(worker(log, store))
    assert offsets(log) == list(range(COUNT + MORE))


def test_a_shard_that_never_committed_anything_can_begin_later() -> None:
    """Its journal is empty; the first record is the reset's."""
    log, store = new_log(), MemoryStore()
    fill(log, STREAM)
    done(log, planned(log, 100, reason=" a test stream \n"))
    drain(worker(log, store))
    assert offsets(log) == list(range(100, COUNT + MORE))


def test_the_spaces_of_a_file_are_found_in_all_partitions() -> None:
    """Of shards and of secondary entities, half dropped ones too; other files' are left."""
    other = settings(features={"card": {"count": ["3d"]}})
    store = MemoryStore()
    names = [space_of("world", SPEC, 0), updates_space_of("world", SPEC, 0),
             space_of("world", SPEC, 7)]  # fmt: skip
    for name in (*names, space_of("world", compile_features(other), 0)):
        store.flush(name, None, Meta(b"v" * 16, 3, 2, 1), [Writes.of("card:1", b"x")])
    assert [one.name for one in spaces(store, CONFIG, SPEC, None)] == names
    assert [one.name for one in spaces(store, CONFIG, SPEC, [7])] == names[2:]


class OfAnother(MemoryStore):
    """A store with one space that another version wrote."""

    written = SPACE

    def meta(self, space: str) -> Meta | None:
        if space == self.written:
            raise UnknownLayoutError(f"store {space}", "a meta of layout 2", "other bytes")
        return super().meta(space)

    def drop(self, space: str, version: bytes | None = None) -> int:
        self.written = "" if space == self.written else self.written
        return super().drop(space, version)


def test_a_space_of_another_version_is_found_and_can_be_dropped() -> None:
    """The remedy that operators read of; a worker itself refuses it and drops nothing."""
    log, store = new_log(), OfAnother()
    fill(log, STREAM[:COUNT])
    with pytest.raises(FatalError, match="a meta of layout"):
        drain(worker(log, store))
    (found,) = spaces(store, CONFIG, SPEC, [0])
    assert (found.name, found.meta) == (SPACE, None)
    store.drop(found.name)
    drain(worker(log, store))
    assert offsets(log) == list(range(COUNT))


def test_a_log_that_cannot_rebuild_is_found_out_before_anything_is_deleted() -> None:
    """The words are those of the worker that would find the store empty."""
    log, store = new_log(), MemoryStore()
    fill(log, STREAM[:COUNT])
    drain(worker(log, store))
    check_rebuild(view(log), CONFIG, SPEC, [0])
    log.truncate("transactions", 0, 50)
    with pytest.raises(FatalError) as before:
        check_rebuild(view(log), CONFIG, SPEC, [0])
    drain(worker(log, store))  # the store has it all
    with pytest.raises(FatalError) as after:
        drain(worker(log, MemoryStore()))
    assert str(before.value) == str(after.value)
    assert "a log from 0 on, got one from 50 on (riverwatch repair reset" in str(after.value)


@pytest.mark.parametrize("keep", [1, 0])
def test_rows_of_the_journal_that_are_gone_are_not_rebuilt(keep: int) -> None:
    """Retention ended the journal before the events: the store is the last that knows of them."""
    log, store = new_log(), MemoryStore()
    fill(log, STREAM[:COUNT])
    drain(worker(log, store))
    log.truncate("journal", 0, log.end("journal", 0) - keep)
    with pytest.raises(FatalError, match=r"journal/0: expected rows from the event at 0 on.*reset"):
        check_rebuild(view(log), CONFIG, SPEC, [0])
    drain(worker(log, store))
    with pytest.raises(FatalError, match="repair reset"):
        drain(worker(log, MemoryStore()))


Q = 3  # the partition of `entity-updates` that lost its beginning
UPDATES = updates_space_of("world", SPEC, Q)


def shared() -> tuple[MemoryLog, MemoryStore, int]:
    """Return a log of four partitions whose partition Q of `entity-updates` lost all rows but the
    last ones, the store of who has folded them all, and the first offset that is left.
    """
    log, store = new_log(4), MemoryStore()
    fill(log, STREAM[:COUNT])
    drain(worker(log, store))
    first = log.end("entity-updates", Q) - 2
    assert first > 0
    log.truncate("entity-updates", Q, first)
    return log, store, first


def begun_anew(log: MemoryLog, store: MemoryStore) -> None:
    """Do to partition Q what `repair reset` does."""
    done(log, planned(log, partition=Q))
    store.drop(space_of("world", SPEC, Q))
    found = trimmed_updates(view(log), store, CONFIG, SPEC, Q)
    assert found is not None
    begin_updates(store, found)


def refolded(log: MemoryLog) -> dict[str, bytes]:
    """Return the states that the rows of partition Q make that are left, by key."""
    store, end = MemoryStore(), log.end("entity-updates", Q)
    found = trimmed_updates(view(log), store, CONFIG, SPEC, Q)
    assert found is not None
    begin_updates(store, found)
    owned = Owned(view(log), store, CONFIG, SPEC, Q, end, (10**12, 10**12))
    while owned.owner.events_next < end:
        together([(owned.checkpoint, owned.follow())], lambda ask: ask())
    owned.checkpoint.flush(owned.owner, 0)
    return store._spaces[UPDATES].values


def test_rows_of_secondary_entities_that_are_gone_are_not_rebuilt() -> None:
    """Told before the state is deleted that was made of them; other partitions are as they were."""
    log, store, first = shared()
    check_rebuild(view(log), CONFIG, SPEC, [0, 1, 2])
    gone = f"entity-updates/{Q}: expected a log that has the offset 0, got one of .{first}, "
    with pytest.raises(FatalError, match=f"{gone}.*repair reset"):
        check_rebuild(view(log), CONFIG, SPEC, [0, Q])
    alone = settings(features={"card": {"count": ["1d"]}})
    check_rebuild(view(log), alone, compile_features(alone), [Q])
    assert trimmed_updates(view(log), store, CONFIG, SPEC, Q) is None  # the store has them
    assert trimmed_updates(view(log), MemoryStore(), CONFIG, SPEC, 1) is None


def test_secondary_entities_begin_anew_at_the_first_row_that_is_left() -> None:
    """The store was emptied: to drop the space is no remedy, a reset of the partition is one."""
    log, before, first = shared()
    fill(log, STREAM[COUNT:])
    store = MemoryStore()
    for _ in range(2):
        with pytest.raises(FatalError, match=rf"entity-updates/{Q}: .* offset 0, .*repair reset"):
            drain(worker(log, store))
        store.drop(UPDATES)
    begun_anew(log, store)
    meta = store.meta(UPDATES)
    assert meta is not None
    assert (meta.events_offset, store._spaces[UPDATES].values) == (first, {})
    last = worker(log, store)
    drain(last)
    last.parts.stream.close()
    assert sum(len(journal(log, p)) for p in range(4)) == COUNT + MORE
    assert store._spaces[UPDATES].values == refolded(log)
    before.drop(space_of("world", SPEC, Q))
    drain(worker(log, before))
    assert store._spaces[UPDATES].values != before._spaces[UPDATES].values


def test_a_reset_leaves_secondary_entities_that_lack_nothing() -> None:
    """Their log has all that follows, whatever befell the shard."""
    log, store, _ = shared()
    held = dict(store._spaces[UPDATES].values)
    done(log, planned(log, partition=Q))
    store.drop(space_of("world", SPEC, Q))
    assert trimmed_updates(view(log), store, CONFIG, SPEC, Q) is None
    drain(worker(log, store))
    assert store._spaces[UPDATES].values == held
