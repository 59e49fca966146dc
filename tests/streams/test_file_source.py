"""Recorded events: every format gives the same bytes, keys, offsets and times."""

from __future__ import annotations

import gzip
import json
import random
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.streams.recorded import (
    GOOD,
    HOUR_MS,
    SCHEMA,
    START_MS,
    event,
    iso,
    parsed,
    read,
    values,
    write_csv,
    write_lines,
)
from worker.streams.file_bytes import LINE_BYTES_MAX

# Formats


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".jsonl.gz", ".jsonl.zst"])
def test_json_lines_go_through_byte_by_byte(tmp_path: Path, suffix: str) -> None:
    """Good or bad, no line is touched; only blank ones are left out, and have no offset."""
    lines = [
        b'{ "id":"e0", "card": 7,"at":"2018-04-01T00:00:00Z","amount":1.10}\r', b"not json",
        b'{"id":"\xff"}', b"[1]", b'{"card":"x","id":"e1"}',
    ]  # fmt: skip
    path = write_lines(tmp_path / f"a{suffix}", [lines[0], b"", b"  \t", *lines[1:]])
    (records,) = read(path)
    assert records.values == lines
    assert records.offsets == [0, 1, 2, 3, 4]
    assert records.keys == [b"7", None, None, None, b"x"]
    assert (records.topic, records.partition, records.next_offset) == ("tx", 0, 5)


def test_the_last_line_needs_no_line_feed_and_a_mark_at_the_start_is_dropped(
    tmp_path: Path,
) -> None:
    """A byte order mark belongs to the file and not to its first record."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id":"e0"}\n{"id":"e1"}')
    assert values(read(path)) == [b'{"id":"e0"}', b'{"id":"e1"}']


@pytest.mark.parametrize("extra", [-1, 0, 1, 300_000, 3_000_000])
def test_a_line_that_is_too_long_is_cut_and_its_neighbours_are_whole(
    tmp_path: Path, extra: int
) -> None:
    """A line of gigabytes costs one megabyte, and is refused later by its size."""
    long = b"x" * (LINE_BYTES_MAX + extra)
    path = write_lines(tmp_path / "a.jsonl", [event(0), long, event(1), long])
    found = values(read(path))
    assert [len(value) for value in found[1::2]] == [min(len(long), LINE_BYTES_MAX)] * 2
    assert [json.loads(value) for value in found[::2]] == [event(0), event(1)]


def test_csv_cells_get_the_declared_types_and_empty_ones_are_missing(tmp_path: Path) -> None:
    """Numbers and booleans where they parse, texts as they are, nothing for an empty cell."""
    path = write_csv(
        tmp_path / "a.csv",
        [["007", "596", "2018-04-01", "57.10", "1e-3", "True", 'a "q", b\nc'],
         ["8", "-1", "2018-04-01", "5", "", "0", "é"]],
    )  # fmt: skip
    assert values(read(path)) == [
        b'{"id":"007","card":596,"at":"2018-04-01","amount":57.10,"ratio":1e-3,"online":true,'
        b'"note":"a \\"q\\", b\\nc"}',
        '{"id":"8","card":-1,"at":"2018-04-01","amount":5,"online":false,"note":"é"}'.encode(),
    ]


@pytest.mark.parametrize("cell", ["1,5", "abc", "NaN", "inf", "1_0", "0x10", "1e999", "--1"])
@pytest.mark.parametrize("name", ["card", "amount", "ratio"])
def test_csv_cells_that_are_no_numbers_stay_texts(tmp_path: Path, name: str, cell: str) -> None:
    """Decoding must see what is wrong: a number that JSON cannot say is not made up."""
    row = {"id": "a", "card": "1", "at": "2018-04-01", "amount": "1", "ratio": "1", name: cell}
    path = write_csv(tmp_path / "a.csv", [list(row.values())], list(row))
    found = values(read(path))[0]
    expected = b"1e999" if cell == "1e999" and name != "card" else json.dumps(cell).encode()
    assert b'"%b":%b' % (name.encode(), expected) in found


@pytest.mark.parametrize(("cell", "number"), [("+5", 5), ("05", 5), (".5", 0.5), ("5.", 5.0)])
def test_csv_numbers_that_json_writes_otherwise_are_numbers(
    tmp_path: Path, cell: str, number: float
) -> None:
    """Signs, leading zeros and bare points are read."""
    path = write_csv(tmp_path / "a.csv", [["a", 1, "2018-04-01", cell]], list(SCHEMA)[:4])
    assert parsed(path)[0]["amount"] == number


def test_csv_rows_of_another_length_become_arrays(tmp_path: Path) -> None:
    """Nobody can say which cell is which; an array is no event, and its neighbours are whole."""
    header = list(SCHEMA)[:4]
    good = ["a", 1, "2018-04-01", 2]
    path = write_csv(tmp_path / "a.csv", [good, good[:3], [*good, "x"], [], good], header)
    found = parsed(path)
    assert found[1:3] == [["a", "1", "2018-04-01"], ["a", "1", "2018-04-01", "2", "x"]]
    assert found[0] == found[3] == {"id": "a", "card": 1, "at": "2018-04-01", "amount": 2}


def test_csv_with_a_mark_other_line_ends_and_other_columns(tmp_path: Path) -> None:
    """Spreadsheets write a byte order mark and CRLF; columns that are not declared are left out."""
    path = tmp_path / "a.csv.gz"
    text = "\ufeffid,card,at,extra,amount\r\na,1,2018-04-01,zzz,2\r\n\r\nb,2,2018-04-01,z,3"
    path.write_bytes(gzip.compress(text.encode()))
    assert [row["id"] for row in parsed(path)] == ["a", "b"]
    assert b"extra" not in values(read(path))[0]


def test_csv_bytes_that_are_no_utf_8_stay_as_they_are(tmp_path: Path) -> None:
    """The bad bytes reach decoding, which refuses that record and no other."""
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,card,at,amount\na\xff,1,2018-04-01,2.50\nb,1,2018-04-01,2\n")
    found = values(read(path))
    assert found[0].startswith(b'{"id":"a\xff","card":1')
    assert json.loads(found[1])["id"] == "b"


def test_an_unclosed_quote_ends_as_one_bad_row(tmp_path: Path) -> None:
    """What follows the quote belongs to its cell, as CSV says; the rows before are whole."""
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,card,at,amount\na,1,2018-04-01,2\n"b,1,2018-04-01,2\nc,1,2018-04-01,2\n')
    found = parsed(path)
    assert found[0]["id"] == "a"
    assert isinstance(found[1], list)
    assert len(found) == 2


def test_parquet_columns_keep_their_types(tmp_path: Path) -> None:
    """Each Arrow type has one form in JSON; null and NaN are missing, infinity is not."""
    when = datetime(2018, 4, 1, 0, 0, 31, tzinfo=UTC)
    table = pa.table({
        "id": pa.array(["a", "b", None]).dictionary_encode(),
        "card": pa.array([596, None, 2**62], pa.int64()),
        "at": pa.array([when, None, when], pa.timestamp("us", "Europe/Paris")),
        "amount": pa.array([Decimal("57.10"), None, Decimal("-1.00")], pa.decimal128(9, 2)),
        "ratio": pa.array([1.5, float("nan"), float("-inf")]),
        "online": pa.array([True, None, False]),
        "note": pa.array([b"x", None, b"\xff"], pa.binary()),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet")
    (records,) = read(tmp_path / "a.parquet")
    assert records.values == [
        b'{"id":"a","card":596,"at":"2018-04-01T00:00:31.000000Z","amount":57.10,"ratio":1.5,'
        b'"online":true,"note":"x"}',
        b'{"id":"b"}',
        b'{"card":4611686018427387904,"at":"2018-04-01T00:00:31.000000Z","amount":-1.00,'
        b'"ratio":-1e999,"online":false,"note":"\xff"}',
    ]
    assert records.keys == [b"596", None, b"4611686018427387904"]
    assert records.timestamps_ms == [1_522_540_831_000] * 3


@pytest.mark.parametrize(
    ("array", "unit", "expected"),
    [
        (pa.array([1_522_540_831], pa.timestamp("s")), "iso", "2018-04-01T00:00:31.000Z"),
        (pa.array([1_522_540_831_012], pa.timestamp("ms")), "iso", "2018-04-01T00:00:31.012Z"),
        (pa.array([1_522_540_831_012], pa.timestamp("ms")), "ms", 1_522_540_831_012),
        (pa.array([1_522_540_831_012], pa.timestamp("ms")), "s", 1_522_540_831.012),
        (pa.array([1_522_540_831_012_345_678], pa.timestamp("ns")), "us", 1_522_540_831_012_345),
        (pa.array([1_522_540_831_012_345], pa.int64()), "us", 1_522_540_831_012_345),
        (pa.array([1_522_540_831.012]), "s", 1_522_540_831.012),
        (pa.array(["2018-04-01T02:00:31.012+02:00"]), "iso", "2018-04-01T02:00:31.012+02:00"),
    ],
)
def test_parquet_times_are_written_as_the_schema_reads_them(
    tmp_path: Path, array: Any, unit: str, expected: object
) -> None:
    """A timestamp column becomes ISO 8601 or the declared unit; its time is the same in all."""
    table = pa.table({"id": ["a"], "card": [1], "at": array, "amount": [1.0]})
    pq.write_table(table, tmp_path / "a.parquet")
    (records,) = read(tmp_path / "a.parquet", time={"field": "at", "unit": unit})
    assert json.loads(records.values[0] or b"")["at"] == expected
    assert records.timestamps_ms[0] // 1000 == 1_522_540_831


def test_a_date_is_midnight(tmp_path: Path) -> None:
    """A column of dates is a time of day of nothing, UTC."""
    table = pa.table({"id": ["a"], "card": [1], "at": [date(2018, 4, 1)], "amount": [1.0]})
    pq.write_table(table, tmp_path / "a.parquet")
    (records,) = read(tmp_path / "a.parquet")
    assert records.timestamps_ms == [START_MS]


def test_every_format_gives_the_same_events(tmp_path: Path) -> None:
    """A table written in each format is read as the same objects, keys, times and offsets."""
    rows = [event(i, ratio=i / 7, online=i % 2 == 0, note=f"n {i}") for i in range(2_500)]
    write_lines(tmp_path / "a.jsonl", rows)
    write_csv(tmp_path / "a.csv", [list(row.values()) for row in rows])
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    found = [read(tmp_path / f"a.{suffix}") for suffix in ("jsonl", "csv", "parquet")]
    for records in found:
        assert [json.loads(value) for value in values(records)] == rows
        assert [key for r in records for key in r.keys] == [b"%d" % (i % 3) for i in range(2_500)]
        assert [o for r in records for o in r.offsets] == list(range(2_500))
        assert [t for r in records for t in r.timestamps_ms] == [
            START_MS + i * HOUR_MS for i in range(2_500)
        ]


# Many files


def test_a_directory_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    """Files of all formats follow each other, others are left out, offsets go on."""
    write_lines(tmp_path / "b.jsonl.gz", [event(1)])
    write_csv(tmp_path / "a.csv", [["e0", 0, iso(START_MS), 1]], list(SCHEMA)[:4])
    write_lines(tmp_path / "c.jsonl", [event(2), event(3)])
    (tmp_path / "README.md").write_text("words")
    for path in (tmp_path, tmp_path / "[abc].*"):
        (records,) = read(path)
        assert [json.loads(v or b"")["id"] for v in records.values] == ["e0", "e1", "e2", "e3"]
        assert records.offsets == [0, 1, 2, 3]


# Times


def test_units_of_time(tmp_path: Path) -> None:
    """Numbers of the declared unit are read; what is finer than a millisecond is cut off."""
    cases = {"s": 1_522_540_831.0129, "ms": 1_522_540_831_012, "us": 1_522_540_831_012_999}
    for unit, number in cases.items():
        path = write_lines(tmp_path / f"{unit}.jsonl", [{"at": number}])
        assert read(path, time={"field": "at", "unit": unit})[0].timestamps_ms == [
            1_522_540_831_012
        ]


def test_iso_times_against_the_standard_library(tmp_path: Path) -> None:
    """Zones, fractions and lengths mixed in one block are the instants that datetime says."""
    draw = random.Random(7)
    moments = [
        datetime(2018, 1, 1, tzinfo=timezone(timedelta(minutes=draw.randint(-600, 600))))
        + timedelta(microseconds=draw.randrange(10**10))
        for _ in range(300)
    ]
    epoch, millisecond = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)
    expected = [(moment - epoch) // millisecond for moment in moments]
    utc = [moment.astimezone(UTC) for moment in moments]
    for texts in (
        [moment.isoformat() for moment in moments],
        [moment.isoformat(" ") for moment in utc],
        [moment.replace(tzinfo=None).isoformat() for moment in utc],
        ["no time", *[moment.isoformat() for moment in moments]],
    ):
        path = write_lines(tmp_path / "a.jsonl", [{"at": text} for text in texts])
        assert read(path, ahead_max="999d")[0].timestamps_ms[-len(moments) :] == expected


@pytest.mark.parametrize("bad", ["soon", None, 5, 1e300, True, [], {}, "1969-12-31", "", "9" * 400])
def test_a_time_that_cannot_be_read_is_the_one_before(tmp_path: Path, bad: object) -> None:
    """Such a row keeps its place; at the very start there is no time at all."""
    path = write_lines(tmp_path / "a.jsonl", [{"at": bad}, {"at": GOOD}, {"at": bad}, {}])
    assert read(path)[0].timestamps_ms == [-1, START_MS, START_MS, START_MS]


def test_a_row_from_far_ahead_moves_no_time(tmp_path: Path) -> None:
    """One event up to ``ahead_max`` ahead is believed, one further ahead is not; late ones are."""
    day = 24 * HOUR_MS
    times = [START_MS, START_MS + day, START_MS + 2 * day + 1, START_MS - day]
    path = write_lines(tmp_path / "a.jsonl", [event(i, t) for i, t in enumerate(times)])
    assert read(path)[0].timestamps_ms == [
        START_MS, START_MS + day, START_MS + day, START_MS - day,
    ]  # fmt: skip


def test_a_real_gap_is_crossed(tmp_path: Path) -> None:
    """After a hundred events that agree on a later time, the times are believed."""
    later = START_MS + 90 * 24 * HOUR_MS
    path = write_lines(tmp_path / "a.jsonl", [event(0)] + [event(i, later) for i in range(102)])
    assert read(path)[0].timestamps_ms == [START_MS] * 101 + [later] * 2


def test_a_missing_key_is_the_declared_default(tmp_path: Path) -> None:
    """A producer would have sent the default as key."""
    fields = {**SCHEMA, "card": {"type": "string", "default": "none"}}
    path = write_lines(tmp_path / "a.jsonl", [{"id": "a"}, {"card": None}, {"card": "é"}])
    assert read(path, fields=fields)[0].keys == [b"none", b"none", "é".encode()]
