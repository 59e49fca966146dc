"""What is kept of an event until its label comes: recorded values, ids and x, and its truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from worker.contracts.records import (
    MISSING,
    Bool,
    Events,
    Float64,
    Int64,
    LabelUpdates,
    Served,
    UInt64,
    unserved,
)
from worker.features.expressions import Expression
from worker.features.index import Index

_INDEX = Index(bytes(16))  # only hashes by it, the same everywhere
_MICRO = 1e6  # recorded scores are fixed point, as everything that is folded


@dataclass(frozen=True, slots=True)
class Layout:
    """What an event records: ``models`` have raw scores; the rest is what label features ask for.

    ``spec_hash`` names the features of x; ``entities``, ``fields`` and ``scores`` are those of
    `worker.features.spec.FeatureSpec`, and so are ``filters``, which say of some fields that they
    are the outcome of a condition. ``primary`` is the entity that alerts are about, empty where no
    labels come.
    """

    spec_hash: str
    features: int
    models: tuple[str, ...]
    entities: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()
    filters: Mapping[str, Expression] = field(default_factory=dict)
    primary: str = ""


class Truth(msgspec.Struct, frozen=True, gc=False):
    """What is known of one event: ``learn_weight`` is 0.0 where it only counts in measures."""

    y: int
    weight: float
    learn_weight: float


UNKNOWN = Truth(-1, 0.0, 0.0)
"""What is known of an event at first."""
Truths = NDArray[np.void]
"""Columns of `Truth`."""
_TRUTH = np.dtype([("y", "<i8"), ("weight", "<f8"), ("learn_weight", "<f8")])


def truths_of(truths: Sequence[Truth]) -> Truths:
    """Return these as columns."""
    return np.array([(one.y, one.weight, one.learn_weight) for one in truths], _TRUTH)


def no_truths(count: int) -> Truths:
    """Return ``count`` times `UNKNOWN`."""
    return np.full(count, truths_of([UNKNOWN])[0], _TRUTH)


@dataclass(slots=True)
class Scored:
    """Events of a batch that were scored, in order: columns of length n, X of shape (n, f).

    ``rows`` are their places among all valid events of the batch; ``raw`` and ``calibrated`` have
    shape (n, models).
    """

    rows: NDArray[np.intp]
    ids: list[str]
    id_hash: UInt64
    time_ms: Int64
    entity_ids: dict[str, list[str]]
    fields: Int64
    X: Float64
    score: Float64
    raw: Float64
    calibrated: Float64
    served: Served

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.ids)


def scored_events(layout: Layout, events: Events, rows: NDArray[np.intp], X: Float64) -> Scored:
    """Return what is known of the events at ``rows`` before they are scored; scores are NaN."""
    n, all_ = len(rows), len(rows) == len(events)
    places = () if all_ else rows.tolist()

    def taken(names: list[str]) -> list[str]:
        return names if all_ else [names[i] for i in places]

    fields = np.empty((n, len(layout.fields)), np.int64)
    raw = np.full((n, len(layout.models)), np.nan)
    for f, name in enumerate(layout.fields):
        passes = layout.filters.get(name)
        column = np.asarray(events.columns[name]) if passes is None else passes.mask(events)
        fields[:, f] = column[rows]
    served = unserved(n, len(layout.models))
    if layout.primary:
        served["entity"] = _INDEX.hashes(taken(events.entity_ids[layout.primary]))[:, 0]
    return Scored(
        rows, taken(events.ids), events.id_hash[rows], events.time_ms[rows],
        {name: taken(events.entity_ids[name]) for name in layout.entities},
        fields, X, np.full(n, np.nan), raw, raw, served,
    )  # fmt: skip


@dataclass(slots=True)
class Waiting:
    """Events that waited, as columns of length m; ``same_features`` says whose x may teach.

    ``raw`` is NaN where the event was scored by other models, ``X`` zero where its features are
    others.
    """

    id_hash: UInt64
    time_ms: Int64
    entity_ids: dict[str, list[str]]
    fields: Int64
    X: Float64
    raw: Float64
    served: Served
    same_features: Bool

    @property
    def score(self) -> Float64:
        """Return the scores that decided."""
        return self.served["score"]


def label_updates(
    layout: Layout,
    waiting: Waiting,
    event_ids: list[str],
    before: Int64,
    truth: Truths,
    earlier: Truths,
) -> LabelUpdates:
    """Return updates of label features: what is known now, and what was before."""
    values = {name: waiting.fields[:, i] for i, name in enumerate(layout.fields)}
    for name in layout.scores:
        score = waiting.score
        if name.startswith("raw_"):
            score = waiting.raw[:, layout.models.index(name.removeprefix("raw_"))]
        known = np.isfinite(score)
        fixed = np.rint(np.where(known, score, 0.0) * _MICRO).astype(np.int64)
        values[name] = np.where(known, fixed, MISSING)
    return LabelUpdates(
        before, event_ids, waiting.id_hash, waiting.time_ms, waiting.entity_ids, truth["y"],
        earlier["y"], truth["weight"], earlier["weight"], values,
    )  # fmt: skip
