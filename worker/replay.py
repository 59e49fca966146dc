"""Replay: the whole worker in one process over recorded files, and what it writes."""

from __future__ import annotations

import base64
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from worker.arrow import OUTCOMES, JournalRows, read_batch, score_arrays, score_fields
from worker.contracts.decisions import DECISIONS
from worker.contracts.records import Output
from worker.contracts.settings import Settings
from worker.errors import ConfigError
from worker.features.spec import FeatureSpec
from worker.metrics import average_precision, roc_auc
from worker.models.catalogue import ModelSet
from worker.models.measures import PROBABILITY
from worker.models.prequential import OF_PROBABILITIES
from worker.models.steward import Report
from worker.outputs import Outcome
from worker.periods import by_period
from worker.runner import Parts, Runner
from worker.stores.memory import MemoryStore
from worker.streams.files import FileStream
from worker.telemetry import Telemetry

_ROW_GROUP = 100_000
OUTPUTS = ("scores.parquet", "alerts.jsonl", "dead-letters.jsonl", "journal", "metrics.json")


class DirectorySink:
    """Writes what the worker publishes: ``alerts.jsonl``, ``dead-letters.jsonl``, ``journal/``."""

    def __init__(self, directory: Path, settings: Settings) -> None:
        self._directory = directory
        self._topics = settings.outputs
        self._alerts: BinaryIO
        self._dead_letters: BinaryIO
        self._journal: Any = None  # Any: pyarrow ships no types

    def open(self) -> None:
        """Make the directory and its files; what an earlier replay wrote there is replaced."""
        prepare_directory(self._directory)
        self._alerts = (self._directory / "alerts.jsonl").open("wb")
        self._dead_letters = (self._directory / "dead-letters.jsonl").open("wb")
        (self._directory / "journal").mkdir()

    def write(self, outputs: Sequence[Output]) -> None:
        """Append the outputs of one commit."""
        for output in outputs:
            if output.topic == self._topics.journal:
                self._append_journal(output.value or b"")
            elif output.topic == self._topics.alerts:
                self._alerts.write((output.value or b"") + b"\n")
            elif output.topic == self._topics.dead_letters:
                self._dead_letters.write(_dead_letter_line(output))

    def close(self) -> None:
        """Finish all files."""
        self._alerts.close()
        self._dead_letters.close()
        if self._journal is not None:
            self._journal.close()

    def _append_journal(self, value: bytes) -> None:
        batch = read_batch(value, "journal")
        if self._journal is None:
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            path = self._directory / "journal" / "events-0.arrow"
            self._journal = pa.ipc.new_file(path, batch.schema, options=options)
        self._journal.write_batch(batch)


def _dead_letter_line(output: Output) -> bytes:
    """Return one JSON line; a value that is not UTF-8 is written as base64."""
    line: dict[str, object] = {"key": None if output.key is None else _text(output.key)[1]}
    if output.value is None:
        line["value"] = None
    else:
        encoding, text = _text(output.value)
        line[f"value{encoding}"] = text
    line["headers"] = {name: text.decode() for name, text in output.headers}
    return json.dumps(line, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def _text(value: bytes) -> tuple[str, str]:
    try:
        return "", value.decode()
    except UnicodeDecodeError:
        return "_base64", base64.b64encode(value).decode()


class ScoreFile:
    """Writes ``scores.parquet``: one row per input record, in source order."""

    def __init__(self, path: Path, settings: Settings, models: Sequence[str]) -> None:
        self._topic = settings.events.topic
        self._schema = pa.schema(
            [
                ("event_id", pa.utf8()),
                ("event_time", pa.timestamp("ms", tz="UTC")),
                ("entity", pa.utf8()),
                ("outcome", pa.utf8()),
                ("reason", pa.utf8()),
                ("score", pa.float64()),
                *score_fields(models),
                ("decision", pa.utf8()),
                ("threshold", pa.float64()),
                ("model_version", pa.int64()),
                ("topic", pa.utf8()),
                ("partition", pa.int32()),
                ("offset", pa.int64()),
            ]
        )
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._batches: list[pa.RecordBatch] = []
        self._rows = 0

    def add(self, partition: int, rows: JournalRows) -> None:
        """Append the rows of one batch."""
        self._batches.append(self._batch(partition, rows))
        self._rows += len(rows)
        if self._rows >= _ROW_GROUP:
            self._write()

    def close(self) -> None:
        """Finish the file."""
        self._write()
        self._writer.close()

    def _write(self) -> None:
        if self._batches:
            self._writer.write_table(pa.Table.from_batches(self._batches, self._schema))
        self._batches, self._rows = [], 0

    def _batch(self, partition: int, rows: JournalRows) -> pa.RecordBatch:
        not_scored = rows.outcome != 0
        n = len(rows)
        time_ms = pa.array(rows.time_ms, mask=rows.outcome == 2)
        arrays = [
            pa.array(rows.event_ids, pa.utf8()),
            time_ms.cast(pa.timestamp("ms", tz="UTC")),
            pa.array(rows.entity_ids, pa.utf8()),
            pa.array(np.array(OUTCOMES)[rows.outcome]),
            pa.array(rows.reason, pa.utf8()),
            pa.array(rows.score, mask=not_scored),
            *score_arrays(rows, not_scored),
            pa.array(np.array(DECISIONS)[rows.decision], mask=not_scored),
            pa.array(rows.threshold, mask=not_scored),
            pa.array(rows.model_version, mask=not_scored),
            pa.array(np.full(n, self._topic)),
            pa.array(np.full(n, partition, np.int32)),
            pa.array(rows.source_offset),
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)


@dataclass(frozen=True, slots=True)
class By:
    """How figures are told: by periods of so many days, and of the ``top`` scores of each day."""

    days: int = 7
    top: int = 100


@dataclass(slots=True)
class Metrics:
    """Counts and ranking metrics of one replay; each label is held against the score served."""

    outcomes: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    alerts: int = 0
    event_ids: list[str] = field(default_factory=list)
    y: list[np.ndarray] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count one committed batch."""
        counts = np.bincount(outcome.rows.outcome, minlength=len(OUTCOMES)).tolist()
        self.outcomes.update(dict(zip(OUTCOMES, counts, strict=True)))
        batch = outcome.result.batch
        self.rejected.update(r.code for r in (*batch.decoded.rejected, *batch.rejected_labels))
        self.labels.update(outcome.result.join.counts)
        self.alerts += len(outcome.alerts)
        examples = outcome.result.join.examples
        labelled = (examples.y >= 0) & ~np.isnan(examples.score)
        self.event_ids += [examples.event_ids[i] for i in np.flatnonzero(labelled).tolist()]
        self.y.append(examples.y[labelled])
        self.scores.append(examples.score[labelled])

    def periods(self, scores: Path, by: By) -> list[dict[str, object]]:
        """Return the figures by period of event time, from the scores as they were written."""
        if not self.event_ids:
            return []
        columns = ["event_id", "event_time", "entity", "score", "decision"]
        table = pq.read_table(scores, columns=columns, filters=pc.field("outcome") == "scored")
        return by_period(table, self.event_ids, np.concatenate(self.y), by.days, by.top)

    def summary(self, seconds: float) -> dict[str, object]:
        """Return what ``metrics.json`` holds beside the figures by period."""
        y = np.concatenate([np.empty(0, np.int64), *self.y])
        scores = np.concatenate([np.empty(0), *self.scores])
        events = sum(self.outcomes.values())
        return {
            "events": events,
            "events_per_s": round(events / max(seconds, 1e-9), 1),
            "seconds": round(seconds, 3),
            "outcomes": {name: self.outcomes[name] for name in OUTCOMES},
            "rejected": dict(sorted(self.rejected.items())),
            "alerts": self.alerts,
            "labels": dict(sorted(self.labels.items())),
            "labelled": len(y),
            "positives": int(y.sum()),
            "roc_auc": roc_auc(y, scores),
            "average_precision": average_precision(y, scores),
        }


def _measured(report: Report) -> dict[str, object]:
    """Return the figures of a model as ``metrics.json`` has them."""
    everything, *segments = report.figures
    return {**everything.to_json(), "segments": {s.segment: s.to_json() for s in segments}}


@dataclass(frozen=True, slots=True)
class Recording:
    """What to replay: events, and where their labels are (a file, or a column and its delay)."""

    events: Path
    labels: Path | None = None
    label_column: str | None = None
    label_delay_ms: int | None = None


def has_result(out: Path) -> bool:
    """Return whether an earlier replay, or a part of one, is in a directory."""
    return any((out / name).exists() for name in OUTPUTS)


def is_partial(out: Path) -> bool:
    """Return whether what is in a directory is of a replay that did not come to its end."""
    try:
        summary = json.loads((out / "metrics.json").read_bytes())
    except (OSError, ValueError):
        return False  # nothing is known
    return isinstance(summary, dict) and summary.get("complete") is False


def _write_metrics(out: Path, summary: dict[str, object], *, is_complete: bool) -> None:
    """Write ``metrics.json``. A replay begins with one that says it is not complete."""
    words = {"complete": is_complete, **summary}
    (out / "metrics.json").write_text(json.dumps(words, indent=2) + "\n")


def prepare_directory(out: Path) -> None:
    """Make an empty output directory, replacing what an earlier replay wrote there.

    Raises
    ------
    ConfigError
        The directory holds other files, which are never deleted.
    """
    foreign = [p.name for p in out.iterdir() if p.name not in OUTPUTS] if out.is_dir() else []
    if foreign or (out.exists() and not out.is_dir()):
        raise ConfigError(
            str(out), expected="a new directory or an earlier replay's",
            got="other files" if foreign else "a file", hint="choose another --out",
        )  # fmt: skip
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)


def replay(
    settings: Settings,
    spec: FeatureSpec,
    models: ModelSet,
    recording: Recording,
    out: Path,
    on_commit: Callable[[Outcome, FileStream], None] = lambda outcome, stream: None,
    clock_s: Callable[[], float] = time.monotonic,
    by: By | None = None,
) -> dict[str, object]:
    """Run the worker over a recording, write everything to ``out``, return the metrics.

    Until it has come to its end, and if it never does, ``metrics.json`` says ``complete: false``.

    Parameters
    ----------
    on_commit
        Called after every batch with its outcome and the stream, for progress.
    by
        How figures are told by period, where labels came.
    """
    sink = DirectorySink(out, settings)
    stream = FileStream(
        settings, recording.events, recording.labels, recording.label_column,
        recording.label_delay_ms, sink,
    )  # fmt: skip
    sink.open()  # only now: a recording that cannot be read costs no earlier output
    _write_metrics(out, {}, is_complete=False)
    scores = ScoreFile(out / "scores.parquet", settings, models.names)
    metrics = Metrics()

    event_ms = 0

    def committed(outcome: Outcome) -> None:
        nonlocal event_ms
        event_ms = max(event_ms, int(outcome.rows.time_ms.max(initial=0)))
        scores.add(0, outcome.rows)
        metrics.add(outcome)
        on_commit(outcome, stream)

    started_s = clock_s()
    store = MemoryStore(lambda: event_ms)  # what nobody will ask for again goes by event time
    parts = Parts(settings, spec, models, stream, store, Telemetry(time.time))
    runner = Runner(
        parts,
        lambda: stream.exhausted and runner.idle,
        flush_every_s=None,
        on_commit=committed,
        clock_s=clock_s,
    )
    try:
        runner.run()
    finally:
        scores.close()
        sink.close()
        stream.close()
    summary = metrics.summary(clock_s() - started_s)
    summary["models"] = {
        one.name: {"role": one.role, "status": one.status, **_measured(one)}
        for one in models.steward.reports()
    }
    periods = metrics.periods(out / "scores.parquet", by or By())
    if models.scales[models.champion] != PROBABILITY:
        periods = [{**period, **dict.fromkeys(OF_PROBABILITIES)} for period in periods]
    summary["periods"] = periods
    _write_metrics(out, summary, is_complete=True)
    return summary
