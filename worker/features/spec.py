"""The compiled feature spec: what each column of X is, what each entity keeps, and their hash."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from hashlib import sha256

from worker.contracts.settings import Settings
from worker.errors import ConfigError
from worker.features.entity import EntitySpec, Window, entity_spec
from worker.features.expressions import Expression, parse
from worker.features.feature import Feature
from worker.features.grammar import Grammar
from worker.features.label_view import (
    Rate,
    conditions_of,
    entity_of,
    event_view,
    label_view,
    parts_of,
    rates_of,
    weights_of,
)
from worker.features.learned import numbers_of
from worker.features.series_features import series_features

FORMAT_VERSION = 2
"""Counts changes of meaning that no declaration shows: how features are folded or read."""

_STATE_VERSION = 5
"""Counts changes of how state is packed: what another version wrote is rebuilt from the log."""

_DAY_MS = 86_400_000


@dataclass(frozen=True)
class FeatureSpec:
    """All features in the order of X, and all entities. Made by `compile_features`.

    ``spec_hash`` names what X means, ``state_hash`` what is kept of entities and how: specs that
    share it read one state. It is in the names of spaces and in blobs.

    ``label_entities`` are the entity types with label features. Of each event that waits for its
    label the shard keeps their ids, the values of ``label_fields`` (fields held as int64, and 1 or
    0 for a condition of ``filters``) and ``label_scores``: ``score`` as served, ``raw_NAME`` of the
    model NAME. A `LabelUpdates` carries them under these names. ``filters`` are the conditions of
    `Source.where`, by their text.
    """

    features: tuple[Feature, ...]
    entities: tuple[EntitySpec, ...]
    spec_hash: str
    state_hash: str = ""
    label_entities: tuple[str, ...] = ()
    label_fields: tuple[str, ...] = ()
    label_scores: tuple[str, ...] = ()
    filters: Mapping[str, Expression] = field(default_factory=dict)
    label_parts: tuple[EntitySpec, ...] = ()

    @property
    def parts(self) -> tuple[EntitySpec, ...]:
        """Return all that is kept by id: of entity types what happened, then what became known."""
        return self.entities + self.label_parts

    @cached_property
    def event_view(self) -> tuple[Feature, ...]:
        """Return what `entities` read: columns of X, and after them those that only help others."""
        return event_view(self.features)

    @cached_property
    def label_view(self) -> tuple[Feature, ...]:
        """Return what `label_parts` read."""
        return label_view(self.features)

    @cached_property
    def rates(self) -> tuple[Rate, ...]:
        """Return the columns that are divided by others in the end."""
        return rates_of(self.features)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return the names of the columns of X."""
        return tuple(feature.name for feature in self.features)

    @cached_property
    def forget_ms(self) -> int:
        """Return the silence after which an entity starts anew: an event-time rule of the fold.

        No window reaches that far. Only `time_since_last` and the ids that tell duplicates would;
        the rule bounds what a store must keep.
        """
        reach_ms = max((w.reach_ms for e in self.parts for w in e.windows), default=0)
        since = any(f.aggregation.startswith("time_since") for f in self.features)
        return max(reach_ms, (365 if since else 30) * _DAY_MS)


def compile_features(settings: Settings) -> FeatureSpec:
    """Return the spec that a configuration declares.

    Raises
    ------
    ConfigError
        With a `Problem` for every mistake in the ``features`` section.
    """
    grammar = Grammar(settings)
    features = grammar.parse()
    if grammar.problems:
        raise ConfigError("features", grammar.problems)
    series, problems = series_features(settings, features)
    if problems:
        raise ConfigError("models", problems)
    features += series
    features = [_with_typical(settings, features, f) for f in features]
    seen = event_view(features)
    texts = sorted({s.where for f in features for s in f.sources if s.where})
    filters = {text: parse(text, grammar.schema) for text in texts}
    parts = parts_of(settings.entities, features)
    labelled = tuple(entity_of(part) for part in parts)
    entities = tuple(
        replace(entity_spec(name, one, settings.events.key, seen), labelled=name in labelled)
        for name, one in settings.entities.items()
    )
    weights = weights_of(features)
    spec = FeatureSpec(
        tuple(features),
        entities,
        _hash(settings, features, filters),
        label_entities=labelled,
        label_fields=(
            *[weight[1:] for weight in weights if weight.startswith("$")],
            *conditions_of(features),
        ),
        label_scores=tuple(weight for weight in weights if not weight.startswith("$")),
        label_parts=parts,
        filters=filters,
    )
    return replace(spec, state_hash=_state_hash(settings, spec))


def _with_typical(settings: Settings, features: list[Feature], own: Feature) -> Feature:
    """Return an own field's feature with the columns that tell its mean before the event.

    Undelayed means go first, then the primary entity's, then those without the event, then long
    ones. A mean that the event is part of serves where its window is counted too.
    """
    if own.aggregation != "value":
        return own
    means = []
    for i, f in enumerate(features):
        if f.aggregation == "mean" and f.field == own.field and not f.options.where:
            count = _count_of(settings, features, f)
            is_left_out = f.delay_ms > 0 or not f.include_current
            if is_left_out or count is not None:
                rank = f.delay_ms == 0, _is_primary(settings, f.entity), is_left_out
                means.append((*rank, f.window_ms or 0, -i, None if is_left_out else count))
    if not means:
        return own
    *_, place, count = max(means, key=lambda one: one[:-1])
    return replace(own, typical=-place, typical_count=count)


def _count_of(settings: Settings, features: list[Feature], mean: Feature) -> int | None:
    """Return the column that says how many values a mean is of; None where there is none."""
    if settings.events.fields[str(mean.field)].may_be_missing:
        return None
    same = (
        i
        for i, f in enumerate(features)
        if f.aggregation == "count" and (f.entity, f.options) == (mean.entity, mean.options)
    )
    return next(same, None)


def _is_primary(settings: Settings, entity: str | None) -> bool:
    return entity is not None and settings.entities[entity].key == settings.events.key


def _hash(settings: Settings, features: list[Feature], filters: Mapping[str, Expression]) -> str:
    """Return the SHA-256 of everything that decides what X is, spelled one way only."""
    used = {f.field for f in features if f.field is not None}
    used |= {source.field for f in features for source in f.sources if source.field}
    used |= {name for f in features if f.expression for name in f.expression.fields}
    used |= {name for condition in filters.values() for name in condition.fields}
    used |= {weight[1:] for weight in weights_of(features)}
    used &= settings.events.fields.keys()
    fields = settings.events.fields
    meaning = {
        "format": FORMAT_VERSION,
        "features": [_meaning(f) for f in features],
        "filters": [condition.meaning for condition in filters.values()],
        "entities": {n: {"key": e.key, "ring": e.ring} for n, e in settings.entities.items()},
        "fields": {
            n: fields[n].model_dump(include={"type", "resolution", "values"}) for n in sorted(used)
        },
        "time": settings.events.time.model_dump(),
        "id": settings.events.id,
        "key": settings.events.key,
    }
    return _digest(meaning)


_READ_ONLY = ("name", "shared", "optional", "columns", "windows", "labelled")
"""What an `EntitySpec` says of reading only; all else, also what it may get one day, is state."""


def _state_hash(settings: Settings, spec: FeatureSpec) -> str:
    """Return the SHA-256 of everything that decides what the fold keeps, spelled one way only."""
    kept = {e.name: (i, e) for i, e in enumerate(spec.parts) if e.kept}
    parts = [f.name for f in fields(EntitySpec) if f.name not in _READ_ONLY]
    declared = settings.events.fields
    sources = {r.source.field for _, e in kept.values() for r in e.recorded}
    sources |= {name for condition in spec.filters.values() for name in condition.fields}
    sources |= {*spec.label_fields}
    recorded = sorted(sources & declared.keys())
    meaning = {
        "format": _STATE_VERSION,
        "forget_ms": spec.forget_ms,
        "entities": {
            name: {"index": i, "key": settings.entities[entity_of(entity)].key}
            | {part: asdict(entity)[part] for part in parts}
            for name, (i, entity) in kept.items()
        },
        "fields": {
            n: declared[n].model_dump(include={"type", "resolution", "values"}) for n in recorded
        },
        "time": settings.events.time.model_dump(),
        "id": settings.events.id,
        "filters": [condition.meaning for condition in spec.filters.values()],
        "series": [asdict(f.series) for f in spec.features if f.series is not None],
        "learned": [number.meaning for number, _ in numbers_of(spec.features).values()],
    }
    return _digest(meaning)


def _digest(meaning: dict[str, object]) -> str:
    text = json.dumps(meaning, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return sha256(text.encode()).hexdigest()


_FOR_PEOPLE = ("words", "typical", "typical_count", "expression")


def _meaning(feature: Feature) -> dict[str, object]:
    """Return a feature without what is only for people."""
    plain = asdict(replace(feature, expression=None))
    meaning = {k: v for k, v in plain.items() if k not in _FOR_PEOPLE}
    return meaning | (feature.expression.meaning if feature.expression else {})


__all__ = [
    "FORMAT_VERSION", "EntitySpec", "Feature", "FeatureSpec", "Window", "compile_features",
]  # fmt: skip
