"""Figures by day and by entity, of labels that come in any order: bounded, and exact within bounds.

What is kept depends on the examples and their order alone, never on how they are cut into batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worker.contracts.records import Bool, Float64, Int64
from worker.models.plain import State

DAY_MS = 86_400_000
RECENT_DAYS = 7
FRAUDS_MAX = 10_000
"""Entities with a fraud that are known of one day, and of which the delay is known at all."""


@dataclass(slots=True)
class Judged:
    """Labelled examples as one score sees them, in the order of learning; columns of length m.

    ``y`` is 0 or 1; ``reached`` says whether the score reached the threshold in force then, or
    whether there was an alert; ``entity`` is a hash.
    """

    y: Int64
    score: Float64
    reached: Bool
    time_ms: Int64
    entity: Int64

    def __len__(self) -> int:
        return len(self.y)

    def of(self, which: Bool | slice) -> Judged:
        """Return some of them."""
        return Judged(
            self.y[which], self.score[which], self.reached[which], self.time_ms[which],
            self.entity[which],
        )  # fmt: skip


class _Day:
    """The k highest scores of a day, the k entities with the highest ones, and who had a fraud."""

    def __init__(self, k: int) -> None:
        self._k = k
        self.columns: dict[str, Float64 | Int64] = {
            "score": np.empty(0),
            "y": np.empty(0, np.int64),
            "best": np.empty(0),
            "entity": np.empty(0, np.int64),
            "frauds": np.empty(0, np.int64),
        }

    def add(self, part: Judged) -> None:
        c, k = self.columns, self._k
        frauds = part.entity[part.y == 1]
        if len(frauds):  # beyond the bound those with the highest hashes are not known
            c["frauds"] = np.union1d(c["frauds"], frauds)[:FRAUDS_MAX]
        if len(c["best"]) == k:  # most cannot be among the highest
            part = part.of(part.score >= c["best"][-1])
        score = np.concatenate([c["score"], part.score])
        order = np.argsort(-score, kind="stable")[:k]  # of equal scores the earlier
        c["score"], c["y"] = score[order], np.concatenate([c["y"], part.y])[order]
        entity = np.concatenate([c["entity"], part.entity])
        score = np.concatenate([c["best"], part.score])
        order = np.lexsort((entity, -score))
        first = np.sort(np.unique(entity[order], return_index=True)[1])[:k]
        c["best"], c["entity"] = score[order][first], entity[order][first]

    def precisions(self) -> tuple[float, float]:
        """Return the share of frauds among the highest scores, and among the entities."""
        c = self.columns
        return float(c["y"].mean()), float(np.isin(c["entity"], c["frauds"]).mean())


class Days:
    """Precision at k a day, of scores and of entities.

    An entity has its highest score of the day, and is a fraud if one of its events was. Of a day
    with fewer than k all are taken. A label that comes when a day so many ``days`` later was seen
    is left out.
    """

    def __init__(self, k: int, days: int) -> None:
        self._k, self._days = k, days
        self._open: dict[int, _Day] = {}
        self._newest = -1
        self._closed = np.zeros(3)  # sums of both precisions, number of days

    def add(self, part: Judged) -> None:
        """Take examples."""
        if not len(part):
            return
        day = part.time_ms // DAY_MS
        newest = np.maximum.accumulate(np.maximum(day, self._newest))
        known = day > newest - self._days
        self._newest = int(newest[-1])
        for one in np.unique(day[known]).tolist():
            if one not in self._open:
                self._open[one] = _Day(self._k)
            self._open[one].add(part.of(known & (day == one)))
        for one in sorted(d for d in self._open if d <= self._newest - self._days):
            self._closed += (*self._open.pop(one).precisions(), 1.0)

    def precisions(self, *, recent: bool) -> tuple[float | None, float | None]:
        """Return the means over the days of which labels are known, or the last seven of them."""
        first = self._newest - RECENT_DAYS
        some = [self._open[d].precisions() for d in sorted(self._open) if not recent or d > first]
        sums = np.zeros(3) if recent else self._closed.copy()
        for one in some:
            sums += (*one, 1.0)
        if not sums[2]:
            return None, None
        return float(sums[0] / sums[2]), float(sums[1] / sums[2])

    def to_state(self) -> State:
        """Return everything as plain values."""
        days = [
            {"day": day, **{n: c.copy() for n, c in self._open[day].columns.items()}}
            for day in sorted(self._open)
        ]
        return {"days": days, "newest": self._newest, "closed": self._closed.copy()}

    def restore(self, state: State) -> None:
        """Take what `to_state` gave."""
        self._newest, self._closed = state["newest"], state["closed"]
        self._open = {}
        for columns in state["days"]:
            day = self._open[columns["day"]] = _Day(self._k)
            day.columns = {name: columns[name] for name in day.columns}


class Delays:
    """From an entity's first fraud to the first of its frauds that was found, by event time.

    Frauds of an entity are one case while they lie less than ``days`` apart. Only the last
    `FRAUDS_MAX` cases grow; what was found counts, what never was has no delay.
    """

    def __init__(self, days: int) -> None:
        self._gap_ms = days * DAY_MS
        self._cases: dict[int, list[int]] = {}  # first fraud, last one, first found (-1: none)
        self._newest_ms = -1
        self._closed = [0, 0]  # sum of delays, number of cases that were found

    def add(self, part: Judged) -> None:
        """Take examples; only frauds matter."""
        if len(part):
            self._newest_ms = max(self._newest_ms, int(part.time_ms.max()))
        frauds = part.of(part.y == 1)
        columns = (c.tolist() for c in (frauds.entity, frauds.time_ms, frauds.reached))
        for entity, time_ms, is_found in zip(*columns, strict=True):
            case = self._cases.get(entity)
            if case is not None and case[0] - time_ms > self._gap_ms:
                continue  # of a case before this one
            if case is not None and time_ms - case[1] > self._gap_ms:
                self._close(entity)
                case = None
            if case is None:
                case = self._cases[entity] = [time_ms, time_ms, -1]
                if len(self._cases) > FRAUDS_MAX:
                    self._close(next(iter(self._cases)))
            case[0], case[1] = min(case[0], time_ms), max(case[1], time_ms)
            if is_found:
                case[2] = time_ms if case[2] < 0 else min(case[2], time_ms)

    def mean_s(self, *, recent: bool) -> float | None:
        """Return the mean delay of the cases that were found, or of those of the last 7 days."""
        first_ms = self._newest_ms - RECENT_DAYS * DAY_MS if recent else -1
        found = [c[2] - c[0] for c in self._cases.values() if c[2] >= 0 and c[0] > first_ms]
        total, count = (0, 0) if recent else self._closed
        total, count = total + sum(found), count + len(found)
        return total / count / 1000 if count else None

    def to_state(self) -> State:
        """Return everything as plain values."""
        cases = np.array([[e, *c] for e, c in self._cases.items()], np.int64).reshape(-1, 4)
        return {"cases": cases, "newest_ms": self._newest_ms, "closed": list(self._closed)}

    def restore(self, state: State) -> None:
        """Take what `to_state` gave."""
        self._cases = {entity: case for entity, *case in state["cases"].tolist()}
        self._newest_ms, self._closed = state["newest_ms"], list(state["closed"])

    def _close(self, entity: int) -> None:
        first_ms, _, found_ms = self._cases.pop(entity)
        if found_ms >= 0:
            self._closed[0] += found_ms - first_ms
            self._closed[1] += 1
