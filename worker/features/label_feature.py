"""Features of what became known about an entity's events, and the columns its L-part records."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from worker.contracts.records import MISSING, Bool, Int64, LabelUpdates
from worker.features.aggregations import Field, Options, Source
from worker.features.aggregations.labels import LabelAggregation
from worker.features.feature import Feature, history_feature

SCORE_UNITS = 1_000_000
"""Recorded scores are integers: a millionth is one."""

GENUINE_VALUE = "genuine value"
"""Kind of a column that is a field of genuine events; others lack it."""

TRUTH = Source("fraud")
"""The column that is 1 for a fraud and 0 for a genuine event. Every L-part has it."""


def label_feature(
    entity: str, kind: type[LabelAggregation], options: Options, resolution: float | None = None
) -> Feature:
    """Return a label aggregate; ``resolution`` is the unit of its weight.

    >>> from worker.features.aggregations.labels import LABEL_AGGREGATIONS
    >>> frauds, day = LABEL_AGGREGATIONS["frauds"], 86_400_000
    >>> feature = label_feature("card", frauds, Options(window_ms=day, weight="1 - score"), 1e-6)
    >>> feature.name
    'card_frauds_by_1_less_score_1d'
    >>> feature.words
    'known frauds of this card, each by 1 - score, in 1 d'
    """
    weight = options.weight
    slug = "by_" + weight.replace("1 - ", "1_less_").replace("$", "")
    fields = [Field(slug, "decimal")] if weight else []
    feature = history_feature(entity, kind, fields, options, resolution)
    words = feature.words.replace(f" {slug}", f", each by {weight.replace('$', '')},")
    truth, where = "genuine" if kind.truth == "genuine" else "fraud", options.where
    source = Source(truth, weight, where, optional=bool(where))
    return replace(feature, field=None, words=words.replace("  ", " "), sources=(source,))


def recorded(source: Source, updates: LabelUpdates, y: Int64) -> Int64:
    """Return the values of a recorded column of the L-part under the truths ``y``, shape (m,).

    A weight that an event does not have counts 0. What a condition leaves out is `MISSING`.
    """
    if source.where:
        of_all = recorded(replace(source, where=""), updates, y)
        passing: Int64 = np.where(updates.values[source.where] == 1, of_all, MISSING)
        return passing
    if source.kind == GENUINE_VALUE:
        found: Int64 = np.where(y == 0, updates.values[source.field], MISSING)
        return found
    chosen: Bool = np.equal(y, int(source.kind == "fraud"))
    if not source.field:
        return chosen.astype(np.int64)
    name = source.field.removeprefix("1 - ").removeprefix("$")
    values = updates.values[name]
    weight = SCORE_UNITS - values if source.field.startswith("1 - ") else values
    counted: Int64 = np.where(chosen & (values != MISSING), weight, np.int64(0))
    return counted
