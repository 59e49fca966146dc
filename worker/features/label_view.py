"""Label aggregates as the state of an entity's L-part sees them, beside the E-part of events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from worker.contracts.records import Float64, Int64
from worker.contracts.settings import EntitySettings
from worker.features.aggregations import AGGREGATIONS, Source
from worker.features.aggregations.labels import LABEL_AGGREGATIONS
from worker.features.entity import EntitySpec, Recorded, Window, entity_spec
from worker.features.feature import Feature, history_feature
from worker.features.label_feature import GENUINE_VALUE, TRUTH
from worker.features.label_plan import LabelPlan

LABELS_SUFFIX = "~labels"
"""Ends the name of an L-part: no entity type can have a name that ends so."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A column that is divided by another: (it + ``added``) / (``events`` + ``strength``)."""

    column: int
    events: int
    added: float
    strength: float

    def apply(self, X: Float64) -> None:
        """Divide in every row of X; 0 by 0 is 0."""
        below = X[:, self.events] + self.strength
        above = X[:, self.column] + self.added
        X[:, self.column] = np.divide(above, below, out=np.zeros(len(X)), where=below > 0.0)


def is_of_labels(feature: Feature) -> bool:
    """Return whether a feature reads what became known, not what happened."""
    return feature.aggregation in LABEL_AGGREGATIONS or is_over_genuine(feature)


def is_over_genuine(feature: Feature) -> bool:
    """Return whether a feature compares its event with those known to be genuine."""
    return feature.options.over == "genuine"


def event_view(features: Sequence[Feature]) -> tuple[Feature, ...]:
    """Return the features as the E-parts see them: without label aggregates, and after all others
    the number of events that each `fraud_rate` is divided by.
    """
    seen = [_hidden(f) if is_of_labels(f) else f for f in features]
    return (*seen, *[_count(f) for f in features if _truth(f) == "rate"])


def rates_of(features: Sequence[Feature]) -> tuple[Rate, ...]:
    """Return what makes rates of sums of frauds."""
    columns = [column for column, feature in enumerate(features) if _truth(feature) == "rate"]
    found = []
    for i, column in enumerate(columns):
        o = features[column].options
        found.append(Rate(column, len(features) + i, o.prior * o.strength, o.strength))
    return tuple(found)


def label_view(features: Sequence[Feature]) -> tuple[Feature, ...]:
    """Return the features as the L-parts see them: sums of recorded columns, in their places.

    A time of a fraud is the sum first: where it is 0 there is none to look for.
    """
    return tuple(_sum(f) if is_of_labels(f) else _hidden(f) for f in features)


def parts_of(
    entities: Mapping[str, EntitySettings], features: Sequence[Feature]
) -> tuple[EntitySpec, ...]:
    """Return the L-part of every entity type that has one."""
    view = label_view(features)
    of = [f.entity for f in features if is_of_labels(f)]
    runs = [f for f in features if _truth(f) == "run"]
    return tuple(_part(name, entity, view, runs) for name, entity in entities.items() if name in of)


def label_plan(part: EntitySpec, features: Sequence[Feature]) -> LabelPlan:
    """Return what is read of an L-part besides sums."""
    runs, times = [], []
    lengths = [tile_set.tile_ms for tile_set in part.tile_sets]
    for column, feature in enumerate(features):
        if feature.entity != entity_of(part) or feature.aggregation not in LABEL_AGGREGATIONS:
            continue
        kind = LABEL_AGGREGATIONS[feature.aggregation]
        if kind.truth == "run":
            runs.append((part.place(feature.sources[0]), kind.code, column))
        elif kind.truth in ("first", "last"):
            window = Window(True, feature.delay_ms, feature.window_ms or 0)
            tile_set = lengths.index(window.tile_ms)
            is_first = int(kind.truth == "first")
            size_ms, delay_ms = window.size_ms, window.delay_ms
            truth = part.place(feature.sources[0])
            times.append((truth, is_first, size_ms, delay_ms, tile_set, column))
    return LabelPlan(_matrix(sorted(runs), 3), _matrix(times, 6))


def empties(features: Sequence[Feature]) -> tuple[tuple[int, float], ...]:
    """Return the columns of what reads labels that are not 0 where nothing is known."""
    known = {**AGGREGATIONS, **LABEL_AGGREGATIONS}
    kinds = [(i, known[f.aggregation]) for i, f in enumerate(features) if is_of_labels(f)]
    return tuple((i, kind.empty) for i, kind in kinds if kind.empty)


def entity_of(part: EntitySpec) -> str:
    """Return the entity type that an L-part belongs to."""
    return part.name.removesuffix(LABELS_SUFFIX)


def weights_of(features: Sequence[Feature]) -> list[str]:
    """Return what is recorded with labels, each once: names of fields with a $, and of scores."""
    values = {f"${f.field}" for f in features if is_over_genuine(f)}
    weights = values | {f.options.weight.removeprefix("1 - ") for f in features if is_of_labels(f)}
    return sorted(weights - {""})


def conditions_of(features: Sequence[Feature]) -> list[str]:
    """Return the conditions whose outcome is recorded with labels, each once."""
    return sorted({f.options.where for f in features if is_of_labels(f)} - {""})


def _part(
    name: str, entity: EntitySettings, view: Sequence[Feature], runs: Sequence[Feature]
) -> EntitySpec:
    # As of a primary entity: its ring keeps ids, by which a revision finds its event.
    part = replace(entity_spec(name + LABELS_SUFFIX, entity, "", view), primary=True)
    wanted = {TRUTH, *[f.sources[0] for f in runs if f.entity == name]}
    rest = sorted(wanted - {column.source for column in part.recorded})
    only = [Recorded(s, tiled=False, squares=False, extremes=False, bits=False) for s in rest]
    return replace(part, recorded=(*part.recorded, *only))


def _hidden(feature: Feature) -> Feature:
    return replace(feature, entity=None, sources=())


def _sum(feature: Feature) -> Feature:
    if _truth(feature) == "run":
        return _hidden(feature)
    name = (feature.entity or "") + LABELS_SUFFIX
    options = replace(feature.options, include_current=True)
    if is_over_genuine(feature):
        source = Source(GENUINE_VALUE, feature.field or "", optional=True)
        return replace(feature, entity=name, options=options, sources=(source,))
    return replace(feature, aggregation="sum", entity=name, options=options)


def _truth(feature: Feature) -> str:
    kind = LABEL_AGGREGATIONS.get(feature.aggregation)
    return "" if kind is None else kind.truth


def _count(rate: Feature) -> Feature:
    options = replace(rate.options, weight="", prior=0.0, strength=0.0)
    return history_feature(rate.entity or "", AGGREGATIONS["count"], [], options)


def _matrix(rows: Iterable[tuple[int, ...]], width: int) -> Int64:
    return np.array(list(rows), np.int64).reshape(-1, width)
