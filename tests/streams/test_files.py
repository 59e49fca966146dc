"""Recorded files as a stream: events and labels are one order, however polled."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.streams.recorded import (
    GOOD,
    HOUR_MS,
    START_MS,
    drained,
    event,
    iso,
    settings_of,
    stream_of,
    write_csv,
    write_labels,
    write_lines,
)
from worker.contracts.records import Output
from worker.errors import FatalError
from worker.streams.files import CollectingSink, FileStream

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
    stream = stream_of(path, column="fraud", delay_ms=3 * HOUR_MS)
    expected = []
    for i in range(23):
        if i >= 3 and (i - 3) % 3 != 2:
            expected.append(("label", f"e{i - 3}", START_MS + i * HOUR_MS))
        if i < 20:
            expected.append(("event", f"e{i}", START_MS + i * HOUR_MS))
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
        {"fraud": 1, "at": GOOD},
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
        time_ms = START_MS + (i - draw.choice([0, 0, 0, 5, 30])) * HOUR_MS
        rows.append(event(i, time_ms, fraud=i % 2))
        if i % 17 == 5:
            rows[-1]["at"] = draw.choice(["soon", "2099-01-01T00:00:00Z"])
    path = write_lines(tmp_path / "a.jsonl", rows)

    def order(count: int) -> list[tuple[str, str, int]]:
        return drained(stream_of(path, column="fraud", delay_ms=10 * HOUR_MS), count)

    found = order(records_max)
    assert found == order(7)
    assert [name for kind, name, _ in found if kind == "event"] == [row["id"] for row in rows]
    label_times = [time_ms for kind, _, time_ms in found if kind == "label"]
    assert label_times == sorted(label_times)
    assert len(label_times) == 120


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ".jsonl.zst"])
@pytest.mark.parametrize("seed", [None, 1])
def test_a_file_of_labels_sorted_or_not_comes_in_time_order(
    tmp_path: Path, suffix: str, seed: int | None
) -> None:
    """Labels of a file wait for their time, whatever the file's format and order."""
    events = write_lines(tmp_path / "e.jsonl", [event(i) for i in range(10)])
    rows = [
        {"event_id": f"e{i}", "label": i % 2, "time": iso(START_MS + 2 * i * HOUR_MS),
         "weight": 2.0, "source": "desk"}
        for i in range(10)
    ]  # fmt: skip
    if seed is not None:
        random.Random(seed).shuffle(rows)
    stream = stream_of(events, write_labels(tmp_path / f"l{suffix}", rows))
    found = drained(stream, 3)
    labels = [("label", f"e{i}", START_MS + 2 * i * HOUR_MS) for i in range(10)]
    both = labels + [("event", f"e{i}", START_MS + i * HOUR_MS) for i in range(10)]
    assert found == sorted(both, key=lambda one: (one[2], one[0] == "event"))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_an_unsorted_file_of_many_labels_comes_in_time_order(tmp_path: Path, suffix: str) -> None:
    """Also a label at the very end of a long file is there when its time comes."""
    events = write_lines(tmp_path / "e.jsonl", [event(i, START_MS + 1_500 * i) for i in range(5)])
    rows = [{"event_id": f"e{i}", "label": 0, "time": iso(START_MS + i)} for i in range(6_000)]
    stream = stream_of(events, write_labels(tmp_path / f"l{suffix}", rows[::-1]))
    both = [("label", f"e{i}", START_MS + i) for i in range(6_000)]
    both += [("event", f"e{i}", START_MS + 1_500 * i) for i in range(5)]
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
    events = write_lines(tmp_path / "e.jsonl", [{"at": 10**6 if unit != "iso" else GOOD}])
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
    stream = stream_of(path, column="fraud", delay_ms=1_000 * HOUR_MS)
    sizes = []
    while not stream.exhausted:
        sizes.append([(r.topic, len(r)) for r in stream.poll(0, 4).records])
    assert sizes == [[("tx", 4)], [("tx", 4)], [("tx", 2)], *[[("labels", n)] for n in (4, 4, 2)]]


def test_a_pause_holds_back_both_and_loses_nothing(tmp_path: Path) -> None:
    """Events and labels have one order, so a pause of either is one of both."""
    path = write_lines(tmp_path / "a.jsonl", [event(i, fraud=1) for i in range(4)])
    stream = stream_of(path, column="fraud", delay_ms=HOUR_MS)
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
