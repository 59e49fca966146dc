"""What labels do, told item by item: the slow form of the join, written from its documentation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

PER_EVENT_MAX = 8


@dataclass(frozen=True)
class Event:
    """An event of the merged stream; ``is_scored`` is False for a duplicate."""

    id: str
    card: str
    time_ms: int
    amount: int
    is_scored: bool = True
    terminal: str = "t"


@dataclass(frozen=True)
class Truth:
    """A label of the merged stream."""

    id: str
    y: int
    time_ms: int
    weight: float = 1.0
    source: str = ""


@dataclass
class Oracle:
    """The state of the walk; ``examples`` and ``updates`` are what it says, in order."""

    horizon_ms: int
    pending_max: int = 10**9
    mode: str = "explicit"
    maturity_ms: int = 0
    sampled: Any = None
    rate: float = 1.0
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    now_ms: int = -1
    seen: int = 0
    scored: int = 0
    waiting: dict[str, dict[str, Any]] = field(default_factory=dict)
    early: OrderedDict[str, Truth] = field(default_factory=OrderedDict)
    queue: list[dict[str, Any]] = field(default_factory=list)
    examples: list[tuple[Any, ...]] = field(default_factory=list)
    updates: list[tuple[Any, ...]] = field(default_factory=list)
    fates: list[str] = field(default_factory=list)

    def run(self, stream: Sequence[Event | Truth]) -> Oracle:
        for item in stream:
            if isinstance(item, Event):
                self.event(item)
            else:
                self.label(item)
        return self

    def event(self, event: Event) -> None:
        self.now_ms = max(self.now_ms, event.time_ms)
        self.mature()
        number, self.seen = self.seen, self.seen + 1
        if not event.is_scored:
            return
        self.scored += 1
        entry = {
            "event": event, "came_ms": self.now_ms, "number": number, "known": None,
        }  # fmt: skip
        self.waiting[event.id] = entry
        label = self.early.pop(event.id, None)
        if label is not None and self.now_ms - label.time_ms > self.horizon_ms:
            self.fates.append("unknown")
        elif label is not None:
            self.judge(label, entry)
        nobody_said = entry["known"] is None
        if self.mode == "positives_only" and nobody_said and self.sampled(event.id):
            self.queue.append(entry)

    def label(self, label: Truth) -> None:
        entry = self.found(label.id)
        if entry is not None:
            self.judge(label, entry)
            return
        while self.early and self.now_ms - next(iter(self.early.values())).time_ms > (
            self.horizon_ms
        ):
            self.early.popitem(last=False)
            self.fates.append("unknown")
        self.early.pop(label.id, None)
        self.early[label.id] = label
        self.fates.append("early")

    def found(self, event_id: str) -> dict[str, Any] | None:
        entry = self.waiting.get(event_id)
        if entry is None or self.seen - entry["number"] > self.pending_max:
            return None
        is_old = self.now_ms - entry["came_ms"] > self.horizon_ms + self.horizon_ms // 8
        return None if is_old else entry

    def judge(self, label: Truth, entry: dict[str, Any]) -> None:
        if label.time_ms - entry["event"].time_ms > self.horizon_ms:
            self.fates.append("expired")
            return
        source = self.sources.get(label.source, self.sources.get("default", {}))
        weight = min(label.weight * source.get("weight", 1.0), source.get("weight_max", 1e6))
        learns = self.mode != "none" and source.get("learn", True)
        self.know(entry, (label.y, weight, weight if learns else 0.0), None)

    def mature(self) -> None:
        taken = 0
        while self.queue and taken < PER_EVENT_MAX:
            entry = self.queue[0]
            if self.seen - entry["number"] > self.pending_max:
                self.queue.pop(0)
                continue
            if entry["came_ms"] + self.maturity_ms > self.now_ms:
                return
            self.queue.pop(0)
            taken += 1
            is_there = self.waiting.get(entry["event"].id) is entry
            if is_there and entry["known"] is None:
                self.know(entry, (0, 1 / self.rate, 1 / self.rate), "matured")

    def know(self, entry: dict[str, Any], said: tuple[int, float, float], fate: str | None) -> None:
        known, event = entry["known"], entry["event"]
        if said == known:
            self.fates.append("repeated")
            return
        entry["known"] = said
        self.fates.append(fate or ("matched" if known is None else "revised"))
        self.examples.append((event.id, said[0], said[2], self.scored, event.amount))
        if known is None or known[:2] != said[:2]:
            before = (-1, 0.0) if known is None else known[:2]
            self.updates.append(
                (event.id, self.seen, said[0], before[0], said[1], before[1],
                 event.card, event.time_ms, event.amount, entry["number"])
            )  # fmt: skip
