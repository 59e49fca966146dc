"""Remedies: a shard that was refused goes on, and nothing is scored twice."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.worlds import drain, events, fill, journal, new_log, settings, worker
from worker.arrow import read_batch, stamps_of
from worker.checkpoint import space_of, updates_space_of
from worker.errors import ConfigError, FatalError
from worker.features.spec import compile_features
from worker.repair import Reset, plan_reset, spaces
from worker.stores import Meta, Writes
from worker.stores.memory import MemoryStore
from worker.streams.memory import MemoryLog, MemoryStream

CONFIG = settings()
SPEC = compile_features(CONFIG)
COUNT, MORE = 200, 120
STREAM = events(COUNT + MORE)
SPACE = space_of("world", SPEC, 0)


def view(log: MemoryLog) -> MemoryStream:
    return MemoryStream(
        log, group="world", slot="beside", events_topic="transactions", labels_topic="labels"
    )


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
    with pytest.raises(FatalError, match=f"a row of the event at {here}"):
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
