"""Recorded files as items: bytes, keys and times of every format, and what cannot be read."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from producers.items import Item
from producers.reading import Layout, RecordedTime, read_items
from worker.errors import RiverwatchError

CARD = Layout("card", "time")
DAY_MS = 86_400_000
LINES = [
    b'{"card":"c1","time":"2026-03-02T00:00:01.250Z","x":1}',
    b'{ "time": "2026-03-02T01:00:02+01:00", "card": 7 }',
    b'{"card":"\xc3\xa9","time":"2026-03-02T00:00:03"}',
]
TIMES_MS = [1_772_409_601_250, 1_772_409_602_000, 1_772_409_603_000]
KEYS = [b"c1", b"7", b"\xc3\xa9"]


def _read(path: Path, data: bytes, layout: Layout = CARD) -> list[Item]:
    path.write_bytes(data)
    return list(read_items(path, "event", layout))


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [(".jsonl", bytes), (".jsonl.gz", gzip.compress), (".jsonl.zst", zstandard.compress)],
)
def test_lines_go_through_unchanged_with_key_and_time(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    """Bytes are kept, keys are UTF-8 of the field, times are UTC with or without an offset."""
    items = _read(tmp_path / f"a{suffix}", pack(b"\n".join(LINES)))
    assert [item.value for item in items] == LINES
    assert [item.key for item in items] == KEYS
    assert [item.time_ms for item in items] == TIMES_MS


def test_blank_lines_and_carriage_returns_are_no_records(tmp_path: Path) -> None:
    """A line ends at its line feed or at both signs; nothing between two ends is nothing."""
    items = _read(tmp_path / "a.jsonl", b"\r\n".join(LINES) + b"\n\n\r\n")
    assert [item.value for item in items] == LINES


@pytest.mark.parametrize(
    "bad",
    [
        b"not json",
        b'\xff{"card":"c1"}',
        b"[1]",
        b'{"card":null,"time":null}',
        b'{"card":1.5,"time":"yesterday"}',
        b'{"card":true,"time":"1969-12-31T23:59:59Z"}',
        b'{"x":1}',
        b'{"time":[],"card":{}}',
        b'{"time":"2099-01-01T00:00:00Z"}',
    ],
)
def test_a_bad_record_is_played_too_at_the_time_before_it(tmp_path: Path, bad: bytes) -> None:
    """It has its bytes, no key, and neither ends the recording nor moves its time."""
    items = _read(tmp_path / "a.jsonl", b"\n".join([LINES[0], bad, LINES[1]]))
    assert items[1] == Item("event", TIMES_MS[0], None, bad)
    assert items[2].time_ms == TIMES_MS[1]


def test_a_line_over_a_megabyte_is_cut_and_the_next_one_whole(tmp_path: Path) -> None:
    """Memory is bounded by a line's limit: three megabytes become one, its neighbours stay."""
    items = _read(tmp_path / "a.jsonl", b"\n".join([LINES[0], b"x" * 3_000_000, LINES[1]]))
    assert [len(item.value or b"") for item in items] == [len(LINES[0]), 1_000_000, len(LINES[1])]


def test_a_line_of_just_a_megabyte_does_not_swallow_the_next(tmp_path: Path) -> None:
    """One byte below, at and above the limit: the record after it is always there."""
    for size in (999_998, 999_999, 1_000_000, 1_000_001):
        items = _read(tmp_path / "a.jsonl", b"x" * size + b"\n" + LINES[1] + b"\n")
        assert [item.value for item in items] == [b"x" * min(size, 1_000_000), LINES[1]]


@pytest.mark.parametrize(
    ("unit", "text", "time_ms"),
    [
        ("s", "1772409601.25", 1_772_409_601_250),
        ("ms", "1772409601250", 1_772_409_601_250),
        ("us", "1772409601250999", 1_772_409_601_250),
        ("s", '"1772409601"', 0),
        ("s", "-5", 0),
        ("s", "1e400", 0),
    ],
)
def test_numeric_times_are_read_in_their_unit(
    tmp_path: Path, unit: str, text: str, time_ms: int
) -> None:
    """Seconds, milliseconds and microseconds since 1970; anything else is no time."""
    layout = Layout("card", "time", unit)  # type: ignore[arg-type]
    (item,) = _read(tmp_path / "a.jsonl", f'{{"time":{text}}}'.encode(), layout)
    assert item.time_ms == time_ms


@given(st.integers(0, 4_102_444_799_999))
def test_every_millisecond_survives_the_iso_form(time_ms: int) -> None:
    """No instant moves by a millisecond when it is read from text with three digits."""
    from producers.reading import _time_ms

    text = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)).isoformat(
        "T", "milliseconds"
    )
    assert _time_ms(text, "iso") == time_ms


def test_csv_cells_become_json_by_what_they_look_like(tmp_path: Path) -> None:
    """Numbers are numbers, 007 and words are text, empty cells are missing."""
    data = '\ufeffcard,time,amount,note\n007,2026-03-02T00:00:00Z,12.50,"a ""b"",\nc"\n8,,-1e3,\n'
    items = _read(tmp_path / "a.csv", data.encode())
    assert [json.loads(item.value or b"") for item in items] == [
        {"card": "007", "time": "2026-03-02T00:00:00Z", "amount": 12.5, "note": 'a "b",\nc'},
        {"card": 8, "amount": -1000.0},
    ]
    assert b"12.50" in (items[0].value or b"")
    assert [item.key for item in items] == [b"007", b"8"]
    assert items[0].time_ms == items[1].time_ms == 1_772_409_600_000


def test_parquet_rows_become_json_by_their_types(tmp_path: Path) -> None:
    """Timestamps are UTC text, nulls and NaN are missing, numbers and text stay what they are."""
    table = pa.table(
        {
            "card": pa.array([1, 2], pa.int32()),
            "time": pa.array([1_772_409_600, None], pa.timestamp("s")),
            "amount": [12.5, float("nan")],
            "name": ["a", None],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    items = list(read_items(tmp_path / "a.parquet", "event", CARD))
    assert [json.loads(item.value or b"") for item in items] == [
        {"card": 1, "time": "2026-03-02T00:00:00Z", "amount": 12.5, "name": "a"},
        {"card": 2},
    ]
    assert [(item.key, item.time_ms) for item in items] == [
        (b"1", 1_772_409_600_000),
        (b"2", 1_772_409_600_000),
    ]


@pytest.mark.parametrize("name", ["a.txt", "a", "a.json", "a.parquet.gz"])
def test_an_unknown_suffix_is_refused(tmp_path: Path, name: str) -> None:
    """A name that says no known format is an error that lists the known ones."""
    with pytest.raises(ValueError, match=r"expected \.jsonl or \.csv"):
        _read(tmp_path / name, b"{}")


def test_columns_that_are_not_there_are_named(tmp_path: Path) -> None:
    """A wrong --key or --time is found before anything is sent."""
    with pytest.raises(ValueError, match=r"columns \['card'\], got \['time', 'user'\]"):
        _read(tmp_path / "a.csv", b"user,time\n1,2\n")


def test_a_file_cut_in_the_middle_is_an_error_after_its_whole_records(tmp_path: Path) -> None:
    """A truncated archive does not pass for a shorter recording."""
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join(LINES * 100))[:-12])
    with pytest.raises(RiverwatchError, match="a whole file"):
        list(read_items(path, "event", CARD))


def test_one_time_far_ahead_is_not_believed_but_a_real_gap_is() -> None:
    """More than seven days ahead needs ten in a row; then the recording goes on from there."""
    clock = RecordedTime()
    clock.believe(0)
    later = [clock.believe(8 * DAY_MS + second) for second in range(12)]
    assert later == [0] * 9 + [8 * DAY_MS + second for second in (9, 10, 11)]


@pytest.mark.parametrize(("ahead_ms", "believed"), [(7 * DAY_MS, True), (7 * DAY_MS + 1, False)])
def test_the_bound_of_a_gap_is_seven_days_inclusive(ahead_ms: int, believed: bool) -> None:
    """Just seven days ahead is believed, one millisecond more is not."""
    clock = RecordedTime()
    clock.believe(1_000)
    assert clock.believe(1_000 + ahead_ms) == (1_000 + ahead_ms if believed else 1_000)


def test_late_times_are_believed_and_do_not_move_the_bound_back() -> None:
    """A record from long ago keeps its time; the next usual one is not far ahead."""
    clock = RecordedTime()
    assert [clock.believe(t * DAY_MS) for t in (100, 1, 101)] == [
        100 * DAY_MS,
        DAY_MS,
        101 * DAY_MS,
    ]
