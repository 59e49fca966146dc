"""What must have come of a schedule, computed from the logs by lists and plain loops.

It shares no code with the worker's features, joins or models: windows are sums over all events, and
the model is River's own, taught by the training log.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from river import linear_model, preprocessing

from tests.simulation.schedule import Schedule, StuckError
from tests.simulation.world import HOUR_MS, RING, THRESHOLD, names_of
from tests.worlds import journal
from worker.arrow import read_batch, read_examples, stamps_of
from worker.stores.memory import MemoryStore
from worker.streams.memory_log import MemoryLog

DAY_MS = 24 * HOUR_MS
Wrong = tuple[Any, ...]
"""An invariant, where it does not hold, what was found there and what was expected."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event as it is in the log, at its offset."""

    offset: int
    id: str
    card: str
    terminal: str
    at: int
    cents: int


@dataclass
class Expected:
    """What the rows and examples of one partition must be, given what each row says it knew."""

    outcomes: dict[int, str] = field(default_factory=dict)
    own: dict[int, dict[str, float]] = field(default_factory=dict)
    examples: Counter[tuple[str, int]] = field(default_factory=Counter)
    scored: dict[int, Event] = field(default_factory=dict)
    spec_of: dict[str, str] = field(default_factory=dict)
    by_card: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))
    by_terminal: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))


@dataclass(frozen=True, slots=True)
class Record:
    """A record of the journal: the source offsets of its rows, and what all of them share."""

    sources: list[int]
    stamps: dict[str, str]


Stamps = dict[int, dict[str, str]]
"""Stamps of the record of a row, by its source offset."""


def check(done: Schedule) -> None:
    """Hold a schedule that came to rest against the invariants.

    Raises
    ------
    AssertionError
        Names the invariant, see docs/delivery.md.
    StuckError
        Nothing is wrong in what is there, and not all is there.
    """
    rows = {p: journal(done.log, p) for p in range(done.plan.partitions)}
    for p in rows:
        _check_complete(done.log, p, rows[p])
    for wrong in wrongs(done.log, rows):
        raise AssertionError(wrong)
    _check_store(done)


def wrongs(log: MemoryLog, rows: dict[int, list[dict[str, Any]]]) -> Iterator[Wrong]:
    """Yield what is wrong in a log whose journal, by partition, is complete and in order."""
    updates = _updates(log)
    examples: Counter[tuple[str, int]] = Counter()
    told: list[tuple[str, dict[str, Any]]] = []
    for p in rows:
        records = _records(log, p)
        stamps = {at: one.stamps for one in records for at in one.sources}
        expected = _expected(log, p, rows[p], records, stamps)
        yield from _wrong_rows(rows[p], expected, stamps, updates, p)
        if len(rows) > 1:
            yield from _missing_updates(expected, stamps, updates, p)
        examples += expected.examples
        told += [(stamps[row["source_offset"]]["spec_hash"], row) for row in rows[p]]
    yield from _wrong_models(log, told, examples)


def _check_complete(log: MemoryLog, p: int, rows: list[dict[str, Any]]) -> None:
    """I1, I2, I3, I6: each record once and in order; alerts and dead letters are those of rows."""
    count = log.end("transactions", p)
    offsets = [row["source_offset"] for row in rows]
    assert offsets == list(range(len(offsets))), ("I1", p, offsets)
    if len(offsets) < count:
        raise StuckError(f"I11: partition {p} rests at {len(offsets)} of {count}")
    alerts = [
        json.loads(value or b"")["alert_id"] for value in log.read("alerts", p, 0, 10**9).values
    ]
    asked = [f"transactions-{p}-{r['source_offset']}" for r in rows if r["decision"] == "alert"]
    assert alerts == asked, ("I2", p, alerts, asked)
    letters = log.read("dead-letters", p, 0, 10**9).values
    values = log.read("transactions", p, 0, 10**9).values
    bad = [values[r["source_offset"]] for r in rows if r["outcome"] == "rejected"]
    assert letters == bad, ("I3", p)
    for column in ("labels_offset", "model_version"):
        said = [r[column] for r in rows if r[column] is not None]
        assert said == sorted(said), ("I6", p, column, said)


def _expected(
    log: MemoryLog, p: int, rows: list[dict[str, Any]], records: list[Record], stamps: Stamps
) -> Expected:
    """Walk events and labels in the order that the rows state."""
    expected = Expected()
    labels = _labels(log, p, records)
    known: dict[str, int] = {}
    early: dict[str, int] = {}
    heard = 0
    for row, value in zip(rows, log.read("transactions", p, 0, 10**9).values, strict=True):
        for label in labels[heard : row["labels_offset"]]:
            _hear(*label, expected, known, early)
        heard, at = row["labels_offset"], row["source_offset"]
        _meet(at, value or b"", stamps[at]["spec_hash"], expected, known, early)
    for label in labels[heard:]:
        _hear(*label, expected, known, early)
    return expected


def _labels(log: MemoryLog, p: int, records: list[Record]) -> list[tuple[dict[str, Any], str]]:
    """Return the labels, each with the feature spec of the worker that heard it first."""
    specs: list[str] = []
    values = log.read("labels", p, 0, 10**9).values
    for one in records:
        specs += [one.stamps["spec_hash"]] * (int(one.stamps["next_labels"]) - len(specs))
    last = specs[-1] if specs else ""  # nobody has heard the rest: their examples are missing
    specs += [last] * (len(values) - len(specs))
    return [(json.loads(v or b""), spec) for v, spec in zip(values, specs, strict=True)]


def _hear(
    label: dict[str, Any], spec: str, expected: Expected, known: dict[str, int],
    early: dict[str, int],
) -> None:  # fmt: skip
    id_, y = label["event_id"], label["label"]
    if id_ not in expected.spec_of:
        early[id_] = y
    elif known.get(id_) != y:
        known[id_] = y
        # An example of other features teaches nothing.
        expected.examples[id_, y] += spec == expected.spec_of[id_]


def _meet(
    offset: int, value: bytes, spec: str, expected: Expected, known: dict[str, int],
    early: dict[str, int],
) -> None:  # fmt: skip
    try:
        fields = json.loads(value)
    except ValueError:
        expected.outcomes[offset] = "rejected"
        return
    event = Event(
        offset, fields["id"], fields["card"], fields["terminal"], fields["at"],
        round(fields["amount"] * 100),
    )  # fmt: skip
    mine = expected.by_card[event.card]
    assert len(mine) < RING, "the world is larger than the oracle thinks"
    if any(e.id == event.id for e in mine):
        expected.outcomes[offset] = "duplicate"
        return
    expected.outcomes[offset] = "scored"
    expected.scored[offset] = event
    expected.spec_of[event.id] = spec
    expected.by_terminal[event.terminal].append(event)
    mine.append(event)
    now = max(e.at for e in mine)
    day = [e for e in mine if now - DAY_MS < e.at <= now]
    expected.own[offset] = {
        "amount": event.cents / 100,
        "card_count_1h": sum(now - HOUR_MS < e.at <= now for e in mine),
        "card_count_1d": len(day),
        "card_count_2d": sum(now - 2 * DAY_MS < e.at <= now for e in mine),
        "card_sum_amount_1d": sum(e.cents for e in day) / 100,
        "card_mean_amount_1d": sum(e.cents for e in day) / 100 / len(day) if day else 0.0,
        "card_frauds_1d": sum(known.get(e.id) == 1 for e in day),
    }
    if event.id in early:
        y = early.pop(event.id)
        known[event.id] = y
        expected.examples[event.id, y] += 1


def _wrong_rows(
    rows: list[dict[str, Any]],
    expected: Expected,
    stamps: Stamps,
    updates: dict[tuple[str, str], list[Row]],
    p: int,
) -> Iterator[Wrong]:
    """I5: outcomes, and every x, from the events and the labels that the row says it knew."""
    for row in rows:
        at = row["source_offset"]
        if row["outcome"] != expected.outcomes[at]:
            yield "outcome", p, at, row["outcome"]
        elif row["outcome"] == "scored":
            event, of_record = expected.scored[at], stamps[at]
            others = updates.get((of_record["state_hash"], event.terminal), [])
            positions = json.loads(of_record.get("entity_updates", "[]"))
            shared = _terminal_count(event, expected, others, positions, p)
            wanted = {**expected.own[at], "terminal_count_1d": shared}
            for name, value in zip(names_of(of_record["spec_hash"]), row["x"], strict=True):
                if not math.isclose(value, wanted[name], abs_tol=1e-9):
                    yield "I5", p, at, name, value, wanted[name]


def _terminal_count(
    event: Event, expected: Expected, updates: list[Row], positions: list[int], p: int
) -> int:
    """Count what a shared entity has seen: all of this partition, of others what the row states."""
    own = [e.at for e in expected.by_terminal[event.terminal] if e.offset <= event.offset]
    seen = [row.at for row in updates if row.source != p and row.offset < positions[row.target]]
    now = max(own + seen)
    return sum(now - DAY_MS < at <= now for at in own + seen)


def _missing_updates(
    expected: Expected, stamps: Stamps, updates: dict[tuple[str, str], list[Row]], p: int
) -> Iterator[Wrong]:
    """I5: what was scored is told to the terminal's owner, as the row's state has it."""
    wanted = Counter(
        (stamps[at]["state_hash"], e.terminal, e.at) for at, e in expected.scored.items()
    )
    found = Counter(
        (*place, row.at) for place, told in updates.items() for row in told if row.source == p
    )
    yield from (("I5: nobody was told", p, *one) for one in (wanted - found).elements())


@dataclass(frozen=True, slots=True)
class Row:
    """A row of `entity-updates`: an event of a terminal, from partition ``source``."""

    target: int
    offset: int
    at: int
    source: int


def _updates(log: MemoryLog) -> dict[tuple[str, str], list[Row]]:
    """Return the rows of terminals in `entity-updates`, by what is kept of them and by terminal."""
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for target in range(log.partitions["entity-updates"]):
        read = log.read("entity-updates", target, 0, 10**9)
        for offset, value in zip(read.offsets, read.values, strict=True):
            batch = read_batch(value or b"", "entity-updates")
            state = stamps_of(batch)["state_hash"]
            for row in batch.to_pylist():
                if row["entity"] == "terminal":
                    one = Row(target, offset, row["time_ms"], row["source"])
                    found[state, row["id"]].append(one)
    return found


def _records(log: MemoryLog, p: int) -> list[Record]:
    values = log.read("journal", p, 0, 10**9).values
    batches = [read_batch(value or b"", "journal") for value in values]
    return [Record(one.column("source_offset").to_pylist(), stamps_of(one)) for one in batches]


def _wrong_models(
    log: MemoryLog, rows: list[tuple[str, dict[str, Any]]], examples: Counter[tuple[str, int]]
) -> Iterator[Wrong]:
    """I5, I7: each example once in the training log; River taught by it gives every score, and the
    threshold every decision.

    Every feature spec has a model of its own, which its own examples teach.
    """
    training = log.read("training", 0, 0, 10**9)
    taught: Counter[tuple[str, int]] = Counter()
    models: dict[str, Any] = defaultdict(_new_model)
    by_version: dict[int, list[tuple[str, dict[str, Any]]]] = {}
    for spec, row in rows:
        if row["outcome"] == "scored":
            by_version.setdefault(row["model_version"], []).append((spec, row))
    yield from _wrong_scores(models, by_version.pop(0, []))
    for offset, value in zip(training.offsets, training.values, strict=True):
        stamps, e = read_examples(value or b"", "training")
        spec = stamps["spec_hash"]
        for id_, x, y in zip(e.event_ids, e.X.tolist(), e.y.tolist(), strict=True):
            taught[id_, y] += 1
            models[spec].learn_one(_named(spec, x), bool(y))
        yield from _wrong_scores(models, by_version.pop(offset + 1, []))
    yield from (("I5: a version that never was", version) for version in sorted(by_version))
    yield from (("I7: missing", *one) for one in (examples - taught).elements())
    yield from (("I7: too much", *one) for one in (taught - examples).elements())


def _new_model() -> Any:
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


def _wrong_scores(
    models: dict[str, Any], rows: list[tuple[str, dict[str, Any]]]
) -> Iterator[Wrong]:
    for spec, row in rows:
        score = models[spec].predict_proba_one(_named(spec, row["x"]))[True]
        decided = score, score, THRESHOLD, "alert" if score >= THRESHOLD else "pass"
        found = row["raw_fraud"], row["score"], row["threshold"], row["decision"]
        if found != decided:
            yield "I5 score", row["event_id"], found, decided


def _named(spec: str, x: list[float]) -> dict[str, float]:
    return dict(zip(names_of(spec), x, strict=True))


def _check_store(done: Schedule) -> None:
    """I4, I6, I14: what is stored is what one undisturbed worker stores; R is not beyond C."""
    found, expected = _blobs(done.server.held), _blobs(done.undisturbed())
    assert found == expected, (
        "I4", sorted(key for key in found.keys() | expected.keys()
                     if found.get(key) != expected.get(key)),
    )  # fmt: skip
    for space, held in done.server.held._spaces.items():
        p = int(space.rpartition("-" if "updates-" in space else ".")[2])
        topic = "entity-updates" if "updates-" in space else "transactions"
        assert held.meta is not None
        assert held.meta.events_offset <= done.log.end(topic, p), ("I6", space)


def _blobs(store: MemoryStore) -> dict[tuple[str, str], bytes]:
    """Return the states of entities by space and key."""
    return {
        (space, key): value
        for space, held in store._spaces.items()
        for key, value in held.values.items()
        if key.startswith(("card", "terminal"))
    }
