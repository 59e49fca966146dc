"""Recorded files as items: JSONL, CSV and Parquet, without a configuration and in bounded memory.

Lines of JSONL go through byte for byte, bad ones too: what a worker refuses is the worker's to say.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal, cast

import msgspec

from producers.items import Item, Kind
from worker.config_problems import near
from worker.errors import ConfigError, RiverwatchError

Unit = Literal["iso", "s", "ms", "us"]
UNITS_MS = {"s": 1000.0, "ms": 1.0, "us": 0.001}
DAY_MS = 86_400_000
LOOKED_AT = 100
"""Records of a file that are looked at before it is played."""

_LINE_BYTES_MAX = 1_000_000
_ROWS = 4_096
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class Layout:
    """Which fields are the key and the time, and the unit of a time that is a number."""

    key: str
    time: str
    unit: Unit = "iso"


def read_items(path: Path, kind: Kind, layout: Layout) -> Iterator[Item]:
    """Yield the records of a file as items, in file order.

    A record without a readable key has none. One without a readable time, or with one that
    `RecordedTime` does not believe, has the time of the record before it.

    Raises
    ------
    ValueError
        The name does not end in ``.jsonl`` or ``.csv`` (or these with ``.gz`` or ``.zst``) or
        ``.parquet``; or the fields of ``layout`` are not columns of a CSV or Parquet file.
    OSError, RiverwatchError
        The file cannot be read, or ends in the middle.
    """
    clock = RecordedTime()
    find = _finder(layout)
    try:
        for value in _values(path, layout):
            key, time = find(value)
            yield Item(kind, clock.believe(_time_ms(time, layout.unit)), _key_bytes(key), value)
    except (EOFError, zlib.error, csv.Error) as error:
        raise RiverwatchError(str(path), "a whole file", type(error).__name__) from error


def check_fields(path: Path, layout: Layout, wanted: Mapping[str, str]) -> None:
    """Refuse a file of which none of the first `LOOKED_AT` records has a field that is needed.

    Parameters
    ----------
    wanted
        The name of a field by the option that gave it.

    Raises
    ------
    ConfigError
        A field is in none of them. Where none is an object nothing is said: that is the worker's.
    ValueError, OSError, RiverwatchError
        As `read_items`.
    """
    known: dict[str, None] = {}
    try:
        for value in islice(_values(path, layout), LOOKED_AT):
            with suppress(msgspec.DecodeError, ValueError, RecursionError):
                known |= dict.fromkeys(msgspec.json.decode(value, type=dict[str, msgspec.Raw]))
    except (EOFError, zlib.error, csv.Error) as error:
        raise RiverwatchError(str(path), "a whole file", type(error).__name__) from error
    for option, field in wanted.items():
        if known and field not in known:
            where = f"{path} {option}"
            expected = "a field of its records"
            raise ConfigError(where, expected=expected, got=field, hint=near(field, known))


class RecordedTime:
    """The times of a recording, without the single record that would end it.

    A time more than 7 days ahead of the last one believed, such as one from 2099, is believed only
    when it is the tenth such in a row: a player would otherwise wait for it. Late times are
    believed.

    Examples
    --------
    >>> clock = RecordedTime()
    >>> clock.believe(1_000), clock.believe(4_102_444_800_000), clock.believe(None)
    (1000, 1000, 1000)
    """

    _ahead_ms_max = 7 * DAY_MS
    _run = 10

    def __init__(self) -> None:
        self._newest_ms: int | None = None
        self._last_ms = 0
        self._ahead_count = 0

    def believe(self, time_ms: int | None) -> int:
        """Return the time of the next record in Unix ms."""
        if time_ms is None or self._is_too_far_ahead(time_ms):
            return self._last_ms
        self._newest_ms = time_ms if self._newest_ms is None else max(self._newest_ms, time_ms)
        self._last_ms = time_ms
        return time_ms

    def _is_too_far_ahead(self, time_ms: int) -> bool:
        if self._newest_ms is None or time_ms <= self._newest_ms + self._ahead_ms_max:
            self._ahead_count = 0
            return False
        self._ahead_count += 1
        return self._ahead_count < self._run


def _finder(
    layout: Layout,
) -> Any:  # Any: a function from bytes to (key, time), both as JSON has them
    """Return a function that finds key and time in a record's bytes; None for what it cannot."""
    found = msgspec.defstruct(
        "Found",
        [("key", Any, None), ("time", Any, None)],
        rename={"key": layout.key, "time": layout.time},
    )
    decode = msgspec.json.Decoder(found).decode

    def find(value: bytes) -> tuple[object, object]:
        try:
            record = decode(value)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None, None
        return record.key, record.time  # type: ignore[attr-defined]  # of a struct made above

    return find


def _key_bytes(key: object) -> bytes | None:
    if isinstance(key, bool) or not isinstance(key, str | int):
        return None
    return str(key).encode()


def _time_ms(time: object, unit: Unit) -> int | None:
    """Return Unix ms, fractions cut off, of an ISO 8601 text (no offset: UTC) or of a number."""
    try:
        if unit == "iso":
            moment = datetime.fromisoformat(cast(str, time))
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
            time_ms = int(moment.timestamp() * 1000 + 1e-4)  # ms as a float may lie just below
        else:
            time_ms = int(cast(float, time) * UNITS_MS[unit])
    except (TypeError, ValueError, OverflowError):
        return None
    return time_ms if time_ms >= 0 else None


def _values(path: Path, layout: Layout) -> Iterator[bytes]:
    """Yield the JSON bytes of each record."""
    suffixes = [suffix for suffix in path.suffixes if suffix not in (".gz", ".zst")]
    form = suffixes[-1] if suffixes else ""
    if form == ".parquet" and path.suffix == form:
        return _encoded(_parquet_rows(path, layout))
    if form not in (".jsonl", ".csv"):
        raise ValueError(f"{path}: expected .jsonl or .csv (also .gz, .zst), or .parquet")
    return _lines(path) if form == ".jsonl" else _encoded(_csv_rows(path, layout))


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path))
    if path.suffix == ".zst":
        import zstandard  # only for those who have such files

        return cast(IO[bytes], io.BufferedReader(zstandard.open(path, "rb")))
    return path.open("rb")


def _lines(path: Path) -> Iterator[bytes]:
    """Yield lines that are not blank; of one over 1 MB only a first part, which none accepts."""
    with _open(path) as lines:
        while line := lines.readline(_LINE_BYTES_MAX):
            part = line
            while len(part) == _LINE_BYTES_MAX and not part.endswith(b"\n"):
                part = lines.readline(_LINE_BYTES_MAX)
            line = line.rstrip(b"\r\n")
            if line:
                yield line


def _encoded(rows: Iterable[dict[str, object]]) -> Iterator[bytes]:
    encode = msgspec.json.Encoder().encode
    for row in rows:
        yield encode(row)


def _check_columns(path: Path, columns: Iterable[str], layout: Layout) -> None:
    missing = {layout.key, layout.time} - set(columns)
    if missing:
        raise ValueError(f"{path}: expected columns {sorted(missing)}, got {sorted(columns)}")


def _csv_rows(path: Path, layout: Layout) -> Iterator[dict[str, object]]:
    """Yield rows without their empty cells; a cell that reads as a JSON number is one."""
    with io.TextIOWrapper(_open(path), encoding="utf-8-sig", newline="") as text:
        rows = csv.DictReader(text)
        _check_columns(path, rows.fieldnames or (), layout)
        for row in rows:
            yield {name: _cell(cell) for name, cell in row.items() if name and cell}


def _cell(cell: str) -> object:
    return msgspec.Raw(cell.encode()) if _NUMBER.fullmatch(cell) else cell


def _parquet_rows(path: Path, layout: Layout) -> Iterator[dict[str, object]]:
    """Yield rows without their nulls and NaN; timestamps are UTC."""
    import pyarrow as pa  # half a second, only for those who have such files
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        _check_columns(path, file.schema_arrow.names, layout)
        for batch in file.iter_batches(_ROWS):
            columns = [
                [_utc(v) for v in c.cast(pa.timestamp("us")).to_pylist()]
                if pa.types.is_timestamp(c.type)
                else c.to_pylist()
                for c in batch.columns
            ]
            for values in zip(*columns, strict=True):
                named = zip(batch.schema.names, values, strict=True)
                yield {name: v for name, v in named if v is not None and v == v}


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)
