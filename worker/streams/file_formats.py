"""JSONL, CSV and Parquet as blocks of rows, in bounded memory: the suffix tells which."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec.structs import astuple

from worker.contracts.records import Int64
from worker.contracts.settings import FieldSettings
from worker.errors import ConfigError
from worker.streams.file_bytes import COMPRESSIONS, Progress, lines_of, text_of
from worker.streams.file_values import Unit, cells, column_times_ms, column_values, times_ms

_CSV_ROWS = 1_000
_PARQUET_ROWS = 2_048


@dataclass(frozen=True, slots=True)
class Layout:
    """What is read from each row.

    ``fields`` become the members of the JSON object (of CSV and Parquet; a JSON line stays as it
    is); ``wanted`` are read beside; ``required`` must be columns of CSV and Parquet files.
    """

    fields: dict[str, FieldSettings]
    wanted: tuple[str, ...]
    required: tuple[str, ...]
    time: str
    time_unit: Unit
    time_or_iso: bool = False

    def unit_of(self, name: str) -> Unit:
        """Return what a time in this field is written in."""
        return self.time_unit if name == self.time else self.fields[name].unit


@dataclass(slots=True)
class Block:
    """Some rows in file order: each as JSON, its time (-1 for none), and the wanted values."""

    values: list[bytes]
    time_ms: Int64
    wanted: dict[str, Sequence[Any]]


def format_of(path: Path) -> str:
    """Return ``jsonl``, ``csv`` or ``parquet``.

    Raises
    ------
    ConfigError
        The suffix is none of those that can be read.

    Examples
    --------
    >>> format_of(Path("events.jsonl.zst"))
    'jsonl'
    """
    suffixes = path.suffixes
    if suffixes and suffixes[-1] in COMPRESSIONS:
        inner = suffixes[-2] if len(suffixes) > 1 else ""
        known = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
    else:
        inner = path.suffix
        known = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
    if inner not in known:
        raise ConfigError(
            str(path), expected=".jsonl, .csv (each also with .gz or .zst) or .parquet",
            got="".join(suffixes[-2:]) or "no suffix", hint="the suffix tells the format",
        )  # fmt: skip
    return known[inner]


def read_blocks(path: Path, layout: Layout, progress: Progress) -> Iterator[Block]:
    """Yield the rows of one file.

    Raises
    ------
    ConfigError
        Columns are missing; or, after the rows that could be read, the file is damaged.
    """
    read = {"jsonl": _read_jsonl, "csv": _read_csv, "parquet": _read_parquet}[format_of(path)]
    try:
        yield from read(path, layout, progress)
    except (OSError, pa.ArrowInvalid, csv.Error) as error:
        raise ConfigError(
            str(path), expected="a whole file of the format that its suffix names",
            got=f"{type(error).__name__}: {error}", hint="copy or write it again",
        ) from error  # fmt: skip


def missing_column(path: Path, name: str, columns: Sequence[str]) -> ConfigError:
    """Return the error about a column that a file does not have; it names the nearest."""
    near = get_close_matches(name, columns, 1)
    hint = f'the nearest is "{near[0]}"' if near else "it has " + ", ".join(columns[:20])
    return ConfigError(str(path), expected=f'a column "{name}"', got="none", hint=hint)


def names_in(lines: Sequence[bytes]) -> list[str]:
    """Return the members of the first line that is an object."""
    for line in lines:
        try:
            return list(msgspec.json.decode(line, type=dict[str, msgspec.Raw]))
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    return []


def _read_jsonl(path: Path, layout: Layout, progress: Progress) -> Iterator[Block]:
    names = list(dict.fromkeys((*layout.wanted, layout.time)))
    row = _struct(names)
    decode, empty = msgspec.json.Decoder(row).decode, row()
    for lines in lines_of(path, progress):
        rows = []
        for line in lines:
            try:
                rows.append(decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                rows.append(empty)
        columns = dict(zip(names, zip(*map(astuple, rows), strict=True), strict=True))
        times = times_ms(columns[layout.time], layout.time_unit, or_iso=layout.time_or_iso)
        yield Block(lines, times, {name: columns[name] for name in layout.wanted})


def _read_csv(path: Path, layout: Layout, progress: Progress) -> Iterator[Block]:
    with text_of(path, progress) as text:
        rows = (row for row in csv.reader(text) if row)
        header = next(rows, [])
        _check_columns(path, layout, header)
        encode = _Encoder(layout, header)
        while some := list(islice(rows, _CSV_ROWS)):
            yield _csv_block(some, header, layout, encode)


def _csv_block(rows: list[list[str]], header: list[str], layout: Layout, encode: _Encoder) -> Block:
    odd = {i: row for i, row in enumerate(rows) if len(row) != len(header)}
    for i in odd:
        rows[i] = [""] * len(header)
    by_name = dict(zip(header, zip(*rows, strict=True), strict=True))
    columns = {
        name: cells(layout.fields[name], layout.unit_of(name), by_name[name])
        for name in encode.names
    }
    values = encode([columns[name] for name in encode.names])
    for i, row in odd.items():
        # Nobody can say which cell is which: an array is no event, so decoding refuses the row.
        values[i] = _encode_oddly(row)
    time_cells = columns.get(layout.time) or [None] * len(rows)
    times = times_ms(time_cells, layout.time_unit, or_iso=layout.time_or_iso)
    nothing = [None] * len(rows)
    wanted: dict[str, Sequence[Any]] = {
        name: columns[name] if name in columns else [c or None for c in by_name.get(name, nothing)]
        for name in layout.wanted
    }
    return Block(values, times, wanted)


def _read_parquet(path: Path, layout: Layout, progress: Progress) -> Iterator[Block]:
    with pq.ParquetFile(path, buffer_size=1 << 20) as file:
        header = file.schema_arrow.names
        _check_columns(path, layout, header)
        encode = _Encoder(layout, header)
        names = [name for name in dict.fromkeys((*encode.names, *layout.wanted)) if name in header]
        for batch in file.iter_batches(_PARQUET_ROWS, columns=names, use_threads=False):
            if batch.num_rows:
                yield _parquet_block(batch, layout, encode)
    progress.bytes_read += path.stat().st_size


def _parquet_block(batch: Any, layout: Layout, encode: _Encoder) -> Block:
    columns = {
        name: column_values(
            batch.column(name), layout.unit_of(name) if name in layout.fields else "iso"
        )
        for name in batch.schema.names
    }
    nothing = [None] * batch.num_rows
    if layout.time not in columns or layout.time_or_iso:
        times = times_ms(columns.get(layout.time, nothing), layout.time_unit, or_iso=True)
    else:
        times = column_times_ms(batch.column(layout.time), layout.time_unit)
    values = encode([columns[name] for name in encode.names])
    return Block(values, times, {name: columns.get(name, nothing) for name in layout.wanted})


def parquet_rows(path: Path) -> int:
    """Return how many rows a Parquet file has, from its footer."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(
            str(path), expected="a Parquet file", got="none", hint="copy or write it again"
        ) from error


def _check_columns(path: Path, layout: Layout, header: Sequence[str]) -> None:
    for name in layout.required:
        if name not in header:
            raise missing_column(path, name, header)
    twice = [name for name in layout.required if list(header).count(name) > 1]
    if twice:
        raise ConfigError(str(path), expected=f'one column "{twice[0]}"', got="several")


class _Encoder:
    """Columns to compact JSON objects, one per row; a value of None is left out."""

    def __init__(self, layout: Layout, header: Sequence[str]) -> None:
        self.names = [name for name in layout.fields if name in header]
        self._row: Any = _struct(self.names)  # Any: made at run time
        self._encode = msgspec.json.Encoder().encode

    def __call__(self, columns: list[Sequence[Any]]) -> list[bytes]:
        """Return one object per row of these columns, which are those of ``names``."""
        rows = list(map(self._row, *columns))
        try:
            return list(map(self._encode, rows))
        except UnicodeEncodeError:  # bytes that were not UTF-8 in a file of text
            return [self._encode_one(row) for row in rows]

    def _encode_one(self, row: Any) -> bytes:
        try:
            return bytes(self._encode(row))
        except UnicodeEncodeError:
            return self._encode_members(astuple(row))

    def _encode_members(self, values: Sequence[Any]) -> bytes:
        members = [
            _encode_oddly(name)
            + b":"
            + (bytes(v) if isinstance(v, msgspec.Raw) else _encode_oddly(v))
            for name, v in zip(self.names, values, strict=True)
            if v is not None
        ]
        return b"{" + b",".join(members) + b"}"


def _encode_oddly(value: object) -> bytes:
    """Return JSON with the bytes of a text that was not UTF-8 as they were."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogateescape")


def _struct(names: Sequence[str]) -> type[msgspec.Struct]:
    """Return a struct with the fields f0, f1, … which are called by these names in JSON."""
    fields = [(f"f{i}", Any, None) for i in range(len(names))]
    rename = {f"f{i}": name for i, name in enumerate(names)}
    return msgspec.defstruct("Row", fields, rename=rename, omit_defaults=True, gc=False)
