"""Metrics as labels arrive: of a live worker and of a replay, against a reading of the journal."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.worlds import START_MS, drain, events, fill, journal, new_log, settings, worker
from worker.arrow import read_examples
from worker.contracts.settings import Settings
from worker.features.index import Index
from worker.features.spec import compile_features
from worker.metrics import average_precision, brier, calibration_error, roc_auc
from worker.models.catalogue import build_models
from worker.models.measures import ALERTS, Measured
from worker.models.prequential import OF_PROBABILITIES, OF_THE_THRESHOLD
from worker.replay import Recording, replay
from worker.stores.memory import MemoryStore

DAY_MS = 86_400_000
TOP = 5
COUNT = 900
SEGMENTS = {
    "large": {"feature": "amount", "at_least": 400},
    "small_and_new": {"feature": "card_count_1d", "at_least": 1, "below": 3},
}
INSIDE = {
    "": lambda x: True,
    "large": lambda x: x["amount"] >= 400,
    "small_and_new": lambda x: 1 <= x["card_count_1d"] < 3,
}


def config(**changes: Any) -> Settings:
    decision = {
        "model": "fraud", "threshold": 1e-7, "suppress": {"entity": "card", "within": "3h"},
    }  # fmt: skip
    return settings(metrics={"top": TOP, "segments": SEGMENTS}, decision=decision, **changes)


def unique(count: int) -> list[dict[str, Any]]:
    """Return events that never come twice: a revised label would count once more."""
    return [{**event, "id": f"e{i}"} for i, event in enumerate(events(count))]


def truth_of(event: dict[str, Any]) -> int:
    return int(event["amount"] > 700)


def hash_of(entity: str) -> int:
    return int(Index(bytes(16)).hashes([entity])[0, 0].astype(np.int64))


def at_k(rows: list[dict[str, Any]], score: str) -> tuple[float, float]:
    """Return precision at k of events and of entities, mean over days."""
    days = defaultdict(list)
    for row in rows:
        days[row["time_ms"] // DAY_MS].append(row)
    shares = []
    for part in days.values():
        best = {}
        for row in part:
            best[row["entity"]] = max(best.get(row["entity"], 0.0), row[score])
        frauds = {row["entity"] for row in part if row["y"]}
        top = sorted(part, key=lambda row: -row[score])[:TOP]  # of equal scores the earlier label
        entities = sorted(best, key=lambda one: (-best[one], hash_of(one)))[:TOP]
        shares.append((np.mean([r["y"] for r in top]), np.mean([e in frauds for e in entities])))
    return tuple(np.mean(shares, axis=0).tolist())


def delay_s(rows: list[dict[str, Any]], found: list[bool]) -> float | None:
    first: dict[str, int] = {}
    first_found: dict[str, int] = {}
    for row, is_found in zip(rows, found, strict=True):
        entity, time_ms = row["entity"], row["time_ms"]
        if row["y"]:
            first[entity] = min(first.get(entity, time_ms), time_ms)
            if is_found:
                first_found[entity] = min(first_found.get(entity, time_ms), time_ms)
    delays = [first_found[one] - first[one] for one in first_found]
    return float(np.mean(delays)) / 1000 if delays else None


def by_hand(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Return the figures of one score from journal rows with their truth ``y``."""
    score = "score" if name == ALERTS else f"score_{name}"
    y, scores = (np.array([row[key] for row in rows]) for key in ("y", score))
    if name == ALERTS:
        reached = [row["decision"] == "alert" for row in rows]
    else:
        reached = [row[score] >= row["threshold"] for row in rows]
    hits = sum(row["y"] for row, is_reached in zip(rows, reached, strict=True) if is_reached)
    by_event, by_entity = at_k(rows, score)
    return {
        "labelled": len(rows), "positives": int(y.sum()),
        "precision": hits / sum(reached) if any(reached) else None, "recall": hits / y.sum(),
        "f1": 2 * hits / (sum(reached) + y.sum()), "roc_auc": roc_auc(y, scores),
        "average_precision": average_precision(y, scores), "brier": brier(y, scores),
        "calibration_error": calibration_error(y, scores), "precision_at_k": by_event,
        "entity_precision_at_k": by_entity, "alert_delay_s": delay_s(rows, reached),
    }  # fmt: skip


def compare(measured: list[Measured], rows: list[dict[str, Any]], names: tuple[str, ...]) -> None:
    """Figures in bins are right to a thousandth; all others are exact."""
    for one in measured:
        is_inside = INSIDE[one.segment]
        inside = [row for row in rows if is_inside(dict(zip(names, row["x"], strict=True)))]
        for figure, expected in by_hand(inside, one.name).items():
            if one.name == "odd" and figure in (*OF_PROBABILITIES, *OF_THE_THRESHOLD):
                expected = None  # it is a rank, and the threshold that of a probability
            got = getattr(one.total, figure)
            bound = 2e-3 if figure in ("brier", "calibration_error") else 1e-9
            if figure in ("roc_auc", "average_precision"):
                bound = 0.02  # ties within a thousandth
            assert got == pytest.approx(expected, abs=bound), (one.name, one.segment, figure)


def labelled_rows(rows: list[dict[str, Any]], told: dict[str, int]) -> list[dict[str, Any]]:
    """Return the scored rows whose label came, each with its truth."""
    scored = [row for row in rows if row["outcome"] == "scored"]
    return [{**row, "y": told[row["event_id"]]} for row in scored if row["event_id"] in told]


def examples_of(value: bytes | None) -> tuple[list[str], list[int]]:
    """Return ids and truths of a record of the training log."""
    _, examples = read_examples(value or b"", "training")
    return examples.event_ids, examples.y.tolist()


@pytest.mark.parametrize("workers", [1, 2])
def test_figures_of_live_workers_are_those_of_the_journal(workers: int) -> None:
    """Each prediction by the score and the decision it was served with; all workers the same."""
    log, store, stream = new_log(2), MemoryStore(), unique(COUNT)
    fill(log, stream, bad_every=10**9)
    runners = [worker(log, store, slot=str(i), config=config()) for i in range(workers)]
    drain(*runners)
    told = {event["id"]: truth_of(event) for event in stream[: COUNT - 10]}
    learned = [
        event_id
        for value in log.read("training", 0, 0, 10**9).values
        for event_id, y in zip(*examples_of(value), strict=True)
        if y >= 0
    ]
    rows = labelled_rows([row for p in (0, 1) for row in journal(log, p)], told)
    rows.sort(key=lambda row: learned.index(row["event_id"]))
    first, *others = (runner.parts.models for runner in runners)
    reports = first.steward.reports()
    measured = [one for report in reports for one in report.figures]
    assert [one.name for one in reports] == [ALERTS, "fraud", "odd"]
    compare(measured, rows, compile_features(config()).names)
    assert len(rows) > COUNT * 0.9
    assert all(first.state_hash() == other.state_hash() for other in others)


def test_figures_of_a_replay_are_those_of_its_journal(tmp_path: Path) -> None:
    """Learned in between, and judged by what was said before; all of it is in metrics.json."""
    stream = unique(COUNT)
    labels = [
        {"event_id": e["id"], "label": truth_of(e), "time": START_MS + 600_000 * (i + 10)}
        for i, e in enumerate(stream)
    ]
    for name, lines in (("events", stream), ("labels", labels)):
        (tmp_path / name).with_suffix(".jsonl").write_text("\n".join(map(json.dumps, lines)))
    declared = config(stream={"kind": "memory"}, store={"kind": "memory"})
    spec = compile_features(declared)
    models = build_models(declared, spec.names)
    recording = Recording(tmp_path / "events.jsonl", tmp_path / "labels.jsonl")
    replay(declared, spec, models, recording, tmp_path / "out")
    told = {event["id"]: truth_of(event) for event in stream}
    with pa.ipc.open_file(next((tmp_path / "out" / "journal").iterdir())) as reader:
        rows = labelled_rows(reader.read_all().to_pylist(), told)
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())["models"]
    reports = models.steward.reports()
    compare([one for report in reports for one in report.figures], rows, spec.names)
    assert list(written) == [ALERTS, "fraud", "odd"]
    for report in reports:
        everything, *segments = report.figures
        one = written[report.name]
        assert {k: one[k] for k in ("total", "recent")} == everything.to_json()
        assert one["segments"] == {s.segment: s.to_json() for s in segments}
