"""Training sets: x as served, joined with what was known by a time; against a join by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.worlds import START_MS, drain, events, fill, journal, new_log, settings, worker
from worker.contracts.records import Records
from worker.dataset import (
    FIXED,
    dataset_schema,
    journal_of_files,
    journal_of_topic,
    known_labels,
    read_until_now,
    write_dataset,
)
from worker.errors import ConfigError
from worker.features.spec import compile_features
from worker.models.catalogue import build_models
from worker.replay import Recording, replay
from worker.stores.memory import MemoryStore
from worker.streams.memory import MemoryStream

SPEC = compile_features(settings())
COUNT = 300
UNTIL_MS = START_MS + 200 * 600_000
Label = tuple[str, int, int]  # event id, truth, when it was known


def labels_of(stream: list[dict[str, Any]]) -> list[Label]:
    """Return a label per second event ten events later; some are revised, once or twice."""
    found: list[Label] = []
    for i, event in enumerate(stream):
        if i % 2 == 0:
            found.append((event["id"], i % 4 // 2, event["at"] + 6_000_000))
        if i % 10 == 0:
            found.append((event["id"], 1, event["at"] + 60_000_000))
        if i % 20 == 0:
            found.append((event["id"], 0, event["at"] + 30_000_000))
    return sorted(found, key=lambda label: label[2])


def by_hand(rows: list[dict[str, Any]], labels: list[Label]) -> list[dict[str, Any]]:
    """Return the training set by loops over lists."""
    found = []
    for row in rows:
        if row["outcome"] != "scored" or row["time_ms"] > UNTIL_MS:
            continue
        known = [label for label in labels if label[0] == row["event_id"] and label[2] <= UNTIL_MS]
        last = known[-1] if known else (None, None, None)
        names = [f"x_{name}" if name in FIXED else name for name in SPEC.names]
        found.append(
            {
                "event_id": row["event_id"],
                "entity": row["entity"],
                "time": row["time_ms"],
                "offset": row["source_offset"],
                "score": row["score"],
                "model_version": row["model_version"],
                "label": last[1],
                "label_time": last[2],
                **dict(zip(names, row["x"], strict=True)),
            }
        )
    return found


def rows_of(path: Path, leave_out: str = "partition") -> list[dict[str, Any]]:
    table = pq.read_table(path).drop([leave_out])
    for name in ("time", "label_time"):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, table.column(name).cast(pa.int64()))
    return table.to_pylist()


def recorded(directory: Path) -> tuple[Path, Path, list[Label]]:
    """Write events and labels as files; return both and the labels."""
    stream = events(COUNT)
    stream.sort(key=lambda event: event["at"])
    labels = labels_of(stream)
    events_file, labels_file = directory / "events.jsonl", directory / "labels.jsonl"
    events_file.write_text("".join(json.dumps(e) + "\n" for e in stream) + "{broken\n")
    lines = [{"event_id": i, "label": y, "time": time_ms} for i, y, time_ms in labels]
    labels_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return events_file, labels_file, labels


def journal_rows(out: Path) -> list[dict[str, Any]]:
    with pa.ipc.open_file(out / "journal" / "events-0.arrow") as file:
        found: list[dict[str, Any]] = file.read_all().to_pylist()
    return found


def test_a_training_set_of_a_replay_equals_a_join_by_hand(tmp_path: Path) -> None:
    """By the command: event times and labels until the time, the last revision known by then."""
    events_file, labels_file, labels = recorded(tmp_path)
    config = settings()
    out, target = tmp_path / "out", tmp_path / "train.parquet"
    replay(config, SPEC, build_models(config, SPEC.names), Recording(events_file, labels_file), out)
    data = config.model_dump(mode="json", exclude_unset=True)
    data["labels"]["horizon"] = "30d"
    path = tmp_path / "world.yaml"
    path.write_text(yaml.safe_dump(data))
    done = subprocess.run(
        [sys.executable, "-m", "worker.cli", "dataset", "-c", str(path), "--known-by",
         str(UNTIL_MS), "--journal", str(out / "journal"), "--labels", str(labels_file),
         "--out", str(target)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = by_hand(journal_rows(out), labels)
    assert rows_of(target) == expected
    counts = json.loads(done.stdout)
    labelled = [row for row in expected if row["label"] is not None]
    assert counts["rows"] == len(expected) > 150
    assert counts["labelled"] == len(labelled) > 50
    assert {row["label"] for row in labelled} == {0, 1}
    assert counts["rows"] + counts["later"] + counts["not_scored"] == COUNT + 1
    assert list(tmp_path.glob("*.part")) == []


def test_a_training_set_of_topics_has_every_partition(tmp_path: Path) -> None:
    """From a log with three partitions and the worker's own journal in it."""
    log = new_log(3)
    fill(log, events(COUNT))
    drain(worker(log, MemoryStore()))
    view = MemoryStream(
        log, group="other", slot="0", events_topic="transactions", labels_topic="labels"
    )
    records = (r for p in range(3) for r in read_until_now(view, "labels", p))
    known = known_labels(records, UNTIL_MS)
    target = tmp_path / "train.parquet"
    write_dataset(target, SPEC, journal_of_topic(view, "journal"), known, UNTIL_MS)
    labels = [
        (value["event_id"], value["label"], time_ms)
        for p in range(3)
        for value, time_ms in _messages(log.read("labels", p, 0, 10_000))
    ]
    labels.sort(key=lambda label: label[2])
    rows = [row for p in range(3) for row in journal(log, p)]
    assert rows_of(target) == by_hand(rows, labels)
    assert sorted(set(pq.read_table(target).column("partition").to_pylist())) == [0, 1, 2]


def _messages(records: Records) -> list[tuple[dict[str, Any], int]]:
    return [
        (json.loads(value or b""), time_ms)
        for value, time_ms in zip(records.values, records.timestamps_ms, strict=True)
    ]


def test_of_several_labels_the_last_that_was_known_by_the_time_counts() -> None:
    """However they lie in the log; of equal times the later one, and one of the very time."""
    told: list[Label] = [
        ("a", 1, 30), ("a", 0, 20), ("b", 0, 20), ("b", 1, 20), ("c", 1, 50), ("c", 0, 51),
        ("d", 1, 51),
    ]  # fmt: skip
    values = [json.dumps({"event_id": i, "label": y}).encode() for i, y, _ in told]
    n, times = len(told), [time_ms for *_, time_ms in told]
    known = known_labels([Records("labels", 0, list(range(n)), times, [None] * n, values, n)], 50)
    columns = (known.event_ids, known.y, known.time_ms)
    found = sorted(zip(*(column.to_pylist() for column in columns), strict=True))
    assert found == [("a", 1, 30), ("b", 1, 20), ("c", 1, 50)]


def test_an_event_of_the_very_time_is_in_and_later_ones_are_counted(tmp_path: Path) -> None:
    """Up to the time, inclusive."""
    log = new_log()
    fill(log, events(60))
    drain(worker(log, MemoryStore()))
    view = MemoryStream(log, group="x", slot="0", events_topic="transactions", labels_topic=None)
    times = sorted(row["time_ms"] for row in journal(log) if row["outcome"] == "scored")
    until_ms = times[20]
    counts = write_dataset(
        tmp_path / "train.parquet", SPEC, journal_of_topic(view, "journal"),
        known_labels([], until_ms), until_ms,
    )  # fmt: skip
    later = sum(time_ms > until_ms for time_ms in times)
    assert (counts.rows, counts.later) == (len(times) - later, later)


def test_rows_of_other_features_are_left_out_and_counted(tmp_path: Path) -> None:
    """Their x would stand under wrong names; a file without any other row is not written."""
    log = new_log()
    fill(log, events(60))
    drain(worker(log, MemoryStore()))
    other = compile_features(settings(features={"amount": "$amount", "card": {"count": ["2d"]}}))
    view = MemoryStream(log, group="x", slot="0", events_topic="transactions", labels_topic=None)
    target = tmp_path / "train.parquet"
    known = known_labels([], UNTIL_MS)
    counts = write_dataset(target, other, journal_of_topic(view, "journal"), known, UNTIL_MS)
    scored = sum(row["outcome"] == "scored" for row in journal(log))
    assert (counts.rows, counts.other_features) == (0, scored)
    assert list(tmp_path.iterdir()) == []


def test_a_journal_without_rows_makes_a_file_without_rows(tmp_path: Path) -> None:
    """Its columns are those of the features."""
    spec, target = compile_features(settings()), tmp_path / "train.parquet"
    write_dataset(target, spec, [], known_labels([], UNTIL_MS), UNTIL_MS)
    assert pq.read_table(target).num_rows == 0
    assert pq.read_schema(target).names == dataset_schema(spec).names


def test_a_feature_of_a_fixed_name_keeps_apart() -> None:
    """A feature called score is beside the score that was served."""
    spec = compile_features(settings(features={"score": "$amount", "card": {"count": ["1d"]}}))
    assert dataset_schema(spec).names == [*FIXED, "x_score", "card_count_1d"]


def test_no_journal_is_refused(tmp_path: Path) -> None:
    """An empty directory, or a file of something else."""
    with pytest.raises(ConfigError, match=r"got no \.arrow file"):
        list(journal_of_files(tmp_path))
    (tmp_path / "a.arrow").write_bytes(b"something else")
    with pytest.raises(ConfigError, match="got other bytes"):
        list(journal_of_files(tmp_path))
