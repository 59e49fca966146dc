"""Recorded files as a stream: every format gives the same events, labels come in time."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import tracemalloc
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from worker.contracts.records import Output, Records
from worker.contracts.settings import Settings
from worker.errors import ConfigError, FatalError
from worker.streams.file_bytes import LINE_BYTES_MAX
from worker.streams.files import CollectingSink, FileSource, FileStream

_HOUR_MS = 3_600_000
_START_MS = 1_522_540_800_000  # 2018-04-01T00:00:00Z

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
    time_ms = _START_MS + i * _HOUR_MS if time_ms is None else time_ms
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
        labels = _pairs(by_topic.get("labels"), "event_id")
        clock = -1
        for name, time_ms in _pairs(by_topic.get("tx"), "id"):
            clock = max(clock, time_ms)
            while labels and labels[0][1] <= clock:
                seen.append(("label", *labels.pop(0)))
            seen.append(("event", name, time_ms))
        seen += [("label", *label) for label in labels]
    assert stream.poll(0, records_max).records == []
    return seen


def _pairs(records: Records | None, field: str) -> list[tuple[str, int]]:
    if records is None:
        return []
    names = [json.loads(value or b"")[field] for value in records.values]
    assert records.offsets == list(range(records.next_offset - len(names), records.next_offset))
    return list(zip(names, records.timestamps_ms, strict=True))


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


def write_csv(path: Path, rows: list[list[object]], header: list[str] | None = None) -> Path:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header or list(SCHEMA), *rows])
    path.write_bytes(text.getvalue().encode())
    return path


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
    assert records.timestamps_ms == [_START_MS]


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
            _START_MS + i * _HOUR_MS for i in range(2_500)
        ]


# Many files


def test_a_directory_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    """Files of all formats follow each other, others are left out, offsets go on."""
    write_lines(tmp_path / "b.jsonl.gz", [event(1)])
    write_csv(tmp_path / "a.csv", [["e0", 0, iso(_START_MS), 1]], list(SCHEMA)[:4])
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


_GOOD = iso(_START_MS)


@pytest.mark.parametrize("bad", ["soon", None, 5, 1e300, True, [], {}, "1969-12-31", "", "9" * 400])
def test_a_time_that_cannot_be_read_is_the_one_before(tmp_path: Path, bad: object) -> None:
    """Such a row keeps its place; at the very start there is no time at all."""
    path = write_lines(tmp_path / "a.jsonl", [{"at": bad}, {"at": _GOOD}, {"at": bad}, {}])
    assert read(path)[0].timestamps_ms == [-1, _START_MS, _START_MS, _START_MS]


def test_a_row_from_far_ahead_moves_no_time(tmp_path: Path) -> None:
    """One event up to ``ahead_max`` ahead is believed, one further ahead is not; late ones are."""
    day = 24 * _HOUR_MS
    times = [_START_MS, _START_MS + day, _START_MS + 2 * day + 1, _START_MS - day]
    path = write_lines(tmp_path / "a.jsonl", [event(i, t) for i, t in enumerate(times)])
    assert read(path)[0].timestamps_ms == [
        _START_MS, _START_MS + day, _START_MS + day, _START_MS - day,
    ]  # fmt: skip


def test_a_real_gap_is_crossed(tmp_path: Path) -> None:
    """After a hundred events that agree on a later time, the times are believed."""
    later = _START_MS + 90 * 24 * _HOUR_MS
    path = write_lines(tmp_path / "a.jsonl", [event(0)] + [event(i, later) for i in range(102)])
    assert read(path)[0].timestamps_ms == [_START_MS] * 101 + [later] * 2


def test_a_missing_key_is_the_declared_default(tmp_path: Path) -> None:
    """A producer would have sent the default as key."""
    fields = {**SCHEMA, "card": {"type": "string", "default": "none"}}
    path = write_lines(tmp_path / "a.jsonl", [{"id": "a"}, {"card": None}, {"card": "é"}])
    assert read(path, fields=fields)[0].keys == [b"none", b"none", "é".encode()]


# The stream


@pytest.mark.parametrize("records_max", [1, 2, 7, 1_000])
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_label_of_a_column_is_known_after_its_delay(
    tmp_path: Path, suffix: str, records_max: int
) -> None:
    """Labels and events are one order, in which the label comes first on a tie; however polled."""
    rows = [event(i, fraud=(0, 1, None)[i % 3]) for i in range(20)]
    path = tmp_path / f"a.{suffix}"
    if suffix == "jsonl":
        write_lines(path, rows)
    elif suffix == "csv":
        header = [*rows[0]]
        write_csv(
            path, [["" if row[n] is None else row[n] for n in header] for row in rows], header
        )
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    stream = stream_of(path, column="fraud", delay_ms=3 * _HOUR_MS)
    expected = []
    for i in range(23):
        if i >= 3 and (i - 3) % 3 != 2:
            expected.append(("label", f"e{i - 3}", _START_MS + i * _HOUR_MS))
        if i < 20:
            expected.append(("event", f"e{i}", _START_MS + i * _HOUR_MS))
    assert drained(stream, records_max) == expected


@pytest.mark.parametrize(
    ("truth", "label"),
    [(0, 0), (1, 1), (True, 1), (False, 0), (1.0, 1), ("0", 0), ("1", 1), ("true", 1),
     (2, 2), ("maybe", "maybe"), (0.5, 0.5)],
)  # fmt: skip
def test_truths_are_0_or_1_and_others_are_left_to_be_refused(
    tmp_path: Path, truth: object, label: object
) -> None:
    """What means 0 or 1 becomes it; what does not is passed on and counted as a bad label."""
    path = write_lines(tmp_path / "a.jsonl", [event(0, fraud=truth), event(1, fraud=1)])
    polled = stream_of(path, column="fraud", delay_ms=1).poll(0, 2)
    assert json.loads(polled.records[1].values[0] or b"") == {"event_id": "e0", "label": label}
    assert polled.records[1].keys == [b"0"]


def test_a_row_without_id_or_time_gives_no_label(tmp_path: Path) -> None:
    """Nobody could say which event it is about, or when it was known."""
    rows = [
        {"fraud": 1, "id": "x"},
        {"fraud": 1, "at": _GOOD},
        event(1, fraud=None),
        b"{",
        event(2),
    ]
    path = write_lines(tmp_path / "a.jsonl", rows)
    stream = stream_of(path, column="fraud", delay_ms=0)
    assert [r.topic for r in stream.poll(0, 10).records] == ["tx"]
    assert stream.exhausted


@pytest.mark.parametrize("records_max", [1, 3, 50])
def test_unsorted_events_give_one_order_however_polled(tmp_path: Path, records_max: int) -> None:
    """Late events, bad times and rows from the future: the size of a poll changes nothing."""
    draw = random.Random(3)
    rows: list[dict[str, Any]] = []
    for i in range(120):
        time_ms = _START_MS + (i - draw.choice([0, 0, 0, 5, 30])) * _HOUR_MS
        rows.append(event(i, time_ms, fraud=i % 2))
        if i % 17 == 5:
            rows[-1]["at"] = draw.choice(["soon", "2099-01-01T00:00:00Z"])
    path = write_lines(tmp_path / "a.jsonl", rows)

    def order(count: int) -> list[tuple[str, str, int]]:
        return drained(stream_of(path, column="fraud", delay_ms=10 * _HOUR_MS), count)

    found = order(records_max)
    assert found == order(7)
    assert [name for kind, name, _ in found if kind == "event"] == [row["id"] for row in rows]
    label_times = [time_ms for kind, _, time_ms in found if kind == "label"]
    assert label_times == sorted(label_times)
    assert len(label_times) == 120


def write_labels(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        return write_csv(path, [list(row.values()) for row in rows], list(rows[0]))
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    return write_lines(path, rows)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ".jsonl.zst"])
@pytest.mark.parametrize("seed", [None, 1])
def test_a_file_of_labels_sorted_or_not_comes_in_time_order(
    tmp_path: Path, suffix: str, seed: int | None
) -> None:
    """Labels of a file wait for their time, whatever the file's format and order."""
    events = write_lines(tmp_path / "e.jsonl", [event(i) for i in range(10)])
    rows = [
        {"event_id": f"e{i}", "label": i % 2, "time": iso(_START_MS + 2 * i * _HOUR_MS),
         "weight": 2.0, "source": "desk"}
        for i in range(10)
    ]  # fmt: skip
    if seed is not None:
        random.Random(seed).shuffle(rows)
    stream = stream_of(events, write_labels(tmp_path / f"l{suffix}", rows))
    found = drained(stream, 3)
    labels = [("label", f"e{i}", _START_MS + 2 * i * _HOUR_MS) for i in range(10)]
    both = labels + [("event", f"e{i}", _START_MS + i * _HOUR_MS) for i in range(10)]
    assert found == sorted(both, key=lambda one: (one[2], one[0] == "event"))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_an_unsorted_file_of_many_labels_comes_in_time_order(tmp_path: Path, suffix: str) -> None:
    """Also a label at the very end of a long file is there when its time comes."""
    events = write_lines(tmp_path / "e.jsonl", [event(i, _START_MS + 1_500 * i) for i in range(5)])
    rows = [{"event_id": f"e{i}", "label": 0, "time": iso(_START_MS + i)} for i in range(6_000)]
    stream = stream_of(events, write_labels(tmp_path / f"l{suffix}", rows[::-1]))
    both = [("label", f"e{i}", _START_MS + i) for i in range(6_000)]
    both += [("event", f"e{i}", _START_MS + 1_500 * i) for i in range(5)]
    assert drained(stream, 1) == sorted(both, key=lambda one: (one[2], one[0] == "event"))


def test_a_label_of_a_file_keeps_weight_and_source_and_gets_its_time_in_ms(tmp_path: Path) -> None:
    """The record is what the labels topic would carry."""
    events = write_lines(tmp_path / "e.jsonl", [event(0)])
    row = {"event_id": "e0", "label": "1", "time": iso(5), "weight": "0.5", "source": "desk"}
    (label,) = stream_of(events, write_labels(tmp_path / "l.csv", [row])).poll(0, 1).records[1:]
    assert json.loads(label.values[0] or b"") == {
        "event_id": "e0", "label": 1, "time": 5, "weight": 0.5, "source": "desk",
    }  # fmt: skip
    assert label.timestamps_ms == [5]


@pytest.mark.parametrize(
    ("unit", "time", "time_ms"),
    [("iso", 7_000, 7_000), ("s", 7.5, 7_500), ("us", 7_000, 7), ("s", iso(7_000), 7_000)],
)
def test_label_times_are_iso_or_of_the_unit_of_the_events(
    tmp_path: Path, unit: str, time: object, time_ms: int
) -> None:
    """A number counts what the events' numbers count, or ms where those are texts."""
    events = write_lines(tmp_path / "e.jsonl", [{"at": 10**6 if unit != "iso" else _GOOD}])
    labels = write_labels(tmp_path / "l.jsonl", [{"event_id": "e", "label": 1, "time": time}])
    settings = settings_of(time={"field": "at", "unit": unit})
    records = stream_of(events, labels, settings=settings).poll(0, 5).records[1]
    assert records.timestamps_ms == [time_ms]
    assert json.loads(records.values[0] or b"")["time"] == time_ms


def test_lines_that_are_no_labels_go_through_unchanged(tmp_path: Path) -> None:
    """They are refused by the worker, and counted, with the label before them."""
    events = write_lines(tmp_path / "e.jsonl", [event(0)])
    good = b'{"event_id":"e0","label":0,"time":9}'
    lines = [good, b"not json", b'{"event_id":"e1"}', b'{"event_id":"e2","label":1,"time":"soon"}']
    labels = write_lines(tmp_path / "l.jsonl", lines)
    records = stream_of(events, labels).poll(0, 5).records[1]
    assert records.values == lines
    assert records.timestamps_ms == [9, 9, 9, 9]


def test_labels_after_the_last_event_come_in_polls_of_their_own(tmp_path: Path) -> None:
    """Nothing is left unlearned, and no poll is larger than asked for."""
    path = write_lines(tmp_path / "a.jsonl", [event(i, fraud=1) for i in range(10)])
    stream = stream_of(path, column="fraud", delay_ms=1_000 * _HOUR_MS)
    sizes = []
    while not stream.exhausted:
        sizes.append([(r.topic, len(r)) for r in stream.poll(0, 4).records])
    assert sizes == [[("tx", 4)], [("tx", 4)], [("tx", 2)], *[[("labels", n)] for n in (4, 4, 2)]]


def test_a_pause_holds_back_both_and_loses_nothing(tmp_path: Path) -> None:
    """Events and labels have one order, so a pause of either is one of both."""
    path = write_lines(tmp_path / "a.jsonl", [event(i, fraud=1) for i in range(4)])
    stream = stream_of(path, column="fraud", delay_ms=_HOUR_MS)
    stream.poll(0, 2)
    stream.pause([("labels", 0)])
    assert stream.poll(0, 2).records == []
    assert not stream.exhausted
    stream.pause([])
    assert [r.offsets for r in stream.poll(0, 2).records] == [[2, 3], [1, 2]]


def test_the_rest_of_the_contract_of_a_stream(tmp_path: Path) -> None:
    """One pair, always caught up, nothing committed, nothing to recover from."""
    stream = stream_of(write_lines(tmp_path / "a.jsonl", [event(0)]))
    assert (stream.partitions, stream.learns_inline) == (1, True)
    stream.seek(0, 0, 0)
    polled = stream.poll(100, 5)
    assert polled.assigned == {0}
    assert polled.caught_up == {("tx", 0), ("labels", 0)}
    assert (stream.committed(0), stream.log_range("tx", 0), stream.settle("journal", 0)) == (
        None, (0, 0), 0,
    )  # fmt: skip
    reader = stream.reader("journal", 0, 0)
    assert (reader.position, reader.poll(10, 10)) == (0, None)
    assert len(stream.last_records("journal", 0, 1)) == 0
    with pytest.raises(FatalError, match="from their beginning"):
        stream.seek(0, 0, 0)
    reader.close()
    stream.recover()
    stream.keep_alive()
    stream.close()
    stream.close()


def test_nothing_comes_before_the_seek(tmp_path: Path) -> None:
    """As from any stream, records of a partition wait until its owner says where it stands."""
    path = write_lines(tmp_path / "a.jsonl", [event(0)])
    stream = FileStream(settings_of(), path, None, None, None, CollectingSink())
    polled = stream.poll(0, 5)
    assert (polled.records, polled.assigned, stream.exhausted) == ([], {0}, False)
    stream.seek(0, 0, 0)
    assert len(stream.poll(0, 5).records) == 1


def test_a_commit_hands_outputs_to_the_sink_and_counts_per_topic(tmp_path: Path) -> None:
    """Offsets run on over commits, for each topic partition by itself."""
    sink = CollectingSink()
    path = write_lines(tmp_path / "a.jsonl", [event(0)])
    stream = FileStream(settings_of(), path, None, None, None, sink)
    a, b = Output("alerts", 0, None, b"1", 0), Output("journal", 0, None, b"2", 0)
    assert stream.commit(None, [a, b, a], {}) == [0, 0, 1]
    assert stream.commit(None, [b, a], {}) == [1, 2]
    assert sink.outputs == [a, b, a, b, a]


def test_progress_is_told_in_rows_or_in_bytes(tmp_path: Path) -> None:
    """Parquet knows its rows; of other files the bytes that were read say how far it is."""
    pq.write_table(pa.Table.from_pylist([event(i) for i in range(50)]), tmp_path / "a.parquet")
    stream = stream_of(tmp_path / "a.parquet")
    stream.poll(0, 20)
    assert (stream.rows_read, stream.rows_total) == (20, 50)
    path = write_lines(tmp_path / "a.jsonl.gz", [event(i) for i in range(50)])
    stream = stream_of(path)
    drained(stream, 20)
    assert (stream.rows_read, stream.rows_total) == (50, None)
    assert stream.bytes_read == stream.bytes_total == path.stat().st_size


# Wrong use


def refusal(make: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        make()
    return str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """No file, an empty directory, another suffix, compressed Parquet: each says what to do."""
    assert "no-such.jsonl: expected a file" in refusal(lambda: read(tmp_path / "no-such.jsonl"))
    assert "known suffix" in refusal(lambda: read(tmp_path))
    for name in ("a.txt", "a", "a.parquet.gz", "a.gz", "a.json"):
        (tmp_path / name).write_text("{}")
        assert "the suffix tells the format" in refusal(lambda name=name: read(tmp_path / name))


def test_a_missing_column_is_named_with_the_nearest(tmp_path: Path) -> None:
    """CSV and Parquet must have the required fields; the message helps with a misspelt one."""
    table = pa.table({"id": ["a"], "card": [1], "at": ["2018-04-01"], "amout": [1.0]})
    pq.write_table(table, tmp_path / "a.parquet")
    write_csv(tmp_path / "a.csv", [], ["id", "card", "at", "amout"])
    (tmp_path / "b.csv").write_text("")
    for name in ("a.parquet", "a.csv"):
        text = refusal(lambda name=name: FileSource(settings_of(), tmp_path / name))
        assert 'expected a column "amount", got none (the nearest is "amout")' in text
    assert 'a column "id"' in refusal(lambda: read(tmp_path / "b.csv"))
    write_csv(tmp_path / "c.csv", [], ["id", "id", "card", "at", "amount"])
    assert "got several" in refusal(lambda: read(tmp_path / "c.csv"))


def test_a_misspelt_label_column_is_noticed_in_json_lines(tmp_path: Path) -> None:
    """A column that no row of the beginning has is not there."""
    path = write_lines(tmp_path / "a.jsonl", [b"bad", event(0, fraud=1), event(1, fraud=0)])
    text = refusal(lambda: stream_of(path, column="frauds", delay_ms=0))
    assert 'expected a column "frauds", got none (the nearest is "fraud")' in text


def test_labels_need_one_place_and_a_delay(tmp_path: Path) -> None:
    """A column without a delay, and a column beside a file, are mistakes."""
    path = write_lines(tmp_path / "a.jsonl", [event(0, fraud=1)])
    assert "a duration such as 7d" in refusal(lambda: stream_of(path, column="fraud"))
    assert "got both" in refusal(lambda: stream_of(path, path, "fraud", 0))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("name", ["event_id", "label", "time"])
def test_a_file_of_labels_without_its_columns_is_refused(
    tmp_path: Path, suffix: str, name: str
) -> None:
    """Event id, label and time must be there before anything is replayed."""
    events = write_lines(tmp_path / "e.jsonl", [event(0)])
    row = {"event_id": "e0", "label": 1, "time": 5}
    row[f"{name}x"] = row.pop(name)
    labels = write_labels(tmp_path / f"l{suffix}", [row])
    text = refusal(lambda: stream_of(events, labels))
    assert f'expected a column "{name}", got none (the nearest is "{name}x")' in text


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_of_a_truncated_file_the_rows_before_come_and_then_an_error(
    tmp_path: Path, suffix: str
) -> None:
    """A copy that was interrupted is no silent end of the stream."""
    draw = random.Random(1)
    rows = [event(i, note=f"{draw.random()}") for i in range(20_000)]
    path = write_lines(tmp_path / f"a.jsonl{suffix}", rows)
    path.write_bytes(path.read_bytes()[:-50_000])
    source = FileSource(settings_of(), path)
    found: list[bytes] = []

    def read_on() -> None:
        while not source.exhausted:
            found.extend(v for v in source.take(30_000).records.values if v is not None)

    assert "expected a whole file" in refusal(read_on)
    assert 10_000 < len(found) < 20_000
    assert [json.loads(value) for value in found] == rows[: len(found)]


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz", "a.csv.zst"])
def test_a_file_of_another_format_than_its_suffix_is_refused(tmp_path: Path, name: str) -> None:
    """Plain text under a name that says otherwise is not read as something else."""
    (tmp_path / name).write_text('{"id":"a"}\n' * 100)
    assert f"{name}: expected" in refusal(lambda: read(tmp_path / name))


def test_a_line_without_end_costs_no_more_than_its_bound(tmp_path: Path) -> None:
    """A line of 40 MB is read with a peak below 6 MB."""
    path = write_lines(tmp_path / "a.jsonl.gz", [b"x" * 40_000_000, event(1)])
    source = FileSource(settings_of(), path)
    tracemalloc.start()
    try:
        sizes = [len(value or b"") for value in source.take(2).records.values]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sizes == [LINE_BYTES_MAX, len(json.dumps(event(1)))]
    assert peak < 6_000_000


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.zst", ".csv", ".parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, suffix: str) -> None:
    """40,000 rows of 500 bytes, 20 MB, are read with a peak below 8 MB."""
    rows = [event(0, _START_MS, note="x" * 400)] * 1_000
    path = tmp_path / f"a{suffix}"
    if suffix == ".csv":
        write_csv(path, [list(row.values()) for row in rows] * 40, list(rows[0]))
    elif suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows * 40), path, row_group_size=5_000)
    else:
        write_lines(path, rows * 40)
    source = FileSource(settings_of(), path)
    tracemalloc.start()
    try:
        count = 0
        while not source.exhausted:
            count += len(source.take(2_000).records)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 40_000
    assert peak < 8_000_000
