"""What every aggregation should be: naively, over the whole history, by its own definition."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from tests.features.streams import Row, spec_of, step, tables_of
from worker.features.aggregations import AGGREGATIONS, Aggregation, Options, Past, Source
from worker.features.feature import Feature
from worker.features.spec import FeatureSpec, Window

FIELDS_OF = {
    "decimal": "amount", "integer": "items", "boolean": "present", "category": "channel",
    "string": "country", "float": "latitude, longitude",
}  # fmt: skip
BEYOND = 1.2345678  # no distance of small numbers is exactly that
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "delayed": {"delay": "5s"},
    "turned": {"include_current": None},
    "long": {"delay": "1d", "include_current": False},
    "robust": {"robust": True},
    "filtered": {"where": "$amount > 0 and $present"},
}
EACH: dict[str, list[Any]] = {
    "windows": ["10s", "1m", "1d"], "ring": ["10s", "1d"], "last": [1, 3],
    "half_life": ["10s", "1d"], "gap": ["1s", "1m"],
}  # fmt: skip


def declared(kind: type[Aggregation], ring: int, variants: list[str]) -> dict[str, Any]:
    """Return every way to ask for an aggregation, as a part of a configuration."""
    fields = [FIELDS_OF[t] for t in kind.types if t in FIELDS_OF] if kind.field_count else [""]
    ways = []
    for variant in variants:
        options = dict(VARIANTS[variant])
        if not options.keys() <= {*kind.options}:
            continue
        if "include_current" in options:
            options["include_current"] = options["include_current"] or not kind.include_current
        if "beyond" in kind.options:
            options["beyond"] = BEYOND
        ways += [options | one for one in each_of(kind, ring)]
    ways = [way for i, way in enumerate(ways) if way not in ways[:i]]
    return {f"{kind.name}({f})" if f else kind.name: ways for f in fields}


def each_of(kind: type[Aggregation], ring: int) -> list[dict[str, Any]]:
    if kind.each == "nothing":
        return [{}]
    key = "windows" if kind.each == "ring" else kind.each
    sizes = [s for s in EACH[kind.each] if kind.each != "last" or s <= ring]
    return [{key: sizes}] + ([{}] if kind.each == "ring" else [])


def spec_of_all(variant: str, ring: int) -> FeatureSpec:
    """Return a spec with every aggregation, of cards and of terminals."""
    history: dict[str, Any] = {}
    for kind in AGGREGATIONS.values():
        history |= {k: v for k, v in declared(kind, ring, [variant]).items() if v}
    return spec_of({"card": history, "terminal": history}, ring)


@dataclass
class Seen:
    """One event of an entity, and which of its values were outliers when it came."""

    time_ms: int
    arrival: int
    row: Row
    marks: dict[Source, int | None] = field(default_factory=dict)


@dataclass
class Entity:
    """Everything that one entity ever saw."""

    now: int = -1
    events: list[Seen] = field(default_factory=list)

    def add(self, arrival: int, row: Row, marked: list[Source], ring: int) -> Seen:
        seen = Seen(row.time_ms, arrival, row)
        for source in marked:
            options = Options(robust=source.robust)
            before = [value_of(source.judged, s) for s in self.events[-ring:]]
            own = value_of(source.judged, seen)
            z = AGGREGATIONS["zscore"].of(Past(before, own=own, options=options))
            seen.marks[source] = None if own is None else int(abs(z) > source.beyond)
        self.now = max(self.now, row.time_ms)
        insort(self.events, seen, key=lambda s: (s.time_ms, s.arrival))
        return seen


def value_of(source: Source, seen: Seen) -> Any:
    """Return what an event says, None where it is missing or the filter leaves it out."""
    if source.where and not (seen.row.amount > 0 and seen.row.present):
        return None
    if source.kind == "outlier":
        return seen.marks[source]
    if source.kind == "one":
        return 1
    value = getattr(seen.row, source.field)
    if source.kind == "degrees":
        return round(value, 6) if abs(value) <= 180 else None
    if source.kind == "text":
        return value or None
    return None if value is None else Fraction(int(value))


def checked(spec: FeatureSpec, ring: int, rows: list[Row], check: Callable[..., None]) -> None:
    """Process rows and call ``check(feature, value, entity, current event)`` for every feature."""
    X, duplicate = step(tables_of(spec), rows)
    entities: dict[tuple[str, str], Entity] = {}
    sources = {s for e in spec.entities for s in (r.source for r in e.recorded)}
    marked = sorted(s for s in sources if s.kind == "outlier")
    for i, row in enumerate(rows):
        own = {"card": row.card, "terminal": row.terminal}
        mine = {n: entities.setdefault((n, id_), Entity()) for n, id_ in own.items()}
        expected = row.id in [s.row.id for s in mine["card"].events[-ring:]]
        assert duplicate[i] == expected
        if expected:
            assert not X[i].any()
            continue
        seen = {name: entity.add(i, row, marked, ring) for name, entity in mine.items()}
        for feature, value in zip(spec.features, X[i].tolist(), strict=True):
            name = feature.entity or ""
            check(feature, value, mine[name], seen[name])


def in_ring(feature: Feature, entity: Entity, current: Seen, ring: int) -> list[Seen]:
    """Return the events that the ring holds when a feature is read."""
    events = [s for s in entity.events if feature.include_current or s is not current]
    return events[-ring:]


def past_of(feature: Feature, entity: Entity, current: Seen, events: list[Seen]) -> Past:
    """Return what a definition looks at, of the events that it is given."""
    scale = Fraction(int(feature.multiply), int(feature.divide))

    def value(seen: Seen) -> Any:
        parts = tuple(value_of(source, seen) for source in feature.sources) or (1,)
        if None in parts:
            return None
        return parts if len(parts) > 1 else parts[0] * scale if scale != 1 else parts[0]

    return Past(
        [value(s) for s in events],
        [s.time_ms for s in events],
        entity.now,
        value(current),
        current.time_ms,
        feature.options,
    )


def within(feature: Feature, entity: Entity, events: list[Seen]) -> list[Seen]:
    """Return those inside the feature's window, (now − delay − size, now − delay]."""
    end = entity.now - feature.delay_ms
    start = end - feature.window_ms if feature.window_ms else -1
    return [s for s in events if start < s.time_ms <= end]


def assert_defined(ring: int, feature: Feature, value: float, entity: Entity, now: Seen) -> None:
    """What a feature is: its definition, over the whole history or what the ring holds of it."""
    kind = AGGREGATIONS[feature.aggregation]
    reads = kind.reads_of(feature.options)
    kept = in_ring(feature, entity, now, ring)
    if reads == "ring":
        same(kind, feature, value, past_of(feature, entity, now, within(feature, entity, kept)))
        return
    events = [s for s in entity.events if feature.include_current or s is not now]
    inside = within(feature, entity, events)
    past = past_of(feature, entity, now, inside)
    lost = [s.time_ms for s in events if not any(s is k for k in kept)]
    covered = max(lost, default=-1) <= entity.now - feature.delay_ms - (feature.window_ms or 0)
    if reads != "window" or covered:
        same(kind, feature, value, past)
        return
    cut = [s for s in events if is_cut(feature, entity, s.time_ms)]
    sure = [s for s in inside if not any(s is c for c in cut)]
    wide = inside + [s for s in cut if not any(s is i for i in inside)]
    pasts = [past_of(feature, entity, now, part) for part in (sure, inside, wide)]
    low, high = kind.bounds(*pasts)
    slack = 1e-9 * (1.0 + max((abs(float(v)) for v in pasts[2].known if is_number(v)), default=0))
    slack += 1e-12 * max((abs(b) for b in (low, high) if math.isfinite(b)), default=0.0)
    if not pasts[0].known and value == kind.of(replace(past, values=[], times_ms=[])):
        return
    assert low - slack <= value <= high + slack, (feature.name, value, low, high)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float | Fraction)


def same(kind: type[Aggregation], feature: Feature, value: float, past: Past) -> None:
    truth = kind.of(past)
    if kind.tolerance == 0.0:
        assert value == truth, (feature.name, value, truth, past)
    else:
        tiny = {"geo_distance": 1e-6, "geo_speed": 3.6e-3}.get(feature.aggregation, 1e-12)
        if feature.aggregation == "decayed_mean":  # of the mean of |v|: signs may cancel
            sizes = [None if v is None else abs(v) for v in past.values]
            tiny = max(tiny, kind.tolerance * kind.of(replace(past, values=sizes)))
        assert math.isclose(value, truth, rel_tol=kind.tolerance, abs_tol=tiny), (
            feature.name, value, truth, past,
        )  # fmt: skip


def is_cut(feature: Feature, entity: Entity, t: int) -> bool:
    """Return whether an edge of the window lies in the tile of an event at t."""
    end = entity.now - feature.delay_ms
    start = end - (feature.window_ms or 0)
    tile_ms = Window(True, feature.delay_ms, feature.window_ms or 0).tile_ms
    first = t // tile_ms * tile_ms
    return first <= start < first + tile_ms or first <= end < first + tile_ms
