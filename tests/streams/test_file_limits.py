"""Files that are damaged, misspelt or huge: what is said, and what it costs."""

from __future__ import annotations

import json
import random
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.streams.recorded import (
    START_MS,
    event,
    read,
    refusal,
    settings_of,
    stream_of,
    write_csv,
    write_labels,
    write_lines,
)
from worker.streams.file_bytes import LINE_BYTES_MAX
from worker.streams.files import FileSource

# Wrong use


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
    rows = [event(0, START_MS, note="x" * 400)] * 1_000
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
