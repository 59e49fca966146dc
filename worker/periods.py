"""Metrics by period of event time: what alerts and ranks were worth, week after week.

Every labelled event is judged by the score that it was served with, so these are prequential
figures; see `worker.models.prequential`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from worker.contracts.decisions import ALERTS
from worker.contracts.records import Bool, Float64, Int64
from worker.contracts.text import aligned, shown
from worker.metrics import average_precision, brier, calibration_error, roc_auc
from worker.models.days import DAY_MS, Delays, Judged
from worker.models.prequential import OF_PROBABILITIES, log_losses


@dataclass(frozen=True, slots=True)
class Period:
    """Figures of the events of one period; those of labels are over its labelled events.

    ``precision``, ``recall`` and ``f1`` are those of alerts. ``precision_at_k``: a day's k highest
    scores, the share of frauds among them, mean over days. ``entity_precision_at_k``: the same of a
    day's entities, each by its highest score and a fraud if one of its events was. Days are UTC; of
    a day with fewer than k all are taken. ``alert_delay_s``: from an entity's first fraud of the
    period to the first of them that alerted, mean over the entities that did. None where nothing is
    there to divide by.
    """

    start: str
    events: int
    alerts: int
    labelled: int
    positives: int
    roc_auc: float | None
    average_precision: float | None
    log_loss: float | None
    brier: float | None
    calibration_error: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    precision_at_k: float | None
    entity_precision_at_k: float | None
    alert_delay_s: float | None


def by_period(
    scores: pa.Table, event_ids: list[str], y: Int64, days: int, k: int
) -> list[dict[str, object]]:
    """Return the figures of each period that has an event, in order of time.

    Parameters
    ----------
    scores
        Scored events: ``event_id``, ``event_time``, ``entity``, ``score``, ``decision``.
    event_ids, y
        Labels, 1 or 0, in the order they came: the last one of an event holds.
    days
        Length of a period; the first one begins at midnight (UTC) of the first event's day.

    Examples
    --------
    >>> scores = pa.table({
    ...     "event_id": ["a", "b", "c"], "event_time": [0, 3_600_000, 86_400_000 * 8],
    ...     "entity": ["x", "y", "x"], "score": [0.9, 0.2, 0.5],
    ...     "decision": ["alert", "pass", "pass"],
    ... })
    >>> first, second = by_period(scores, ["a", "b"], np.array([1, 0]), days=7, k=1)
    >>> first["start"], first["alerts"], first["average_precision"], first["precision_at_k"]
    ('1970-01-01', 1, 1.0, 1.0)
    >>> second["start"], second["events"], second["labelled"], second["roc_auc"]
    ('1970-01-08', 1, 0, None)
    """
    day = scores["event_time"].cast(pa.int64()).to_numpy() // DAY_MS
    order = np.argsort(day, kind="stable")
    scores, day = scores.take(order), day[order]
    truth = _truth(scores["event_id"], event_ids, y)
    alert = pc.is_in(scores["decision"], pa.array(ALERTS)).to_numpy()
    entity = scores["entity"].combine_chunks().dictionary_encode().indices.to_numpy()
    score = scores["score"].to_numpy()
    time_ms = scores["event_time"].cast(pa.int64()).to_numpy()
    period = (day - day[:1]) // days
    cuts = [*np.flatnonzero(np.diff(period, prepend=-1)).tolist(), len(day)]
    found = []
    for start, stop in pairwise(cuts):
        part = slice(start, stop)
        first = int(day[0] + period[start] * days)
        rows = _Rows(day[part], time_ms[part], truth[part], alert[part], entity[part], score[part])
        found.append(asdict(_figures(str(np.datetime64(first, "D")), rows, days, k)))
    return found


def table_of(periods: list[dict[str, object]], k: int) -> str:
    """Return periods as aligned text with a line of headings."""
    names = [field.name for field in fields(Period) if field.name not in OF_PROBABILITIES]
    heads = [name.replace("_at_k", f"@{k}").replace("_", " ") for name in names]
    return aligned([heads, *([shown(one[name]) for name in names] for one in periods)], right=True)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Events of one period as columns; ``truth`` is -1 where nothing is known."""

    day: Int64
    time_ms: Int64
    truth: Int64
    alert: Bool
    entity: Int64
    score: Float64

    def of(self, which: Bool) -> _Rows:
        return _Rows(*(getattr(self, field.name)[which] for field in fields(self)))


def _truth(ids: pa.ChunkedArray, event_ids: list[str], y: Int64) -> Int64:
    """Return 1, 0 or -1 of each event."""
    if not event_ids:
        return np.full(len(ids), -1)
    newest_first = pa.array(event_ids[::-1], pa.utf8())  # the first match is taken
    place = pc.fill_null(pc.index_in(ids, newest_first), -1).to_numpy()
    return np.where(place < 0, -1, y[::-1][place])


def _figures(start: str, rows: _Rows, days: int, k: int) -> Period:
    known = rows.of(rows.truth >= 0)
    y, score = known.truth, known.score
    delays = Delays(days)
    delays.add(Judged(y, score, known.alert, known.time_ms, known.entity))
    frauds, alerts, hits = int(y.sum()), int(known.alert.sum()), int(y[known.alert].sum())
    return Period(
        start, len(rows.day), int(rows.alert.sum()), len(known.day), frauds,
        roc_auc(y, score), average_precision(y, score),
        float(log_losses(score, y).mean()) if len(y) else None, brier(y, score),
        calibration_error(y, score),
        _share(hits, alerts), _share(hits, frauds), _share(2 * hits, alerts + frauds),
        _precision_at(known.day, score, y, k), _precision_at(*_entities(known), k),
        delays.mean_s(recent=False),
    )  # fmt: skip


def _share(count: int, of: int) -> float | None:
    return count / of if of else None


def _entities(rows: _Rows) -> tuple[Int64, Float64, Int64]:
    """Return day, highest score and whether there was a fraud, of each entity and day."""
    order = np.lexsort((rows.entity, rows.day))
    day, entity = rows.day[order], rows.entity[order]
    is_new = (np.diff(day, prepend=-1) != 0) | (np.diff(entity, prepend=-1) != 0)
    first = np.flatnonzero(is_new)
    if not len(first):
        return day, rows.score, rows.truth
    score = np.maximum.reduceat(rows.score[order], first)
    return day[first], score, np.maximum.reduceat(rows.truth[order], first)


def _precision_at(day: Int64, score: Float64, truth: Int64, k: int) -> float | None:
    """Return the mean over days of the share of frauds among the day's k highest scores."""
    order = np.lexsort((-score, day))  # stable: of equal scores the earlier
    first = np.flatnonzero(np.diff(day[order], prepend=-1))
    cuts = [*first.tolist(), len(day)]
    shares = [truth[order[start : min(stop, start + k)]].mean() for start, stop in pairwise(cuts)]
    return float(np.mean(shares)) if shares else None
