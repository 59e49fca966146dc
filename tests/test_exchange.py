"""Secondary entities across workers, over a log and a store in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.worlds import (
    drain,
    events,
    fill,
    journal,
    new_log,
    partition_of,
    settings,
    terminals_of,
    worker,
)
from worker.arrow import read_batch, stamps_of
from worker.checkpoint import updates_space_of
from worker.errors import FatalError
from worker.features.spec import compile_features
from worker.runner import Runner
from worker.secondary import target_of
from worker.stores import Meta, Writes
from worker.stores.memory import MemoryStore
from worker.streams.memory import MemoryLog

PARTITIONS, COUNT = 4, 600
CONFIG = settings(
    features={
        "amount": "$amount",
        "card": {"count": ["1h", "1d"], "mean(amount)": ["1d"]},
        "terminal": {
            "count": ["1h", "1d", "90d"], "std(amount)": ["1d"], "max(amount)": ["7d"],
            "fraud_rate": ["1d", "90d"], "frauds": {"windows": ["7d"], "weight": "$amount"},
            "time_since_last_fraud": {}, "fraud_run": {},
        },
    }
)  # fmt: skip
SPEC = compile_features(CONFIG)
TOPIC = "entity-updates"


def full_log(partitions: int = PARTITIONS) -> MemoryLog:
    log = new_log(partitions)
    fill(log, events(COUNT))
    return log


def start(log: MemoryLog, store: MemoryStore, slot: str = "0", **words: Any) -> Runner:
    return worker(log, store, slot=slot, config=CONFIG, **words)


@pytest.fixture(scope="module")
def alone() -> dict[str, bytes]:
    """Return the states that one process with one partition makes of the same events."""
    log, store = full_log(1), MemoryStore()
    drain(start(log, store))
    return terminals_of(store, SPEC, events(COUNT), 1)


def drop_all(store: MemoryStore) -> None:
    """Empty the store, as FLUSHALL does."""
    for space in list(store._spaces):
        store.drop(space)


def nothing(log: MemoryLog, store: MemoryStore, both: Sequence[Runner]) -> Sequence[Runner]:
    return both


def second_leaves(log: MemoryLog, store: MemoryStore, both: Sequence[Runner]) -> Sequence[Runner]:
    both[1].parts.stream.close()
    return both[:1]


def second_dies(log: MemoryLog, store: MemoryStore, both: Sequence[Runner]) -> Sequence[Runner]:
    log.evict("world", "1")
    return both[:1]


def second_restarts(log: MemoryLog, store: MemoryStore, both: Sequence[Runner]) -> Sequence[Runner]:
    return [both[0], start(log, store, "1")]


def store_is_emptied(
    log: MemoryLog, store: MemoryStore, both: Sequence[Runner]
) -> Sequence[Runner]:
    drop_all(store)
    return both


def all_die_and_the_store_is_lost(
    log: MemoryLog, store: MemoryStore, both: Sequence[Runner]
) -> Sequence[Runner]:
    drop_all(store)
    return [start(log, store, "0"), start(log, store, "1")]


ACCIDENTS = [
    nothing, second_leaves, second_dies, second_restarts, store_is_emptied,
    all_die_and_the_store_is_lost,
]  # fmt: skip


@pytest.mark.parametrize("steps", [2, 7])
@pytest.mark.parametrize("accident", ACCIDENTS)
def test_two_workers_fold_what_one_process_folds(
    accident: Callable[..., Sequence[Runner]], steps: int, alone: dict[str, bytes]
) -> None:
    """Four partitions, drained: every blob is that of the single process, byte for byte."""
    log, store = full_log(), MemoryStore()
    both: Sequence[Runner] = [start(log, store, "0"), start(log, store, "1")]
    for _ in range(steps):
        for one in both:
            one.step()
    both = accident(log, store, both)
    drain(*both)
    for one in both:
        one.parts.stream.close()
    assert terminals_of(store, SPEC, events(COUNT), PARTITIONS) == alone
    assert sum(len(journal(log, p)) for p in range(PARTITIONS)) == COUNT


def test_every_count_follows_from_the_stamps() -> None:
    """Rows before the stamped positions, own rows after them, and the event itself."""
    log, store = full_log(), MemoryStore()
    both = [start(log, store, "0"), start(log, store, "1")]
    drain(*both)
    where = {(event["id"], event["at"]): event["terminal"] for event in events(COUNT)}
    column = SPEC.names.index("terminal_count_90d")
    checked = others = 0
    for p in range(PARTITIONS):
        for stamps, rows in _journal_records(log, p):
            positions = json.loads(stamps["entity_updates"])
            for row in (r for r in rows if r["outcome"] == "scored"):
                terminal = where[row["event_id"], row["time_ms"]]
                q = target_of(terminal, PARTITIONS)
                held = [u for u in _updates(log, q) if u["id"] == terminal]
                held = [u for u in held if u["entity"] == "terminal"]
                before = [u for u in held if u["offset"] < positions[q]]
                own = [u for u in held if u["source"] == p and u not in before]
                mine = [u["event_hash"] for u in own]
                place = mine.index(_hash_of(held, row, p))
                assert row["x"][column] == len(before) + place + 1
                checked += 1
                others += sum(u["source"] != p for u in before)
    assert checked > COUNT / 2
    assert others > 0


def _hash_of(held: list[dict[str, Any]], row: dict[str, Any], source: int) -> int:
    times = [
        u["event_hash"] for u in held if (u["source"], u["time_ms"]) == (source, row["time_ms"])
    ]
    assert len(times) == 1
    return int(times[0])


def _updates(log: MemoryLog, q: int) -> list[dict[str, Any]]:
    records = log.read(TOPIC, q, 0, 10**9)
    pairs = zip(records.offsets, records.values, strict=True)
    return [{**row, "offset": o} for o, v in pairs for row in read_batch(v or b"", "u").to_pylist()]


def _journal_records(log: MemoryLog, p: int) -> list[tuple[dict[str, str], list[dict[str, Any]]]]:
    values = log.read("journal", p, 0, 10**9).values
    batches = [read_batch(value or b"", "journal") for value in values]
    return [(stamps_of(batch), batch.to_pylist()) for batch in batches]


def probed(log: MemoryLog, *workers: Runner) -> list[list[float]]:
    """Drain, and then return x of one more event at each terminal, a card of any partition."""
    drain(*workers)
    partitions = log.partitions["transactions"]
    last = events(COUNT)[-1]
    for i in range(5):
        event = {**last, "id": f"probe{i}", "terminal": f"t{i}", "card": f"c{i}",
                 "at": last["at"] + 3_600_000}  # fmt: skip
        value, key, time_ms = msgspec.json.encode(event), event["card"].encode(), event["at"]
        log.append("transactions", partition_of(event["card"], partitions), value, key, time_ms)
    drain(*workers)
    columns = [i for i, f in enumerate(SPEC.features) if f.entity == "terminal"]
    rows = [row for p in range(partitions) for row in journal(log, p)]
    found = {row["event_id"]: row["x"] for row in rows}
    return [[found[f"probe{i}"][c] for c in columns] for i in range(5)]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_became_known_anywhere_is_read_everywhere(workers: int) -> None:
    """Frauds told in other partitions are in x, as in a single process, once all is drained."""
    alone = full_log(1)
    expected = probed(alone, start(alone, MemoryStore()))
    log, store = full_log(), MemoryStore()
    both = [start(log, store, str(slot)) for slot in range(workers)]
    assert probed(log, *both) == expected
    assert len({tuple(x) for x in expected}) == 5


def test_positions_in_the_journal_never_go_back() -> None:
    """A later record of a partition was scored on no older states."""
    log, store = full_log(), MemoryStore()
    drain(start(log, store, "0"), start(log, store, "1"))
    for p in range(PARTITIONS):
        stamped = [json.loads(s["entity_updates"]) for s, _ in _journal_records(log, p)]
        assert (np.diff(np.array(stamped), axis=0) >= 0).all()


def test_with_one_partition_there_is_no_topic() -> None:
    """State is folded where the events are: nothing is written, stamped or asked for."""
    log = MemoryLog({t: 1 for t in new_log(1).partitions if t != TOPIC})
    fill(log, events(100))
    drain(start(log, MemoryStore()))
    assert len(journal(log)) == 100
    assert all("entity_updates" not in stamps for stamps, _ in _journal_records(log, 0))


def test_a_shard_is_not_live_before_the_owners_have_folded_what_was_there() -> None:
    """The store is empty and the other worker does not move: nothing is scored on half a state."""
    log, store = full_log(), MemoryStore()
    both = [start(log, store, "0"), start(log, store, "1")]
    for _ in range(4):
        for one in both:
            one.step()
    drop_all(store)
    again = start(log, store, "0")
    rows = [len(journal(log, p)) for p in range(PARTITIONS)]
    for _ in range(5):
        assert again.step() == 0
    assert not again.parts.telemetry.ready
    assert [len(journal(log, p)) for p in range(PARTITIONS)] == rows
    drain(again, both[1])
    assert again.parts.telemetry.ready


def test_workers_that_wait_for_each_other_write_how_far_they_are() -> None:
    """The log ends with an aborted transaction: no row comes, and yet positions must move."""
    log, store = full_log(2), MemoryStore()
    for q in range(2):
        log.skip(TOPIC, q, 2)
    drain(start(log, store, "0", late=True), start(log, store, "1", late=True))
    for p in range(2):
        assert len(journal(log, p)) == log.end("transactions", p)


class Forgetful(MemoryStore):
    """A store that can go back to an older copy of a space, as a promoted replica does."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: dict[str, list[tuple[Meta, dict[str, bytes]]]] = {}

    def flush(
        self, space: str, version: bytes | None, meta: Meta, writes: Sequence[Writes]
    ) -> None:
        super().flush(space, version, meta, writes)
        held = self._spaces[space]
        self.copies.setdefault(space, []).append((meta, dict(held.values)))

    def roll_back(self, space: str, flushes: int) -> None:
        held = self._spaces[space]
        held.meta, values = self.copies[space][max(0, len(self.copies[space]) - 1 - flushes)]
        held.values = dict(values)


def test_a_store_that_loses_its_last_writes_is_noticed_by_who_reads_them(
    alone: dict[str, bytes],
) -> None:
    """Positions never go back: everything is acquired again, the states are the log's."""
    log, store = full_log(), Forgetful()
    both = [start(log, store, "0"), start(log, store, "1")]
    for _ in range(6):
        for one in both:
            one.step()
    for q in range(PARTITIONS):
        store.roll_back(updates_space_of("world", SPEC, q), 2)
    drain(*both)
    for one in both:
        one.parts.stream.close()
    assert terminals_of(store, SPEC, events(COUNT), PARTITIONS) == alone


@pytest.mark.parametrize("reader_first", [True, False])
def test_a_damaged_state_is_rebuilt_from_the_log(
    reader_first: bool, alone: dict[str, bytes]
) -> None:
    """Whoever finds it drops the space: the owner, or a shard elsewhere that reads it."""
    log, store = full_log(), MemoryStore()
    both = [start(log, store, "0"), start(log, store, "1")]
    for _ in range(5):
        for one in both:
            one.step()
    for q in range(PARTITIONS):
        values = store._spaces[updates_space_of("world", SPEC, q)].values
        values.update({key: blob[:-1] + bytes([blob[-1] ^ 1]) for key, blob in values.items()})
    if not reader_first:
        both[1] = start(log, store, "1")  # it has nothing in memory
    drain(*both)
    for one in both:
        one.parts.stream.close()
    assert terminals_of(store, SPEC, events(COUNT), PARTITIONS) == alone


def test_a_damaged_state_that_its_owner_does_not_touch_is_rebuilt_for_its_reader() -> None:
    """Only one event asks for it, and its owner has it in memory: nobody writes it again."""
    log, store = full_log(), MemoryStore()
    owner, reader = start(log, store, "0"), start(log, store, "1")
    drain(owner, reader)
    stream = events(COUNT)
    terminal = next(
        e["terminal"] for e in stream if target_of(e["terminal"], PARTITIONS) in owner._live
    )
    values = store._spaces[updates_space_of("world", SPEC, target_of(terminal, PARTITIONS))].values
    key = f"terminal:{terminal}"
    values[key] = values[key][:-1] + bytes([values[key][-1] ^ 1])
    last = next(e for e in stream[::-1] if partition_of(e["card"], PARTITIONS) in reader._live)
    event = {**last, "id": "asks", "terminal": terminal}
    p = partition_of(event["card"], PARTITIONS)
    time_ms = log.read("transactions", p, log.end("transactions", p) - 1, 1).timestamps_ms[0]
    log.append("transactions", p, msgspec.json.encode(event), event["card"].encode(), time_ms)
    drain(owner, reader)
    assert [row["event_id"] for row in journal(log, p)][-1] == "asks"


def test_a_log_that_begins_after_the_stored_position_is_refused() -> None:
    """Retention took rows that no state holds: the owner names the remedy and stops."""
    log, store = full_log(), MemoryStore()
    drain(start(log, store))
    drop_all(store)
    log.truncate(TOPIC, 2, 3)
    with pytest.raises(FatalError, match=r"entity-updates/2.*offset 0, .*repair reset"):
        drain(start(log, store))


def test_a_worker_waits_for_owners_that_do_not_fold_its_rows() -> None:
    """At the cap of rows that no state holds a worker takes on no more, and then goes on."""
    capped = CONFIG.model_copy(
        update={"runner": CONFIG.runner.model_copy(update={"dirty_max": 100})}
    )
    log, store = full_log(), MemoryStore()
    first = worker(log, store, slot="0", config=capped)
    second = worker(log, store, slot="1", config=capped)
    for _ in range(4):  # both are live
        first.step()
        second.step()
    for _ in range(50):
        first.step()
    done = [len(journal(log, p)) for p in (0, 1)]
    waiting = [log.end("transactions", p) - n for p, n in zip((0, 1), done, strict=True)]
    assert min(waiting) > 0
    assert not first.parts.telemetry.ready
    drain(first, second)
    assert sum(len(journal(log, p)) for p in range(PARTITIONS)) == COUNT


@pytest.mark.parametrize("late", [False, True])
def test_workers_that_wait_for_each_others_states_go_on(late: bool) -> None:
    """Nothing was flushed, so each must fold and flush what it owns before the other is live."""
    log, store = full_log(), MemoryStore()
    gone = start(log, store, flush_every_s=1e9)
    for _ in range(8):
        gone.step()
    log.evict("world", "0")
    drain(start(log, store, "1", late=late), start(log, store, "2", late=late))
    assert sum(len(journal(log, p)) for p in range(PARTITIONS)) == COUNT


def test_what_is_gauged_of_an_idle_or_released_shard_does_not_stay() -> None:
    """At rest no row is kept, and a partition that went to another worker has no lag here."""
    log, store = full_log(), MemoryStore()
    first = start(log, store, "0")
    for _ in range(6):
        first.step()
    registry = first.parts.telemetry.registry

    def lags() -> set[str]:
        found = registry.collect()
        (lag,) = [metric for metric in found if metric.name == "riverwatch_lag_records"]
        return {sample.labels["partition"] for sample in lag.samples}

    assert lags() == {"0", "1", "2", "3"}
    second = start(log, store, "1")
    for _ in range(4):
        first.step()
        second.step()
    assert lags() == {"0", "1"}
    assert (registry.get_sample_value("riverwatch_overlay_rows") or 0) > 0
    drain(first, second)
    assert registry.get_sample_value("riverwatch_overlay_rows") == 0
