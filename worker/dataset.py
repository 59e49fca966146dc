"""Point-in-time training sets: every x as it was served, and the labels known by some time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from worker.arrow import read_batch, stamps_of, vectors_of
from worker.contracts.records import Records
from worker.errors import ConfigError
from worker.features.spec import FeatureSpec
from worker.labels import decode_labels
from worker.streams import Log

FIXED = (
    "event_id", "entity", "time", "partition", "offset", "score", "model_version", "label",
    "label_time",
)  # fmt: skip
"""The columns before the features; a feature of such a name gets ``x_`` before it."""

_ROWS = 100_000  # joined and written at once
_INSTANT = pa.timestamp("ms", tz="UTC")
_NONE = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Known:
    """The labels known by some time, one per event: the last that became known."""

    event_ids: Any  # Any here and below: pyarrow ships no types
    y: Any
    time_ms: Any


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of the journal of one partition."""

    partition: int
    rows: Any


@dataclass(slots=True)
class Written:
    """What became of the journal's rows."""

    rows: int = 0
    labelled: int = 0
    other_features: int = 0
    later: int = 0
    not_scored: int = 0


def known_labels(records: Iterable[Records], until_ms: int) -> Known:
    """Return the labels that were known by a time, inclusive; what is no label is skipped.

    Of several of one event the last counts: by the time at which it was known, then by place.
    Memory: about 40 B and the id of every label.
    """
    ids, ys, times = [], [], []
    for batch in records:
        labels = decode_labels(batch)[0]
        is_known = labels.time_ms <= until_ms
        ids.append(pa.array(labels.event_ids, pa.utf8()).filter(is_known))
        ys.append(labels.y[is_known].astype(np.int8))
        times.append(labels.time_ms[is_known])
    y, time_ms = np.concatenate([*ys, np.empty(0, np.int8)]), np.concatenate([*times, _NONE])
    order = np.argsort(time_ms, kind="stable")
    event_ids = pa.chunked_array(ids, pa.utf8()).take(pa.array(order))
    places = pa.table({"id": event_ids, "place": np.arange(len(order))})
    last = places.group_by("id").aggregate([("place", "max")])
    chosen = order[last.column("place_max").to_numpy()]
    return Known(last.column("id").combine_chunks(), pa.array(y[chosen]), pa.array(time_ms[chosen]))


def write_dataset(
    out: Path,
    spec: FeatureSpec,
    parts: Iterable[Part],
    known: Known,
    until_ms: int,
    progress: Callable[[int], None] = lambda rows: None,
) -> Written:
    """Write a Parquet file with a row per event scored by these features until a time.

    Rows keep the journal's order. `FIXED` columns come first, then every feature by its name;
    ``label`` and ``label_time`` are null where nothing was known yet. The file appears when it is
    whole, and not where all rows are of other features. Memory: the labels, and 100,000 rows.
    """
    counts = Written()
    partial = out.with_name(out.name + ".part")
    try:
        with pq.ParquetWriter(partial, dataset_schema(spec), compression="zstd") as writer:
            for batches in _gathered(parts, spec, until_ms, counts):
                table = pa.Table.from_batches(batches)
                writer.write_table(_with_labels(table, known, counts))
                progress(counts.rows)
        if counts.rows or not counts.other_features:
            partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return counts


def dataset_schema(spec: FeatureSpec) -> Any:
    """Return the Arrow schema of the file."""
    types = (
        pa.utf8(), pa.utf8(), _INSTANT, pa.int32(), pa.int64(), pa.float64(), pa.int64(),
        pa.int8(), _INSTANT,
    )  # fmt: skip
    fixed = list(zip(FIXED, types, strict=True))
    features = [(f"x_{n}" if n in FIXED else n, pa.float64()) for n in spec.names]
    return pa.schema(fixed + features, metadata={"spec_hash": spec.spec_hash})


def journal_of_files(path: Path) -> Iterator[Part]:
    """Yield the journal of a replay: its ``journal`` directory, or one Arrow file of it.

    Raises
    ------
    ConfigError
        There is none, or it is no Arrow file.
    """
    paths = sorted(path.glob("*.arrow")) if path.is_dir() else [path]
    if not paths or not paths[0].is_file():
        raise ConfigError(str(path), expected="the journal of a replay", got="no .arrow file")
    for one in paths:
        partition = one.stem.rpartition("-")[2]
        try:
            with pa.ipc.open_file(one) as file:
                for i in range(file.num_record_batches):
                    number = int(partition) if partition.isdecimal() else 0
                    yield Part(number, file.get_batch(i))
        except pa.ArrowException as error:
            raise ConfigError(str(one), expected="an Arrow file", got="other bytes") from error


def journal_of_topic(log: Log, topic: str) -> Iterator[Part]:
    """Yield what is committed in the journal now, partition by partition."""
    for partition in range(log.partitions):
        for records in read_until_now(log, topic, partition):
            for offset, value in zip(records.offsets, records.values, strict=True):
                yield Part(partition, read_batch(value or b"", f"{topic}/{partition}@{offset}"))


def read_until_now(log: Log, topic: str, partition: int) -> Iterator[Records]:
    """Yield the committed records of a topic partition up to the end that it has now."""
    start, end = log.log_range(topic, partition)
    reader = log.reader(topic, partition, start)
    try:
        while reader.position < end:
            records = reader.poll(200, 2_000)
            if records is not None:
                yield records
    finally:
        reader.close()


def _gathered(
    parts: Iterable[Part], spec: FeatureSpec, until_ms: int, counts: Written
) -> Iterator[list[Any]]:
    """Yield record batches of the file without labels, some `_ROWS` at a time, at least one."""
    schema = dataset_schema(spec)
    batches: list[Any] = []
    waiting = 0
    for part in parts:
        batch = _chosen(part, spec, until_ms, counts, schema)
        batches.append(batch)
        waiting += batch.num_rows
        if waiting >= _ROWS:
            yield batches
            batches, waiting = [], 0
    yield batches or [_empty(schema)]


def _empty(schema: Any) -> Any:
    return pa.RecordBatch.from_arrays([pa.array([], f.type) for f in schema], schema=schema)


def _chosen(part: Part, spec: FeatureSpec, until_ms: int, counts: Written, schema: Any) -> Any:
    """Return the rows of a part that belong into the file, without labels; count the others."""
    rows = part.rows
    scored = pc.equal(rows.column("outcome").cast(pa.utf8()), "scored")
    counts.not_scored += rows.num_rows - (pc.sum(scored).as_py() or 0)
    rows = rows.filter(scored)
    if stamps_of(rows).get("spec_hash") != spec.spec_hash:
        counts.other_features += rows.num_rows
        return _empty(schema)
    early = pc.less_equal(rows.column("time_ms"), until_ms)
    counts.later += rows.num_rows - (pc.sum(early).as_py() or 0)
    rows = rows.filter(early)
    n = rows.num_rows
    counts.rows += n
    X = vectors_of(rows)
    arrays = [
        rows.column("event_id"),
        rows.column("entity"),
        rows.column("time_ms").cast(_INSTANT),
        pa.array(np.full(n, part.partition, np.int32)),
        rows.column("source_offset"),
        rows.column("score"),
        rows.column("model_version"),
        pa.nulls(n, pa.int8()),
        pa.nulls(n, _INSTANT),
        *[pa.array(np.ascontiguousarray(X[:, column])) for column in range(X.shape[1])],
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _with_labels(table: Any, known: Known, counts: Written) -> Any:
    places = pc.index_in(table.column("event_id"), value_set=known.event_ids)
    counts.labelled += table.num_rows - places.null_count
    label, when = known.y.take(places), known.time_ms.take(places).cast(_INSTANT)
    at = FIXED.index("label")
    table = table.set_column(at, table.schema.field(at), label)
    return table.set_column(at + 1, table.schema.field(at + 1), when)
