"""Features such as ``risk: target_mean($channel)``, from the ``features`` section."""

from __future__ import annotations

from dataclasses import replace

from worker.contracts.target_means import (
    EXPECTED,
    TYPES,
    WINDOW_MS,
    entity_of_target,
    parse_target_mean,
)
from worker.features.aggregations import Options
from worker.features.aggregations.labels import LABEL_AGGREGATIONS
from worker.features.declared import Declared, Path
from worker.features.feature import Feature
from worker.features.label_feature import label_feature


def target_means(declared: Declared, path: Path, name: str, text: str) -> list[Feature]:
    """Return the feature of one entry; none where there are problems."""
    before = len(declared.problems)
    target = parse_target_mean(text)
    if target is None:
        declared.problem(path, EXPECTED, text)
        return []
    field = declared.field(path, target.field, "$")
    if declared.labels is None:
        hint = "labels: {} takes them from the topic labels"
        declared.problem(path, "a labels section: where truths come from", text, hint)
    if target.prior > 1.0 or target.strength > 1e9:
        declared.problem(path, "a prior from 0 to 1, a strength of at most 1e9", text)
    if field is not None and field.type not in TYPES:
        expected = "a field of type " + ", ".join(TYPES)
        declared.problem(path, expected, f"${target.field} of type {field.type}")
    elif field is not None:
        declared.is_complete(target.field, field)
    if len(declared.problems) > before:
        return []
    entity = entity_of_target(target, {n: e.key for n, e in declared.entities.items()})
    if declared.entities[entity].key != target.field:
        declared.problem(path, f"no other entity named {entity}", text, "rename that entity")
        return []
    options = Options(
        window_ms=WINDOW_MS, include_current=False, prior=target.prior, strength=target.strength
    )
    feature = label_feature(entity, LABEL_AGGREGATIONS["fraud_rate"], options)
    words = f"share of known frauds among earlier events of this {target.field} in 90 d, smoothed"
    return [replace(feature, name=name, words=words)]
