"""Recorded files for tests: how they are written, read and put in order."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from worker.contracts.records import Records
from worker.contracts.settings import Settings
from worker.errors import ConfigError
from worker.streams.files import CollectingSink, FileSource, FileStream

HOUR_MS = 3_600_000
START_MS = 1_522_540_800_000  # 2018-04-01T00:00:00Z

SCHEMA: dict[str, Any] = {
    "id": "string",
    "card": "integer",
    "at": "timestamp",
    "amount": {"type": "decimal", "resolution": 0.01},
    "ratio": {"type": "float", "default": 0.0},
    "online": {"type": "boolean", "default": False},
    "note": {"type": "string", "default": ""},
}


def settings_of(**events: Any) -> Settings:
    """Return a configuration of which only the events matter here."""
    return Settings.model_validate({
        "name": "t", "features": {}, "models": {"m": {"preset": "logistic"}},
        "decision": {"model": "m", "threshold": 0.5}, "entities": {"card": {"key": "card"}},
        "events": {"topic": "tx", "id": "id", "key": "card", "time": {"field": "at"},
                   "ahead_max": "1d", "fields": SCHEMA, **events},
    })  # fmt: skip


def iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")


def event(i: int, time_ms: int | None = None, **more: Any) -> dict[str, Any]:
    """Return the i-th event, an hour after the one before."""
    time_ms = START_MS + i * HOUR_MS if time_ms is None else time_ms
    return {"id": f"e{i}", "card": i % 3, "at": iso(time_ms), "amount": i + 0.25, **more}


def write_lines(path: Path, rows: Iterable[dict[str, Any] | bytes]) -> Path:
    """Write JSON lines, compressed as the suffix says; bytes go in as they are."""
    data = b"".join(
        r + b"\n" if isinstance(r, bytes) else json.dumps(r).encode() + b"\n" for r in rows
    )
    packed = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}
    path.write_bytes(packed.get(path.suffix, bytes)(data))
    return path


def read(path: Path, label: str | None = None, **events: Any) -> list[Records]:
    return list(FileSource(settings_of(**events), path, label))


def values(found: list[Records]) -> list[bytes]:
    return [value for records in found for value in records.values if value is not None]


def parsed(path: Path, **events: Any) -> list[Any]:
    return [json.loads(value) for value in values(read(path, **events))]


def stream_of(
    events: Path,
    labels: Path | None = None,
    column: str | None = None,
    delay_ms: int | None = None,
    settings: Settings | None = None,
) -> FileStream:
    settings = settings or settings_of()
    stream = FileStream(settings, events, labels, column, delay_ms, CollectingSink())
    stream.seek(0, 0, 0)
    return stream


def drained(stream: FileStream, records_max: int) -> list[tuple[str, str, int]]:
    """Return ("event" or "label", id, time) in the order that the worker makes of it.

    Within a poll a label goes before the first event that is not older than it.
    """
    seen = []
    while not stream.exhausted:
        polled = stream.poll(0, records_max)
        by_topic = {r.topic: r for r in polled.records}
        labels = pairs(by_topic.get("labels"), "event_id")
        clock = -1
        for name, time_ms in pairs(by_topic.get("tx"), "id"):
            clock = max(clock, time_ms)
            while labels and labels[0][1] <= clock:
                seen.append(("label", *labels.pop(0)))
            seen.append(("event", name, time_ms))
        seen += [("label", *label) for label in labels]
    assert stream.poll(0, records_max).records == []
    return seen


def pairs(records: Records | None, field: str) -> list[tuple[str, int]]:
    if records is None:
        return []
    names = [json.loads(value or b"")[field] for value in records.values]
    assert records.offsets == list(range(records.next_offset - len(names), records.next_offset))
    return list(zip(names, records.timestamps_ms, strict=True))


def write_csv(path: Path, rows: list[list[object]], header: list[str] | None = None) -> Path:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header or list(SCHEMA), *rows])
    path.write_bytes(text.getvalue().encode())
    return path


def write_labels(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        return write_csv(path, [list(row.values()) for row in rows], list(rows[0]))
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    return write_lines(path, rows)


def refusal(make: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        make()
    return str(caught.value)


GOOD = iso(START_MS)
