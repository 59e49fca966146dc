"""A small world for tests of decisions: scored events, and what plain loops decide of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests import worlds
from worker.contracts.decisions import DECISIONS
from worker.contracts.records import Events
from worker.decisions import Decided, Decider, Scores

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
NAMES = ("amount", "known")

EVERYTHING: dict[str, Any] = {
    "threshold": 0.5,
    "block": [{"field": "terminal", "values": ["t3"]}],
    "allow": [{"field": "card", "values": ["c4"]}],
    "evidence": {"feature": "known", "at_least": 2, "threshold": 0.95},
    "suppress": {"entity": "card", "within": "1h"},
    "incidents": {"entity": "card", "quiet": "2h"},
}


def decider(**decision: Any) -> Decider:
    return Decider(worlds.settings(decision={"model": "fraud", **decision}), NAMES)


def words(decided: Decided) -> list[str]:
    return [str(DECISIONS[code]) for code in decided.code]


@dataclass
class Stream:
    """Events with their scores and how much is known of their card."""

    score: np.ndarray
    time_ms: np.ndarray
    card: list[str]
    terminal: list[str]
    known: np.ndarray

    def scores(self, start: int = 0, stop: int | None = None) -> Scores:
        part = slice(start, stop)
        n = len(self.score[part])
        offsets = np.arange(len(self.score))[part]
        ids = [f"e{i}" for i in offsets]
        entities = {"card": self.card[part], "terminal": self.terminal[part]}
        columns: dict[str, Any] = {"amount": (self.known[part] * 100).astype(np.int64)}
        columns |= {"card": self.card[part], "terminal": self.terminal[part]}
        events = Events(
            np.arange(n), offsets, self.time_ms[part], ids, np.zeros(n, np.uint64), entities,
            columns,
        )  # fmt: skip
        X = np.stack([np.zeros(n), self.known[part]], axis=1)
        return Scores(events, np.arange(n), self.score[part], X, "t-0")


def of(score: Any, **columns: Any) -> Stream:
    score = np.asarray(score, float)
    n = len(score)
    return Stream(
        score,
        np.asarray(columns.get("time_ms", np.arange(n) * 60_000), np.int64),
        columns.get("card", ["c"] * n),
        columns.get("terminal", ["t"] * n),
        np.asarray(columns.get("known", np.full(n, 99.0)), float),
    )


def mixed(seed: int, n: int, late_ms_max: int = 0) -> Stream:
    """Return events of five cards; one in twenty comes so much later than the others may."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(0, 20 * 60_000, n)
    time_ms = np.cumsum(steps) - rng.integers(0, 40 * 60_000, n)
    score, cards, terminals = rng.random(n), rng.integers(0, 5, n), rng.integers(0, 8, n)
    known = rng.integers(0, 9, n).astype(float)
    time_ms -= (rng.random(n) < 0.05) * rng.integers(0, late_ms_max + 1, n)
    return Stream(
        score, np.maximum(time_ms, 0), [f"c{i}" for i in cards], [f"t{i}" for i in terminals], known
    )


@dataclass
class Naive:
    """All of it at once by plain loops over all that happened before; threshold 0.5."""

    quiet_ms: int
    past: list[tuple[int, str, str, float, str]] = field(default_factory=list)

    def decide(self, time_ms: int, card: str, terminal: str, score: float, known: float) -> str:
        word = self._word(time_ms, card, terminal, score, known)
        self.past.append((time_ms, card, terminal, score, word))
        return word

    def _word(self, time_ms: int, card: str, terminal: str, score: float, known: float) -> str:
        blocked = terminal == "t3"
        if score < 0.5 and not blocked:
            return "pass"
        if card == "c4" and not blocked:
            return "allowed"
        if known < 2 and score < 0.95 and not blocked:
            return "cold"
        alerts = [p for p in self.past if p[4] in ("alert", "blocked")]
        mine = [p for p in alerts if p[1] == card]
        if mine and time_ms <= mine[-1][0] + HOUR_MS:
            return "suppressed"
        return "blocked" if blocked else "alert"

    def incident(self) -> list[tuple[int, int]]:
        """Return per alert, and per suppressed event that belongs to an incident, its index and the
        index of the alert that opened the incident.
        """
        found: list[tuple[int, int]] = []
        for i, (_, card, _, _, word) in enumerate(self.past):
            if word not in ("alert", "blocked", "suppressed"):
                continue
            now_ms = max(p[0] for p in self.past[: i + 1])
            mine = [(k, o) for k, o in found if self.past[k][1] == card]
            last_ms = max((self.past[k][0] for k, o in mine if o == mine[-1][1]), default=-1)
            if mine and now_ms <= last_ms + self.quiet_ms:
                found.append((i, mine[-1][1]))
            elif word != "suppressed":
                found.append((i, i))
        return found
