"""The two Arrow contracts: journal rows and training examples, to bytes and back.

Both are Arrow IPC streams of one record batch, so that any Arrow reader opens a record's value. The
stamps that all rows share are in the schema metadata, as UTF-8 strings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from worker.contracts.decisions import DECISIONS, DEGRADED
from worker.contracts.records import Bool, Float64, Int64, Served, unserved
from worker.errors import FatalError

SCHEMA_VERSION = 1
OUTCOMES = ("scored", "duplicate", "rejected")
_SERVED = ("entity", "score", "threshold", "alert")
_FRAME_BYTES = 2_000  # schema and stamps of a record
_COLUMN_BYTES = 120  # of a journal row without x and its strings, measured
_COMPRESSED_FROM = 16_384  # bytes of a batch
_PLAIN = pa.ipc.IpcWriteOptions()
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)


@dataclass(slots=True)
class JournalRows:
    """Rows of one shard in source order, as columns of length n.

    ``outcome`` indexes `OUTCOMES`, ``decision`` `DECISIONS`,
    ``degraded`` `DEGRADED` from 1 on. Columns after ``entity_ids`` are
    meaningful only where the outcome is ``scored``; they become null elsewhere. ``raw`` and
    ``calibrated`` have shape (n, n_models), ``X`` (n, n_features).
    """

    source_offset: Int64
    outcome: Int64
    reason: list[str | None]
    event_ids: list[str | None]
    entity_ids: list[str | None]
    time_ms: Int64
    score: Float64
    decision: Int64
    threshold: Float64
    model_version: Int64
    labels_offset: Int64
    degraded: Int64
    raw: Float64
    calibrated: Float64
    X: Float64

    def __len__(self) -> int:
        return len(self.source_offset)

    def slice(self, start: int, stop: int) -> JournalRows:
        """Return rows [start, stop) without copying numbers."""
        columns = {name: getattr(self, name)[start:stop] for name in self.__slots__}
        return JournalRows(**columns)


def journal_schema(feature_count: int, models: Sequence[str]) -> pa.Schema:
    """Return the Arrow schema of a journal record without its metadata."""
    coded = pa.dictionary(pa.int8(), pa.utf8())
    return pa.schema(
        [
            pa.field("source_offset", pa.int64(), nullable=False),
            pa.field("outcome", coded, nullable=False),
            ("reason", pa.utf8()),
            ("event_id", pa.utf8()),
            ("entity", pa.utf8()),
            ("time_ms", pa.int64()),
            ("score", pa.float64()),
            ("decision", coded),
            ("threshold", pa.float64()),
            ("model_version", pa.int64()),
            ("labels_offset", pa.int64()),
            ("degraded", coded),
            *score_fields(models),
            ("x", pa.list_(pa.float64(), feature_count)),
        ]
    )


def score_fields(models: Sequence[str]) -> list[tuple[str, pa.DataType]]:
    """Return the columns of the models' scores: all raw ones, then all calibrated ones."""
    return [(f"{kind}_{model}", pa.float64()) for kind in ("raw", "score") for model in models]


def score_arrays(rows: JournalRows, mask: Bool) -> list[pa.Array]:
    """Return the arrays of `score_fields`, null where masked or NaN."""
    columns = map(np.ascontiguousarray, [*rows.raw.T, *rows.calibrated.T])
    return [pa.array(column, mask=mask | np.isnan(column)) for column in columns]


def journal_records(
    rows: JournalRows, models: Sequence[str], stamps: Mapping[str, str], bytes_max: int
) -> list[bytes]:
    """Return the rows as record values, each below ``bytes_max`` unless a single row is larger.

    No rows give one record with no rows: it still carries the stamps (positions move by labels
    alone too).
    """
    row_bytes = _COLUMN_BYTES + 8 * rows.X.shape[1] + 16 * len(models)
    if len(rows) <= 1 or len(rows) * row_bytes < bytes_max:
        value = _journal_bytes(rows, models, stamps)
        if len(rows) <= 1 or len(value) <= bytes_max:
            return [value]
    half = (len(rows) + 1) // 2
    return [
        *journal_records(rows.slice(0, half), models, stamps, bytes_max),
        *journal_records(rows.slice(half, len(rows)), models, stamps, bytes_max),
    ]


def empty_journal_record(
    feature_count: int, models: Sequence[str], stamps: Mapping[str, str]
) -> bytes:
    """Return a record that has stamps and no rows."""
    schema = journal_schema(feature_count, models).with_metadata(dict(stamps))
    return to_bytes(pa.RecordBatch.from_pylist([], schema=schema))


def _journal_bytes(rows: JournalRows, models: Sequence[str], stamps: Mapping[str, str]) -> bytes:
    not_scored = rows.outcome != 0
    rejected = rows.outcome == 2
    arrays = [
        pa.array(rows.source_offset),
        _coded(rows.outcome, OUTCOMES, None),
        pa.array(rows.reason, pa.utf8()),
        pa.array(rows.event_ids, pa.utf8()),
        pa.array(rows.entity_ids, pa.utf8()),
        pa.array(rows.time_ms, mask=rejected),
        pa.array(rows.score, mask=not_scored),
        _coded(rows.decision, DECISIONS, not_scored),
        pa.array(rows.threshold, mask=not_scored),
        pa.array(rows.model_version, mask=not_scored),
        pa.array(rows.labels_offset),
        _coded(rows.degraded - 1, DEGRADED, not_scored | (rows.degraded == 0)),
        *score_arrays(rows, not_scored),
        _vectors(rows.X, not_scored),
    ]
    schema = journal_schema(rows.X.shape[1], models).with_metadata(dict(stamps))
    return to_bytes(pa.RecordBatch.from_arrays(arrays, schema=schema))


def _coded(codes: Int64, words: tuple[str, ...], mask: Bool | None) -> pa.DictionaryArray:
    indices = pa.array(codes.astype(np.int8), mask=mask)
    return pa.DictionaryArray.from_arrays(indices, pa.array(words, pa.utf8()))


def _vectors(X: Float64, mask: Bool | None) -> pa.FixedSizeListArray:
    values = pa.array(np.ascontiguousarray(X).reshape(-1))
    nulls = None if mask is None else pa.array(mask)
    return pa.FixedSizeListArray.from_arrays(values, X.shape[1], mask=nulls)


def to_bytes(batch: pa.RecordBatch) -> bytes:
    """Return the stream of one batch; buffers of a large one are compressed by Arrow itself.

    So that many records fit into one batch of the client, which counts bytes before it compresses:
    batches of one partition go out one after the other.
    """
    sink = pa.BufferOutputStream()
    options = _PLAIN if batch.nbytes < _COMPRESSED_FROM else _COMPRESSED
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def read_batch(value: bytes, where: str) -> pa.RecordBatch:
    """Return the record batch of a journal or training record.

    Raises
    ------
    FatalError
        The bytes are not one Arrow record batch of a schema version known here.
    """
    with _reading(value, where) as reader:
        return reader.read_next_batch()


def read_stamps(value: bytes, where: str) -> dict[str, str]:
    """Return the metadata that all rows share, without reading a row; errors as `read_batch`."""
    with _reading(value, where) as reader:
        return _stamps(reader.schema)


@contextmanager
def _reading(value: bytes, where: str) -> Iterator[pa.RecordBatchStreamReader]:
    try:
        with pa.ipc.open_stream(value) as reader:
            version = _stamps(reader.schema).get("schema_version", "0")
            if not version.isdecimal() or not 1 <= int(version) <= SCHEMA_VERSION:
                raise FatalError(
                    where, f"schema_version 1..{SCHEMA_VERSION}", version, "upgrade riverwatch"
                )
            yield reader
    except (pa.ArrowException, StopIteration, OSError) as error:
        raise FatalError(where, "an Arrow record batch", "other bytes") from error


def _stamps(schema: pa.Schema) -> dict[str, str]:
    return {k.decode(): v.decode() for k, v in (schema.metadata or {}).items()}


def stamps_of(batch: pa.RecordBatch) -> dict[str, str]:
    """Return the metadata that all rows share."""
    return _stamps(batch.schema)


def vectors_of(batch: pa.RecordBatch, column: str = "x") -> Float64:
    """Return a fixed-size list column as a matrix (n_rows, size); rows that are null are zero."""
    array = batch.column(column)
    matrix = array.values.to_numpy(zero_copy_only=False).reshape(-1, array.type.list_size)
    return np.asarray(matrix[array.offset : array.offset + len(array)], np.float64)


@dataclass(slots=True)
class Examples:
    """Examples in learning order, as columns of length m.

    ``y`` is 1 or 0, or -1 for an observed event without a label; ``raw``, of shape (m, n_models),
    is what every model said of the event then (NaN where unknown); ``before`` counts the events of
    this batch that were scored before the example was complete. ``time_ms`` is the event's own, -1
    where unknown; ``served`` is as in `worker.contracts.records.served_type`. A labelled example of
    weight 0 is measured, never learned.
    """

    event_ids: list[str]
    X: Float64
    y: Int64
    weight: Float64
    raw: Float64
    before: Int64
    time_ms: Int64
    served: Served

    def __len__(self) -> int:
        return len(self.event_ids)

    @property
    def score(self) -> Float64:
        """Return the scores that decided, NaN where unknown."""
        return self.served["score"]


def joined(parts: Sequence[Examples]) -> Examples:
    """Return examples one part after the other, in memory of their own."""
    names = [name for name in Examples.__slots__ if name != "event_ids"]
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Examples([one for part in parts for one in part.event_ids], **columns)


def training_records(examples: Examples, stamps: Mapping[str, str], bytes_max: int) -> list[bytes]:
    """Return the examples as values of the training topic, each below ``bytes_max``."""
    longest = max(map(len, examples.event_ids), default=0)
    numbers = examples.X.shape[1] + 2 * examples.raw.shape[1]
    row_bytes = 96 + 4 * longest + 8 * numbers  # an id takes at most 4 bytes a letter
    step = max(1, (bytes_max - _FRAME_BYTES) // row_bytes)
    served = examples.served
    batch = pa.RecordBatch.from_arrays(
        [
            pa.array(examples.event_ids, pa.utf8()),
            _vectors(examples.X, None),
            pa.array(examples.y.astype(np.int8)),
            pa.array(examples.weight),
            _vectors(examples.raw, None),
            pa.array(examples.time_ms),
            *(pa.array(np.ascontiguousarray(served[name])) for name in _SERVED),
            _vectors(served["scores"], None),
        ],
        names=["event_id", "x", "y", "weight", "raw", "time_ms", *_SERVED, "scores"],
    ).replace_schema_metadata(dict(stamps))
    return [to_bytes(batch.slice(start, step)) for start in range(0, len(examples), step)]


def order_record(action: str, model: str) -> bytes:
    """Return the value of an order on the training topic: no rows, all in the metadata."""
    words = {"schema_version": str(SCHEMA_VERSION), "order": action, "model": model}
    batch = pa.RecordBatch.from_arrays([], schema=pa.schema([], metadata=words))
    return to_bytes(batch)


def read_order(value: bytes, where: str) -> tuple[str, str] | None:
    """Return (action, model) where a training record is an order, else None.

    >>> read_order(order_record("promote", "tree"), "training/0@7")
    ('promote', 'tree')
    """
    stamps = read_stamps(value, where)
    return (stamps["order"], stamps["model"]) if "order" in stamps else None


def read_examples(value: bytes, where: str) -> tuple[dict[str, str], Examples]:
    """Return the stamps and the examples of one training record; ``before`` is all zero.

    Records of older versions do not say all of it: what they lack is NaN, a time -1.
    """
    batch = read_batch(value, where)
    stamps = stamps_of(batch)
    examples = Examples(
        event_ids=batch.column("event_id").to_pylist(),
        X=vectors_of(batch),
        y=batch.column("y").to_numpy(zero_copy_only=False).astype(np.int64),
        weight=batch.column("weight").to_numpy(zero_copy_only=False),
        raw=_raw(batch, stamps),
        before=np.zeros(batch.num_rows, np.int64),
        time_ms=_numbers(batch, "time_ms", np.full(batch.num_rows, -1)),
        served=_served(batch, stamps),
    )
    return stamps, examples


def _raw(batch: pa.RecordBatch, stamps: Mapping[str, str]) -> Float64:
    if "raw" in batch.schema.names:
        return vectors_of(batch, "raw")
    return np.full((batch.num_rows, len(json.loads(stamps.get("models", "[]")))), np.nan)


def _served(batch: pa.RecordBatch, stamps: Mapping[str, str]) -> Served:
    served = unserved(batch.num_rows, len(json.loads(stamps.get("models", "[]"))))
    for name in _SERVED:
        served[name] = _numbers(batch, name, served[name])
    if "scores" in batch.schema.names:
        served["scores"] = vectors_of(batch, "scores")
    return served


def _numbers(batch: pa.RecordBatch, name: str, otherwise: np.ndarray) -> np.ndarray:
    if name not in batch.schema.names:
        return otherwise
    return np.asarray(batch.column(name).to_numpy(zero_copy_only=False))
