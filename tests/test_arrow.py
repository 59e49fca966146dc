"""The Arrow contracts: rows and examples, to bytes and back."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from worker.arrow import (
    Examples,
    JournalRows,
    journal_records,
    read_batch,
    read_examples,
    stamps_of,
    training_records,
    vectors_of,
)
from worker.contracts.messages import JournalRow
from worker.contracts.records import unserved
from worker.errors import FatalError

STAMPS = {"schema_version": "1", "spec_hash": "abc", "next_events": "9"}


def rows(n: int, features: int = 3) -> JournalRows:
    """Return n rows; every third is a duplicate and every fourth rejected."""
    outcome = np.array([2 if i % 4 == 3 else 1 if i % 3 == 2 else 0 for i in range(n)])
    named = [None if o == 2 else f"e{i}" for i, o in enumerate(outcome)]
    return JournalRows(
        source_offset=np.arange(n),
        outcome=outcome,
        reason=["not_json" if o == 2 else None for o in outcome],
        event_ids=list(named),
        entity_ids=list(named),
        time_ms=np.arange(n) * 10,
        score=np.arange(n) / 8,
        decision=np.arange(n) % 7,
        threshold=np.full(n, 0.5),
        model_version=np.arange(n),
        labels_offset=np.arange(n),
        degraded=np.arange(n) % 2,
        raw=np.stack([np.arange(n) / 8, -np.arange(n) / 8], axis=1),
        calibrated=np.stack([np.arange(n) / 4, -np.arange(n) / 4], axis=1),
        X=np.arange(n * features, dtype=np.float64).reshape(n, features),
    )


def read(values: list[bytes]) -> pa.Table:
    return pa.Table.from_batches([read_batch(v, "j").replace_schema_metadata(None) for v in values])


def test_rows_come_back_and_what_has_no_meaning_is_null() -> None:
    """Scored rows carry everything, a duplicate its names, a rejected one its reason only."""
    value = journal_records(rows(4), ["a", "b"], STAMPS, 10**6)
    table = read(value).to_pylist()
    assert [r["outcome"] for r in table] == ["scored", "scored", "duplicate", "rejected"]
    assert table[1] == {
        "source_offset": 1, "outcome": "scored", "reason": None, "event_id": "e1",
        "entity": "e1", "time_ms": 10, "score": 0.125, "decision": "alert", "threshold": 0.5,
        "model_version": 1, "labels_offset": 1, "degraded": "learning", "raw_a": 0.125,
        "raw_b": -0.125,
        "score_a": 0.25, "score_b": -0.25,
        "x": [3.0, 4.0, 5.0],
    }  # fmt: skip
    assert {k for k, v in table[2].items() if v is not None} == {
        "source_offset", "outcome", "event_id", "entity", "time_ms", "labels_offset"
    }  # fmt: skip
    assert {k for k, v in table[3].items() if v is not None} == {
        "source_offset", "outcome", "reason", "labels_offset"
    }  # fmt: skip
    assert stamps_of(read_batch(value[0], "j")) == STAMPS


def test_the_columns_are_the_published_contract() -> None:
    """Arrow columns and the pydantic model name the same things."""
    names = read(journal_records(rows(2), ["a", "b"], STAMPS, 10**6)).schema.names
    per_model = {"raw_a": "raw", "score_a": "calibrated"}
    assert [per_model.get(n, n) for n in names if not n.endswith("_b")] == list(
        JournalRow.model_fields
    )


@pytest.mark.parametrize("bytes_max", [4_000, 20_000, 10**6])
def test_records_are_split_below_the_bound(bytes_max: int) -> None:
    """All rows come back in order from records that are each small enough."""
    many = rows(500, features=20)
    values = journal_records(many, ["a", "b"], STAMPS, bytes_max)
    assert max(map(len, values)) <= bytes_max
    assert read(values).column("source_offset").to_pylist() == list(range(500))
    X = np.concatenate([vectors_of(read_batch(v, "j")) for v in values])
    scored = many.outcome == 0
    assert np.array_equal(X[scored], many.X[scored])


def test_no_rows_still_carry_the_stamps() -> None:
    """Positions move by labels alone too."""
    (value,) = journal_records(rows(0), ["a", "b"], STAMPS, 10**6)
    assert read_batch(value, "j").num_rows == 0
    assert stamps_of(read_batch(value, "j"))["next_events"] == "9"


def test_a_single_row_is_written_whatever_its_size() -> None:
    """A row cannot be split."""
    assert len(journal_records(rows(1, features=100), ["a", "b"], STAMPS, 500)) == 1


@pytest.mark.parametrize("value", [b"", b"no arrow", b"\xff" * 100])
def test_other_bytes_are_refused(value: bytes) -> None:
    """What is no Arrow batch stops the reader with the place, nothing is guessed."""
    with pytest.raises(FatalError, match="journal/0@7"):
        read_batch(value, "journal/0@7")


def test_a_newer_schema_is_refused() -> None:
    """A record of a future version may mean something else."""
    (value,) = journal_records(rows(1), ["a", "b"], {**STAMPS, "schema_version": "2"}, 10**6)
    with pytest.raises(FatalError, match="upgrade"):
        read_batch(value, "journal/0@7")


def test_examples_come_back_bit_for_bit() -> None:
    """Floats, including the served score that is unknown, survive the training topic."""
    X = np.random.default_rng(0).normal(size=(7, 5))
    examples = Examples(
        [f"e{i}" for i in range(7)], X, np.array([0, 1, -1, 0, 1, -1, 0]), np.linspace(0.1, 2, 7),
        np.concatenate([X[:6, :2], [[np.nan] * 2]]), np.zeros(7, np.int64), np.arange(7),
        unserved(7, 2),
    )  # fmt: skip
    examples.served["entity"] = np.arange(7, dtype=np.uint64) << np.uint64(60)
    examples.served["score"] = [0.5, np.nan, *[0.1] * 5]
    examples.served["threshold"], examples.served["alert"] = np.inf, np.arange(7) % 2
    examples.served["scores"] = X[:, 2:4]
    values = training_records(examples, {**STAMPS, "models": '["a", "b"]'}, 300)
    parts = [read_examples(v, "t")[1] for v in values]
    assert len(values) > 1
    assert [i for p in parts for i in p.event_ids] == examples.event_ids
    for name in ("X", "y", "weight", "raw", "time_ms", "served"):
        got = np.concatenate([getattr(p, name) for p in parts])
        assert got.tobytes() == np.asarray(getattr(examples, name), got.dtype).tobytes()


def test_examples_of_earlier_versions_lack_what_they_do_not_say() -> None:
    """A record without raw scores, or how its events were served, reads as NaN."""
    examples = Examples(
        ["a"], np.ones((1, 3)), np.array([1]), np.ones(1), np.ones((1, 2)), np.zeros(1, np.int64),
        np.zeros(1, np.int64), unserved(1, 2),
    )  # fmt: skip
    stamps = {**STAMPS, "models": '["a", "b"]'}
    (value,) = training_records(examples, stamps, 10_000)
    with pa.ipc.open_stream(value) as reader:
        old = reader.read_next_batch().select(["event_id", "x", "y", "weight"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, old.schema) as writer:
        writer.write_batch(old)
    read = read_examples(bytes(sink.getvalue()), "t")[1]
    assert read.raw.shape == (1, 2)
    assert np.isnan(read.raw).all()
    assert read.time_ms.tolist() == [-1]
    assert read.served.tobytes() == unserved(1, 2).tobytes()
