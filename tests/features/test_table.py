"""Tables: batches, memory bounds, dirty state and reloading change nothing in what is read."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.streams import (
    UNHURRIED,
    Row,
    events_of,
    spec_of,
    step,
    streams,
    tables_of,
    taken_from,
)
from tests.features.test_windows import SPECS
from worker.contracts.records import Bool
from worker.errors import StateLostError
from worker.features.entity_table import Table
from worker.features.table import FeatureTables, make_tables

COUNT = spec_of({"card": {"count": ["1d"]}, "terminal": {"count": ["1d"]}}, ring=2)


def all_blobs(tables: FeatureTables) -> dict[tuple[str, str], bytes]:
    return {(entity, id_): blob for entity, id_, blob in taken_from(tables)}


def fold(table: Table, name: str, rows: list[Row], duplicate: Bool | None = None) -> Table:
    """Return the table after these events, of which nothing was read."""
    events = events_of(rows)
    ids = events.entity_ids[name]
    table.load(dict.fromkeys(ids))
    nothing = np.zeros(len(rows), np.bool_)
    table.fold_rows(table.rows_of(events, ids, nothing if duplicate is None else duplicate))
    return table


@UNHURRIED
@given(rows=streams(), cuts=st.sets(st.integers(1, 39)), ring=st.sampled_from((2, 40)))
def test_any_split_into_batches_gives_the_same_features_and_bytes(
    rows: list[Row], cuts: set[int], ring: int
) -> None:
    """Batches are only a matter of speed."""
    spec = SPECS["turned", ring]
    whole, parts = tables_of(spec), tables_of(spec)
    X, duplicate = step(whole, rows)
    edges = [0, *sorted(c for c in cuts if c < len(rows)), len(rows)]
    found = [step(parts, rows[a:b]) for a, b in pairwise(edges)]
    assert np.array_equal(np.vstack([x for x, _ in found]), X)
    assert np.array_equal(np.concatenate([d for _, d in found]), duplicate)
    assert all_blobs(parts) == all_blobs(whole)


@pytest.mark.parametrize("shape", ["plain", "long"])
@UNHURRIED
@given(rows=streams(), ring=st.sampled_from((1, 5, 40)))
def test_going_through_the_store_after_every_event_changes_nothing(
    shape: str, ring: int, rows: list[Row]
) -> None:
    """An entity that was evicted and loaded again reads the same, to the last bit."""
    spec = SPECS[shape, ring]
    X, duplicate = step(tables_of(spec), rows)
    tables, store = tables_of(spec, entities_max=1), {}
    for i, row in enumerate(rows):
        x, again = step(tables, [row], store)
        assert np.array_equal(x[0], X[i])
        assert again[0] == duplicate[i]
        store |= all_blobs(tables)
        tables.evict()
    kept = tables_of(spec)
    step(kept, rows)
    assert store == all_blobs(kept)


@pytest.mark.parametrize("shape", ["plain", "turned", "long"])
@UNHURRIED
@given(rows=streams(), ring=st.sampled_from((1, 5, 40)))
def test_folding_without_reading_leaves_the_same_bytes(
    shape: str, ring: int, rows: list[Row]
) -> None:
    """Features are read of an entity and never change it."""
    spec = SPECS[shape, ring]
    whole = tables_of(spec)
    _, duplicate = step(whole, rows)
    found = {}
    for name, table in make_tables(spec, 1_000).items():
        ids, blobs = fold(table, name, rows, duplicate).take_dirty()
        found |= {(name, id_): blob for id_, blob in zip(ids, blobs, strict=True)}
    assert found == all_blobs(whole)


@pytest.mark.parametrize("shape", ["plain", "turned", "long"])
@UNHURRIED
@given(rows=streams(), ring=st.sampled_from((1, 5, 40)))
def test_what_is_adopted_of_several_tables_goes_on_as_there(
    shape: str, ring: int, rows: list[Row]
) -> None:
    """To the last bit, and in slots and tiles that were given back, too."""
    whole, here = (make_tables(SPECS[shape, ring], 1_000)["card"] for _ in range(2))
    fold(whole, "card", rows)
    parts = []
    for card in sorted({row.card for row in rows}):
        table = make_tables(SPECS[shape, ring], 1_000)["card"]
        parts.append((fold(table, "card", [row for row in rows if row.card == card]), [card]))
    for _ in range(2):
        here.clear()
        here.adopt(parts)
    last = [Row(f"last-{card}", rows[-1].at, card) for _, (card,) in parts]
    whole.take_dirty()
    for table in (whole, here):
        fold(table, "card", last)
    assert sorted(zip(*here.take_dirty(), strict=True)) == sorted(
        zip(*whole.take_dirty(), strict=True)
    )


def test_missing_names_each_entity_once_the_primary_first() -> None:
    """In order of appearance, and only what memory lacks."""
    tables = tables_of(COUNT)
    step(tables, [Row("e1", card="a", terminal="x")])
    rows = [Row("e2", card=c, terminal=t) for c, t in ("by", "ay", "bx", "cz")]
    expected = [("card", "b"), ("card", "c"), ("terminal", "y"), ("terminal", "z")]
    assert tables.missing(events_of(rows)) == expected


def test_an_entity_without_features_keeps_no_state() -> None:
    """Terminals are not asked for when no feature is about them; cards are, for their ids."""
    tables = tables_of(spec_of({"amount": "$amount"}))
    assert tables.missing(events_of([Row("e")])) == [("card", "c")]


def test_a_duplicate_changes_no_entity() -> None:
    """The secondary entity skips it too, and nothing becomes dirty."""
    tables = tables_of(COUNT)
    step(tables, [Row("e1", terminal="x"), Row("e2", terminal="x")])
    taken_from(tables)
    _, duplicate = step(tables, [Row("e1", 999, terminal="x")])
    assert duplicate.tolist() == [True]
    assert tables.dirty_count == 0
    X, _ = step(tables, [Row("e3", terminal="x")])
    assert X.tolist() == [[3.0, 3.0]]


def test_an_id_that_the_ring_has_lost_is_new_again() -> None:
    """The bound of exactness is the ring: two events here."""
    _, duplicate = step(tables_of(COUNT), [Row(i) for i in ("e1", "e2", "e3", "e1", "e3")])
    assert duplicate.tolist() == [False, False, False, False, True]


def test_the_same_id_at_another_card_is_another_event() -> None:
    """Ids are unique per entity only, because only its own ring is looked at."""
    _, duplicate = step(tables_of(COUNT), [Row("e1", card="a"), Row("e1", card="b")])
    assert duplicate.tolist() == [False, False]


def test_an_empty_batch_reads_nothing() -> None:
    """Shape (0, features), and nothing becomes dirty."""
    tables = tables_of(COUNT)
    X, duplicate = step(tables, [])
    assert X.shape == (0, 2)
    assert duplicate.shape == (0,)
    assert tables.dirty_count == 0


def test_taken_state_is_clean_until_it_is_changed() -> None:
    """Two entities of one event are taken once; the next event makes them dirty again."""
    tables = tables_of(COUNT)
    step(tables, [Row("e1")])
    assert tables.dirty_count == 2
    first = taken_from(tables)
    assert (tables.dirty_count, taken_from(tables)) == (0, [])
    step(tables, [Row("e2", 1)])
    assert tables.dirty_count == 2
    assert [(entity, id_) for entity, id_, _ in taken_from(tables)] == [x[:2] for x in first]


def test_evict_keeps_dirty_entities_and_drops_those_used_longest_ago() -> None:
    """Memory is bounded by what is clean; what the store lacks never goes."""
    tables = tables_of(COUNT, entities_max=32)
    rows = [Row(f"e{i}", card=f"c{i}") for i in range(40)]
    for row in rows:
        step(tables, [row])
    tables.evict()
    assert tables.missing(events_of(rows)) == []
    taken_from(tables)
    step(tables, [Row("f0", card="c0")])
    tables.evict()
    lost = [id_ for entity, id_ in tables.missing(events_of(rows)) if entity == "card"]
    assert lost == [f"c{i}" for i in range(1, 11)]


def test_tables_grow_far_beyond_their_first_size() -> None:
    """Slots and tiles double as needed and keep what they hold."""
    tables = tables_of(COUNT)
    for k in range(4):
        rows = [Row(f"{k}-{i}", k, card=f"c{i}", terminal=f"t{i}") for i in range(1_500)]
        X, _ = step(tables, rows)
    assert (X == 4.0).all()


def test_a_damaged_blob_among_good_ones_is_refused_and_nothing_is_taken() -> None:
    """The caller acquires the shard again; until then the tables are as they were."""
    source, tables = tables_of(COUNT), tables_of(COUNT)
    step(source, [Row("e1", card="a"), Row("e2", card="b")])
    blobs = {id_: blob for entity, id_, blob in taken_from(source) if entity == "card"}
    with pytest.raises(StateLostError):
        tables.load([("card", "a"), ("card", "b")], [blobs["a"], blobs["b"][:-1]])
    assert ("card", "a") in tables.missing(events_of([Row("e3", card="a")]))
