"""Secondary entities: every row reaches its owner once, and is read once, whatever the lag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.features.streams import UNHURRIED, Row, events_of, spec_of, taken_from
from tests.worlds import settings
from worker.contracts.records import EntityRows, Float64, Int64
from worker.errors import FatalError, StateDamagedError
from worker.features.entity_table import Table
from worker.features.spec import compile_features
from worker.features.table import FeatureTables
from worker.secondary import Overlay, Owner, Rekeyed, secondary_entities, target_of
from worker.updates import read_updates, update_records

ENTITIES = {"card": {"key": "card"}, "terminal": {"key": "terminal"}}
HISTORY = {"count": ["30d"], "sum(amount)": ["30d"]}
SPEC = spec_of({"card": {"count": ["1d"]}, "terminal": HISTORY}, ring=2)
COUNT, SUM = (SPEC.names.index(name) for name in ("terminal_count_30d", "terminal_sum_amount_30d"))
PARTITIONS = 3
STAMPS = {"schema_version": "1", "state_hash": SPEC.state_hash}
OWN, OTHER = 0, 1


class Log:
    """The topic in memory. Every commit leaves one offset without a record, as Kafka's do."""

    def __init__(self) -> None:
        self.records: list[list[tuple[int, bytes]]] = [[] for _ in range(PARTITIONS)]
        self.ends = [0] * PARTITIONS

    def commit(self, source: int, rows: EntityRows, overlay: Overlay, bytes_max: int) -> None:
        """Append one shard's rows of terminals as a worker does."""
        rekeyed = Rekeyed([(source, "terminal", rows)], PARTITIONS, ["terminal"])
        offsets: list[int] = []
        for q, updates in rekeyed.updates():
            for count, value in update_records(updates, STAMPS, bytes_max):
                self.records[q].append((self.ends[q], value))
                offsets += [self.ends[q]] * count
                self.ends[q] += 1
            self.ends[q] += 1
        rekeyed.committed(np.array(offsets, np.int64), {source: overlay})

    def owner(self, q: int, position: int, read: Sequence[str] = ()) -> Owner:
        """Return an owner that has folded partition q up to a position, with entities to read."""
        owner = Owner(SPEC, ["terminal"], 1_000)
        for offset, value in self.records[q]:
            if offset < position:
                rows = read_updates(value, "here", SPEC.state_hash, owner.widths)
                _bring(owner, rows["terminal"].ids)
                owner.fold(rows, offset + 1)
        _bring(owner, read)
        return owner

    def rows(self, q: int, position: int) -> list[dict[str, object]]:
        """Return the rows before a position as any Arrow reader does."""
        values = [value for offset, value in self.records[q] if offset < position]
        return [row for value in values for row in pa.ipc.open_stream(value).read_all().to_pylist()]


def _bring(owner: Owner, ids: Sequence[str]) -> None:
    keys = owner.missing({"terminal": ids})
    owner.load(keys, [None] * len(keys))


def rows_of(rows: Sequence[Row]) -> EntityRows:
    """Return what is re-keyed of events of which none is a duplicate."""
    tables = FeatureTables(SPEC, "card", 100, foreign=["terminal"])
    return tables.foreign_rows(events_of(rows), np.zeros(len(rows), np.bool_))["terminal"]


def events(prefix: str, terminals: Sequence[int], first: int = 0) -> list[Row]:
    """Return events of these terminals, a minute apart, each on a card of its own."""
    return [
        Row(f"{prefix}{first + i}", (first + i) * 60_000, f"{prefix}{first + i}", f"t{t}", 10 + i)
        for i, t in enumerate(terminals)
    ]


def processed(
    log: Log, here: FeatureTables, overlay: Overlay, at: Int64, rows: list[Row], near: bool
) -> Float64:
    """Return X of a batch as a shard reads it whose owners, near or far, stand at positions."""
    batch = events_of(rows)
    here.load(here.missing(batch), [None] * len(here.missing(batch)))
    tables: list[tuple[Mapping[str, Table], Mapping[str, list[str]]]] = []
    blobs: dict[str, bytes | None] = {}
    for id_ in here.foreign_ids(batch)["terminal"]:
        q = target_of(id_, PARTITIONS)
        owner = log.owner(q, int(at[q]), [id_])
        if near:
            tables.append((owner.tables, {"terminal": [id_]}))
        else:
            taken = {
                i: b
                for _, ids, found in owner.take_writes()
                for i, b in zip(ids, found, strict=True)
            }
            blobs[id_] = taken.get(id_)
    here.check_foreign("terminal", blobs)
    overlay.drop(at)
    here.recall({"terminal": blobs}, tables, overlay.later(at))
    return here.process(batch)[0]


TERMINALS = st.lists(st.integers(0, 5), max_size=6)
LAGS = st.tuples(*[st.integers(0, 5)] * PARTITIONS)


@UNHURRIED
@given(
    steps=st.lists(st.tuples(TERMINALS, TERMINALS, LAGS), min_size=1, max_size=6),
    bytes_max=st.sampled_from((900, 900_000)),
    near=st.booleans(),
)
@example(steps=[([0, 0, 0], [0], (0, 0, 0)), ([0], [], (9, 9, 9))], bytes_max=900, near=True)
def test_an_event_sees_each_own_row_once_and_of_others_what_the_owner_has(
    steps: list[tuple[list[int], list[int], tuple[int, ...]]], bytes_max: int, near: bool
) -> None:
    """Whatever the cuts and lags: own earlier rows, others' before the position, and itself."""
    log, overlay, at = Log(), Overlay(), np.zeros(PARTITIONS, np.int64)
    here = FeatureTables(SPEC, "card", 1_000, foreign=["terminal"])
    own: list[Row] = []
    number = 0
    for mine, theirs, lags in steps:
        log.commit(OTHER, rows_of(events("o", theirs, number)), Overlay(), bytes_max)
        number += len(theirs)
        at = np.maximum(at, np.array(log.ends) - np.array(lags))
        rows = events("e", mine, number)
        number += len(rows)
        X = processed(log, here, overlay, at, rows, near)
        for i, row in enumerate(rows):
            q = target_of(row.terminal, PARTITIONS)
            known = [r.amount for r in (*own, *rows[: i + 1]) if r.terminal == row.terminal]
            known += [
                r["values"][0] for r in log.rows(q, int(at[q]))  # type: ignore[index]
                if (r["id"], r["source"]) == (row.terminal, OTHER)
            ]  # fmt: skip
            assert (X[i, COUNT], round(X[i, SUM] * 100)) == (len(known), sum(known))
        own += rows
        log.commit(OWN, rows_of(rows), overlay, bytes_max)
    assert [entity for entity, _, _ in taken_from(here) if entity == "terminal"] == []


@UNHURRIED
@given(terminals=st.lists(st.integers(0, 2), min_size=1, max_size=30), data=st.data())
def test_the_owners_state_does_not_depend_on_how_sources_interleave(
    terminals: list[int], data: st.DataObject
) -> None:
    """Where the events of an entity have different times, to the last byte of every blob."""
    rows = events("e", terminals)
    mixed = data.draw(st.permutations(rows))
    blobs = []
    for order in (rows, mixed):
        log = Log()
        for row in order:
            log.commit(OWN, rows_of([row]), Overlay(), 900_000)
        owners = [log.owner(q, log.ends[q]) for q in range(PARTITIONS)]
        taken = [
            (k, dict(zip(i, b, strict=True))) for owner in owners for k, i, b in owner.take_writes()
        ]
        blobs.append(taken)
    assert blobs[0] == blobs[1]


def test_a_record_holds_what_any_arrow_reader_can_use() -> None:
    """Entity type, id, event's hash, event time, source and recorded values; nothing twice."""
    rows, log = events("e", [0, 1, 0]), Log()
    log.commit(OTHER, rows_of(rows), Overlay(), 900_000)
    found = [row for q in range(PARTITIONS) for row in log.rows(q, log.ends[q])]
    assert sorted(found, key=lambda row: str(row["time_ms"])) == [
        {
            "entity": "terminal", "id": row.terminal, "source": OTHER, "time_ms": row.time_ms,
            "event_hash": int(events_of([row]).id_hash[0]), "values": [row.amount],
        }
        for row in rows
    ]  # fmt: skip


def test_entities_whose_events_are_only_counted_have_records_too() -> None:
    """No recorded column at all, as with `count` alone: rows without values, read back as such."""
    spec = spec_of({"card": {"count": ["1d"]}, "terminal": {"count": ["1d"]}})
    rows = rows_of(events("e", [0, 1, 0]))
    rows.values = rows.values[:, :0]
    ((_, updates),) = Rekeyed([(OWN, "terminal", rows)], 1, ["terminal"]).updates()
    stamps = {"schema_version": "1", "state_hash": spec.state_hash}
    ((count, value),) = update_records(updates, stamps, 900_000)
    found = read_updates(value, "here", spec.state_hash, {"terminal": 0})["terminal"]
    assert count == len(found) == 3
    assert found.ids == rows.ids
    assert found.values.shape == (3, 0)


def test_rows_of_another_state_are_not_read_as_ours() -> None:
    """Another spec's recorded columns mean something else."""
    log = Log()
    log.commit(OWN, rows_of(events("e", [0])), Overlay(), 900_000)
    (value,) = [value for records in log.records for _, value in records]
    assert read_updates(value, "here", "00" * 32, {"terminal": 1}) == {}
    assert read_updates(value, "here", SPEC.state_hash, {"device": 1}) == {}
    with pytest.raises(FatalError, match="Arrow"):
        read_updates(value[:-40], "updates/0@3", SPEC.state_hash, {"terminal": 1})


def test_duplicates_are_not_sent() -> None:
    """What changed nothing in the shard changes nothing at the owner."""
    tables = FeatureTables(SPEC, "card", 100, foreign=["terminal"])
    batch = events_of([Row("a"), Row("a", 5), Row("b", 9)])
    tables.load(tables.missing(batch), [None])
    tables.recall({"terminal": {"t": None}}, [], {})
    _, duplicate = tables.process(batch)
    assert duplicate.tolist() == [False, True, False]
    assert len(tables.foreign_rows(batch, duplicate)["terminal"]) == 2


def test_a_damaged_state_is_refused() -> None:
    """A blob that is not as it was written is never folded upon."""
    log = Log()
    log.commit(OWN, rows_of(events("e", [0])), Overlay(), 900_000)
    q = target_of("t0", PARTITIONS)
    ((_, _, (blob,)),) = log.owner(q, log.ends[q]).take_writes()
    tables = FeatureTables(SPEC, "card", 100, foreign=["terminal"])
    with pytest.raises(StateDamagedError):
        tables.check_foreign("terminal", {"t0": blob[:-1] + bytes([blob[-1] ^ 1])})


def test_an_owner_says_how_far_it_is_even_when_nothing_is_dirty() -> None:
    """Readers wait for the position: markers and others' rows move it too."""
    owner = Owner(SPEC, ["terminal"], 10)
    owner.take_writes()
    assert owner.is_taken
    owner.fold({}, 7)
    assert not owner.is_taken
    assert owner.take_writes() == []
    assert owner.is_taken


def test_only_entities_whose_events_meet_nowhere_are_shared() -> None:
    """The primary entity is the key: one partition has all of it. One without features has none."""
    assert secondary_entities(SPEC) == ("terminal",)
    assert secondary_entities(spec_of({"card": {"count": ["1d"]}})) == ()


def test_an_entity_named_by_the_primary_one_too_is_not_shared() -> None:
    """All events of a card at a terminal come through the card's partition."""
    pair = {"entities": {**ENTITIES, "pair": {"key": ["card", "terminal"]}}}
    counts = {name: {"count": ["1d"]} for name in ("card", "terminal", "pair")}
    spec = compile_features(settings(features=counts, **pair))
    assert secondary_entities(spec) == ("terminal",)
